//! Einsum: sums of products over named axes, in Einstein's notation.

use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// `Einsum(x..)` with an equation such as `bij,bjk->bik`, as NumPy reads it: `...` stands for axes that are
/// broadcast, an index twice in one operand takes its diagonal, and without `->` the result has the axes of `...`
/// and then, in alphabetical order, the indices that occur once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// The equation, without blanks.
    pub equation: String,
}

/// Most products one application may sum; the equation of a small file can ask for any number of them.
const MAX_PRODUCTS: u64 = 1 << 36;

/// Name of an axis: a letter, or a position within `...` counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Index {
    Broadcast(usize),
    Letter(char),
}

/// An equation applied to operands of known rank: the indices of every axis.
#[derive(Debug)]
struct Term {
    operands: Vec<Vec<Index>>,
    result: Vec<Index>,
}

impl Einsum {
    fn bad(&self, expected: impl ToString) -> OpError {
        OpError::mismatch("equation", format!("`{}`", self.equation), expected)
    }

    /// The letters of one side of a term before and after its `...`, if it has one.
    fn letters(&self, term: &str) -> Result<(Vec<Index>, Option<Vec<Index>>), OpError> {
        let side = |text: &str| {
            let letter = |c: char| {
                let ok = c.is_ascii_alphabetic();
                if ok { Ok(Index::Letter(c)) } else { Err(self.bad("letters, `...`, `,` and one `->`")) }
            };
            text.chars().map(letter).collect::<Result<Vec<_>, _>>()
        };
        match term.split_once("...") {
            Some((before, after)) => Ok((side(before)?, Some(side(after)?))),
            None => Ok((side(term)?, None)),
        }
    }

    /// Resolves the equation for operands of these ranks.
    fn term(&self, ranks: &[usize]) -> Result<Term, OpError> {
        let (left, right) = match self.equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (self.equation.as_str(), None),
        };
        let texts: Vec<&str> = left.split(',').collect();
        if texts.len() != ranks.len() {
            return Err(self.bad(format!("{} operands", ranks.len())));
        }
        let mut operands = vec![];
        let mut broadcast = 0;
        for (text, &rank) in texts.iter().zip(ranks) {
            let (mut indices, after) = self.letters(text)?;
            let named = indices.len() + after.as_ref().map_or(0, Vec::len);
            if named > rank || named < rank && after.is_none() {
                return Err(self.bad(format!("{rank} axes in `{text}`")));
            }
            if let Some(after) = after {
                broadcast = broadcast.max(rank - named);
                indices.extend((0..rank - named).rev().map(Index::Broadcast));
                indices.extend(after);
            }
            operands.push(indices);
        }
        let all: Vec<Index> = operands.concat();
        let spread = || (0..broadcast).rev().map(Index::Broadcast);
        let result = match right {
            None => {
                let mut once: Vec<_> =
                    all.iter().copied().filter(|i| matches!(i, Index::Letter(_))).collect();
                once.sort_unstable();
                once.retain(|i| all.iter().filter(|j| *j == i).count() == 1);
                spread().chain(once).collect()
            }
            Some(text) => match self.letters(text)? {
                (_, None) if broadcast > 0 => return Err(self.bad("`...` in the result")),
                (before, None) => before,
                (before, Some(after)) => before.into_iter().chain(spread()).chain(after).collect(),
            },
        };
        for (at, index) in result.iter().enumerate() {
            if result[..at].contains(index) || !all.contains(index) {
                return Err(self.bad("result indices that occur in an operand, each once"));
            }
        }
        Ok(Term { operands, result })
    }
}

impl Term {
    /// Every index with its extent: those of the result in order, then those summed over. Extents of one give way
    /// to others.
    fn extents(&self, shapes: &[Vec<Dim>]) -> Result<Vec<(Index, Dim)>, OpError> {
        let mut extents: Vec<(Index, Dim)> = self.result.iter().map(|&i| (i, Dim::Known(1))).collect();
        for (indices, dims) in self.operands.iter().zip(shapes) {
            for (&index, dim) in indices.iter().zip(dims) {
                let Some((_, old)) = extents.iter_mut().find(|(i, _)| *i == index) else {
                    extents.push((index, dim.clone()));
                    continue;
                };
                match (&old, dim) {
                    (Dim::Known(a), Dim::Known(b)) if *a == 1 || a == b => *old = dim.clone(),
                    (_, Dim::Known(1)) | (Dim::Known(_), Dim::Symbol(_)) if old.known() != Some(1) => {}
                    (Dim::Known(a), Dim::Known(b)) => {
                        let Index::Letter(name) = index else {
                            return Err(OpError::mismatch("extent of an axis of `...`", b, a));
                        };
                        return Err(OpError::mismatch("extent of an index", format!("{name} = {b}"), a));
                    }
                    (Dim::Symbol(_), Dim::Symbol(_)) => {}
                    _ => *old = dim.clone(),
                }
            }
        }
        Ok(extents)
    }

    /// Extents of operands of known shape.
    fn known_extents(&self, shapes: &[&[usize]]) -> Result<Vec<(Index, usize)>, OpError> {
        let dims: Vec<Vec<Dim>> = shapes.iter().map(|s| s.iter().map(|&n| n.into()).collect()).collect();
        let known = |(index, dim): (Index, Dim)| dim.known().map(|n| (index, n));
        Ok(self.extents(&dims)?.into_iter().filter_map(known).collect())
    }

    /// For operand `which`, how far each of `indices` moves in it.
    fn steps(&self, which: usize, shape: &[usize], indices: &[(Index, usize)]) -> Vec<usize> {
        let step = |&(index, extent): &(Index, usize)| {
            let axes = self.operands[which].iter().zip(shape).zip(strides(shape));
            axes.filter(|((i, n), _)| **i == index && (**n != 1 || extent == 1)).map(|(_, s)| s).sum()
        };
        indices.iter().map(step).collect()
    }
}

/// Sums the products of `factors` over the summed indices, for each element of the result.
fn contract<T: Copy>(
    factors: &[std::borrow::Cow<'_, [T]>],
    steps: &[Vec<usize>],
    result: &[usize],
    summed: &[usize],
    (zero, one): (T, T),
    multiply: fn(T, T) -> T,
    add: fn(T, T) -> T,
) -> Vec<T>
where
    [T]: ToOwned<Owned = Vec<T>>,
{
    let dot = |index: &[usize], steps: &[usize]| index.iter().zip(steps).map(|(i, s)| i * s).sum::<usize>();
    let mut y = Vec::with_capacity(result.iter().product());
    each_index(result, |outer| {
        let starts: Vec<usize> = steps.iter().map(|s| dot(outer, s)).collect();
        let mut sum = zero;
        each_index(summed, |inner| {
            let factor = |f: usize| factors[f][starts[f] + dot(inner, &steps[f][result.len()..])];
            sum = add(sum, (0..factors.len()).fold(one, |p, f| multiply(p, factor(f))));
        });
        y.push(sum);
    });
    y
}

impl Operator for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("equation", Attribute::Text(self.equation.clone()))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.ty(0, "x0")?.dtype;
        if dtype == DType::Bool {
            return Err(OpError::mismatch("x0", dtype, "numbers"));
        }
        let mut shapes = vec![];
        for index in 0..inputs.len() {
            inputs.expect_dtype(index, "x", &[dtype])?;
            shapes.extend(inputs.dims(index, "x")?.map(<[Dim]>::to_vec));
        }
        if shapes.len() < inputs.len() {
            return Ok(vec![TensorType::new(dtype, Shape::Unknown)]);
        }
        let term = self.term(&shapes.iter().map(Vec::len).collect::<Vec<_>>())?;
        let extents = term.extents(&shapes)?.into_iter().take(term.result.len());
        Ok(vec![TensorType::new(dtype, extents.map(|(_, dim)| dim).collect::<Vec<_>>())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let tensors = (0..inputs.len()).map(|i| inputs.get(i)).collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
        let term = self.term(&shapes.iter().map(|s| s.len()).collect::<Vec<_>>())?;
        let indices = term.known_extents(&shapes)?;
        let extents: Vec<usize> = indices.iter().map(|&(_, n)| n).collect();
        let products = extents.iter().try_fold(1u64, |p, &n| p.checked_mul(n as u64));
        if products.is_none_or(|n| n > MAX_PRODUCTS) {
            return Err(OpError::mismatch(
                "products",
                format!("{extents:?}"),
                format!("at most {MAX_PRODUCTS}"),
            ));
        }
        let (result, summed) = extents.split_at(term.result.len());
        let shape = super::concrete::bounded(result.to_vec())?;
        let steps: Vec<_> =
            (0..shapes.len()).map(|which| term.steps(which, shapes[which], &indices)).collect();
        let dtype = tensors[0].dtype();
        Ok(vec![if dtype.is_float() {
            let factors: Vec<_> = tensors.iter().map(|t| t.to_f64()).collect();
            let y = contract(&factors, &steps, result, summed, (0.0, 1.0), |a, b| a * b, |a, b| a + b);
            Tensor::from_f64(dtype, shape, y)
        } else {
            let factors: Vec<_> = tensors.iter().map(|t| t.to_i64()).collect();
            let y = contract(&factors, &steps, result, summed, (0, 1), i64::wrapping_mul, i64::wrapping_add);
            Tensor::from_i64(dtype, shape, y)
        }])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands: Vec<ValueId> = (0..g.input_count()).map(|i| g.input(i)).collect();
        let shapes = operands.iter().map(|&x| g.extents(x)).collect::<Result<Vec<_>, _>>()?;
        let invalid = |e: OpError| GraphError::Invalid(e.to_string());
        let term = self.term(&shapes.iter().map(Vec::len).collect::<Vec<_>>()).map_err(invalid)?;
        let Some(text) = term.spelling() else {
            return Ok(Gradient::NotDifferentiable("there are more indices than letters to name them"));
        };
        let dy = g.gradient();
        let mut gradients = vec![];
        for (which, indices) in term.operands.iter().enumerate() {
            if !g.wants(which) {
                gradients.push(None);
                continue;
            }
            if indices.iter().enumerate().any(|(at, i)| indices[..at].contains(i)) {
                return Ok(Gradient::NotDifferentiable(
                    "an operand repeats an index, so that only a diagonal counts",
                ));
            }
            // dx[i..] sums dy times all other operands over every index that x lacks.
            let others = (0..operands.len()).filter(|&o| o != which);
            let factors: Vec<&[Index]> = std::iter::once(term.result.as_slice())
                .chain(others.clone().map(|o| term.operands[o].as_slice()))
                .collect();
            let met: Vec<Index> =
                indices.iter().copied().filter(|i| factors.iter().any(|f| f.contains(i))).collect();
            let left: Vec<String> = factors.iter().map(|f| text(f)).collect();
            let equation = format!("{}->{}", left.join(","), text(&met));
            let inputs: Vec<ValueId> = std::iter::once(dy).chain(others.map(|o| operands[o])).collect();
            let product = g.apply(Einsum { equation }, &inputs)?;
            gradients.push(Some(fit(g, product, indices, &met, operands[which])?));
        }
        Ok(Gradient::Inputs(gradients))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let operands: Vec<&[usize]> = (0..shapes.inputs.len()).map(|i| shapes.input(i)).collect();
        let ranks: Vec<usize> = operands.iter().map(|s| s.len()).collect();
        let indices = self.term(&ranks).and_then(|term| term.known_extents(&operands));
        // Operands that infer accepted have a term; there is no work in any others.
        let products = indices.map_or(0, |i| i.iter().fold(1u64, |p, &(_, n)| p.saturating_mul(n as u64)));
        match operands.len() {
            1 => Work::elementwise(products),
            n => {
                let density = (0..n).map(|i| shapes.density(i)).fold(1.0, f64::min);
                Work::macs(MacKind::Standard, products.saturating_mul(n as u64 - 1), density)
            }
        }
    }
}

impl Term {
    /// A function that spells indices as letters, those of `...` as letters not used otherwise; `None` when there
    /// are too few.
    fn spelling(&self) -> Option<impl Fn(&[Index]) -> String + use<>> {
        let all = self.operands.concat();
        let used = |c: &char| all.contains(&Index::Letter(*c));
        let free: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|c| !used(c)).collect();
        let broadcast = |i: &Index| if let Index::Broadcast(n) = i { n + 1 } else { 0 };
        if all.iter().map(broadcast).max().unwrap_or(0) > free.len() {
            return None;
        }
        Some(move |indices: &[Index]| {
            let letter = |i: &Index| match i {
                Index::Letter(c) => *c,
                Index::Broadcast(n) => free[*n],
            };
            indices.iter().map(letter).collect()
        })
    }
}

/// Gives the gradient `dx`, which has only the axes in `met` of those in `indices`, the shape of `x`: it is the
/// same along axes that met nothing, and summed along those that were broadcast.
fn fit(
    g: &mut Backward<'_>,
    dx: ValueId,
    indices: &[Index],
    met: &[Index],
    x: ValueId,
) -> Result<ValueId, GraphError> {
    let (to, mut extents) = (g.extents(x)?, g.extents(dx)?.into_iter());
    let full: Vec<usize> =
        indices.iter().map(|i| if met.contains(i) { extents.next().unwrap_or(1) } else { 1 }).collect();
    let ints = |list: &[usize]| Tensor::ints(&list.iter().map(|&n| n as i64).collect::<Vec<_>>());
    let mut dx = dx;
    if met.len() < indices.len() {
        let shape = g.constant(ints(&full));
        dx = g.apply(Reshape { allow_zero: true }, &[dx, shape])?;
    }
    let summed: Vec<usize> = full.iter().zip(&to).map(|(&n, &m)| if m == 1 { 1 } else { n }).collect();
    if summed != full {
        dx = g.apply(SumTo { shape: summed.clone() }, &[dx])?;
    }
    if summed != to {
        let shape = g.constant(ints(&to));
        dx = g.apply(Expand, &[dx, shape])?;
    }
    Ok(dx)
}

impl Described for Einsum {
    const ONNX: &'static [&'static str] = &["Einsum"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let equation: String = node.text("equation", "")?.split_whitespace().collect();
        node.finish(Einsum { equation })
    }

    fn examples() -> Vec<Example> {
        let of = |equation: &str, shapes: &[&[usize]], macs: u64| {
            let inputs =
                shapes.iter().enumerate().map(|(seed, s)| Example::noise(s, seed as u32 + 1)).collect();
            let example = Example::new(Einsum { equation: equation.into() }, inputs);
            if macs == 0 { example } else { example.macs(macs) }
        };
        vec![
            of("bij,bjk->bik", &[&[2, 3, 4], &[2, 4, 5]], 2 * 3 * 4 * 5),
            of("i,i", &[&[5], &[5]], 5),
            of("ij->i", &[&[3, 4]], 0),
            of("ij->ji", &[&[3, 4]], 0),
            of("...ii->...i", &[&[2, 3, 3]], 0),
            of("ii", &[&[3, 3]], 0),
            of("...ij,...jk->...ik", &[&[2, 1, 2, 3], &[4, 3, 2]], 2 * 4 * 2 * 3 * 2),
            of("ab,cb", &[&[2, 3], &[4, 3]], 2 * 3 * 4),
            of("ij,jk,kl->il", &[&[2, 3], &[3, 2], &[2, 4]], 2 * 3 * 2 * 4 * 2),
            of("ij,k->k", &[&[2, 3], &[4]], 2 * 3 * 4),
            of("i...,j->j...", &[&[2, 3], &[4]], 2 * 3 * 4),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(equation: &str, inputs: &[Tensor]) -> Result<Tensor, OpError> {
        let operands: Vec<_> = inputs.iter().map(Some).collect();
        let op = Einsum { equation: equation.into() };
        Ok(op.evaluate(Tensors::new(&operands))?.swap_remove(0))
    }

    #[test]
    fn without_an_arrow_repeated_indices_are_summed_and_others_sorted() {
        let a = Tensor::i64([2, 2], vec![1, 2, 3, 4]);
        assert_eq!(run("ii", std::slice::from_ref(&a)).unwrap(), Tensor::i64([], vec![5]));
        assert_eq!(run("ba", std::slice::from_ref(&a)).unwrap(), Tensor::i64([2, 2], vec![1, 3, 2, 4]));
        assert_eq!(run("ij,jk", &[a.clone(), a]).unwrap(), Tensor::i64([2, 2], vec![7, 10, 15, 22]));
    }

    #[test]
    fn equations_that_do_not_fit_are_refused() {
        let a = || Tensor::i64([2, 2], vec![1, 2, 3, 4]);
        for equation in ["i->i", "ijk->i", "ij->ijj", "ij->k", "ij,jk->ik", "i?->i", "...->", "ij->i->j", ""]
        {
            assert!(run(equation, &[a()]).is_err(), "{equation}");
        }
        assert!(run("ij,jk", &[a(), Tensor::i64([3, 1], vec![1, 2, 3])]).is_err());
    }

    #[test]
    fn a_number_of_products_that_no_machine_finishes_is_refused() {
        let x = Tensor::zeros(DType::F32, [1 << 10]);
        assert!(run("a,b,c,d->", &[x.clone(), x.clone(), x.clone(), x]).is_err());
    }
}
