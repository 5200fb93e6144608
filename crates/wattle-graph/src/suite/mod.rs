//! The suite every operator passes, ours and those of other crates: its examples, taken through shapes,
//! evaluation, cost and finite differences.

mod dice;
mod random;

use std::collections::BTreeMap;

pub use dice::Dice;
pub use random::{Drawn, LEVEL_STEP, Purpose, RandomGraph, difference};

use crate::differentiate::differentiate;
use crate::error::GraphError;
use crate::graph::{Graph, ValueId};
use crate::interpret::interpret;
use crate::model::Model;
use crate::onnx::{Limits, OnnxError, decode_model, encode_model};
use crate::operator::{Example, Shapes};
use crate::ops::{Binary, BinaryFunction, Op, SumTo};
use crate::parameter::Parameters;
use crate::shape::Shape;
use crate::tensor::{DType, Tensor};

/// Step of the central differences.
const STEP: f64 = 1e-5;
/// Largest error of a gradient, relative to the larger of 1 and its value: the differences are exact to about
/// `STEP^2` times the third derivative, plus rounding over `STEP`.
const TOLERANCE: f64 = 1e-6;

/// A graph of one node, what to feed it, and the node's results.
type Applied = (Graph, BTreeMap<String, Tensor>, Vec<ValueId>);

/// A one-node graph of an example, and what to feed it. Float operands become f64 when `double`.
fn graph_of(example: &Example, double: bool) -> Result<Applied, GraphError> {
    let mut graph = Graph::new("example");
    let mut feeds = BTreeMap::new();
    let mut operands = vec![];
    for (index, input) in example.inputs.iter().enumerate() {
        let Some(tensor) = input else {
            operands.push(None);
            continue;
        };
        let wide = double && tensor.dtype() == DType::F32;
        let tensor = if wide { tensor.cast(DType::F64) } else { tensor.clone() };
        let name = format!("x{index}");
        operands.push(Some(if example.constant.contains(&index) {
            graph.named_constant(name, tensor)
        } else {
            let id = graph.input(name.clone(), tensor.dtype(), Shape::known(tensor.shape()));
            feeds.insert(name, tensor);
            id
        }));
    }
    let outputs = graph.apply_all(example.op.clone(), &operands, "")?;
    Ok((graph, feeds, outputs))
}

/// Checks that evaluation gives the inferred types and that the work is what was counted by hand.
pub fn check_shapes(example: &Example) -> Result<(), String> {
    let (mut graph, feeds, outputs) = graph_of(example, false).map_err(|e| e.to_string())?;
    graph.set_outputs(outputs.clone());
    graph.check().map_err(|e| e.to_string())?;
    let results = interpret(&graph, &mut Parameters::new(), &feeds).map_err(|e| e.to_string())?;
    for (id, result) in outputs.iter().zip(&results) {
        let inferred = &graph.value(*id).ty;
        if inferred.dtype != result.dtype() || inferred.shape.extents().as_deref() != Some(result.shape()) {
            return Err(format!("inferred {inferred}, evaluated {}{:?}", result.dtype(), result.shape()));
        }
    }
    let inputs: Vec<_> = example.inputs.iter().map(|x| x.as_ref().map(|x| x.shape().to_vec())).collect();
    let shapes: Vec<_> = results.iter().map(|r| r.shape().to_vec()).collect();
    let densities = vec![1.0; inputs.len()];
    let shapes = Shapes { inputs: &inputs, outputs: &shapes, densities: &densities };
    let macs = example.op.work(&shapes).macs;
    match example.macs {
        Some(counted) if counted != macs => Err(format!("{macs} MACs computed, {counted} counted by hand")),
        None if macs > 0 => Err(format!("{macs} MACs computed, none counted by hand")),
        _ => Ok(()),
    }
}

/// Checks the gradient of every float operand against central differences in f64.
///
/// The loss is the sum of all float results, each element weighted differently. Returns how many operands were
/// checked; none when the operator declares that it has no gradient.
pub fn check_gradient(example: &Example) -> Result<usize, String> {
    match example.op {
        // It has no gradient, and its branches declare f32 operands, which cannot become f64 here.
        Op::If(_) | Op::Loop(_) => return Ok(0),
        // Its gradient is not its slope: that is what it is for.
        Op::StopGradient(_) => return Ok(0),
        _ => {}
    }
    let text = |e: GraphError| e.to_string();
    let (mut graph, feeds, outputs) = graph_of(example, true).map_err(text)?;
    let Some(loss) = weighted_sum(&mut graph, &outputs).map_err(text)? else { return Ok(0) };
    let wrt: Vec<ValueId> =
        graph.inputs().iter().copied().filter(|&i| graph.value(i).ty.dtype.is_float()).collect();
    let d = match differentiate(&graph, loss, &wrt) {
        Err(GraphError::NotDifferentiable { .. }) => return Ok(0),
        other => other.map_err(text)?,
    };
    let mut with_gradients = d.graph.clone();
    with_gradients.set_outputs(d.gradients.iter().flatten().copied().collect());
    let found = interpret(&with_gradients, &mut Parameters::new(), &feeds).map_err(text)?;
    let mut found = found.into_iter();
    graph.set_outputs(vec![loss]);
    let loss_at = |feeds: &BTreeMap<String, Tensor>| -> Result<f64, String> {
        Ok(interpret(&graph, &mut Parameters::new(), feeds).map_err(text)?[0].to_f64()[0])
    };
    for (input, gradient) in wrt.iter().zip(&d.gradients) {
        let name = &graph.value(*input).name;
        let x = feeds[name].clone();
        let gradient = match gradient {
            Some(_) => found.next().ok_or("a gradient was not computed")?,
            None => Tensor::zeros(DType::F64, x.shape()),
        };
        if gradient.shape() != x.shape() {
            return Err(format!("the gradient of {name} is {:?}, not {:?}", gradient.shape(), x.shape()));
        }
        for index in 0..x.len() {
            let moved = |by: f64| {
                let mut values = x.to_f64().into_owned();
                values[index] += by;
                let mut feeds = feeds.clone();
                feeds.insert(name.clone(), Tensor::f64(x.shape(), values));
                loss_at(&feeds)
            };
            let slope = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
            let got = gradient.to_f64()[index];
            let close = (got - slope).abs() <= TOLERANCE * slope.abs().max(1.0);
            // NaN is close to nothing.
            if !close {
                return Err(format!("d/d{name}[{index}]: gradient {got}, finite difference {slope}"));
            }
        }
    }
    Ok(wrt.len())
}

/// Writes the example as ONNX, reads it back and checks that it computes the same. Returns whether the operator
/// has an ONNX form at all.
pub fn check_onnx_round_trip(example: &Example) -> Result<bool, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let (mut graph, feeds, outputs) = graph_of(example, false).map_err(|e| text(&e))?;
    for (index, &output) in outputs.iter().enumerate() {
        graph.rename(output, format!("y{index}"));
        graph.output(output);
    }
    let expected = interpret(&graph, &mut Parameters::new(), &feeds).map_err(|e| text(&e))?;
    let bytes = match encode_model(&Model::new(graph, Parameters::new())) {
        Err(OnnxError::NotExpressible(_)) => return Ok(false),
        other => other.map_err(|e| text(&e))?,
    };
    let read = decode_model(&bytes, None, &Limits::default()).map_err(|e| format!("reading it back: {e}"))?;
    read.graph.check().map_err(|e| format!("reading it back: {e}"))?;
    let mut parameters = read.parameters;
    let found =
        interpret(&read.graph, &mut parameters, &feeds).map_err(|e| format!("running it again: {e}"))?;
    for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
        let scale = b.to_f64().iter().fold(0.0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
        let tolerance = if b.dtype().is_float() { 1e-5 * scale.max(1e-3) } else { 0.0 };
        let equal = |x: &f64, y: &f64| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance;
        let same_type = a.dtype() == b.dtype() && a.shape() == b.shape();
        if !same_type || !a.to_f64().iter().zip(b.to_f64().iter()).all(|(x, y)| equal(x, y)) {
            return Err(format!("output {index} is {a:?} after the round trip, not {b:?}"));
        }
    }
    Ok(true)
}

/// Adds a scalar that depends on every element of every float value in `values`.
fn weighted_sum(graph: &mut Graph, values: &[ValueId]) -> Result<Option<ValueId>, GraphError> {
    let mut total: Option<ValueId> = None;
    for (seed, &value) in values.iter().enumerate() {
        let dtype = graph.value(value).ty.dtype;
        if !dtype.is_float() {
            continue;
        }
        let weights = Example::noise(&graph.extents(value)?, 100 + seed as u32).cast(dtype);
        let weights = graph.constant(weights);
        let weighted = graph.apply(Binary { function: BinaryFunction::Mul }, &[value, weights])?;
        let sum = graph.apply(SumTo { shape: vec![] }, &[weighted])?;
        total = Some(match total {
            None => sum,
            Some(so_far) => graph.apply(Binary { function: BinaryFunction::Add }, &[so_far, sum])?,
        });
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::ALL;

    /// Runs `check` on every example of every operator and reports all failures together.
    fn all(check: impl Fn(&Example) -> Result<(), String>) {
        let mut failures = vec![];
        for operator in ALL {
            for (index, example) in (operator.examples)().iter().enumerate() {
                if let Err(reason) = check(example) {
                    failures.push(format!("{} example {index} {:?}: {reason}", operator.name, example.op));
                }
            }
        }
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    }

    #[test]
    fn every_operator_has_an_example() {
        let without: Vec<_> = ALL.iter().filter(|o| (o.examples)().is_empty()).map(|o| o.name).collect();
        assert!(without.is_empty(), "operators without examples: {without:?}");
    }

    #[test]
    fn evaluation_gives_the_inferred_types_and_the_counted_work() {
        all(check_shapes);
    }

    #[test]
    fn what_is_written_as_onnx_reads_back_as_the_same_function() {
        all(|example| match example.op {
            // Files are for inference, where it does nothing.
            Op::Dropout(_) => Ok(()),
            // Another program draws other numbers, and so does this one after reading it.
            Op::Random(_) => Ok(()),
            _ => check_onnx_round_trip(example).map(drop),
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        all(|example| check_gradient(example).map(drop));
    }
}
