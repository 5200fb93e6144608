//! Shapes whose extents may be symbols: a batch size, an image height not yet known.

use std::fmt;
use std::sync::Arc;

/// The extent of one axis.
///
/// A symbol stands for one unknown extent; two symbols are equal when their texts are. Arithmetic on symbols
/// builds longer texts (`H+2`), so equal computations give equal symbols; binding a graph's inputs and
/// inferring again replaces them all by numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A known extent.
    Known(usize),
    /// An unknown extent with a name.
    Symbol(Arc<str>),
}

/// Longest symbol kept as text; a hostile graph could double a name per node.
const MAX_SYMBOL: usize = 96;

impl Dim {
    /// A named unknown extent.
    pub fn symbol(name: impl AsRef<str>) -> Dim {
        let name = name.as_ref();
        if name.len() <= MAX_SYMBOL {
            return Dim::Symbol(name.into());
        }
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(name, &mut hash);
        Dim::Symbol(format!("expression#{:016x}", std::hash::Hasher::finish(&hash)).into())
    }

    /// The extent, if known.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            Dim::Symbol(_) => None,
        }
    }

    /// The extent that `formula` computes when this one is known, else a symbol named by `text` with this
    /// extent's name in place of `{}`.
    pub fn map(&self, text: &str, formula: impl FnOnce(usize) -> usize) -> Dim {
        match self {
            Dim::Known(n) => Dim::Known(formula(*n)),
            Dim::Symbol(name) => Dim::symbol(text.replace("{}", name)),
        }
    }

    /// Sum of two extents; known sums saturate.
    pub fn plus(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Known(a), Dim::Known(b)) => Dim::Known(a.saturating_add(*b)),
            _ => Dim::symbol(format!("({self}+{other})")),
        }
    }

    /// Product of two extents; known products saturate.
    pub fn times(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Known(1), d) | (d, Dim::Known(1)) => d.clone(),
            (Dim::Known(a), Dim::Known(b)) => Dim::Known(a.saturating_mul(*b)),
            _ => Dim::symbol(format!("({self}*{other})")),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(name) => f.write_str(name),
        }
    }
}

/// The shape of a value: the extents of its axes, or unknown even in rank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Rank known; extents known or symbolic.
    Ranked(Vec<Dim>),
    /// Nothing known yet (an `If` whose branches differ in rank, say).
    Unknown,
}

impl Shape {
    /// A shape with all extents known.
    pub fn known(dims: &[usize]) -> Shape {
        Shape::Ranked(dims.iter().map(|&n| Dim::Known(n)).collect())
    }

    /// The axes, if the rank is known.
    pub fn dims(&self) -> Option<&[Dim]> {
        match self {
            Shape::Ranked(dims) => Some(dims),
            Shape::Unknown => None,
        }
    }

    /// The extents, if all are known.
    pub fn extents(&self) -> Option<Vec<usize>> {
        self.dims()?.iter().map(Dim::known).collect()
    }

    /// The number of axes, if known.
    pub fn rank(&self) -> Option<usize> {
        self.dims().map(<[Dim]>::len)
    }
}

impl From<Vec<Dim>> for Shape {
    fn from(dims: Vec<Dim>) -> Shape {
        Shape::Ranked(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dims() {
            None => f.write_str("[..]"),
            Some(dims) => {
                let texts: Vec<String> = dims.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

/// NumPy broadcasting of two shapes; `None` when two known extents clash.
///
/// A symbol against a number above one takes the number (anything else would fail at run time); two different
/// symbols give a symbol named after both.
pub fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    let (Some(a), Some(b)) = (a.dims(), b.dims()) else { return Some(Shape::Unknown) };
    let rank = a.len().max(b.len());
    let one = Dim::Known(1);
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        let from_end = rank - axis;
        let x = if from_end <= a.len() { &a[a.len() - from_end] } else { &one };
        let y = if from_end <= b.len() { &b[b.len() - from_end] } else { &one };
        dims.push(match (x, y) {
            (x, y) if x == y => x.clone(),
            (Dim::Known(1), d) | (d, Dim::Known(1)) => d.clone(),
            (Dim::Known(_), Dim::Known(_)) => return None,
            (Dim::Known(n), Dim::Symbol(_)) | (Dim::Symbol(_), Dim::Known(n)) => Dim::Known(*n),
            (x, y) => Dim::symbol(format!("broadcast({x},{y})")),
        });
    }
    Some(Shape::Ranked(dims))
}

/// Index of `axis` counted from the front; negative axes count from the end. `None` when out of range.
pub fn normalize_axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = rank as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_computations_on_a_symbol_give_equal_symbols() {
        let h = Dim::symbol("H");
        assert_eq!(h.plus(&2.into()), Dim::symbol("H").plus(&2.into()));
        assert_ne!(h.plus(&2.into()), h.plus(&3.into()));
    }

    #[test]
    fn symbol_texts_stay_bounded() {
        let mut d = Dim::symbol("H");
        for _ in 0..1000 {
            d = d.plus(&d.clone());
        }
        assert!(d.to_string().len() <= MAX_SYMBOL);
    }

    #[test]
    fn broadcasting_follows_numpy_and_refuses_clashes() {
        let s = |d: &[usize]| Shape::known(d);
        assert_eq!(broadcast(&s(&[2, 1]), &s(&[3])), Some(s(&[2, 3])));
        assert_eq!(broadcast(&s(&[2]), &s(&[3])), None);
        let n = Shape::Ranked(vec![Dim::symbol("N"), Dim::Known(4)]);
        assert_eq!(broadcast(&n, &s(&[4])), Some(n));
    }
}
