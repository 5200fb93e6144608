//! The places of a PE array, and whom each shares its chain, senders and ports with.

use std::collections::HashMap;

use crate::arch::Architecture;
use crate::layer::Operand;
use crate::mapping::Mapping;

/// One PE's place in every loop, and whom it shares what with.
pub(crate) struct Place {
    pub index: [usize; 8],
    /// PEs that add up the same sums.
    pub chain: usize,
    /// Sender of its activations, of its weights, taker of its sums.
    pub source: usize,
    pub weights: usize,
    pub sums: usize,
    /// PEs of one set number hold the same weights.
    pub set: usize,
}

/// The number of a key, given in order of appearance.
fn number(known: &mut HashMap<Vec<usize>, usize>, key: Vec<usize>) -> usize {
    let next = known.len();
    *known.entry(key).or_insert(next)
}

/// Places of the array, numbered by whom they share chains, senders and ports with.
pub(crate) fn places(arch: &Architecture, mapping: &Mapping) -> Vec<Place> {
    // Index in every loop, and digits of the axes that have ports of their own for each tensor.
    let mut found = vec![([0usize; 8], [vec![], vec![], vec![]], vec![])];
    for (axis, spread) in arch.axes.iter().zip(&mapping.spatial) {
        for &(dim, n) in spread {
            let mut wider = Vec::with_capacity(found.len() * n);
            for (index, ports, chain) in &found {
                for i in 0..n {
                    let (mut index, mut ports, mut chain): ([usize; 8], [Vec<usize>; 3], Vec<usize>) =
                        (*index, ports.clone(), chain.clone());
                    index[dim as usize] = index[dim as usize] * n + i;
                    for operand in Operand::ALL {
                        // Ports that bring the same are one multicast group, and wait for each other.
                        let apart = operand == Operand::Psum || operand.depends_on(dim);
                        if axis.has_port(operand) && apart {
                            ports[operand as usize].push(i);
                        }
                    }
                    if Operand::Psum.depends_on(dim) {
                        chain.push(i);
                    }
                    wider.push((index, ports, chain));
                }
            }
            found = wider;
        }
    }
    let mut known: [HashMap<Vec<usize>, usize>; 5] = Default::default();
    let [chains, sources, loaders, takers, sets] = &mut known;
    let mut list = Vec::with_capacity(found.len());
    for (index, [iact, weight, psum], chain) in found {
        let [_, g, m, c, _, _, r, s] = index;
        list.push(Place {
            index,
            chain: number(chains, chain),
            source: number(sources, iact),
            weights: number(loaders, weight),
            // Sums that a chain adds up leave by the port of one of its PEs.
            sums: number(takers, psum),
            set: number(sets, vec![g, m, c, r, s]),
        });
    }
    list
}
