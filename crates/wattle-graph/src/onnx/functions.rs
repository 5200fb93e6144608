//! Model-local functions, written out at each of their calls, so that the importer meets operators only.

use std::collections::HashMap;

use super::OnnxError;
use super::import::{Limits, is_default_domain};
use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};

/// Domain, name and overload, which together name a function.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Replaces every call of a model-local function by the nodes of its body, those in nested graphs and in other
/// functions included. A function hides an operator of the same name (ONNX IR, "Functions").
///
/// # Errors
/// When functions call each other in a circle or more than `limits.max_depth` deep, when the result has more than
/// `limits.max_nodes` nodes, and when a function is written in another default operator set than the model.
pub fn inline(model: &mut ModelProto, limits: &Limits) -> Result<(), OnnxError> {
    let functions = std::mem::take(&mut model.functions);
    let Some(graph) = &mut model.graph else { return Ok(()) };
    if functions.is_empty() {
        return Ok(());
    }
    let opset = |list: &[super::proto::OperatorSetIdProto]| {
        list.iter().find(|o| is_default_domain(&o.domain)).map(|o| o.version)
    };
    let version = opset(&model.opset_import);
    let mut by_key = HashMap::new();
    for function in &functions {
        if opset(&function.opset_import).is_some_and(|v| Some(v) != version) {
            return Err(OnnxError::Malformed(format!(
                "function {} is written in another operator set than the model; convert the model, or inline its functions before",
                function.name
            )));
        }
        by_key.insert(key(&function.domain, &function.name, &function.overload), function);
    }
    let mut inliner = Inliner { functions: by_key, limits, calls: 0, nodes: 0 };
    inliner.graph(graph, 0)
}

fn key<'a>(domain: &'a str, name: &'a str, overload: &'a str) -> Key<'a> {
    (if is_default_domain(domain) { "" } else { domain }, name, overload)
}

struct Inliner<'a> {
    functions: HashMap<Key<'a>, &'a FunctionProto>,
    limits: &'a Limits,
    /// Calls written out so far; numbers the names of their values.
    calls: usize,
    /// Nodes written out so far.
    nodes: usize,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), OnnxError> {
        graph.node = self.nodes(std::mem::take(&mut graph.node), depth)?;
        Ok(())
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, OnnxError> {
        let too_large = |what, found: usize, limit: usize| OnnxError::TooLarge {
            what,
            found: found as u64,
            limit: limit as u64,
        };
        if depth > self.limits.max_depth {
            return Err(too_large("nesting of graphs and functions", depth, self.limits.max_depth));
        }
        let mut result = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            self.nodes += 1;
            if self.nodes > self.limits.max_nodes {
                return Err(too_large("number of nodes", self.nodes, self.limits.max_nodes));
            }
            for graph in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
                self.graph(graph, depth + 1)?;
            }
            match self.functions.get(&key(&node.domain, &node.op_type, &node.overload)) {
                None => result.push(node),
                Some(function) => {
                    self.calls += 1;
                    let body = Call::new(&node, function, self.calls).body();
                    result.extend(self.nodes(body, depth + 1)?);
                }
            }
        }
        Ok(result)
    }
}

/// One call of a function.
struct Call<'a> {
    node: &'a NodeProto,
    function: &'a FunctionProto,
    /// What the function's inputs and outputs are called outside.
    names: HashMap<&'a str, &'a str>,
    number: usize,
}

impl<'a> Call<'a> {
    fn new(node: &'a NodeProto, function: &'a FunctionProto, number: usize) -> Call<'a> {
        let inside = function.input.iter().chain(&function.output).map(String::as_str);
        let left_out = std::iter::repeat("");
        let inputs = node.input.iter().map(String::as_str).chain(left_out.clone()).take(function.input.len());
        let outputs = node.output.iter().map(String::as_str).chain(left_out).take(function.output.len());
        let names = inside.zip(inputs.chain(outputs)).collect();
        Call { node, function, names, number }
    }

    /// The nodes of the body, in the names of the caller.
    fn body(&self) -> Vec<NodeProto> {
        let mut nodes = self.function.node.clone();
        nodes.iter_mut().for_each(|node| self.rename(node));
        nodes
    }

    /// A value's name: the caller's for inputs and outputs, else one that no other call has. Bodies see nothing of
    /// the graph around them, so every other name is their own. An output the caller leaves out is their own too.
    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(outside) if !outside.is_empty() => outside.to_string(),
            Some(_) if self.function.input.iter().any(|i| i == name) => String::new(),
            _ if name.is_empty() => String::new(),
            _ => format!("{name}@{}", self.number),
        }
    }

    fn rename(&self, node: &mut NodeProto) {
        for name in node.input.iter_mut().chain(&mut node.output) {
            *name = self.name(name);
        }
        let caller = if self.node.name.is_empty() { &self.node.op_type } else { &self.node.name };
        let own = if node.name.is_empty() { &node.op_type } else { &node.name };
        node.name = format!("{caller}/{own}");
        let attributes = std::mem::take(&mut node.attribute);
        node.attribute = attributes.into_iter().filter_map(|a| self.attribute(a)).collect();
    }

    /// An attribute with references to the call's attributes resolved; one that refers to nothing is left out, as
    /// if the body did not give it.
    fn attribute(&self, mut attribute: AttributeProto) -> Option<AttributeProto> {
        if !attribute.ref_attr_name.is_empty() {
            let given = self.node.attribute.iter().chain(&self.function.attribute_proto);
            let mut value = given.into_iter().find(|a| a.name == attribute.ref_attr_name)?.clone();
            value.name = attribute.name;
            return Some(value);
        }
        if let Some(graph) = &mut attribute.g {
            graph.node.iter_mut().for_each(|node| self.rename(node));
            let values = graph.input.iter_mut().chain(&mut graph.output).map(|v| &mut v.name);
            let tensors = graph.initializer.iter_mut();
            let sparse = graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
            for name in values.chain(tensors.chain(sparse).map(|t| &mut t.name)) {
                *name = self.name(name);
            }
        }
        Some(attribute)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;

    use super::super::proto::*;
    use super::*;
    use crate::interpret::interpret;
    use crate::onnx::decode_model;
    use crate::tensor::Tensor;

    fn node(domain: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            op_type: op.into(),
            domain: domain.into(),
            ..NodeProto::default()
        }
    }

    fn float(name: &str, f: f32) -> AttributeProto {
        AttributeProto { name: name.into(), f, r#type: attribute_type::FLOAT, ..AttributeProto::default() }
    }

    fn refers(name: &str, to: &str) -> AttributeProto {
        AttributeProto { ref_attr_name: to.into(), ..float(name, 0.0) }
    }

    fn function(name: &str, inputs: &[&str], outputs: &[&str], node: Vec<NodeProto>) -> FunctionProto {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        FunctionProto {
            name: name.into(),
            domain: "local".into(),
            input: owned(inputs),
            output: owned(outputs),
            node,
            ..FunctionProto::default()
        }
    }

    /// A model of one input `x` f32 [2] and one output `y`.
    fn model(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
        let dim = DimensionProto { dim_value: Some(2), ..DimensionProto::default() };
        let ty = TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim: vec![dim] }) };
        let value = |name: &str| ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { tensor_type: Some(ty.clone()) }),
        };
        let graph = GraphProto {
            node: nodes,
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        };
        let opset_import = vec![
            OperatorSetIdProto { domain: String::new(), version: 17 },
            OperatorSetIdProto { domain: "local".into(), version: 1 },
        ];
        ModelProto { ir_version: 9, graph: Some(graph), opset_import, functions, ..ModelProto::default() }
    }

    fn run(model: &ModelProto) -> Result<Vec<f64>, OnnxError> {
        let mut read = decode_model(&model.encode_to_vec(), None, &Limits::default())?;
        let feeds = BTreeMap::from([("x".to_string(), Tensor::f32([2], vec![-1.0, 2.0]))]);
        Ok(interpret(&read.graph, &mut read.parameters, &feeds).unwrap()[0].to_f64().into_owned())
    }

    #[test]
    fn calls_become_their_bodies_with_attributes_resolved() {
        let leaky = |attribute| NodeProto { attribute, ..node("", "LeakyRelu", &["a"], &["t"]) };
        // twice(a) = t + t with t = leaky(a); the slope is the caller's `slope`, else the default.
        let mut twice = function(
            "Twice",
            &["a", "unused"],
            &["b", "extra"],
            vec![
                leaky(vec![refers("alpha", "slope")]),
                node("", "Add", &["t", "t"], &["b"]),
                node("", "Neg", &["t"], &["extra"]),
            ],
        );
        twice.attribute_proto = vec![float("slope", 0.5)];
        let outer = function("Outer", &["t"], &["z"], vec![node("local", "Twice", &["t"], &["z"])]);
        let mut steep = node("local", "Twice", &["x"], &["t"]);
        steep.attribute = vec![float("slope", 3.0)];
        // `t` is a name of the graph, of one function's inside and of the other's input.
        let nodes = vec![steep, node("local", "Outer", &["t"], &["y"])];
        let twice_twice = run(&model(nodes, vec![outer, twice])).unwrap();
        // -1 becomes -3 and then -6, 2 becomes 4; of those, -6 becomes -3 and then -6 again, 4 becomes 8.
        assert_eq!(twice_twice, [-6.0, 8.0]);
    }

    #[test]
    fn names_inside_nested_graphs_of_a_body_are_its_own() {
        let branch = |op: &str| GraphProto {
            node: vec![node("", op, &["a"], &["r"])],
            output: vec![ValueInfoProto { name: "r".into(), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        let graph = |name: &str, g| AttributeProto {
            name: name.into(),
            g: Some(g),
            r#type: attribute_type::GRAPH,
            ..AttributeProto::default()
        };
        let mut choose = node("", "If", &["positive"], &["b"]);
        choose.attribute = vec![graph("then_branch", branch("Abs")), graph("else_branch", branch("Neg"))];
        let body = vec![
            node("", "ReduceSum", &["a"], &["sum"]),
            node("", "Sub", &["sum", "sum"], &["zero"]),
            node("", "Greater", &["sum", "zero"], &["positive"]),
            choose,
        ];
        let nodes = vec![node("local", "F", &["x"], &["once"]), node("local", "F", &["once"], &["y"])];
        let mut sum = model(nodes, vec![function("F", &["a"], &["b"], body)]);
        // ReduceSum keeps its axis, of one element, which conditions may have.
        sum.ir_version = 8;
        assert_eq!(run(&sum).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn circles_and_explosions_of_calls_are_refused() {
        let circle = function("A", &["a"], &["b"], vec![node("local", "A", &["a"], &["b"])]);
        let error = run(&model(vec![node("local", "A", &["x"], &["y"])], vec![circle])).unwrap_err();
        assert!(error.to_string().contains("nesting"), "{error}");
        // Six levels of a function that calls the next sixteen times: sixteen million nodes.
        let functions = (0..6).map(|level| {
            let name = format!("F{level}");
            let callee = format!("F{}", level + 1);
            let (domain, op) = if level == 5 { ("", "Neg") } else { ("local", callee.as_str()) };
            let names: Vec<String> = (0..=16).map(|i| format!("v{i}")).collect();
            let body = (0..16).map(|i| node(domain, op, &[&names[i]], &[&names[i + 1]])).collect();
            function(&name, &["v0"], &["v16"], body)
        });
        let error = run(&model(vec![node("local", "F0", &["x"], &["y"])], functions.collect())).unwrap_err();
        assert!(error.to_string().contains("number of nodes"), "{error}");
    }
}
