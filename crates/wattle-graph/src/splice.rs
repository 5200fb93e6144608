//! Splicing: one graph becomes part of another, a teacher beside a student, a loss beside a network.

use crate::error::GraphError;
use crate::graph::{Graph, Source, TensorType, ValueId};
use crate::shape::Dim;

/// Which tensors the parameters of a spliced graph stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorNames {
    /// The same as before: where both graphs have a parameter of one tensor, they share it.
    Shared,
    /// Tensors of their own, named `prefix/name`.
    Prefixed,
}

/// What a spliced graph has become.
#[derive(Clone, Debug, PartialEq)]
pub struct Spliced {
    /// Its outputs as values of the host, in order. They are not outputs of the host until [`Graph::output`] says so.
    pub outputs: Vec<ValueId>,
    values: Vec<ValueId>,
}

impl Spliced {
    /// What value `of` of the spliced graph is in the host.
    ///
    /// # Panics
    /// When it is no value of the spliced graph.
    pub fn value(&self, of: ValueId) -> ValueId {
        self.values[of.index()]
    }
}

impl Graph {
    /// Copies `other` into this graph: its nodes, constants, parameters and assignments.
    ///
    /// `feeds` says which inputs of `other` are values of this graph; the rest become inputs of this graph. Names become
    /// `prefix/name`, and stay as they are under an empty prefix; those of tensors follow `tensors`. A parameter of the
    /// same window of the same tensor as one of this graph is that parameter: gradients of both uses add up. Types are
    /// inferred anew, so what is fed may bind symbolic extents of `other`.
    ///
    /// A teacher that must not be trained is frozen first ([`crate::rewrite::freeze`]): its parameters then come as
    /// constants.
    ///
    /// # Errors
    /// When `other` has no input of a name in `feeds`, what is fed does not fit its input, a name is taken, both graphs
    /// assign to one parameter, or an operator refuses what it is fed. This graph is then as it was.
    ///
    /// ```
    /// use wattle_graph::ops::{Function, Unary};
    /// use wattle_graph::{DType, Graph, Shape, TensorNames};
    ///
    /// let mut teacher = Graph::new("teacher");
    /// let x = teacher.input("x", DType::F32, Shape::known(&[2]));
    /// let y = teacher.apply(Unary { function: Function::Relu }, &[x])?;
    /// teacher.rename(y, "y");
    /// teacher.output(y);
    ///
    /// let mut student = Graph::new("student");
    /// let image = student.input("image", DType::F32, Shape::known(&[2]));
    /// let spliced = student.splice(&teacher, &[("x", image)], "teacher", TensorNames::Prefixed)?;
    /// assert_eq!(student.label(spliced.outputs[0]), "teacher/y");
    /// # Ok::<(), wattle_graph::GraphError>(())
    /// ```
    pub fn splice(
        &mut self,
        other: &Graph,
        feeds: &[(&str, ValueId)],
        prefix: &str,
        tensors: TensorNames,
    ) -> Result<Spliced, GraphError> {
        for (name, _) in feeds {
            if !other.inputs().iter().any(|&i| other.value(i).name == *name) {
                let names: Vec<_> = other.inputs().iter().map(|&i| other.label(i)).collect();
                let text = format!(
                    "graph `{}` has no input `{name}`; its inputs are: {}",
                    other.name,
                    names.join(", ")
                );
                return Err(GraphError::Invalid(text));
            }
        }
        let mut host = self.clone();
        let values = Splice { host: &mut host, other, feeds, prefix, tensors }.copy()?;
        *self = host;
        Ok(Spliced { outputs: other.outputs().iter().map(|o| values[o.index()]).collect(), values })
    }
}

struct Splice<'a> {
    host: &'a mut Graph,
    other: &'a Graph,
    feeds: &'a [(&'a str, ValueId)],
    prefix: &'a str,
    tensors: TensorNames,
}

impl Splice<'_> {
    /// Copies everything; returns what each value has become, by its index.
    fn copy(mut self) -> Result<Vec<ValueId>, GraphError> {
        let other = self.other;
        let mut taken: std::collections::HashSet<String> =
            self.host.values().iter().map(|v| v.name.clone()).filter(|n| !n.is_empty()).collect();
        let mut values: Vec<Option<ValueId>> = vec![None; other.values().len()];
        // In the order of the list, which is that of the caller's tensors.
        for &id in other.inputs() {
            values[id.index()] = Some(self.input(id)?);
        }
        for id in other.value_ids() {
            let value = other.value(id);
            match &value.source {
                Source::Constant(t) => values[id.index()] = Some(self.host.constant(t.clone())),
                Source::Parameter(_) => values[id.index()] = Some(self.parameter(id)?),
                Source::Input | Source::Node { .. } => {}
            }
        }
        for node in other.nodes() {
            let operands: Vec<_> = node.inputs.iter().map(|i| i.and_then(|i| values[i.index()])).collect();
            let name = self.prefixed(&node.name);
            let outputs = self.host.apply_all(node.op.clone(), &operands, &name)?;
            for (old, new) in node.outputs.iter().zip(outputs) {
                values[old.index()] = Some(new);
            }
        }
        let missing =
            || GraphError::Invalid(format!("graph `{}` has a value that nothing makes", other.name));
        let values: Vec<ValueId> = values.into_iter().collect::<Option<_>>().ok_or_else(missing)?;
        for id in other.value_ids() {
            let (new, name) = (values[id.index()], self.prefixed(&other.value(id).name));
            let named = !self.host.value(new).name.is_empty();
            let fed = other.inputs().contains(&id)
                && self.feeds.iter().any(|(fed, _)| *fed == other.value(id).name);
            if name.is_empty() || named || fed {
                continue;
            }
            // A parameter is called by its tensor where it can be.
            let tensor = self.host.parameter_of(new).map(|p| p.tensor.clone());
            if let Some(tensor) = tensor.filter(|t| taken.insert(t.clone())) {
                self.host.rename(new, tensor);
                continue;
            }
            if !taken.insert(name.clone()) {
                return Err(GraphError::Invalid(format!(
                    "graph `{}` has a value named `{name}` already; splice `{}` under another prefix than `{}`",
                    self.host.name, other.name, self.prefix
                )));
            }
            self.host.rename(new, name);
        }
        for assignment in other.assignments() {
            let (target, value) = (values[assignment.target.index()], values[assignment.value.index()]);
            if self.host.assignments().iter().any(|a| a.target == target) {
                let text = format!(
                    "both graphs assign to `{}`; only one of them may, or their tensors must not be shared",
                    self.host.label(target)
                );
                return Err(GraphError::Invalid(text));
            }
            self.host.assign(target, value)?;
        }
        Ok(values)
    }

    fn prefixed(&self, name: &str) -> String {
        if name.is_empty() || self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}/{name}", self.prefix)
        }
    }

    /// The value that is fed to an input of the other graph, or a new input; named later.
    fn input(&mut self, id: ValueId) -> Result<ValueId, GraphError> {
        let declared = self.other.value(id);
        match self.feeds.iter().find(|(name, _)| *name == declared.name) {
            None => Ok(self.host.input("", declared.ty.dtype, declared.ty.shape.clone())),
            Some(&(_, fed)) if may_be(&self.host.value(fed).ty, &declared.ty) => Ok(fed),
            Some(&(_, fed)) => Err(GraphError::Feed {
                what: "the value spliced to input",
                name: declared.name.clone(),
                found: format!("`{}`: {}", self.host.label(fed), self.host.value(fed).ty),
                expected: declared.ty.to_string(),
            }),
        }
    }

    /// The parameter of the host that a parameter of the other graph is, or a new one; named later.
    fn parameter(&mut self, id: ValueId) -> Result<ValueId, GraphError> {
        let value = self.other.value(id);
        let Source::Parameter(parameter) = &value.source else {
            return Err(GraphError::Invalid(format!("`{}` is no parameter", self.other.label(id))));
        };
        let mut parameter = parameter.clone();
        if self.tensors == TensorNames::Prefixed {
            parameter.tensor = self.prefixed(&parameter.tensor);
        }
        let same = self.host.parameters().find(|&p| {
            let there = self.host.parameter_of(p);
            there.is_some_and(|p| p.tensor == parameter.tensor && p.window == parameter.window)
        });
        let Some(same) = same else {
            return Ok(self.host.parameter_view("", parameter, value.ty.clone()));
        };
        let role = self.host.parameter_of(same).map_or(parameter.role, |p| p.role);
        if role != parameter.role || self.host.value(same).ty != value.ty {
            return Err(GraphError::Feed {
                what: "the shared parameter",
                name: parameter.tensor.clone(),
                found: format!("{} with the role {:?}", value.ty, parameter.role),
                expected: format!(
                    "{} with the role {role:?}, as in `{}`",
                    self.host.value(same).ty,
                    self.host.name
                ),
            });
        }
        Ok(same)
    }
}

/// Whether a value of type `given` can be one of type `declared`: nothing that both know differs.
pub(crate) fn may_be(given: &TensorType, declared: &TensorType) -> bool {
    let clash = |(a, b): (&Dim, &Dim)| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
    let fits = match (given.shape.dims(), declared.shape.dims()) {
        (Some(a), Some(b)) => a.len() == b.len() && !a.iter().zip(b).any(clash),
        _ => true,
    };
    given.dtype == declared.dtype && fits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::operator::Example;
    use crate::ops::{Binary, BinaryFunction, MatMul};
    use crate::parameter::{AxisWindow, Parameter, Parameters, Window};
    use crate::shape::Shape;
    use crate::tensor::{DType, Tensor};
    use crate::{differentiate, interpret};

    /// `y = x w`, where w is a trained 2 x 2 tensor and `seen` counts the runs.
    fn layer() -> Graph {
        let mut graph = Graph::new("layer");
        let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), 2.into()]);
        let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[2, 2]);
        let y = graph.apply_all(MatMul::default(), &[Some(x), Some(w)], "product").unwrap()[0];
        graph.rename(y, "y");
        graph.output(y);
        let seen = graph.parameter(Parameter::state("seen"), DType::F32, &[]);
        let one = graph.named_constant("one", Tensor::scalar(1.0));
        let next = graph.apply(Binary { function: BinaryFunction::Add }, &[seen, one]).unwrap();
        graph.assign(seen, next).unwrap();
        graph
    }

    fn values(names: &[&str]) -> Parameters {
        let mut parameters = Parameters::new();
        for (seed, name) in names.iter().enumerate() {
            let tensor = if name.ends_with("seen") {
                Tensor::scalar(0.0)
            } else {
                Example::noise(&[2, 2], seed as u32)
            };
            parameters.insert(*name, tensor);
        }
        parameters
    }

    #[test]
    fn a_graph_beside_itself_computes_what_both_compute_apart() {
        let mut graph = layer();
        let x = graph.find("x").unwrap();
        let spliced = graph.splice(&layer(), &[("x", x)], "teacher", TensorNames::Prefixed).unwrap();
        graph.output(spliced.outputs[0]);
        graph.check().unwrap();
        assert_eq!(graph.label(spliced.outputs[0]), "teacher/y");
        assert_eq!((graph.inputs().len(), graph.assignments().len()), (1, 2));
        let mut both = values(&["w", "seen", "teacher/w", "teacher/seen"]);
        let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[3, 2], 9))]);
        let found = interpret(&graph, &mut both, &feeds).unwrap();
        for (prefix, found) in [("", &found[0]), ("teacher/", &found[1])] {
            let mut own = Parameters::new();
            own.insert("w", values(&["w", "seen", "teacher/w"]).get(&format!("{prefix}w")).unwrap().clone());
            own.insert("seen", Tensor::scalar(0.0));
            assert_eq!(&interpret(&layer(), &mut own, &feeds).unwrap()[0], found, "{prefix}");
        }
        assert_eq!(both.get("teacher/seen").unwrap().to_f64()[0], 1.0);
    }

    #[test]
    fn shared_tensors_are_one_parameter_and_their_gradients_add_up() {
        let mut two = Graph::new("two");
        let a = two.input("a", DType::F32, Shape::known(&[1, 2]));
        let first = two.splice(&layer(), &[("x", a)], "first", TensorNames::Shared).unwrap();
        // The second copy would assign to the same state once more.
        let refused = two.splice(&layer(), &[("x", first.outputs[0])], "second", TensorNames::Shared);
        assert!(refused.unwrap_err().to_string().contains("both graphs assign to `seen`"));
        assert!(two.find("second/y").is_none(), "a refused splice changes nothing");
        let mut stateless = Graph::new("layer");
        let x = stateless.input("x", DType::F32, Shape::known(&[1, 2]));
        let w = stateless.parameter(Parameter::trainable("w"), DType::F32, &[2, 2]);
        let y = stateless.apply(MatMul::default(), &[x, w]).unwrap();
        stateless.output(y);
        let second =
            two.splice(&stateless, &[("x", first.outputs[0])], "second", TensorNames::Shared).unwrap();
        assert_eq!(two.parameters().count(), 2);
        let loss = two.apply(crate::ops::SumTo { shape: vec![] }, &[second.outputs[0]]).unwrap();
        let w = two.find("w").unwrap();
        assert_eq!(second.value(w_of(&stateless)), w);
        assert!(differentiate(&two, loss, &[w]).unwrap().gradients[0].is_some());
    }

    #[test]
    fn another_window_of_a_shared_tensor_is_another_parameter() {
        let mut graph = layer();
        let window = Window::new(vec![AxisWindow::Range(0, 1)]);
        let mut small = Graph::new("small");
        small.parameter(Parameter { window, ..Parameter::trainable("w") }, DType::F32, &[2, 2]);
        let spliced = graph.splice(&small, &[], "small", TensorNames::Shared).unwrap();
        let part = spliced.value(w_of(&small));
        assert_eq!(
            (graph.label(part), graph.value(part).ty.to_string()),
            ("small/w".into(), "f32[1, 2]".into())
        );
        let mut state = Graph::new("state");
        state.parameter(Parameter::state("w"), DType::F32, &[2, 2]);
        let error = graph.splice(&state, &[], "state", TensorNames::Shared).unwrap_err().to_string();
        assert!(error.contains("State") && error.contains("Trainable"), "{error}");
    }

    fn w_of(graph: &Graph) -> ValueId {
        graph.parameters().next().unwrap()
    }

    #[test]
    fn inputs_that_are_not_fed_become_inputs_under_the_prefix() {
        let mut graph = Graph::new("host");
        graph.splice(&layer(), &[], "a", TensorNames::Prefixed).unwrap();
        assert_eq!(graph.inputs().iter().map(|&i| graph.label(i)).collect::<Vec<_>>(), ["a/x"]);
        let error = graph.splice(&layer(), &[], "a", TensorNames::Prefixed).unwrap_err().to_string();
        assert!(error.contains("another prefix than `a`"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let mut graph = Graph::new("host");
        let wide = graph.input("wide", DType::F32, Shape::known(&[1, 3]));
        let error = |graph: &mut Graph, name: &str| {
            graph.splice(&layer(), &[(name, wide)], "t", TensorNames::Prefixed).unwrap_err().to_string()
        };
        let wrong = error(&mut graph, "x");
        assert!(wrong.contains("`wide`: f32[1, 3]") && wrong.contains("f32[N, 2]"), "{wrong}");
        assert!(error(&mut graph, "z").contains("its inputs are: x"));
    }
}
