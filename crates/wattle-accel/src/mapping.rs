//! Mappings: which loops run inside a PE, over the array, at each buffer and at external memory, and in what order.

use crate::arch::Architecture;
use crate::error::AccelError;
use crate::layer::{Dim, Layer, Operand};

/// Loops that move together: only the group of the innermost loop decides which tensor stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// N, P, Q: weights stay.
    Positions,
    /// C, R, S: partial sums stay.
    Reduction,
    /// M: activations stay.
    Filters,
}

impl Group {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Group::Positions => "positions",
            Group::Reduction => "reduction",
            Group::Filters => "filters",
        }
    }

    /// The group of a name.
    pub fn from_name(name: &str) -> Option<Group> {
        [Group::Positions, Group::Reduction, Group::Filters].into_iter().find(|g| g.name() == name)
    }

    /// Its loops, from the innermost out.
    pub(crate) fn dims(self) -> &'static [Dim] {
        match self {
            Group::Positions => &[Dim::Q, Dim::P, Dim::N],
            Group::Reduction => &[Dim::S, Dim::R, Dim::C],
            Group::Filters => &[Dim::M],
        }
    }
}

/// Order of the groups at one level, from the innermost out; G is always outermost.
pub type Order = [Group; 3];

/// All orders.
pub const ORDERS: [Order; 6] = {
    use Group::{Filters as F, Positions as P, Reduction as R};
    [[P, R, F], [P, F, R], [R, P, F], [R, F, P], [F, P, R], [F, R, P]]
};

/// The loops of one level, from the innermost out.
pub(crate) fn loops(order: Order) -> impl Iterator<Item = Dim> {
    order.into_iter().flat_map(|g| g.dims().iter().copied()).chain([Dim::G])
}

/// The loops of one level over the tiles of the next one in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelLoops {
    /// Bounds of N, G, M, C, P, Q, R, S.
    pub bounds: [usize; 8],
    /// Order of their groups.
    pub order: Order,
}

impl LevelLoops {
    /// No loops.
    pub const NONE: LevelLoops = LevelLoops { bounds: [1; 8], order: ORDERS[0] };

    /// Loops with these bounds in this order.
    pub fn new(bounds: [usize; 8], order: Order) -> LevelLoops {
        LevelLoops { bounds, order }
    }
}

/// Loop bounds at every level of one layer. The product over the levels may exceed an extent: the last tile then
/// is smaller.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// For each axis of the array, loops spread over it.
    pub spatial: Vec<Vec<(Dim, usize)>>,
    /// Bounds inside a PE.
    pub pe: [usize; 8],
    /// From external memory in: the loops there, over tiles of the outermost buffer; then those of each buffer, over
    /// tiles of the next one, and of the last one over tiles of the PEs.
    pub levels: Vec<LevelLoops>,
}

impl Mapping {
    /// Positions of the array over which a loop is spread.
    pub fn spread(&self, dim: Dim) -> usize {
        self.spatial.iter().flatten().filter(|(d, _)| *d == dim).map(|(_, n)| n).product()
    }

    /// Active PEs.
    pub fn active_pes(&self) -> usize {
        self.spatial.iter().flatten().map(|(_, n)| n).product()
    }

    /// PE tiles, one after the other.
    pub fn tiles(&self) -> f64 {
        (0..8).map(|i| self.levels.iter().map(|level| level.bounds[i]).product::<usize>() as f64).product()
    }

    /// Bounds inside a tile of a buffer, counted from the outermost: those of the levels inside it, spread over the
    /// array and in the PEs.
    pub(crate) fn held(&self, buffer: usize, spread: &[usize; 8]) -> [usize; 8] {
        std::array::from_fn(|i| {
            let inside: usize = self.levels[buffer + 1..].iter().map(|level| level.bounds[i]).product();
            inside * spread[i] * self.pe[i]
        })
    }

    /// Refuses loops that an axis cannot hold and levels that do not cover an extent.
    pub fn check(&self, arch: &Architecture, layer: &Layer) -> Result<(), AccelError> {
        let infeasible = |constraint: String, required: String, available: String| AccelError::Infeasible {
            layer: layer.name.clone(),
            arch: arch.name.clone(),
            constraint,
            required,
            available,
        };
        let product = |factors: Vec<usize>| {
            let product = factors.into_iter().try_fold(1usize, |n, m| n.checked_mul(m));
            product.filter(|&n| n > 0).ok_or_else(|| {
                AccelError::invalid(
                    format!("mapping of `{}`", layer.name),
                    "a factor is 0, or the factors multiply to more than 2^64",
                )
            })
        };
        if self.spatial.len() != arch.axes.len() {
            let (found, expected) = (self.spatial.len(), arch.axes.len());
            return Err(infeasible(
                "axes of the array".into(),
                format!("{found} axes"),
                format!("{expected} axes"),
            ));
        }
        if self.levels.len() != arch.buffers.len() + 1 {
            let (found, expected) = (self.levels.len(), arch.buffers.len() + 1);
            return Err(infeasible(
                "levels of loops, external memory and each buffer".into(),
                format!("{found} levels"),
                format!("{expected} levels"),
            ));
        }
        for (axis, loops) in arch.axes.iter().zip(&self.spatial) {
            let used = product(loops.iter().map(|(_, n)| *n).collect())?;
            if used > axis.size {
                let texts: Vec<String> = loops.iter().map(|(d, n)| format!("{}{n}", d.letter())).collect();
                return Err(infeasible(
                    format!("{} over the axis `{}`", texts.join(" "), axis.name),
                    format!("{used} positions"),
                    format!("{} positions", axis.size),
                ));
            }
            if let Some((dim, n)) = loops.iter().find(|(d, n)| *n > 1 && !axis.allows(*d)) {
                return Err(infeasible(
                    format!("{}{n} over the axis `{}`", dim.letter(), axis.name),
                    format!("an axis that takes {}", dim.letter()),
                    format!("one that takes {}", axis.dims),
                ));
            }
        }
        for dim in Dim::ALL {
            let i = dim as usize;
            let spread = self.spatial.iter().flatten().filter(|(d, _)| *d == dim).map(|(_, n)| *n);
            let levels = self.levels.iter().rev().map(|level| level.bounds[i]);
            let covered = product(spread.chain([self.pe[i]]).chain(levels).collect())?;
            if covered < layer.bound(dim) {
                return Err(infeasible(
                    format!("factors of {} over all levels", dim.letter()),
                    format!("{} iterations", layer.bound(dim)),
                    format!("{covered} iterations"),
                ));
            }
        }
        Ok(())
    }
}

/// What a level lacks for a tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Misfit {
    pub limit: Limit,
    /// In words of a pad or bytes of the buffer.
    pub required: f64,
    pub available: f64,
}

/// Where a tile may not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// A pad of the PE.
    Pad(Operand),
    /// A buffer, counted from the outermost, all tensors together.
    Buffer(usize),
    /// The part of a buffer for a tensor.
    BufferOf(usize, Operand),
}

impl Misfit {
    /// How far off: required over available.
    pub fn excess(&self) -> f64 {
        self.required / self.available.max(1.0)
    }

    /// The error for a layer, with the loops of a PE that need so much where it is a pad that lacks it.
    pub fn error(&self, arch: &Architecture, layer: &Layer, pe: &[usize; 8]) -> AccelError {
        let tile = |dims: &[Dim]| {
            let texts = dims.iter().filter(|&&d| pe[d as usize] > 1);
            let texts: Vec<String> = texts.map(|&d| format!("{}0={}", d.letter(), pe[d as usize])).collect();
            if texts.is_empty() { String::new() } else { format!(" ({})", texts.join(" ")) }
        };
        // One buffer needs no name.
        let buffer = |at: usize| match arch.buffers.as_slice() {
            [_] => "buffer".to_string(),
            several => format!("buffer `{}`", several[at].name),
        };
        let (constraint, unit) = match self.limit {
            Limit::Pad(Operand::Iact) => {
                let loops = tile(&[Dim::N, Dim::G, Dim::C, Dim::P, Dim::Q, Dim::R, Dim::S]);
                (format!("activations C0*R0*S0{loops} in the iact pad of a PE"), "words")
            }
            Limit::Pad(Operand::Psum) => {
                let loops = tile(&[Dim::N, Dim::G, Dim::M, Dim::P, Dim::Q]);
                (format!("partial sums M0{loops} in the psum pad of a PE"), "words")
            }
            Limit::Pad(Operand::Weight) => {
                let loops = tile(&[Dim::G, Dim::M, Dim::C, Dim::R, Dim::S]);
                (format!("weights of the fullest PE{loops} in the weight pad, as stored"), "words")
            }
            Limit::Buffer(at) => (format!("tiles of all tensors in the {}", buffer(at)), "bytes"),
            Limit::BufferOf(at, operand) => {
                (format!("the {} tile in the {}", operand.name(), buffer(at)), "bytes")
            }
        };
        AccelError::Infeasible {
            layer: layer.name.clone(),
            arch: arch.name.clone(),
            constraint,
            required: format!("{:.0} {unit}", self.required.ceil()),
            available: format!("{:.0} {unit}", self.available),
        }
    }
}

impl Mapping {
    /// `DRAM G2 P4 | GLB C8 Q32 | x C8 ... | PE M32 C8`, loops from the outermost in; `buffers` are the names of the
    /// buffers, from the outermost in.
    pub fn text(&self, buffers: &[String]) -> String {
        let level = |LevelLoops { bounds, order }: &LevelLoops| {
            let mut loops: Vec<Dim> = loops(*order).collect();
            loops.reverse();
            let texts = loops.iter().filter(|&&d| bounds[d as usize] > 1);
            texts.map(|&d| format!("{}{}", d.letter(), bounds[d as usize])).collect::<Vec<_>>().join(" ")
        };
        let names = std::iter::once("DRAM".to_string()).chain(buffers.iter().map(|b| b.to_uppercase()));
        let mut parts: Vec<String> =
            names.zip(&self.levels).map(|(name, loops)| format!("{name} {}", level(loops))).collect();
        for axis in &self.spatial {
            let texts: Vec<_> = axis.iter().map(|(d, n)| format!("{}{n}", d.letter())).collect();
            parts.push(format!("x {}", texts.join(" ")));
        }
        parts.push(format!("PE {}", level(&LevelLoops::new(self.pe, ORDERS[0]))));
        parts.join(" | ")
    }
}
