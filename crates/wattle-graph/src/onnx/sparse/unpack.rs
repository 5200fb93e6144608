//! Compact initialisers recognised by the nodes that rebuild them, and read back without running those.

use std::collections::{HashMap, HashSet};

use super::super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use super::super::tensor_proto::{self, check_dilution};
use super::super::{Limits, OnnxError};
use super::{powers, two};
use crate::compact::{Compact, Index};
use crate::tensor::{DType, Data, Tensor};

/// Replaces compact tensors by ordinary initialisers in the places of their values, and removes the nodes that would
/// rebuild them. Nodes that rebuild a tensor in any other way are left for the importer to fold.
///
/// # Errors
/// When the parts of a compact tensor do not fit together, or it is larger than the limits allow.
pub(in crate::onnx) fn unpack(
    graph: &mut GraphProto,
    limits: &Limits,
    budget: &mut usize,
) -> Result<(), OnnxError> {
    if !graph.node.iter().any(|n| n.op_type == "CumSum") {
        return Ok(());
    }
    let reader = Reader::new(graph);
    let mut whole: HashMap<String, Vec<TensorProto>> = HashMap::new();
    let (mut gone, mut unused) = (HashSet::new(), HashSet::new());
    for last in 0..graph.node.len() {
        let Some(found) = reader.compact(last) else { continue };
        let name = &graph.node[last].output[0];
        let tensor = found.expand(&reader, limits, budget);
        let tensor = tensor
            .map_err(|reason| OnnxError::Malformed(format!("sparse initialiser `{name}`: {reason}")))?;
        let values = found.parts[0].to_string();
        whole.entry(values).or_default().push(tensor_proto::encode(name, &tensor));
        gone.extend(found.nodes);
        unused
            .extend(found.parts.iter().filter(|part| reader.uses[**part] == 1).map(|part| part.to_string()));
    }
    let mut index = 0..;
    graph.node.retain(|_| !gone.contains(&index.next().unwrap_or(usize::MAX)));
    for initializer in std::mem::take(&mut graph.initializer) {
        graph.initializer.extend(whole.remove(&initializer.name).unwrap_or_default());
        if !unused.contains(&initializer.name) {
            graph.initializer.push(initializer);
        }
    }
    Ok(())
}

/// A graph by its names.
struct Reader<'a> {
    graph: &'a GraphProto,
    producers: HashMap<&'a str, usize>,
    initializers: HashMap<&'a str, &'a TensorProto>,
    /// How many nodes and outputs read a name; those nested count once for their node.
    uses: HashMap<&'a str, usize>,
}

/// The nodes and parts of one compact tensor.
struct Found<'a> {
    nodes: Vec<usize>,
    /// Names of the initialisers: values, size, shape, then gaps or bits.
    parts: [&'a str; 4],
    /// The fill where the index is gaps; among bits it is the first value.
    fill: Option<&'a AttributeProto>,
}

impl<'a> Reader<'a> {
    fn new(graph: &'a GraphProto) -> Reader<'a> {
        let mut producers = HashMap::new();
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for (index, node) in graph.node.iter().enumerate() {
            producers.extend(node.output.iter().map(|name| (name.as_str(), index)));
            let mut read = node.input.iter().map(String::as_str).collect::<Vec<_>>();
            let mut nested = HashSet::new();
            node.attribute
                .iter()
                .filter_map(|a| a.g.as_ref())
                .for_each(|g| collect_names_read(g, &mut nested));
            read.extend(nested);
            read.into_iter().for_each(|name| *uses.entry(name).or_default() += 1);
        }
        graph.output.iter().for_each(|o| *uses.entry(&o.name).or_default() += 1);
        // What is listed as an input too (before IR version 4) is only a default.
        let inputs: HashSet<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
        let fixed = graph.initializer.iter().filter(|t| !inputs.contains(t.name.as_str()));
        let initializers = fixed.map(|t| (t.name.as_str(), t)).collect();
        Reader { graph, producers, initializers, uses }
    }

    /// The node that makes `name`, which is read once, if it is this operator with these numbers of operands and
    /// attributes.
    fn step(
        &self,
        name: &str,
        op_type: &str,
        inputs: usize,
        attributes: usize,
    ) -> Option<(usize, &'a NodeProto)> {
        self.maker(name, 1, op_type, inputs, attributes)
    }

    fn maker(
        &self,
        name: &str,
        readers: usize,
        op_type: &str,
        inputs: usize,
        attributes: usize,
    ) -> Option<(usize, &'a NodeProto)> {
        let index = *self.producers.get(name)?;
        let node = &self.graph.node[index];
        let fits = node.op_type == op_type
            && super::super::import::is_default_domain(&node.domain)
            && (node.input.len(), node.output.len(), node.attribute.len()) == (inputs, 1, attributes);
        (fits && self.uses.get(name) == Some(&readers)).then_some((index, node))
    }

    /// The content of a small initialiser, what the nodes are configured by.
    fn constant(&self, name: &str) -> Option<Tensor> {
        let limits = Limits { max_tensor_elements: 8, ..Limits::default() };
        tensor_proto::decode(self.initializers.get(name)?, None, &limits).ok()
    }

    fn is(&self, name: &str, tensor: &Tensor) -> bool {
        self.constant(name).as_ref() == Some(tensor)
    }

    /// The compact tensor whose last node this is.
    fn compact(&self, last: usize) -> Option<Found<'a>> {
        let reshape = &self.graph.node[last];
        let [flat, shape] = &reshape.input[..] else { return None };
        let ends = reshape.op_type == "Reshape" && reshape.output.len() == 1 && reshape.attribute.is_empty();
        let found = ends.then(|| self.gaps(flat, shape).or_else(|| self.bits(flat, shape)))??;
        let is_bytes = |t: &&TensorProto| t.data_type == tensor_proto::number(DType::U8);
        let known = found.parts.iter().all(|name| self.initializers.contains_key(name));
        let is_ours = known && self.initializers.get(found.parts[3]).is_some_and(is_bytes);
        is_ours.then(|| Found { nodes: [vec![last], found.nodes].concat(), ..found })
    }

    /// The cast of an index to 32-bit integers, or to 64 bits, and its operand.
    fn cast(&self, name: &str) -> Option<(usize, &'a str)> {
        let (at, cast) = self.step(name, "Cast", 1, 1)?;
        let to = &cast.attribute[0];
        let wide = [DType::I32, DType::I64].map(|t| tensor_proto::number(t).into());
        (to.name == "to" && wide.contains(&to.i)).then(|| (at, cast.input[0].as_str()))
    }

    fn gaps(&self, flat: &str, shape: &'a str) -> Option<Found<'a>> {
        let (scatter_at, scatter) = self.step(flat, "ScatterElements", 3, 0)?;
        let (fill_at, fill) = self.step(&scatter.input[0], "ConstantOfShape", 1, 1)?;
        let (sum_at, sum) = self.step(&scatter.input[1], "CumSum", 2, 0)?;
        let (cast_at, gaps) = self.cast(&sum.input[0])?;
        let is_ours = self.is(&sum.input[1], &Tensor::i64([], vec![0]));
        is_ours.then(|| Found {
            nodes: vec![scatter_at, fill_at, sum_at, cast_at],
            parts: [&scatter.input[2], &fill.input[0], shape, gaps],
            fill: Some(&fill.attribute[0]),
        })
    }

    fn bits(&self, flat: &str, shape: &'a str) -> Option<Found<'a>> {
        let (slice_at, slice) = self.step(flat, "Slice", 3, 0)?;
        let (gather_at, gather) = self.step(&slice.input[0], "Gather", 2, 0)?;
        let (places_at, places) = self.step(&gather.input[1], "Mul", 2, 0)?;
        let (counts_at, counts) = self.step(&places.input[0], "CumSum", 2, 0)?;
        let flags = &places.input[1];
        let (flags_at, reshape) = self.maker(flags, 2, "Reshape", 2, 0)?;
        let (rows_at, rows) = self.step(&reshape.input[0], "Mod", 2, 0)?;
        let (shifted_at, shifted) = self.step(&rows.input[0], "Div", 2, 0)?;
        let (cast_at, bits) = self.cast(&shifted.input[0])?;
        let is_ours = counts.input[0] == *flags
            && self.is(&slice.input[1], &Tensor::ints(&[0]))
            && self.is(&counts.input[1], &Tensor::i64([], vec![0]))
            && self.is(&reshape.input[1], &Tensor::ints(&[-1]))
            && self.is(&rows.input[1], &two())
            && self.is(&shifted.input[1], &powers());
        is_ours.then(|| Found {
            nodes: vec![slice_at, gather_at, places_at, counts_at, flags_at, rows_at, shifted_at, cast_at],
            parts: [&gather.input[0], &slice.input[2], shape, bits],
            fill: None,
        })
    }
}

impl Found<'_> {
    fn expand(&self, reader: &Reader<'_>, limits: &Limits, budget: &mut usize) -> Result<Tensor, String> {
        let part = |index: usize| {
            let name = self.parts[index];
            let tensor = tensor_proto::decode(reader.initializers[name], None, limits);
            tensor.map_err(|reason| format!("`{name}`: {reason}"))
        };
        let (values, size, shape, index) = (part(0)?, part(1)?, part(2)?, part(3)?);
        let shape = tensor_proto::shape(&shape.to_i64(), limits)?;
        let elements = shape.iter().product();
        if size.to_i64().as_ref() != [elements as i64] {
            return Err(format!("shape {shape:?} for {} elements", size.to_i64().first().unwrap_or(&0)));
        }
        let Data::U8(bytes) = index.data() else { return Err(format!("an index of {}", index.dtype())) };
        check_dilution(elements, values.len() + bytes.len(), budget)?;
        let compact = match self.fill {
            Some(fill) => {
                let fill =
                    fill.t.as_ref().filter(|_| fill.name == "value").ok_or("a fill without a value")?;
                let fill = tensor_proto::decode(fill, None, limits)?;
                Compact { shape, fill, values, index: Index::Gaps(bytes.clone()) }
            }
            None => {
                let count = values.len().checked_sub(1).ok_or("no values, not even the fill")?;
                let fill = values.take([1], &[Some(0)]);
                let values = values.take([count], &(1..=count).map(Some).collect::<Vec<_>>());
                Compact { shape, fill, values, index: Index::Bits(bytes.clone()) }
            }
        };
        compact.expand().map_err(|e| e.to_string())
    }
}

/// All names that the nodes of a nested graph read, and those it returns.
fn collect_names_read<'a>(graph: &'a GraphProto, names: &mut HashSet<&'a str>) {
    graph.node.iter().for_each(|node| super::super::import::read_names(node, names));
    names.extend(graph.output.iter().map(|o| o.name.as_str()));
}
