//! The work of PE tiles, remembered: many arrays share it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use crate::evaluation::Context;
use crate::skipping::{PeWork, fullest_words};
use crate::space::chain;

/// Remembers the work of PE tiles: many arrays share it.
#[derive(Default)]
pub(crate) struct Works(HashMap<WorkKey, PeWork, Quick>, HashMap<[usize; 8], Option<f64>, Quick>);

/// The tile; channels and taps of a chain; groups of filters.
type WorkKey = ([usize; 8], (usize, usize), usize);

/// Hashes small numbers by multiplying: the keys are ours, nobody can choose them to collide.
#[derive(Clone, Default)]
pub(crate) struct Quick(u64);

impl BuildHasher for Quick {
    type Hasher = Quick;

    fn build_hasher(&self) -> Quick {
        Quick(0)
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

impl Works {
    pub fn of(&mut self, context: &Context<'_>, pe: &[usize; 8], spread: &[usize; 8]) -> PeWork {
        let (members, filters) = chain(spread);
        // Without skipping PEs never wait for each other.
        let (members, filters) = if context.skips() { (members, filters) } else { ((1, 1), 1) };
        let key = (*pe, members, filters);
        let Works(works, fullest) = self;
        *works.entry(key).or_insert_with(|| {
            let mut work = PeWork::of(context, pe, members, filters);
            // Known weights decide by the fullest PE, whatever the array.
            let exact = fullest.entry(*pe).or_insert_with(|| fullest_words(context, pe));
            work.weight_words = exact.unwrap_or(work.weight_words);
            work
        })
    }
}
