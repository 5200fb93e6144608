//! Mappings: which loops run inside a PE, over the array, at the buffer and at external memory, and in what order.

use std::fmt;

use crate::arch::Architecture;
use crate::error::AccelError;
use crate::layer::{Dim, Layer};

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
    /// Its loops, from the innermost out.
    fn dims(self) -> &'static [Dim] {
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

/// Loop bounds at every level of one layer. The product over the levels may exceed an extent: the last tile then
/// is smaller.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// For each axis of the array, loops spread over it.
    pub spatial: Vec<Vec<(Dim, usize)>>,
    /// Bounds inside a PE.
    pub pe: [usize; 8],
    /// Bounds of the loops over PE tiles within a tile of the buffer.
    pub glb: [usize; 8],
    /// Order of those loops.
    pub glb_order: Order,
    /// Bounds of the loops over tiles of the buffer.
    pub dram: [usize; 8],
    /// Order of those loops.
    pub dram_order: Order,
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

    /// Refuses loops that an axis cannot hold and levels that do not cover an extent.
    pub fn check(&self, arch: &Architecture, layer: &Layer) -> Result<(), AccelError> {
        let infeasible = |constraint: String, required: usize, available: usize| AccelError::Infeasible {
            layer: layer.name.clone(),
            arch: arch.name.clone(),
            constraint,
            required: required.to_string(),
            available: available.to_string(),
        };
        if self.spatial.len() != arch.axes.len() {
            return Err(infeasible("axes of the array".into(), self.spatial.len(), arch.axes.len()));
        }
        for (axis, loops) in arch.axes.iter().zip(&self.spatial) {
            let used: usize = loops.iter().map(|(_, n)| n).product();
            if used > axis.size {
                return Err(infeasible(format!("positions of `{}`", axis.name), used, axis.size));
            }
            if let Some((dim, n)) = loops.iter().find(|(d, n)| *n > 1 && !axis.allows(*d)) {
                return Err(infeasible(format!("{} over `{}`", dim.letter(), axis.name), *n, 1));
            }
        }
        for dim in Dim::ALL {
            let i = dim as usize;
            let covered = self.spread(dim) * self.pe[i] * self.glb[i] * self.dram[i];
            if covered < layer.bound(dim) {
                return Err(infeasible(format!("iterations of {}", dim.letter()), layer.bound(dim), covered));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Mapping {
    /// `DRAM G2 P4 | GLB C8 Q32 | cluster row C8 ... | PE M32 C8`, loops from the outermost in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = |bounds: &[usize; 8], order: Order| {
            let mut loops: Vec<Dim> = loops(order).collect();
            loops.reverse();
            let texts = loops.iter().filter(|&&d| bounds[d as usize] > 1);
            texts.map(|&d| format!("{}{}", d.letter(), bounds[d as usize])).collect::<Vec<_>>().join(" ")
        };
        write!(f, "DRAM {} | GLB {}", level(&self.dram, self.dram_order), level(&self.glb, self.glb_order))?;
        for axis in &self.spatial {
            let texts: Vec<_> = axis.iter().map(|(d, n)| format!("{}{n}", d.letter())).collect();
            write!(f, " | x {}", texts.join(" "))?;
        }
        write!(f, " | PE {}", level(&self.pe, ORDERS[0]))
    }
}
