//! Trilu: the upper or lower triangle of matrices.

use super::concrete::result_shapes;
use super::movement_gradient::gradient_of;
use super::*;
use crate::tensor::{DType, each_index};

/// `Trilu(x [.., rows, columns], k?)`: elements on one side of diagonal `k` (0 when left out, above the main one
/// positive) and on it are kept, others are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trilu {
    /// Keep what is above the diagonal, else below.
    pub upper: bool,
}

impl Operator for Trilu {
    fn name(&self) -> &'static str {
        "Trilu"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        if self.upper { vec![] } else { vec![("upper", Attribute::Int(0))] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        if x.shape.rank().is_some_and(|rank| rank < 2) {
            return Err(OpError::mismatch("x", &x.shape, "at least two axes"));
        }
        if inputs.optional(1).is_some() {
            inputs.expect_dtype(1, "k", &[DType::I64])?;
        }
        if let Some(list) = inputs.ints(1).filter(|k| k.len() != 1) {
            return Err(OpError::mismatch("k", format!("{} numbers", list.len()), "one"));
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let k = inputs.optional(1).map_or(0, |k| k.to_i64()[0]);
        let mut source = Vec::with_capacity(shape.iter().product());
        each_index(&shape, |index| {
            let (row, column) = (index[index.len() - 2] as i64, index[index.len() - 1] as i64);
            let kept = if self.upper { column - row >= k } else { column - row <= k };
            source.push(kept.then_some(source.len()));
        });
        Ok(vec![inputs.get(0)?.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        gradient_of(&Op::from(self.clone()), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Trilu {
    const ONNX: &'static [&'static str] = &["Trilu"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let upper = node.int("upper", 1)? != 0;
        node.finish(Trilu { upper })
    }

    fn examples() -> Vec<Example> {
        let of = |upper, k: Option<i64>, shape: &[usize]| {
            let k = k.map(|k| Tensor::i64([], vec![k]));
            Example::optional(Trilu { upper }, vec![Some(Example::noise(shape, 1)), k]).constants(&[1])
        };
        vec![
            of(true, None, &[3, 4]),
            of(false, None, &[2, 3, 3]),
            of(true, Some(1), &[2, 3, 4]),
            of(false, Some(-1), &[4, 3]),
            of(true, Some(-7), &[3, 3]),
            of(false, Some(-7), &[3, 3]),
        ]
    }
}
