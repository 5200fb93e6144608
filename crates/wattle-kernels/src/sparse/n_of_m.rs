//! N:M: of every m neighbouring columns of a row, n are kept (2:4 and its like).

use std::fmt;

/// How many of how many are kept; both are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NOfM {
    n: u32,
    m: u32,
}

/// Patterns that are looked for, sparser ones first.
const KNOWN: [(u32, u32); 9] = [(1, 16), (1, 8), (2, 16), (1, 4), (2, 8), (4, 16), (1, 2), (2, 4), (4, 8)];
/// Share of the places of a pattern that must be taken; below, single elements cost less.
const FILLED: f64 = 0.95;

impl NOfM {
    /// `None` unless both are powers of two, n is less than m and m at most 16.
    pub fn new(n: u32, m: u32) -> Option<NOfM> {
        (n.is_power_of_two() && m.is_power_of_two() && n < m && m <= 16).then_some(NOfM { n, m })
    }

    /// The pattern that fits a matrix `[rows, columns]`, if one does.
    pub fn of(rows: usize, columns: usize, keep: impl Fn(usize, usize) -> bool) -> Option<NOfM> {
        KNOWN.iter().filter_map(|&(n, m)| NOfM::new(n, m)).find(|pattern| {
            let m = pattern.m as usize;
            if columns == 0 || !columns.is_multiple_of(m) {
                return false;
            }
            let count =
                |group: usize| (0..m).filter(|i| keep(group * m / columns, group * m % columns + i)).count();
            let groups = rows * columns / m;
            let mut kept = 0;
            let fits = (0..groups).all(|group| {
                let count = count(group);
                kept += count;
                count <= pattern.n as usize
            });
            fits && kept as f64 >= FILLED * (groups * pattern.n as usize) as f64
        })
    }

    /// Kept columns of a group.
    pub fn n(self) -> usize {
        self.n as usize
    }

    /// Columns of a group.
    pub fn m(self) -> usize {
        self.m as usize
    }

    /// The columns of a row that are stored: those to keep, and where a group has fewer, others of it.
    pub(super) fn columns(self, columns: usize, keep: impl Fn(usize) -> bool) -> Vec<u32> {
        let mut list = Vec::with_capacity(columns / self.m() * self.n());
        for group in (0..columns).step_by(self.m()) {
            let (kept, others): (Vec<_>, Vec<_>) =
                (group..group + self.m()).partition(|&column| keep(column));
            assert!(
                kept.len() <= self.n(),
                "a group keeps {} of {} columns: it is not {self}",
                kept.len(),
                self.m()
            );
            let first = list.len();
            list.extend(kept.iter().chain(&others).take(self.n()).map(|&column| column as u32));
            list[first..].sort_unstable();
        }
        list
    }

    /// Powers of two that n and m are.
    pub(super) fn shifts(self) -> [u32; 2] {
        [self.n.trailing_zeros(), self.m.trailing_zeros()]
    }
}

impl fmt::Display for NOfM {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.n, self.m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sparsest_pattern_that_fits_is_found() {
        let every = |n: usize, m: usize| move |row: usize, column: usize| (column + row) % m < n;
        assert_eq!(NOfM::of(5, 32, every(2, 4)), NOfM::new(2, 4));
        assert_eq!(NOfM::of(5, 32, every(1, 4)), NOfM::new(1, 4));
        assert_eq!(NOfM::of(5, 32, |_, c| c % 8 < 4), NOfM::new(4, 8), "four neighbours are not 2:4");
        assert_eq!(NOfM::of(5, 32, every(3, 4)), None);
        assert_eq!(NOfM::of(5, 30, every(2, 4)), None, "columns are not whole groups");
        assert_eq!(NOfM::of(4, 32, |row, c| c % 4 < 2 && row > 0), None, "a quarter of the places is empty");
        assert_eq!(NOfM::new(2, 4).unwrap().columns(8, |c| c == 3), [0, 3, 4, 5]);
    }
}
