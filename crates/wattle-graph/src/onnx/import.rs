//! Reading ONNX files: protobuf to graph, with every foreign number checked before it is used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use prost::Message;

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, attribute_type};
use super::weigh::structure_bytes;
use super::weights::{self, Decision, Uses};
use super::{
    ForeignNode, ImportError, OnnxError, external, functions, merged, sparse, spelled_out, tensor_proto,
};
use crate::fact::Fact;
use crate::graph::{Graph, Source, ValueId};
use crate::model::Model;
use crate::operator::Attribute;
use crate::ops::{self, Identity};
use crate::parameter::{Parameter, Parameters};
use crate::rewrite::remove_dead_code;
use crate::shape::{Dim, Shape};
use crate::tensor::{Tensor, element_count};

/// Oldest and newest default operator set that is read.
const OPSETS: std::ops::RangeInclusive<i64> = 9..=22;

/// Bounds on what a file may ask for; the defaults fit models of a few gigabytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Size of the file.
    pub max_file_bytes: u64,
    /// Memory for the structs that its messages become: a message of two bytes in the file may take hundreds.
    pub max_structure_bytes: u64,
    /// Elements of one tensor.
    pub max_tensor_elements: usize,
    /// Elements read, written and worked on to compute constants while reading.
    pub max_folded_elements: usize,
    /// Nodes, those of nested graphs included.
    pub max_nodes: usize,
    /// Nesting of graphs.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_file_bytes: 4 << 30,
            max_structure_bytes: 1 << 30,
            max_tensor_elements: 1 << 30,
            max_folded_elements: 1 << 28,
            max_nodes: 1 << 18,
            max_depth: 8,
        }
    }
}

/// Reads a model from a file; tensors it keeps in other files must lie in or below the same folder.
pub fn read_model(path: &Path, limits: &Limits) -> Result<Model, OnnxError> {
    let failed = |cause| OnnxError::Io { path: path.display().to_string(), cause };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(failed(std::io::Error::other("a folder, a pipe or a device, expected a file")));
    }
    let length = found.len();
    if length > limits.max_file_bytes {
        return Err(OnnxError::TooLarge {
            what: "size in bytes",
            found: length,
            limit: limits.max_file_bytes,
        });
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    decode_model(&bytes, folder, limits)
}

/// Reads a model from bytes. Without a folder, tensors kept in other files are an error.
pub fn decode_model(bytes: &[u8], folder: Option<&Path>, limits: &Limits) -> Result<Model, OnnxError> {
    let weight = structure_bytes(bytes);
    if weight > limits.max_structure_bytes {
        let (found, limit) = (weight, limits.max_structure_bytes);
        return Err(OnnxError::TooLarge { what: "bytes that its messages take in memory", found, limit });
    }
    let mut proto = ModelProto::decode(bytes).map_err(|e| OnnxError::Malformed(e.to_string()))?;
    functions::inline(&mut proto, limits)?;
    let opset = opset(&proto)?;
    let graph = proto.graph.as_mut().ok_or_else(|| OnnxError::Malformed("it has no graph".into()))?;
    let mut fold_budget = limits.max_folded_elements;
    sparse::unpack(graph, limits, &mut fold_budget)?;
    let nodes = count_nodes(graph, limits, 0)?;
    if nodes > limits.max_nodes {
        let (found, limit) = (nodes as u64, limits.max_nodes as u64);
        return Err(OnnxError::TooLarge { what: "number of nodes", found, limit });
    }
    let registry = registry();
    refuse_unsupported(graph, &registry)?;
    external::check(graph, folder)?;
    let facts = merged::separate(graph, |tensor| tensor_proto::decode(tensor, folder, limits).ok());
    let mut importer = Importer {
        opset,
        folder,
        limits,
        registry,
        scopes: vec![],
        parameters: Parameters::new(),
        facts,
        fold_budget,
    };
    let (graph, _) = importer.graph(graph)?;
    // Where a key is given twice, the last one counts.
    let metadata = proto.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let Importer { parameters, facts, .. } = importer;
    let mut model = Model { graph, parameters, metadata, facts };
    weights::promote(&mut model);
    model.graph = remove_dead_code(&model.graph).map_err(|e| OnnxError::Nodes(vec![e.into()]))?;
    Ok(model)
}

pub(super) fn is_default_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn opset(proto: &ModelProto) -> Result<i64, OnnxError> {
    let default = proto.opset_import.iter().find(|o| is_default_domain(&o.domain));
    // A file without the entry is of the first operator set (specification, "Operator sets").
    let version = default.map_or(1, |o| o.version);
    if OPSETS.contains(&version) {
        return Ok(version);
    }
    let (oldest, newest) = (OPSETS.start(), OPSETS.end());
    Err(OnnxError::Malformed(format!(
        "operator set {version}; wattle reads {oldest} to {newest} (convert it with onnx.version_converter)"
    )))
}

fn count_nodes(graph: &GraphProto, limits: &Limits, depth: usize) -> Result<usize, OnnxError> {
    if depth > limits.max_depth {
        let (found, limit) = (depth as u64, limits.max_depth as u64);
        return Err(OnnxError::TooLarge { what: "nesting of graphs", found, limit });
    }
    let mut count = graph.node.len();
    for nested in graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref()) {
        count += count_nodes(nested, limits, depth + 1)?;
    }
    Ok(count)
}

/// What reads a node, by ONNX name (`Name`, or `domain:Name` outside the default domain).
type Registry = HashMap<&'static str, spelled_out::Import>;

fn registry() -> Registry {
    let operators = ops::ALL.iter().flat_map(|r| r.onnx.iter().map(|name| (*name, r.import)));
    operators.chain(spelled_out::ALL.iter().map(|(name, _, import)| (*name, *import))).collect()
}

fn qualified(node: &NodeProto) -> String {
    if is_default_domain(&node.domain) {
        node.op_type.clone()
    } else {
        format!("{}:{}", node.domain, node.op_type)
    }
}

/// One error that names every operator nobody knows, with its nodes.
fn refuse_unsupported(graph: &GraphProto, registry: &Registry) -> Result<(), OnnxError> {
    fn collect(graph: &GraphProto, known: &dyn Fn(&str) -> bool, found: &mut BTreeMap<String, Vec<String>>) {
        for node in &graph.node {
            let name = qualified(node);
            if name != "Constant" && !known(&name) {
                let unnamed = node.output.first().cloned().unwrap_or_default();
                let label = if node.name.is_empty() { unnamed } else { node.name.clone() };
                found.entry(name).or_default().push(label);
            }
            node.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| collect(g, known, found));
        }
    }
    let mut found = BTreeMap::new();
    collect(graph, &|name| registry.contains_key(name), &mut found);
    if found.is_empty() {
        return Ok(());
    }
    let text = |(name, nodes): (String, Vec<String>)| {
        let shown = nodes.iter().take(5).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let more = if nodes.len() > 5 { format!(" and {} more", nodes.len() - 5) } else { String::new() };
        format!("{name} at {shown}{more}")
    };
    Err(OnnxError::UnsupportedOperators(found.into_iter().map(text).collect()))
}

/// A graph being built, and what its names stand for.
#[derive(Default)]
struct Scope {
    graph: Graph,
    names: HashMap<String, ValueId>,
    /// Values of the enclosing scope that this graph's inputs stand for, in order.
    captures: Vec<ValueId>,
    /// How the file's nodes use its tensors.
    uses: Uses,
    /// Names that nodes, nested graphs or outputs read.
    read: HashSet<String>,
}

struct Importer<'a> {
    opset: i64,
    folder: Option<&'a Path>,
    limits: &'a Limits,
    registry: Registry,
    scopes: Vec<Scope>,
    parameters: Parameters,
    facts: Vec<Fact>,
    fold_budget: usize,
}

impl Importer<'_> {
    /// Imports a graph in a scope of its own; returns it and the values of the enclosing scope it reads.
    fn graph(&mut self, proto: &GraphProto) -> Result<(Graph, Vec<ValueId>), OnnxError> {
        let graph = Graph::new(proto.name.clone());
        let mut read: HashSet<&str> = proto.output.iter().map(|o| o.name.as_str()).collect();
        proto.node.iter().for_each(|node| read_names(node, &mut read));
        let read = read.into_iter().map(str::to_string).collect();
        self.scopes.push(Scope { graph, uses: Uses::of(proto), read, ..Scope::default() });
        self.initializers(proto)?;
        for input in &proto.input {
            // Files before IR version 4 list initialisers as inputs too.
            if !self.scope().names.contains_key(&input.name) {
                let (dtype, shape) = input_type(input)?;
                let id = self.scope().graph.input(input.name.clone(), dtype, shape);
                self.define(&input.name, id)?;
            }
        }
        let mut errors = vec![];
        let mut failed: HashSet<&str> = HashSet::new();
        for index in order(proto)? {
            let node = &proto.node[index];
            if node.input.iter().any(|i| failed.contains(i.as_str())) {
                failed.extend(node.output.iter().map(String::as_str));
                continue;
            }
            match self.node(node) {
                Ok(()) => {}
                Err(OnnxError::Nodes(list)) => {
                    errors.extend(list);
                    failed.extend(node.output.iter().map(String::as_str));
                }
                Err(other) => return Err(other),
            }
        }
        if !errors.is_empty() {
            return Err(OnnxError::Nodes(errors));
        }
        for output in &proto.output {
            let id = self.resolve(self.scopes.len() - 1, &output.name).ok_or_else(|| {
                OnnxError::Malformed(format!("output `{}` is not computed by any node", output.name))
            })?;
            let id = self.named_output(id, &output.name)?;
            self.scope().graph.output(id);
        }
        let scope = self.scopes.pop().unwrap_or_default();
        Ok((scope.graph, scope.captures))
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("a graph is being imported")
    }

    /// An output carries its name in the file, even where it is an input or another output under two names.
    fn named_output(&mut self, id: ValueId, name: &str) -> Result<ValueId, OnnxError> {
        let graph = &mut self.scope().graph;
        if graph.value(id).name == name && graph.constant_of(id).is_none() {
            return Ok(id);
        }
        if graph.value(id).name == name && graph.constant_of(id).is_some() {
            graph.rename(id, "");
        }
        let id = graph.apply(Identity, &[id]).map_err(|e| OnnxError::Nodes(vec![e.into()]))?;
        // Another value has the name only where a file calls an input and an output of other nodes alike.
        if graph.find(name).is_none() {
            graph.rename(id, name);
        }
        Ok(id)
    }

    fn define(&mut self, name: &str, id: ValueId) -> Result<(), OnnxError> {
        match self.scope().names.insert(name.to_string(), id) {
            None => Ok(()),
            Some(_) => Err(OnnxError::Malformed(format!("`{name}` is defined twice"))),
        }
    }

    /// What `name` stands for in the scope at `level`; a value of an enclosing scope becomes an input of it.
    fn resolve(&mut self, level: usize, name: &str) -> Option<ValueId> {
        if let Some(&id) = self.scopes[level].names.get(name) {
            return Some(id);
        }
        let outer = self.resolve(level.checked_sub(1)?, name)?;
        let value = self.scopes[level - 1].graph.value(outer).clone();
        let scope = &mut self.scopes[level];
        let id = match value.source {
            Source::Constant(tensor) => scope.graph.named_constant(name, tensor),
            _ => {
                scope.captures.push(outer);
                scope.graph.input(name, value.ty.dtype, value.ty.shape)
            }
        };
        scope.names.insert(name.to_string(), id);
        Some(id)
    }

    fn initializers(&mut self, proto: &GraphProto) -> Result<(), OnnxError> {
        let mut tensors = vec![];
        for initializer in &proto.initializer {
            // What nothing reads may be of any type.
            let read = self.scope().read.contains(&initializer.name);
            if !read && !tensor_proto::is_read(initializer.data_type) {
                continue;
            }
            let tensor = tensor_proto::decode(initializer, self.folder, self.limits);
            tensors.push((initializer.name.clone(), tensor));
        }
        for sparse in &proto.sparse_initializer {
            match tensor_proto::decode_sparse(sparse, self.folder, self.limits, &mut self.fold_budget) {
                Ok((name, tensor)) => tensors.push((name, Ok(tensor))),
                Err(reason) => {
                    let name = sparse.values.as_ref().map_or(String::new(), |v| v.name.clone());
                    tensors.push((name, Err(reason)));
                }
            }
        }
        for (name, tensor) in tensors {
            let tensor =
                tensor.map_err(|reason| OnnxError::Malformed(format!("initialiser `{name}`: {reason}")))?;
            let id = self.weight(&name, tensor, true);
            self.define(&name, id)?;
        }
        Ok(())
    }

    /// A tensor of the file: a parameter if it is one to train, else a constant.
    fn weight(&mut self, name: &str, tensor: Tensor, initialiser: bool) -> ValueId {
        let decision = match self.scopes.len() {
            1 => self.scope().uses.decide(name, &tensor, initialiser),
            _ => Decision::Constant(None),
        };
        match decision {
            Decision::Parameter(role) if self.parameters.get(name).is_none() => {
                let parameter = Parameter { role, ..Parameter::trainable(name) };
                let id = self.scope().graph.parameter(parameter, tensor.dtype(), tensor.shape());
                self.parameters.insert(name, tensor);
                id
            }
            decision => {
                if let Decision::Constant(Some(why)) = decision {
                    let (tensor, elements) = (name.to_string(), tensor.len());
                    self.facts.push(Fact::Constant { tensor, elements, why: why.into() });
                }
                self.scope().graph.named_constant(name, tensor)
            }
        }
    }

    fn node(&mut self, proto: &NodeProto) -> Result<(), OnnxError> {
        let level = self.scopes.len() - 1;
        let refuse = |reason: String| {
            let unnamed = proto.output.first().cloned().unwrap_or_default();
            let node = if proto.name.is_empty() { unnamed } else { proto.name.clone() };
            OnnxError::Nodes(vec![ImportError::Node { node, op: proto.op_type.clone(), reason }])
        };
        let mut attributes = BTreeMap::new();
        let mut captures = BTreeMap::new();
        for attribute in &proto.attribute {
            let (value, captured) = self.attribute(attribute).map_err(|e| match e {
                AttributeError::Refused(reason) => refuse(format!("attribute {}: {reason}", attribute.name)),
                AttributeError::Nested(error) => error,
            })?;
            if attributes.insert(attribute.name.clone(), value).is_some() {
                return Err(refuse(format!("attribute {} is given twice", attribute.name)));
            }
            captures.insert(attribute.name.clone(), captured);
        }
        if qualified(proto) == "Constant" {
            let tensor = constant(attributes).map_err(refuse)?;
            let [name] = &proto.output[..] else { return Err(refuse("it must have one output".into())) };
            let id = self.weight(name, tensor, false);
            return self.define(name, id);
        }
        let mut inputs = vec![];
        for name in &proto.input {
            inputs.push(match name.as_str() {
                "" => None,
                name => Some(self.resolve(level, name).ok_or_else(|| {
                    refuse(format!("operand `{name}` is not defined by any input, initialiser or node"))
                })?),
            });
        }
        let import = self.registry[qualified(proto).as_str()];
        // Further results that nothing reads are not asked for.
        let read = &self.scopes[level].read;
        let wanted = |(index, name): (usize, &String)| {
            if index == 0 || read.contains(name) { name.clone() } else { String::new() }
        };
        let output_names: Vec<String> = proto.output.iter().enumerate().map(wanted).collect();
        let mut node = ForeignNode::new(
            &mut self.scopes[level].graph,
            proto.op_type.clone(),
            proto.name.clone(),
            self.opset,
            inputs,
            output_names.clone(),
            attributes,
            captures,
        );
        node.fold_within(self.fold_budget);
        let imported = import(&mut node);
        let unread = node.unread();
        self.fold_budget = node.fold_budget();
        let facts = node.take_facts();
        self.facts.extend(facts);
        let outputs = imported.map_err(|e| OnnxError::Nodes(vec![e]))?;
        if !unread.is_empty() {
            return Err(refuse(format!("attributes not understood: {}", unread.join(", "))));
        }
        if outputs.len() < output_names.iter().rposition(|o| !o.is_empty()).map_or(0, |i| i + 1) {
            return Err(refuse(format!("{} outputs are used, it has {}", proto.output.len(), outputs.len())));
        }
        for (name, &id) in output_names.iter().zip(&outputs).filter(|(name, _)| !name.is_empty()) {
            self.define(name, id)?;
            let graph = &mut self.scope().graph;
            if graph.value(id).name.is_empty() {
                graph.rename(id, name);
            }
        }
        Ok(())
    }

    fn attribute(&mut self, proto: &AttributeProto) -> Result<(Attribute, Vec<ValueId>), AttributeError> {
        use attribute_type::*;
        let text = |bytes: &Vec<u8>| {
            String::from_utf8(bytes.clone()).map_err(|_| AttributeError::Refused("not UTF-8".into()))
        };
        if !proto.ref_attr_name.is_empty() {
            return Err(AttributeError::Refused("it refers to a function's attribute".into()));
        }
        let kind = if proto.r#type == UNDEFINED { guessed_type(proto) } else { proto.r#type };
        let value = match kind {
            FLOAT => Attribute::Float(proto.f),
            INT => Attribute::Int(proto.i),
            STRING => Attribute::Text(text(&proto.s)?),
            TENSOR => {
                let tensor = proto.t.as_ref().ok_or_else(|| AttributeError::Refused("no tensor".into()))?;
                let tensor = tensor_proto::decode(tensor, self.folder, self.limits);
                Attribute::Tensor(Arc::new(tensor.map_err(AttributeError::Refused)?))
            }
            SPARSE_TENSOR => {
                let tensor = proto.sparse_tensor.as_ref();
                let tensor = tensor.ok_or_else(|| AttributeError::Refused("no tensor".into()))?;
                let (_, tensor) =
                    tensor_proto::decode_sparse(tensor, self.folder, self.limits, &mut self.fold_budget)
                        .map_err(AttributeError::Refused)?;
                Attribute::Tensor(Arc::new(tensor))
            }
            GRAPH => {
                let graph = proto.g.as_ref().ok_or_else(|| AttributeError::Refused("no graph".into()))?;
                let (graph, captures) = self.graph(graph).map_err(AttributeError::Nested)?;
                return Ok((Attribute::Graph(Box::new(graph)), captures));
            }
            FLOATS => Attribute::Floats(proto.floats.clone()),
            INTS => Attribute::Ints(proto.ints.clone()),
            STRINGS => Attribute::Texts(proto.strings.iter().map(text).collect::<Result<_, _>>()?),
            other => return Err(AttributeError::Refused(format!("attribute type {other} is not supported"))),
        };
        Ok((value, vec![]))
    }
}

enum AttributeError {
    Refused(String),
    Nested(OnnxError),
}

/// The type of an attribute of a file so old that it does not say.
fn guessed_type(proto: &AttributeProto) -> i32 {
    use attribute_type::*;
    if proto.t.is_some() {
        TENSOR
    } else if proto.g.is_some() {
        GRAPH
    } else if !proto.ints.is_empty() {
        INTS
    } else if !proto.floats.is_empty() {
        FLOATS
    } else if !proto.strings.is_empty() {
        STRINGS
    } else if !proto.s.is_empty() {
        STRING
    } else if proto.f != 0.0 {
        FLOAT
    } else {
        INT
    }
}

/// The value of a `Constant` node.
fn constant(attributes: BTreeMap<String, Attribute>) -> Result<Tensor, String> {
    let mut attributes = attributes.into_iter();
    let (Some((name, value)), None) = (attributes.next(), attributes.next()) else {
        return Err("it must have exactly one attribute".into());
    };
    match (name.as_str(), value) {
        ("value" | "sparse_value", Attribute::Tensor(tensor)) => Ok((*tensor).clone()),
        ("value_float", Attribute::Float(x)) => Ok(Tensor::scalar(x)),
        ("value_int", Attribute::Int(x)) => Ok(Tensor::i64([], vec![x])),
        ("value_floats", Attribute::Floats(x)) => Ok(Tensor::f32([x.len()], x)),
        ("value_ints", Attribute::Ints(x)) => Ok(Tensor::ints(&x)),
        (other, _) => Err(format!("attribute {other} is not supported")),
    }
}

fn input_type(input: &ValueInfoProto) -> Result<(crate::DType, Shape), OnnxError> {
    let refuse = |reason: String| OnnxError::Malformed(format!("input `{}`: {reason}", input.name));
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor =
        tensor.ok_or_else(|| refuse("it is not a tensor (sequences and maps are not supported)".into()))?;
    let dtype = tensor_proto::dtype(tensor.elem_type).map_err(refuse)?;
    let Some(shape) = &tensor.shape else { return Ok((dtype, Shape::Unknown)) };
    if shape.dim.len() > tensor_proto::MAX_RANK {
        return Err(refuse(format!("it has {} axes, more than {}", shape.dim.len(), tensor_proto::MAX_RANK)));
    }
    let dim = |(axis, dim): (usize, &super::proto::DimensionProto)| match dim.dim_value {
        Some(n) if n > 0 => Dim::Known(n as usize),
        // `?` is written by exporters for "any", not as the name of one extent.
        _ if dim.dim_param.is_empty() || dim.dim_param == "?" => {
            Dim::symbol(format!("{}.{axis}", input.name))
        }
        _ => Dim::symbol(&dim.dim_param),
    };
    let dims: Vec<Dim> = shape.dim.iter().enumerate().map(dim).collect();
    let known: Vec<usize> = dims.iter().filter_map(Dim::known).collect();
    if element_count(&known).is_none_or(|n| n > tensor_proto::MAX_SPREAD) {
        return Err(refuse(format!("its shape {known:?} is too large to count with")));
    }
    Ok((dtype, Shape::Ranked(dims)))
}

/// The nodes of a graph in an order in which every operand comes before its readers.
fn order(proto: &GraphProto) -> Result<Vec<usize>, OnnxError> {
    let mut producer = HashMap::new();
    for (index, node) in proto.node.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if producer.insert(output.as_str(), index).is_some() {
                return Err(OnnxError::Malformed(format!("`{output}` is computed by two nodes")));
            }
        }
    }
    let mut readers: Vec<Vec<usize>> = vec![vec![]; proto.node.len()];
    let mut missing = vec![0usize; proto.node.len()];
    for (index, node) in proto.node.iter().enumerate() {
        let mut names = HashSet::new();
        read_names(node, &mut names);
        for from in names.iter().filter_map(|name| producer.get(name)) {
            readers[*from].push(index);
            missing[index] += 1;
        }
    }
    // Smallest index first keeps the order of a file that is sorted already.
    let mut ready: std::collections::BTreeSet<usize> =
        (0..proto.node.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = vec![];
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &reader in &readers[index] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    if order.len() < proto.node.len() {
        let stuck = (0..proto.node.len()).find(|&i| missing[i] > 0).unwrap_or(0);
        let node = &proto.node[stuck];
        let name = node.output.first().map_or("", String::as_str);
        return Err(OnnxError::Malformed(format!(
            "the graph has a cycle through `{name}` ({})",
            node.op_type
        )));
    }
    Ok(order)
}

/// All names that a node or its nested graphs read.
pub(super) fn read_names<'a>(node: &'a NodeProto, names: &mut HashSet<&'a str>) {
    names.extend(node.input.iter().map(String::as_str));
    for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
        graph.node.iter().for_each(|n| read_names(n, names));
        names.extend(graph.output.iter().map(|o| o.name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{OperatorSetIdProto, TensorShapeProto, TensorTypeProto, TypeProto};
    use super::*;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::parameter::Role;

    /// A file of these nodes, `[2, 3]` floats `x` in, and initialisers of noise or of one value.
    fn file(
        opset: i64,
        tensors: &[(&str, Tensor)],
        nodes: &[(&str, &[&str], &[&str])],
        outputs: &[&str],
    ) -> Vec<u8> {
        let text = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let dim = |n| super::super::proto::DimensionProto { dim_value: Some(n), dim_param: String::new() };
        let shape = Some(TensorShapeProto { dim: vec![dim(2), dim(3)] });
        let tensor_type = Some(TensorTypeProto { elem_type: 1, shape });
        let value = |name: &str| ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { tensor_type: tensor_type.clone() }),
        };
        let graph = GraphProto {
            initializer: tensors.iter().map(|(name, t)| tensor_proto::encode(name, t)).collect(),
            input: vec![value("x")],
            output: outputs.iter().map(|name| value(name)).collect(),
            node: nodes
                .iter()
                .map(|(op, input, output)| NodeProto {
                    op_type: op.to_string(),
                    input: text(input),
                    output: text(output),
                    ..NodeProto::default()
                })
                .collect(),
            ..GraphProto::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
        ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..ModelProto::default() }
            .encode_to_vec()
    }

    fn read(bytes: &[u8]) -> Model {
        decode_model(bytes, None, &Limits::default()).unwrap()
    }

    fn trained(model: &Model) -> Vec<&str> {
        let parameters = model.graph.parameters().filter_map(|id| model.graph.parameter_of(id));
        parameters.filter(|p| p.role == Role::Trainable).map(|p| p.tensor.as_str()).collect()
    }

    #[test]
    fn an_input_returned_as_it_is_keeps_its_name_here_and_in_written_files() {
        let model = read(&file(17, &[], &[("Relu", &["x"], &["y"])], &["y", "x"]));
        let names = |m: &Model| m.graph.outputs().iter().map(|&o| m.graph.label(o)).collect::<Vec<_>>();
        assert_eq!(names(&model), ["y", "x"]);
        let again = read(&crate::onnx::encode_model(&model).unwrap());
        assert_eq!(names(&again), ["y", "x"]);
        let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[2, 3], 1))]);
        let results = interpret(&again.graph, &mut Parameters::new(), &feeds).unwrap();
        assert_eq!(results[1], feeds["x"]);
    }

    #[test]
    fn further_results_that_nothing_reads_do_not_make_a_norm_train() {
        let vector = |seed| Tensor::f32([3], vec![1.0 + seed as f32, 2.0, 3.0]);
        let tensors: Vec<(&str, Tensor)> =
            ["s", "b", "m", "v"].iter().zip(0..).map(|(n, i)| (*n, vector(i))).collect();
        let norm: (&str, &[&str], &[&str]) =
            ("BatchNormalization", &["x", "s", "b", "m", "v"], &["y", "m2", "v2", "sm", "sv"]);
        let model = read(&file(9, &tensors, &[norm], &["y"]));
        assert_eq!(model.graph.nodes()[0].outputs.len(), 1, "{}", model.graph);
    }

    #[test]
    fn what_is_not_trained_is_told() {
        let mask = Tensor::f32([2, 3], vec![1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
        let tensors = [
            ("w", Example::noise(&[2, 3], 1)),
            ("mask", mask),
            ("temperature", Tensor::scalar(0.5)),
            ("val_3", Tensor::scalar(0.5)),
        ];
        let nodes: &[(&str, &[&str], &[&str])] = &[
            ("Mul", &["w", "mask"], &["wm"]),
            ("Add", &["x", "wm"], &["a"]),
            ("Mul", &["a", "temperature"], &["b"]),
            ("Mul", &["b", "val_3"], &["y"]),
        ];
        let model = read(&file(17, &tensors, nodes, &["y"]));
        assert_eq!(trained(&model), ["w", "temperature"]);
        let told: Vec<String> = model.facts.iter().map(Fact::to_string).collect();
        assert!(told[0].starts_with("`mask` (6) is not trained: a mask"), "{told:?}");
        assert!(told.iter().any(|t| t.starts_with("`val_3` (1) is not trained")), "{told:?}");
    }

    #[test]
    fn a_merged_norm_is_read_with_statistics_of_its_own() {
        let (ones, zeros) = (Tensor::f32([3], vec![1.0; 3]), Tensor::f32([3], vec![0.0; 3]));
        let nodes: &[(&str, &[&str], &[&str])] = &[
            ("Identity", &["w"], &["var"]),
            ("Identity", &["b"], &["mean"]),
            ("BatchNormalization", &["x", "w", "b", "mean", "var"], &["y"]),
        ];
        let model = read(&file(17, &[("w", ones), ("b", zeros)], nodes, &["y"]));
        assert_eq!(trained(&model), ["w", "b"]);
        assert_eq!(model.parameters.iter().count(), 4);
        assert_eq!(model.facts.len(), 2, "{:?}", model.facts);
    }
}
