//! Normalising an input inside the graph: `(x - shift) / scale` in front of everything that read `x`.

use super::Rebuild;
use super::bind::known_input;
use crate::error::GraphError;
use crate::graph::Graph;
use crate::ops::{Binary, BinaryFunction};
use crate::tensor::Tensor;

/// The graph with `(x - shift) / scale` in the place of the named input `x`, which keeps its name and type. `shift` and
/// `scale` are broadcast onto it: one number, or one a channel (`[c, 1, 1]` for images).
///
/// # Errors
/// When there is no such input, it is not of floats, or the constants widen its shape or divide by zero.
pub fn normalise_input(
    graph: &Graph,
    input: &str,
    shift: &Tensor,
    scale: &Tensor,
) -> Result<Graph, GraphError> {
    let old = known_input(graph, input)?;
    let (dtype, declared) = (graph.value(old).ty.dtype, &graph.value(old).ty.shape);
    let refuse = |what: &'static str, found: String, expected: String| {
        Err(GraphError::Feed { what, name: input.to_owned(), found, expected })
    };
    if !dtype.is_float() {
        return refuse("the elements of input", dtype.to_string(), "floats, which can be normalised".into());
    }
    if scale.to_f64().iter().any(|s| !s.is_normal()) {
        return refuse("the scale of input", format!("{scale:?}"), "numbers other than 0".into());
    }
    let mut rebuild = Rebuild::new(graph);
    let mut x = rebuild.mapped(old);
    for (function, constant) in [(BinaryFunction::Sub, shift), (BinaryFunction::Div, scale)] {
        let constant = rebuild.to.constant(constant.cast(dtype));
        x = rebuild.to.apply(Binary { function }, &[x, constant])?;
    }
    let found = rebuild.to.value(x).ty.shape.clone();
    if found.dims().zip(declared.dims()).is_some_and(|(found, declared)| found != declared) {
        return refuse("the constants for input", found.to_string(), declared.to_string());
    }
    rebuild.replace(old, x);
    for node in graph.nodes() {
        rebuild.copy(node)?;
    }
    rebuild.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::interpret;
    use crate::operator::Example;
    use crate::ops::{Function, Unary};
    use crate::parameter::Parameters;
    use crate::shape::{Dim, Shape};
    use crate::tensor::DType;

    fn relu() -> Graph {
        let mut graph = Graph::new("g");
        let shape = Shape::Ranked(vec![Dim::symbol("batch"), 2.into(), 1.into(), 3.into()]);
        let x = graph.input("x", DType::F32, shape);
        let y = graph.apply(Unary { function: Function::Relu }, &[x]).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        graph.output(x);
        graph
    }

    #[test]
    fn each_channel_is_normalised_in_front_of_all_that_read_the_input() {
        let (shift, scale) =
            (Tensor::f32([2, 1, 1], vec![1.0, -2.0]), Tensor::f32([2, 1, 1], vec![2.0, 4.0]));
        let graph = normalise_input(&relu(), "x", &shift, &scale).unwrap();
        graph.check().unwrap();
        let x = Example::noise(&[2, 2, 1, 3], 1);
        let feeds = BTreeMap::from([("x".to_string(), x.clone())]);
        let found = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
        let expected: Vec<f64> = x
            .to_f64()
            .iter()
            .enumerate()
            .map(|(i, x)| if i / 3 % 2 == 0 { (x - 1.0) / 2.0 } else { (x + 2.0) / 4.0 })
            .collect();
        for (output, of) in found.iter().zip([|x: f64| x.max(0.0), |x: f64| x]) {
            for (found, &expected) in output.to_f64().iter().zip(&expected) {
                assert!((found - of(expected)).abs() < 1e-6);
            }
        }
        let input = graph.value(graph.inputs()[0]);
        assert_eq!((input.name.as_str(), &input.ty), ("x", &relu().value(relu().inputs()[0]).ty));
    }

    #[test]
    fn constants_that_do_not_fit_are_refused() {
        let one = Tensor::f32([], vec![1.0]);
        let refused = |input: &str, shift: &Tensor, scale: &Tensor, words: &str| {
            let error = normalise_input(&relu(), input, shift, scale).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused("z", &one, &one, "no input `z`; the inputs are: x");
        refused("x", &one, &Tensor::f32([], vec![0.0]), "other than 0");
        refused("x", &Tensor::f32([5, 2, 1, 1], vec![0.0; 10]), &one, "the constants for input");
        refused("x", &Tensor::f32([1, 1, 1, 1, 1], vec![0.0]), &one, "the constants for input");
        refused("x", &Tensor::f32([4, 1, 1], vec![0.0; 4]), &one, "Sub");
    }
}
