//! Initialisers that are mostly one value, written small: as ONNX's sparse tensors, or as a few ordinary nodes that
//! rebuild them, which every runtime folds away while loading; and read back.

mod unpack;

use std::collections::HashSet;

use super::proto::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, attribute_type};
pub(super) use unpack::unpack;

use super::{Limits, tensor_proto};
use crate::compact::{Compact, Index, OVERHEAD};
use crate::tensor::{DType, Tensor};

/// How an ONNX file keeps weights that are mostly zero. See `docs/reference/lean-files.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SparseFormat {
    /// Every element, as any runtime reads it.
    #[default]
    Dense,
    /// The elements that are not zero and one byte or less for the place of each, rebuilt by ordinary nodes.
    Compact,
    /// The standard's `SparseTensorProto`: eight bytes for the place of each element.
    SparseTensor,
}

/// Sizes of what [`SparseFormat::SparseTensor`] adds to an element: one `INT64` index.
const INDEX_BYTES: usize = 8;

/// The names that the nodes of one tensor use: its own name with these endings.
struct Names {
    tensor: String,
    base: String,
}

impl Names {
    fn of(&self, ending: &str) -> String {
        format!("{}.{ending}", self.base)
    }
}

/// Names of what all compact tensors of a file share.
struct Shared(String);

impl Shared {
    /// The scalar 0, the axis of sums.
    fn axis(&self) -> String {
        format!("{}.axis", self.0)
    }

    /// The list `[0]`, where flat tensors begin.
    fn start(&self) -> String {
        format!("{}.start", self.0)
    }

    /// The list `[-1]`, the shape of a flat tensor.
    fn line(&self) -> String {
        format!("{}.line", self.0)
    }

    /// What a byte is divided by to have its bits, least significant first, in the last place.
    fn powers(&self) -> String {
        format!("{}.powers", self.0)
    }

    /// The divisor that leaves the last bit.
    fn two(&self) -> String {
        format!("{}.two", self.0)
    }
}

/// Rewrites the initialisers of a graph that are smaller in `format`.
pub(super) fn pack(graph: &mut GraphProto, format: SparseFormat) {
    if format == SparseFormat::Dense {
        return;
    }
    let limits = Limits { max_tensor_elements: usize::MAX, ..Limits::default() };
    let mut taken = HashSet::new();
    collect_names(graph, &mut taken);
    let mut free = |base: &str| {
        let mut base = base.to_string();
        while taken.iter().any(|n| n.strip_prefix(&base).is_some_and(|rest| rest.starts_with('.'))) {
            base.push('_');
        }
        taken.insert(format!("{base}."));
        base
    };
    let shared = Shared(free("sparse"));
    let mut nodes = vec![];
    let mut bits = false;
    for initializer in std::mem::take(&mut graph.initializer) {
        let tensor = tensor_proto::decode(&initializer, None, &limits).ok();
        match (format, tensor) {
            (SparseFormat::Compact, Some(tensor)) => match Compact::of(&tensor) {
                Some(compact) => {
                    bits |= matches!(compact.index, Index::Bits(_));
                    let names = Names { base: free(&initializer.name), tensor: initializer.name };
                    write_compact(&compact, &names, &shared, &mut graph.initializer, &mut nodes);
                }
                None => graph.initializer.push(initializer),
            },
            (_, Some(tensor)) => match sparse_tensor(&initializer.name, &tensor) {
                Some(sparse) => graph.sparse_initializer.push(sparse),
                None => graph.initializer.push(initializer),
            },
            (_, None) => graph.initializer.push(initializer),
        }
    }
    let mut constant =
        |name: String, tensor: Tensor| graph.initializer.push(tensor_proto::encode(&name, &tensor));
    if !nodes.is_empty() {
        constant(shared.axis(), Tensor::i64([], vec![0]));
    }
    if bits {
        constant(shared.start(), Tensor::ints(&[0]));
        constant(shared.line(), Tensor::ints(&[-1]));
        constant(shared.powers(), powers());
        constant(shared.two(), two());
    }
    // Nodes come before those that read them.
    graph.node.splice(0..0, nodes);
}

/// All names of a graph and of those nested in it.
fn collect_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.initializer.iter().map(|t| t.name.clone()));
    names.extend(graph.input.iter().map(|i| i.name.clone()));
    for node in &graph.node {
        names.extend(node.input.iter().chain(&node.output).cloned());
        node.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| collect_names(g, names));
    }
}

fn powers() -> Tensor {
    Tensor::from_i64(DType::I32, [8], (0..8).map(|bit| 1 << bit).collect())
}

fn two() -> Tensor {
    Tensor::from_i64(DType::I32, [], vec![2])
}

/// The standard's form, where it is smaller.
fn sparse_tensor(name: &str, tensor: &Tensor) -> Option<SparseTensorProto> {
    if !matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::I8 | DType::U8) {
        return None;
    }
    let size = tensor.dtype().size();
    let bytes = tensor.to_le_bytes();
    let alive = bytes.chunks_exact(size).enumerate().filter(|(_, x)| x.iter().any(|&b| b != 0));
    let mut positions: Vec<usize> = alive.map(|(at, _)| at).collect();
    if positions.len() * (size + INDEX_BYTES) + OVERHEAD > bytes.len() {
        return None;
    }
    if positions.is_empty() {
        // Not every reader takes an empty list; one zero stands for all.
        positions.push(0);
    }
    let source: Vec<_> = positions.iter().copied().map(Some).collect();
    let indices = Tensor::i64([positions.len()], positions.iter().map(|&at| at as i64).collect());
    Some(SparseTensorProto {
        values: Some(tensor_proto::encode(name, &tensor.take([positions.len()], &source))),
        indices: Some(tensor_proto::encode("", &indices)),
        dims: tensor.shape().iter().map(|&n| n as i64).collect(),
    })
}

fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

/// The initialisers and nodes of one compact tensor. Gaps: their running sum says where in a tensor of fills the values
/// are scattered. Bits: their running sum says which value an element has; value 0 is the fill, for those without.
/// (`NonZero` would be shorter, but onnxruntime 1.32 does not fold it.)
fn write_compact(
    compact: &Compact,
    names: &Names,
    shared: &Shared,
    initializers: &mut Vec<TensorProto>,
    nodes: &mut Vec<NodeProto>,
) {
    let mut keep = |ending: &str, tensor: &Tensor| {
        let name = names.of(ending);
        initializers.push(tensor_proto::encode(&name, tensor));
        name
    };
    let as_ints = |shape: &[usize]| Tensor::ints(&shape.iter().map(|&n| n as i64).collect::<Vec<_>>());
    let size = keep("size", &as_ints(&[compact.shape.iter().product()]));
    let shape = keep("shape", &as_ints(&compact.shape));
    let flat = names.of("flat");
    let to_int32 = AttributeProto {
        name: "to".into(),
        r#type: attribute_type::INT,
        i: tensor_proto::number(DType::I32).into(),
        ..AttributeProto::default()
    };
    let mut add = |op_type, inputs: &[&str], ending, attribute| {
        let output = names.of(ending);
        nodes.push(node(op_type, inputs, &output, attribute));
        output
    };
    match &compact.index {
        Index::Gaps(gaps) => {
            let values = keep("values", &compact.values);
            let gaps = keep("gaps", &bytes_of([gaps.len()], gaps));
            let value = AttributeProto {
                name: "value".into(),
                r#type: attribute_type::TENSOR,
                t: Some(tensor_proto::encode("", &compact.fill)),
                ..AttributeProto::default()
            };
            let steps = add("Cast", &[&gaps], "steps", vec![to_int32]);
            let at = add("CumSum", &[&steps, &shared.axis()], "at", vec![]);
            let fill = add("ConstantOfShape", &[&size], "fill", vec![value]);
            add("ScatterElements", &[&fill, &at, &values], "flat", vec![]);
        }
        Index::Bits(bits) => {
            let with_fill = [compact.fill.to_le_bytes(), compact.values.to_le_bytes()].concat();
            let count = compact.values.len() + 1;
            let with_fill = Tensor::from_le_bytes(compact.values.dtype(), [count], &with_fill);
            let values =
                keep("values", &with_fill.expect("the fill is one element of the type of the values"));
            let bits = keep("bits", &bytes_of([bits.len(), 1], bits));
            let bytes = add("Cast", &[&bits], "bytes", vec![to_int32]);
            let shifted = add("Div", &[&bytes, &shared.powers()], "shifted", vec![]);
            let rows = add("Mod", &[&shifted, &shared.two()], "rows", vec![]);
            let flags = add("Reshape", &[&rows, &shared.line()], "flags", vec![]);
            let counts = add("CumSum", &[&flags, &shared.axis()], "counts", vec![]);
            let places = add("Mul", &[&counts, &flags], "places", vec![]);
            let padded = add("Gather", &[&values, &places], "padded", vec![]);
            add("Slice", &[&padded, &shared.start(), &size], "flat", vec![]);
        }
    }
    nodes.push(node("Reshape", &[&flat, &shape], &names.tensor, vec![]));
}

fn bytes_of<const RANK: usize>(shape: [usize; RANK], bytes: &[u8]) -> Tensor {
    Tensor::from_le_bytes(DType::U8, shape, bytes).expect("the shape is that of the bytes")
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::OnnxError;
    use super::super::proto::ModelProto;
    use super::*;
    use crate::graph::Graph;
    use crate::model::Model;
    use crate::onnx::{decode_model, encode_model_as};
    use crate::operator::Example;
    use crate::ops::{DequantizeLinear, MatMul, Quantization};
    use crate::parameter::{Parameter, Parameters};

    const FORMATS: [SparseFormat; 2] = [SparseFormat::Compact, SparseFormat::SparseTensor];

    /// Noise of which `alive` in a hundred elements are kept, anywhere.
    fn sparse(shape: &[usize], alive: u32, seed: u32) -> Tensor {
        let dice = Example::noise(shape, seed + 77).to_f64().into_owned();
        let noise = Example::noise(shape, seed).to_f64().into_owned();
        let keep = |(x, d): (f64, f64)| if d < f64::from(alive) / 50.0 - 1.0 { x as f32 } else { 0.0 };
        Tensor::f32(shape, noise.into_iter().zip(dice).map(keep).collect())
    }

    /// Products one after another with weights `w0`, `w1`, ...
    fn chain(weights: Vec<Tensor>) -> Model {
        let mut graph = Graph::new("chain");
        let mut parameters = Parameters::new();
        let mut y = graph.input("x", DType::F32, crate::Shape::known(&[1, weights[0].shape()[0]]));
        for (index, weight) in weights.into_iter().enumerate() {
            let name = format!("w{index}");
            let w = graph.parameter(Parameter::trainable(&name), DType::F32, weight.shape());
            parameters.insert(name, weight);
            y = graph.apply(MatMul::default(), &[y, w]).unwrap();
        }
        graph.output(y);
        Model::new(graph, parameters)
    }

    fn read(bytes: &[u8]) -> Result<Model, OnnxError> {
        decode_model(bytes, None, &Limits::default())
    }

    /// The listing of a graph, in any order.
    fn lines(model: &Model) -> Vec<String> {
        let mut lines: Vec<String> = model.graph.to_string().lines().map(str::to_string).collect();
        lines.sort();
        lines
    }

    fn bits(model: &Model) -> Vec<(String, Vec<u8>)> {
        model.parameters.iter().map(|(name, tensor)| (name.to_string(), tensor.to_le_bytes())).collect()
    }

    #[test]
    fn every_format_reads_back_as_the_same_model() {
        let mut odd = sparse(&[90, 70], 5, 4).to_f64().into_owned();
        (odd[17], odd[18]) = (-0.0, f64::NAN);
        let odd = Tensor::from_f64(DType::F32, [90, 70], odd);
        let model = chain(vec![
            sparse(&[80, 90], 10, 1),
            odd,
            sparse(&[70, 60], 45, 2),
            Tensor::zeros(DType::F32, [60, 5000]),
            sparse(&[5000, 3], 100, 3),
            sparse(&[3, 2], 10, 5),
        ]);
        let dense = encode_model_as(&model, SparseFormat::Dense).unwrap();
        let expected = read(&dense).unwrap();
        for format in FORMATS {
            let bytes = encode_model_as(&model, format).unwrap();
            assert!(bytes.len() < dense.len() / 8, "{format:?}: {} of {}", bytes.len(), dense.len());
            let found = read(&bytes).unwrap();
            assert!(bits(&found) == bits(&expected), "{format:?}");
            assert_eq!(lines(&found), lines(&expected), "{format:?}");
        }
        let compact = read(&encode_model_as(&model, SparseFormat::Compact).unwrap()).unwrap();
        assert!(compact.graph == expected.graph, "the order of initialisers is kept");
    }

    #[test]
    fn at_a_density_of_a_tenth_a_file_keeps_to_its_bound() {
        for (inputs, outputs) in [(64, 64), (784, 300), (1024, 1024), (512, 4608)] {
            let model = chain(vec![sparse(&[inputs, outputs], 10, 9)]);
            let weights = model.parameters.get("w0").unwrap();
            let alive = weights.density() * weights.len() as f64;
            let bytes = encode_model_as(&model, SparseFormat::Compact).unwrap().len() as f64;
            assert!(bytes <= 1.3 * 4.0 * alive + 65536.0, "{bytes} for {alive}");
            // Without the slack for small networks, too.
            assert!(alive < 5000.0 || bytes <= 1.3 * 4.0 * alive, "{bytes} for {alive}");
        }
    }

    #[test]
    fn eight_bit_weights_keep_two_bytes_a_value() {
        let mut graph = Graph::new("quantised");
        let x = graph.input("x", DType::F32, crate::Shape::known(&[1, 300]));
        let noise = sparse(&[300, 200], 10, 6).to_f64().iter().map(|x| (x * 127.0).round()).collect();
        let weights = Tensor::from_f64(DType::I8, [300, 200], noise);
        let alive = weights.density() * weights.len() as f64;
        let w = graph.named_constant("w", weights.clone());
        let scale = graph.named_constant("scale", Tensor::scalar(0.01));
        let zero = graph.named_constant("zero", Tensor::from_f64(DType::I8, [], vec![0.0]));
        let w = graph
            .apply(DequantizeLinear { quantization: Quantization { axis: 1, block: 0 } }, &[w, scale, zero])
            .unwrap();
        let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
        graph.output(y);
        let model = Model::new(graph, Parameters::new());
        let bytes = encode_model_as(&model, SparseFormat::Compact).unwrap();
        assert!(bytes.len() as f64 <= 2.02 * alive + 1500.0, "{} for {alive}", bytes.len());
        let dense = read(&encode_model_as(&model, SparseFormat::Dense).unwrap()).unwrap();
        let found = read(&bytes).unwrap();
        assert!(found == dense);
        // Read and written again they are still bytes.
        assert_eq!(encode_model_as(&found, SparseFormat::Compact).unwrap().len(), bytes.len());
    }

    /// A file with one compact weight `w0` of 40 x 50, changed.
    fn changed(alive: u32, change: impl Fn(&mut GraphProto)) -> Result<Model, OnnxError> {
        let bytes =
            encode_model_as(&chain(vec![sparse(&[40, 50], alive, 8)]), SparseFormat::Compact).unwrap();
        let mut file = ModelProto::decode(&bytes[..]).unwrap();
        change(file.graph.as_mut().unwrap());
        read(&file.encode_to_vec())
    }

    fn part<'a>(graph: &'a mut GraphProto, name: &str) -> &'a mut TensorProto {
        graph.initializer.iter_mut().find(|t| t.name == name).unwrap()
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        let refused = |alive, words: &str, change: &dyn Fn(&mut GraphProto)| {
            let error = changed(alive, change).unwrap_err().to_string();
            assert!(error.contains("`w0`") && error.contains(words), "{error}");
        };
        refused(10, "gap", &|g| part(g, "w0.gaps").raw_data.fill(255));
        refused(10, "gap", &|g| part(g, "w0.gaps").raw_data[9] = 0);
        refused(10, "values for", &|g| {
            let values = part(g, "w0.values");
            (values.dims, values.raw_data) = (vec![2], vec![0; 8]);
        });
        refused(10, "for 1999 elements", &|g| part(g, "w0.size").raw_data[0] -= 1);
        refused(10, "for 2000 elements", &|g| part(g, "w0.shape").raw_data[0] += 1);
        refused(10, "`w0.shape`", &|g| part(g, "w0.shape").raw_data.truncate(9));
        refused(40, "bits", &|g| {
            let bits = part(g, "w0.bits");
            bits.dims = vec![249, 1];
            bits.raw_data.pop();
        });
        refused(40, "values for", &|g| part(g, "w0.bits").raw_data.fill(255));
    }

    #[test]
    fn a_small_file_does_not_become_a_large_tensor() {
        let huge = |g: &mut GraphProto| {
            for (name, list) in [("w0.size", vec![1i64 << 29]), ("w0.shape", vec![1 << 20, 1 << 9])] {
                part(g, name).raw_data = list.iter().flat_map(|n| n.to_le_bytes()).collect();
            }
        };
        let error = changed(1, huge).unwrap_err().to_string();
        assert!(error.contains("too sparse"), "{error}");
    }

    #[test]
    fn nodes_that_are_not_ours_alone_are_imported_as_nodes() {
        // Another reader of an intermediate result, and a sum along another axis, keep their nodes.
        let watched = changed(10, |g| {
            let mut output = g.output[0].clone();
            output.name = "w0.at".into();
            g.output.push(output);
        });
        assert_eq!(watched.unwrap().graph.outputs().len(), 2);
        let reduced = changed(10, |g| {
            let scatter = g.node.iter_mut().find(|n| n.op_type == "ScatterElements").unwrap();
            scatter.attribute.push(AttributeProto {
                name: "reduction".into(),
                r#type: attribute_type::STRING,
                s: b"add".to_vec(),
                ..AttributeProto::default()
            });
        });
        assert!(reduced.is_ok());
    }

    #[test]
    fn names_of_parts_avoid_those_that_are_taken() {
        let mut model = chain(vec![sparse(&[50, 50], 10, 1), sparse(&[50, 50], 40, 2)]);
        let ids: Vec<_> = model.graph.parameters().collect();
        for (id, name) in ids.into_iter().zip(["sparse", "sparse_"]) {
            let old = model.graph.parameter_of(id).unwrap().tensor.clone();
            let tensor = model.parameters.get(&old).unwrap().clone();
            model.graph.make_parameter(id, Parameter::trainable(name));
            model.parameters.insert(name, tensor);
            model.graph.rename(id, name);
        }
        model.graph.rename(model.graph.outputs()[0], "sparse_.values");
        let expected = read(&encode_model_as(&model, SparseFormat::Dense).unwrap()).unwrap();
        for format in FORMATS {
            let found = read(&encode_model_as(&model, format).unwrap()).unwrap();
            assert_eq!(lines(&found), lines(&expected));
            assert!(bits(&found) == bits(&expected));
        }
    }
}
