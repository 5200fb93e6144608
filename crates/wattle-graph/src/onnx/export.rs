//! Writing ONNX files: every node becomes what its operator says it is in ONNX.

use std::collections::{BTreeSet, HashSet};

use prost::Message;

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};
use super::{EXPORT_OPSET, ExportNode, OnnxError, SparseFormat, sparse, tensor_proto};
use crate::custom::OnnxForm;
use crate::error::OpError;
use crate::graph::{Graph, Source, ValueId};
use crate::model::Model;
use crate::operator::Attribute;
use crate::ops::Op;
use crate::shape::Dim;

/// IR version of exported files, the one that came with operator set 20.
const IR_VERSION: i64 = 9;

/// Writes a model as an ONNX file of operator set [`EXPORT_OPSET`], its parameters as initialisers, every element
/// of them written.
///
/// # Errors
/// When operators have no ONNX form (all are listed), or a parameter has no value.
pub fn encode_model(model: &Model) -> Result<Vec<u8>, OnnxError> {
    encode_model_as(model, SparseFormat::Dense)
}

/// Writes a model like [`encode_model`], its initialisers in `format` where that is smaller.
///
/// # Errors
/// Those of [`encode_model`].
pub fn encode_model_as(model: &Model, format: SparseFormat) -> Result<Vec<u8>, OnnxError> {
    let graph = &model.graph;
    if !graph.assignments().is_empty() {
        return Err(OnnxError::NotExpressible(vec![
            "a training step, which assigns to its parameters".into(),
        ]));
    }
    let mut proto = encode_graph(graph, &names(graph), "")?;
    for id in graph.parameters() {
        let Some(parameter) = graph.parameter_of(id) else { continue };
        let tensor = model.parameters.view(parameter).ok_or_else(|| {
            OnnxError::NotExpressible(vec![format!("parameter `{}` has no value", parameter.tensor)])
        })?;
        proto.initializer.push(tensor_proto::encode(&graph.label(id), &tensor));
    }
    sparse::pack(&mut proto, format);
    let file = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "wattle".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(proto),
        opset_import: opsets(graph)?,
        metadata_props: model
            .metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        functions: vec![],
    };
    Ok(file.encode_to_vec())
}

/// The operator sets that the nodes of a graph and of its branches are of.
fn opsets(graph: &Graph) -> Result<Vec<OperatorSetIdProto>, OnnxError> {
    fn collect<'a>(graph: &'a Graph, sets: &mut BTreeSet<(&'a str, i64)>) {
        for node in graph.nodes() {
            match &node.op {
                Op::Custom(op) => {
                    if let OnnxForm::Node { domain, version, .. } = op.onnx() {
                        sets.insert((domain, version));
                    }
                }
                op => op.graphs().iter().for_each(|graph| collect(graph, sets)),
            }
        }
    }
    let mut sets = BTreeSet::from([("", EXPORT_OPSET)]);
    collect(graph, &mut sets);
    let twice: BTreeSet<&str> =
        sets.iter().zip(sets.iter().skip(1)).filter(|(a, b)| a.0 == b.0).map(|p| p.0.0).collect();
    if !twice.is_empty() {
        let text = |domain| format!("operators of two versions of the domain `{domain}`");
        return Err(OnnxError::NotExpressible(twice.into_iter().map(text).collect()));
    }
    let set = |(domain, version): (&str, i64)| OperatorSetIdProto { domain: domain.to_string(), version };
    Ok(sets.into_iter().map(set).collect())
}

/// The ONNX nodes that an operator becomes.
fn emit(op: &Op, node: &mut ExportNode<'_>) -> Result<(), OpError> {
    let Op::Custom(custom) = op else { return op.export(node) };
    match custom.onnx() {
        OnnxForm::Decomposed => op.export(node),
        OnnxForm::Refused(reason) => Err(OpError::Unsupported(reason.to_string())),
        OnnxForm::Node { domain, name, .. } => {
            node.same(name, op.attributes());
            node.of_domain(domain);
            Ok(())
        }
    }
}

/// A unique name for every value.
fn names(graph: &Graph) -> Vec<String> {
    let mut taken: HashSet<String> = graph.values().iter().map(|v| v.name.clone()).collect();
    let unique = |id: ValueId| {
        if !graph.value(id).name.is_empty() {
            return graph.value(id).name.clone();
        }
        let mut name = graph.label(id);
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    };
    graph.value_ids().map(unique).collect()
}

/// The nodes, inputs, outputs and constants of a graph; `prefix` keeps the names of nested graphs apart.
fn encode_graph(graph: &Graph, names: &[String], prefix: &str) -> Result<GraphProto, OnnxError> {
    let name = if graph.name.is_empty() { "wattle" } else { &graph.name };
    let mut proto = GraphProto { name: name.to_string(), ..GraphProto::default() };
    for id in graph.value_ids() {
        if let Source::Constant(tensor) = &graph.value(id).source {
            proto.initializer.push(tensor_proto::encode(&names[id.index()], tensor));
        }
    }
    let mut refused = vec![];
    for (id, node) in graph.node_ids() {
        let mut export = ExportNode::new(graph, id, names);
        if let Err(reason) = emit(&node.op, &mut export) {
            refused.push(format!("{} `{}`: {reason}", node.op.name(), names[node.outputs[0].index()]));
            continue;
        }
        let (emitted, constants) = export.finish();
        proto.initializer.extend(constants.iter().map(|(name, tensor)| tensor_proto::encode(name, tensor)));
        for (index, part) in emitted.into_iter().enumerate() {
            let label = if node.name.is_empty() { &names[node.outputs[0].index()] } else { &node.name };
            let mut attribute = vec![];
            for (name, value) in part.attributes {
                attribute.push(encode_attribute(
                    name,
                    value,
                    &format!("{prefix}{}/{name}/", part.outputs[0]),
                )?);
            }
            proto.node.push(NodeProto {
                input: part.inputs,
                output: part.outputs,
                name: if index == 0 { label.clone() } else { format!("{label}.{index}") },
                op_type: part.op_type.to_string(),
                attribute,
                domain: part.domain.to_string(),
                overload: String::new(),
            });
        }
    }
    let kept = graph.value_ids().filter(|&id| !matches!(graph.value(id).source, Source::Node { .. }));
    let mut made: HashSet<&str> = kept.map(|id| names[id.index()].as_str()).collect();
    made.extend(proto.initializer.iter().map(|t| t.name.as_str()));
    made.extend(proto.node.iter().flat_map(|n| &n.output).map(String::as_str));
    let read = proto.node.iter().flat_map(|n| &n.input).filter(|name| !name.is_empty());
    let returned = graph.outputs().iter().map(|id| &names[id.index()]);
    let missing: BTreeSet<&String> =
        read.chain(returned).filter(|name| !made.contains(name.as_str())).collect();
    if refused.is_empty() {
        refused.extend(
            missing.iter().map(|name| format!("`{name}` is a result that its operator has not in ONNX")),
        );
    }
    if !refused.is_empty() {
        return Err(OnnxError::NotExpressible(refused));
    }
    proto.input = graph.inputs().iter().map(|&id| value_info(graph, id, &names[id.index()])).collect();
    proto.output = graph.outputs().iter().map(|&id| value_info(graph, id, &names[id.index()])).collect();
    Ok(proto)
}

fn value_info(graph: &Graph, id: ValueId, name: &str) -> ValueInfoProto {
    let ty = &graph.value(id).ty;
    let dim = |d: &Dim| match d {
        Dim::Known(n) => DimensionProto { dim_value: Some(*n as i64), dim_param: String::new() },
        Dim::Symbol(name) => DimensionProto { dim_value: None, dim_param: name.to_string() },
    };
    let shape = ty.shape.dims().map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: tensor_proto::number(ty.dtype), shape });
    ValueInfoProto { name: name.to_string(), r#type: Some(TypeProto { tensor_type }) }
}

/// A graph inside a node, the first `own` of whose inputs are its own. The rest are values of the enclosing graph, read under
/// the names they have there.
fn encode_nested(graph: &Graph, own: usize, prefix: &str) -> Result<GraphProto, OnnxError> {
    let captures = graph.inputs().get(own..).unwrap_or_default();
    let mut names = names(graph);
    for id in graph.value_ids().filter(|id| !captures.contains(id)) {
        names[id.index()].insert_str(0, prefix);
    }
    let mut nested = encode_graph(graph, &names, prefix)?;
    nested.input.truncate(own);
    Ok(nested)
}

fn encode_attribute(name: &str, value: Attribute, prefix: &str) -> Result<AttributeProto, OnnxError> {
    let mut proto = AttributeProto { name: name.to_string(), ..AttributeProto::default() };
    proto.r#type = match value {
        Attribute::Int(x) => {
            proto.i = x;
            attribute_type::INT
        }
        Attribute::Ints(x) => {
            proto.ints = x;
            attribute_type::INTS
        }
        Attribute::Float(x) => {
            proto.f = x;
            attribute_type::FLOAT
        }
        Attribute::Floats(x) => {
            proto.floats = x;
            attribute_type::FLOATS
        }
        Attribute::Text(x) => {
            proto.s = x.into_bytes();
            attribute_type::STRING
        }
        Attribute::Texts(x) => {
            proto.strings = x.into_iter().map(String::into_bytes).collect();
            attribute_type::STRINGS
        }
        Attribute::Tensor(x) => {
            proto.t = Some(tensor_proto::encode("", &x));
            attribute_type::TENSOR
        }
        Attribute::Graph(graph) => {
            proto.g = Some(encode_nested(&graph, 0, prefix)?);
            attribute_type::GRAPH
        }
        Attribute::Body(graph, own) => {
            proto.g = Some(encode_nested(&graph, own, prefix)?);
            attribute_type::GRAPH
        }
    };
    Ok(proto)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::interpret::interpret;
    use crate::onnx::{Limits, decode_model};
    use crate::operator::Example;
    use crate::ops::{Conv, Flatten, Function, MatMul, Sliding, Unary};
    use crate::parameter::{Parameter, Parameters};
    use crate::tensor::DType;

    fn small_network() -> Model {
        let mut graph = Graph::new("small");
        let mut parameters = Parameters::new();
        let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), 1.into(), 4.into(), 4.into()]);
        let w = graph.parameter(Parameter::trainable("conv.w"), DType::F32, &[2, 1, 3, 3]);
        let v = graph.parameter(Parameter::trainable("fc.w"), DType::F32, &[32, 3]);
        parameters.insert("conv.w", Example::noise(&[2, 1, 3, 3], 1));
        parameters.insert("fc.w", Example::noise(&[32, 3], 2));
        let y = graph.apply(Conv { sliding: Sliding::padded(2, 1), groups: 1 }, &[x, w]).unwrap();
        let y = graph.apply(Unary { function: Function::Silu }, &[y]).unwrap();
        let y = graph.apply(Flatten { axis: 1 }, &[y]).unwrap();
        let y = graph.apply(MatMul::default(), &[y, v]).unwrap();
        graph.rename(y, "logits");
        graph.output(y);
        Model::new(graph, parameters)
    }

    #[test]
    fn metadata_is_written_and_read_as_it_is() {
        let mut model = small_network();
        model.metadata.insert("license".into(), "CC-BY".into());
        model.metadata.insert("wörter".into(), "".into());
        let back = decode_model(&encode_model(&model).unwrap(), None, &Limits::default()).unwrap();
        assert_eq!(back.metadata, model.metadata);
    }

    #[test]
    fn a_written_model_reads_back_as_the_same_function() {
        let model = small_network();
        let bytes = encode_model(&model).unwrap();
        let back = decode_model(&bytes, None, &Limits::default()).unwrap();
        assert_eq!(back.graph.value(back.graph.inputs()[0]).ty.to_string(), "f32[N, 1, 4, 4]");
        assert_eq!(back.graph.label(back.graph.outputs()[0]), "logits");
        let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[2, 1, 4, 4], 3))]);
        let before = interpret(&model.graph, &mut model.parameters.clone(), &feeds).unwrap();
        let after = interpret(&back.graph, &mut back.parameters.clone(), &feeds).unwrap();
        for (a, b) in before[0].to_f64().iter().zip(after[0].to_f64().iter()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn a_model_in_training_mode_is_written_in_inference_mode() {
        use crate::ops::{BatchNormalization, Op};
        let mut graph = Graph::new("norm");
        let mut parameters = Parameters::new();
        let x = graph.input("x", DType::F32, vec![2.into(), 3.into()]);
        let mut operands = vec![x];
        for (name, role) in ["scale", "bias", "mean", "var"].iter().zip([true, true, false, false]) {
            let parameter = if role { Parameter::trainable(*name) } else { Parameter::state(*name) };
            operands.push(graph.parameter(parameter, DType::F32, &[3]));
            parameters.insert(*name, crate::Tensor::f32([3], vec![1.0, 2.0, 3.0]));
        }
        let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: true };
        let y = graph.apply(op, &operands).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        let bytes = encode_model(&Model::new(graph, parameters)).unwrap();
        let back = decode_model(&bytes, None, &Limits::default()).unwrap();
        let Op::BatchNormalization(norm) = &back.graph.nodes()[0].op else { panic!("{}", back.graph) };
        assert!(!norm.training && back.facts.is_empty(), "{:?}", back.facts);
    }

    #[test]
    fn operators_without_an_onnx_form_are_all_named() {
        let mut model = small_network();
        let x = model.graph.outputs()[0];
        for _ in 0..2 {
            let op = crate::ops::UnaryGradient { function: Function::Relu };
            let y = model.graph.apply(op, &[x, x, x]).unwrap();
            model.graph.output(y);
        }
        let error = encode_model(&model).unwrap_err().to_string();
        assert_eq!(error.matches("UnaryGradient").count(), 2, "{error}");
    }
}
