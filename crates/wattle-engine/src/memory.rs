//! Where values live: storages with lifetimes, packed into one arena, or left in the store.

use wattle_kernels::arena::{Home, Span};

/// Names a storage of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StorageId(pub usize);

/// A run of bytes that some value occupies while it lives.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    /// Size.
    pub bytes: usize,
    /// First step that writes it; persistent storages live from before the run.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
    /// Whether it takes part of the arena or lies in the store.
    pub home: Home,
    /// Set from outside before a run or kept between runs (inputs, parameters, constants, outputs).
    pub persistent: bool,
}

/// Alignment of every span in bytes: a cache line, and a full AVX-512 vector.
pub(crate) const ALIGNMENT: usize = 64;

/// Gives each storage an offset such that no two that live at the same time overlap; returns the spans and the
/// size of the arena in bytes.
///
/// Greedy by size (Pisarchyk & Lee 2020, section 5.2): the largest first, each at the lowest free offset.
pub(crate) fn place(storages: &[Storage]) -> (Vec<Span>, usize) {
    let mut order: Vec<usize> = (0..storages.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(storages[i].bytes), i));
    let mut spans = vec![Span::default(); storages.len()];
    let mut placed: Vec<usize> = vec![];
    let mut total = 0;
    for index in order {
        let storage = &storages[index];
        if storage.home != Home::Arena {
            spans[index] = Span { home: storage.home, offset: 0, bytes: storage.bytes };
            continue;
        }
        if storage.bytes == 0 {
            continue;
        }
        let meets = |other: &Storage| {
            storage.persistent
                || other.persistent
                || storage.first <= other.last && other.first <= storage.last
        };
        let mut offset = 0;
        // `placed` is sorted by offset: slide past everything that is alive at the same time and in the way.
        for &other in &placed {
            if meets(&storages[other]) {
                let span: Span = spans[other];
                if offset + storage.bytes <= span.offset {
                    break;
                }
                offset = offset.max(span.end().next_multiple_of(ALIGNMENT));
            }
        }
        spans[index] = Span::in_arena(offset, storage.bytes);
        let at = placed.partition_point(|&p| spans[p].offset <= offset);
        placed.insert(at, index);
        total = total.max(offset + storage.bytes);
    }
    (spans, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(bytes: usize, first: usize, last: usize) -> Storage {
        Storage { bytes, first, last, home: Home::Arena, persistent: false }
    }

    #[test]
    fn storages_alive_together_never_overlap_and_others_share() {
        let storages = [
            storage(100, 0, 2),
            storage(200, 1, 3),
            storage(100, 3, 4),
            Storage { persistent: true, ..storage(64, 0, 0) },
            storage(300, 5, 6),
        ];
        let (spans, total) = place(&storages);
        for (i, a) in storages.iter().enumerate() {
            for (j, b) in storages.iter().enumerate().skip(i + 1) {
                let together = a.persistent || b.persistent || a.first <= b.last && b.first <= a.last;
                let apart = spans[i].end() <= spans[j].offset || spans[j].end() <= spans[i].offset;
                assert!(!together || apart, "{i} and {j} overlap");
            }
        }
        assert!(total < 764, "no memory was shared: {total}");
    }
}
