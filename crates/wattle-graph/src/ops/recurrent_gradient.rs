//! The gradient of Recurrent: backpropagation through time.

use super::cell::WeightGradients;
use super::concrete::result_shapes;
use super::recurrent::Numbers;
use super::*;
use crate::shape::{Dim, Shape};

/// Gradients `(dx, dw, dr, dbias, dstate)`, and for LSTM `(.., dcell, dpeephole)`, from the eight operands of
/// the forward operator, its y, and the gradients of its results where there are any.
///
/// The gates are computed again from x and y instead of being kept: two states of y give the products of one
/// step without waiting for the step before. Without a peephole, its gradient is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrentGradient {
    /// The forward operator.
    pub forward: Recurrent,
}

/// Where y and the gradients of y, the last state and the last cell stand among the operands.
const Y: usize = 8;

impl Operator for RecurrentGradient {
    fn name(&self) -> &'static str {
        match self.forward.cell {
            Cell::Rnn => "RNNGradient",
            Cell::Gru { .. } => "GRUGradient",
            Cell::Lstm { .. } => "LSTMGradient",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.forward.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let op = &self.forward;
        let count = if op.cell.has_cell() { 8 } else { 6 };
        for index in count..Y {
            if let Some(extra) = inputs.optional(index) {
                return Err(OpError::mismatch("cell or peephole", extra, "none, as the cell has neither"));
            }
        }
        let forward = op.infer(inputs.first(count))?;
        for (index, name, result) in
            [(Y, "y", 0), (Y + 1, "dy", 0), (Y + 2, "dstate", 1), (Y + 3, "dcell", 2)]
        {
            match (inputs.optional(index), forward.get(result)) {
                (None, _) if index != Y => {}
                (None, _) => return Err(OpError::MissingOperand { index, name }),
                (Some(found), Some(ty)) if found.ty == ty => {}
                (Some(found), ty) => {
                    let expected = ty.map_or("nothing".to_string(), TensorType::to_string);
                    return Err(OpError::mismatch(name, found, expected));
                }
            }
        }
        let dtype = inputs.ty(0, "x")?.dtype;
        let rows = op.cell.gates().saturating_mul(op.hidden);
        let per_direction = |n: usize| Shape::Ranked(vec![Dim::Known(op.directions()), n.into()]);
        let mut shapes: Vec<Shape> = vec![];
        for (index, name) in [(0, "x"), (1, "w"), (2, "r")] {
            shapes.push(inputs.ty(index, name)?.shape.clone());
        }
        shapes.push(per_direction(rows.saturating_mul(2)));
        shapes.push(forward[1].shape.clone());
        if op.cell.has_cell() {
            shapes.push(forward[1].shape.clone());
            shapes.push(per_direction(op.hidden.saturating_mul(3)));
        }
        Ok(shapes.into_iter().map(|shape| TensorType::new(dtype, shape)).collect())
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shapes = result_shapes(self, inputs)?;
        let op = &self.forward;
        let numbers = Numbers::new(op, inputs.first(8))?;
        let (sizes, n) = (numbers.sizes, op.hidden);
        let y = inputs.get(Y)?.to_f64();
        let [dy, d_last, d_last_cell] = [1, 2, 3].map(|i| inputs.optional(Y + i).map(|t| t.to_f64()));
        let row = |list: &Option<std::borrow::Cow<'_, [f64]>>, at: usize| match list {
            Some(list) => list[at..][..n].to_vec(),
            None => vec![0.0; n],
        };
        let mut results: Vec<Vec<f64>> = shapes.iter().map(|s| vec![0.0; s.iter().product()]).collect();
        for direction in 0..sizes.directions {
            let weights = numbers.weights(op, direction);
            let rows = op.cell.gates() * n;
            let mut sums = WeightGradients {
                w: vec![0.0; rows * sizes.input],
                r: vec![0.0; rows * n],
                bias: vec![0.0; 2 * rows],
                peephole: vec![0.0; 3 * n],
            };
            for sequence in 0..sizes.batch {
                let (mut state, mut cell) = numbers.initial(direction, sequence);
                let order = numbers.order(op, direction, sequence);
                let mut taken = vec![];
                for &step in &order {
                    let done = weights.forward(op.cell, numbers.x_row(step, sequence), &state, &cell);
                    let next = y[sizes.y(step, direction, sequence)..][..n].to_vec();
                    let next_cell = done.cell.clone();
                    taken.push((
                        step,
                        std::mem::replace(&mut state, next),
                        std::mem::replace(&mut cell, next_cell),
                        done,
                    ));
                }
                let at = sizes.state(direction, sequence);
                let (mut d_state, mut d_cell) = (row(&d_last, at), row(&d_last_cell, at));
                for (step, state, cell, done) in taken.iter().rev() {
                    let from_y = row(&dy, sizes.y(*step, direction, sequence));
                    d_state.iter_mut().zip(from_y).for_each(|(d, more)| *d += more);
                    let x = numbers.x_row(*step, sequence);
                    let before =
                        weights.backward(op.cell, x, state, cell, done, &d_state, &d_cell, &mut sums);
                    let x_at = sizes.x(*step, sequence);
                    results[0][x_at..][..sizes.input]
                        .iter_mut()
                        .zip(before.x)
                        .for_each(|(d, more)| *d += more);
                    (d_state, d_cell) = (before.state, before.cell);
                }
                results[4][at..][..n].copy_from_slice(&d_state);
                if op.cell.has_cell() {
                    results[5][at..][..n].copy_from_slice(&d_cell);
                }
            }
            if inputs.optional(7).is_none() {
                sums.peephole.fill(0.0);
            }
            for (result, sum) in [(1, &sums.w), (2, &sums.r), (3, &sums.bias), (6, &sums.peephole)] {
                if let Some(result) = results.get_mut(result) {
                    result[direction * sum.len()..][..sum.len()].copy_from_slice(sum);
                }
            }
        }
        let dtype = inputs.get(0)?.dtype();
        Ok(shapes.into_iter().zip(results).map(|(s, v)| Tensor::from_f64(dtype, s, v)).collect())
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of recurrences are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Forward once more; then each product has two gradients.
        let (by_w, by_r) = self.forward.products(shapes.input(0));
        let element_ops = shapes.input_len(Y).saturating_mul(4 * self.forward.cell.gates() as u64);
        Work { element_ops, ..Work::macs(MacKind::Gradient, 3 * (by_w + by_r), 1.0) }
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for RecurrentGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let mut examples = vec![];
        for forward in Recurrent::examples() {
            let Op::Recurrent(op) = &forward.op else { continue };
            let [a, b, _] = forward.inputs[0].as_ref().map_or([0; 3], |x| [x.shape()[0], x.shape()[1], 0]);
            let (d, n) = (op.directions(), op.hidden);
            let y = if op.batch_first { [a, b, d, n] } else { [a, d, b, n] };
            let mut inputs = forward.inputs.clone();
            inputs.resize(Y, None);
            inputs.extend([Some(Example::noise(&y, 8)), Some(Example::noise(&y, 9))]);
            let macs = forward.macs.unwrap_or(0);
            let gradient = RecurrentGradient { forward: op.clone() };
            examples.push(Example::optional(gradient, inputs).macs(3 * macs));
        }
        examples
    }
}
