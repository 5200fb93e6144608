//! Det: determinants of square matrices.

use super::concrete::result_shapes;
use super::*;
use crate::shape::Shape;

/// `Det(x [.., M, M]) -> [..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Det;

/// The determinant by Gaussian elimination with partial pivoting (Golub and Van Loan, Matrix Computations, 3.4).
fn determinant(mut a: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for column in 0..n {
        let size = |row: usize| a[row * n + column].abs();
        let pivot = (column..n).fold(column, |best, row| if size(row) > size(best) { row } else { best });
        if pivot != column {
            (0..n).for_each(|k| a.swap(pivot * n + k, column * n + k));
            product = -product;
        }
        let head = a[column * n + column];
        product *= head;
        if head == 0.0 {
            return product;
        }
        for row in column + 1..n {
            let factor = a[row * n + column] / head;
            (column..n).for_each(|k| a[row * n + k] -= factor * a[column * n + k]);
        }
    }
    product
}

impl Operator for Det {
    fn name(&self) -> &'static str {
        "Det"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        let shape = match inputs.dims(0, "x")? {
            None => Shape::Unknown,
            Some([lead @ .., rows, columns]) => {
                if rows.known().zip(columns.known()).is_some_and(|(a, b)| a != b) {
                    return Err(OpError::mismatch(
                        "x",
                        format!("{rows} x {columns} matrices"),
                        "square ones",
                    ));
                }
                Shape::Ranked(lead.to_vec())
            }
            Some(_) => return Err(OpError::mismatch("x", inputs.ty(0, "x")?, "at least two axes")),
        };
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let x = inputs.get(0)?;
        let (n, values) = (x.shape()[shape.len()], x.to_f64());
        let count: usize = shape.iter().product();
        let matrix = |i: usize| values[i * n * n..(i + 1) * n * n].to_vec();
        let determinants = (0..count).map(|i| determinant(matrix(i), n)).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), shape, determinants)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable(
            "the gradient of a determinant needs an inverse, which there is not yet",
        ))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Elimination takes about 2/3 M^3 operations for each M x M matrix.
        let m = shapes.input(0).last().map_or(0, |&m| m as u64);
        Work::elementwise(shapes.input_len(0).saturating_mul(m).saturating_mul(2) / 3)
    }
}

impl Described for Det {
    const ONNX: &'static [&'static str] = &["Det"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Det)
    }

    fn examples() -> Vec<Example> {
        let of = |shape: &[usize]| Example::new(Det, vec![Example::noise(shape, 1)]);
        vec![of(&[2, 2]), of(&[3, 2, 4, 4])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn determinants_match_hand_computed_ones() {
        assert_eq!(determinant(vec![0.0, 2.0, 3.0, 4.0], 2), -6.0);
        assert_eq!(determinant(vec![1.0, 2.0, 2.0, 4.0], 2), 0.0);
        let three = determinant(vec![2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0], 3);
        assert!((three - 18.0).abs() < 1e-12);
        assert_eq!(determinant(vec![], 0), 1.0);
    }
}
