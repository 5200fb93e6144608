//! PE tiles with what no mapping with them goes below: arrays that leave the same loops to a PE share them.

use std::collections::HashMap;

use super::works::Quick;
use crate::bounds::Floor;
use crate::constraints::Limits;
use crate::evaluation::Context;
use crate::space::{Spatial, pe_tiles, rest};

/// A PE tile in a format.
pub(super) struct Tile {
    pub pe: [usize; 8],
    /// Least energy of all mappings, pJ, and the cycles for which power that flows anyway is in it.
    pub energy: (f64, f64),
    /// Least cycles of all visits, over [`Floor::share`] of an array.
    pub steps: f64,
}

/// PE tiles in a format, from the least energy up.
#[derive(Default)]
pub(super) struct Tiles {
    pub list: Vec<Tile>,
    /// Fewest of all `steps`.
    pub steps: f64,
}

/// The PE tiles of all arrays of a layer.
pub(super) struct Shelves {
    /// For each extent of the loops that are left, tiles in each format.
    shelves: Vec<Vec<Tiles>>,
    /// The shelf of each array.
    of: Vec<u32>,
}

impl Shelves {
    pub fn of(contexts: &[Context<'_>], floors: &[Floor], arrays: &[Spatial], limits: &Limits) -> Shelves {
        let (arch, layer) = (contexts[0].arch, contexts[0].layer);
        let mut known: HashMap<[usize; 8], u32, Quick> = HashMap::default();
        let mut energies: Vec<HashMap<[usize; 8], (f64, f64), Quick>> =
            vec![HashMap::default(); floors.len()];
        let (mut shelves, mut of) = (vec![], Vec::with_capacity(arrays.len()));
        for array in arrays {
            let left = rest(layer, array);
            let at = *known.entry(left).or_insert_with(|| {
                let pes = pe_tiles(arch, &left, limits);
                let formats = contexts.iter().zip(floors).zip(&mut energies);
                shelves.push(
                    formats
                        .map(|((context, floor), energies)| {
                            let tile = |&pe: &[usize; 8]| {
                                let energy =
                                    *energies.entry(pe).or_insert_with(|| context.energy_floor(floor, &pe));
                                Tile { pe, energy, steps: floor.steps(context, &pe, &left) }
                            };
                            let mut list: Vec<Tile> = pes.iter().map(tile).collect();
                            list.sort_by(|a, b| a.energy.0.total_cmp(&b.energy.0));
                            let steps = list.iter().map(|t| t.steps).fold(f64::INFINITY, f64::min);
                            Tiles { list, steps }
                        })
                        .collect(),
                );
                shelves.len() as u32 - 1
            });
            of.push(at);
        }
        Shelves { shelves, of }
    }

    /// The tiles of an array, by format.
    pub fn array(&self, at: usize) -> &[Tiles] {
        &self.shelves[self.of[at] as usize]
    }

    /// Branches of all arrays together.
    pub fn branches(&self) -> u64 {
        (0..self.of.len()).flat_map(|at| self.array(at)).map(|tiles| tiles.list.len() as u64).sum()
    }
}
