//! The stored form of a sparse matrix: which elements are kept, in the order in which the kernels read them.
//!
//! Columns are cut into blocks whose panel of activations fits the first-level cache; rows are cut into parts of
//! equal work for the threads. A part of a block is a [`Tile`]. Within a tile, rows with equally many elements stand
//! together, so that the inner loop's length is the same time after time and its branch is predicted.

use std::ops::Range;

use super::n_of_m::NOfM;
use crate::pages::HugeVec;

/// Rows that share a column list in the blocked form: a block is `HEIGHT x 1`.
pub const HEIGHT: usize = 4;

/// Columns of a block, at most. With 64 activations for each a panel has 64 KiB, more than most first-level caches: half
/// of it comes from the second level, which costs less than beginning and ending rows twice as often.
pub const BLOCK_COLUMNS: usize = 256;

/// Elements of a row in a block, on average, from which on blocks have half as many columns: at 20 % density and more a
/// panel that fits the first-level cache counts for more than beginning rows less often.
const LONG_ROW: usize = 40;

/// How a sparse matrix is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Rows of a block of elements: 1 (unstructured) or [`HEIGHT`].
    pub height: usize,
    /// Most columns of a block, at most 65 536.
    pub columns: usize,
    /// Parts of equal work, at least 1.
    pub parts: usize,
    /// Store so many of every so many columns, which the matrix must keep to; for blocks of 1 x 1.
    pub pattern: Option<NOfM>,
}

impl Cut {
    /// Unstructured, for this many threads.
    pub fn unstructured(threads: usize) -> Cut {
        Cut { height: 1, columns: BLOCK_COLUMNS, parts: threads.max(1), pattern: None }
    }

    /// N:M, for this many threads.
    pub fn n_of_m(pattern: NOfM, threads: usize) -> Cut {
        // Every other column: half as many already make rows long, and their panel stays in the first-level cache.
        let columns = if 2 * pattern.n() >= pattern.m() { BLOCK_COLUMNS / 2 } else { BLOCK_COLUMNS };
        Cut { columns, pattern: Some(pattern), ..Cut::unstructured(threads) }
    }

    /// Blocks of `4 x 1`, for this many threads.
    pub fn blocked(threads: usize) -> Cut {
        Cut { height: HEIGHT, ..Cut::unstructured(threads) }
    }
}

/// Where a row of a tile stands in the row's list of tiles.
pub(super) const FIRST: u8 = 1;
pub(super) const LAST: u8 = 2;

/// Rows of a tile with the same number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// [`FIRST`], [`LAST`] or both: whether these rows begin and end here.
    pub stage: u8,
    /// Elements (or blocks of elements) of each row.
    pub elements: u32,
    /// Rows (or bands of [`HEIGHT`] rows).
    pub rows: u32,
}

/// The elements of one part's rows in one block of columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub groups: Range<usize>,
    /// First of its rows in `SparseWeights::row_list`.
    pub row: usize,
    /// First of its elements in `SparseWeights::indices` or `SparseWeights::offsets`.
    pub element: usize,
}

/// A sparse matrix `[rows, columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseWeights {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) height: usize,
    /// Columns with any element (or all, if few are without), in order.
    pub(super) used: Vec<u32>,
    /// Columns of a block; the last may have fewer.
    pub(super) block: usize,
    pub(super) parts: usize,
    /// First band of each part, and the end of the last.
    part_starts: Vec<usize>,
    /// `[block][part]`.
    pub(super) tiles: Vec<Tile>,
    pub(super) groups: Vec<Group>,
    pub(super) row_list: Vec<u32>,
    /// Column within the block; empty where a pattern gives the groups.
    pub(super) indices: HugeVec<u16>,
    /// Column within its group of a pattern.
    pub(super) offsets: Vec<u8>,
    pub(super) pattern: Option<NOfM>,
    /// `height` values for each index.
    pub(super) values: HugeVec<f32>,
    /// `row * columns + column` of each value; `u32::MAX` for rows beyond the last.
    pub(super) positions: Vec<u32>,
    kept: usize,
    /// 0, 1, .. up to the rows: a list of columns for gradients by row.
    pub(super) row_numbers: Vec<u32>,
}

impl SparseWeights {
    /// The non-zeros of a row-major matrix `[rows, columns]`, or `[columns, rows]` if `transposed`.
    pub fn new(rows: usize, columns: usize, transposed: bool, weights: &[f32], cut: Cut) -> SparseWeights {
        assert_eq!(weights.len(), rows * columns, "a {rows} x {columns} matrix");
        let at = |row: usize, column: usize| {
            if transposed { weights[column * rows + row] } else { weights[row * columns + column] }
        };
        let mut sparse = SparseWeights::pattern(rows, columns, |r, c| at(r, c) != 0.0, cut);
        sparse.fill(at);
        sparse
    }

    /// The elements for which `keep(row, column)` holds, all zero until [`SparseWeights::fill`].
    pub fn pattern(
        rows: usize,
        columns: usize,
        keep: impl Fn(usize, usize) -> bool,
        cut: Cut,
    ) -> SparseWeights {
        assert!(cut.height == 1 || cut.height == HEIGHT, "blocks are 1 x 1 or {HEIGHT} x 1");
        assert!(cut.columns > 0 && cut.columns <= 1 << 16, "indices have 16 bits");
        assert!(
            rows * columns < u32::MAX as usize,
            "{rows} x {columns} exceeds the reach of 32-bit positions"
        );
        if let Some(pattern) = cut.pattern {
            assert!(cut.height == 1, "N:M is of single rows");
            assert!(
                columns.is_multiple_of(pattern.m()),
                "{columns} columns are not whole groups of {pattern}"
            );
        }
        let bands = rows.div_ceil(cut.height);
        let mut kept = 0;
        // Columns kept in each band of rows.
        let lists: Vec<Vec<u32>> = (0..bands)
            .map(|band| {
                if let Some(pattern) = cut.pattern {
                    kept += (0..columns).filter(|&column| keep(band, column)).count();
                    return pattern.columns(columns, |column| keep(band, column));
                }
                let of_band = band * cut.height..rows.min((band + 1) * cut.height);
                (0..columns)
                    .filter(|&column| {
                        let count = of_band.clone().filter(|&row| keep(row, column)).count();
                        kept += count;
                        count > 0
                    })
                    .map(|column| column as u32)
                    .collect()
            })
            .collect();
        let (used, place) = match cut.pattern {
            Some(_) => ((0..columns as u32).collect(), (0..columns as u32).collect()),
            None => used_columns(columns, &lists),
        };
        // With so many elements a row, half as many columns make rows long enough, and their panel stays near.
        let stored: usize = lists.iter().map(Vec::len).sum();
        let long = stored * cut.columns >= LONG_ROW * bands * used.len().max(1);
        let most = if long { cut.columns.div_ceil(2) } else { cut.columns };
        let blocks = used.len().div_ceil(most).max(1);
        let block = used.len().div_ceil(blocks).next_multiple_of(cut.pattern.map_or(1, NOfM::m)).max(1);
        // Whole groups may fill fewer blocks.
        let blocks = used.len().div_ceil(block).max(1);
        let parts = partition(&lists, cut.parts.max(1));
        let mut out = SparseWeights {
            rows,
            columns,
            height: cut.height,
            used,
            block,
            parts: parts.len(),
            part_starts: parts.iter().map(|p| p.start).chain([bands]).collect(),
            tiles: vec![],
            groups: vec![],
            row_list: vec![],
            indices: HugeVec::default(),
            offsets: vec![],
            pattern: cut.pattern,
            values: HugeVec::default(),
            positions: vec![],
            kept,
            row_numbers: (0..rows as u32).collect(),
        };
        let mut indices = vec![];
        for b in 0..blocks {
            for part in &parts {
                out.add_tile(b, part.clone(), &lists, &place, &mut indices);
            }
        }
        out.indices = HugeVec::from(&*indices);
        out.values = HugeVec::zeroed(out.positions.len());
        out
    }

    fn add_tile(
        &mut self,
        block: usize,
        bands: Range<usize>,
        lists: &[Vec<u32>],
        place: &[u32],
        indices: &mut Vec<u16>,
    ) {
        let columns = block * self.block..(block + 1) * self.block;
        let block_of = |column: u32| place[column as usize] as usize / self.block;
        let mut entries: Vec<(u8, u32, u32, Range<usize>)> = vec![];
        for band in bands {
            let list = &lists[band];
            let start = list.partition_point(|&c| (place[c as usize] as usize) < columns.start);
            let end = list.partition_point(|&c| (place[c as usize] as usize) < columns.end);
            // A band without elements is begun and ended in the first block, so that its bias is written.
            let (first, last) =
                (list.first().map_or(0, |&c| block_of(c)), list.last().map_or(0, |&c| block_of(c)));
            if start == end && !(list.is_empty() && block == 0) {
                continue;
            }
            let stage = if block == first { FIRST } else { 0 } | if block == last { LAST } else { 0 };
            entries.push((stage, (end - start) as u32, band as u32, start..end));
        }
        entries.sort_by_key(|e| (e.0, std::cmp::Reverse(e.1), e.2));
        let tile = Tile {
            groups: self.groups.len()..self.groups.len(),
            row: self.row_list.len(),
            element: self.positions.len() / self.height,
        };
        self.tiles.push(tile);
        let groups = self.groups.len();
        for (stage, elements, band, range) in entries {
            match self.groups[groups..].last_mut() {
                Some(g) if g.stage == stage && g.elements == elements => g.rows += 1,
                _ => self.groups.push(Group { stage, elements, rows: 1 }),
            }
            self.row_list.push(band);
            for &column in &lists[band as usize][range] {
                match self.pattern {
                    None => indices.push((place[column as usize] as usize - columns.start) as u16),
                    Some(pattern) => self.offsets.push((column as usize % pattern.m()) as u8),
                }
                for i in 0..self.height {
                    let row = band as usize * self.height + i;
                    let inside = row < self.rows;
                    let position = row * self.columns + column as usize;
                    self.positions.push(if inside { position as u32 } else { u32::MAX });
                }
            }
        }
        self.tiles.last_mut().expect("pushed above").groups.end = self.groups.len();
    }

    /// Sets every stored value; those of a blocked form's padding rows stay zero.
    pub fn fill(&mut self, value: impl Fn(usize, usize) -> f32) {
        let columns = self.columns;
        for (v, &position) in self.values.iter_mut().zip(&self.positions) {
            if position != u32::MAX {
                *v = value(position as usize / columns, position as usize % columns);
            }
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows of a block of elements: 1 or [`HEIGHT`].
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pattern it is stored by, if any.
    pub fn n_of_m(&self) -> Option<NOfM> {
        self.pattern
    }

    /// Elements kept by the pattern: useful multiply-adds for each column of activations.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The stored values, in the order of [`SparseWeights::positions`].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The stored values, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// `row * columns + column` of each stored value; `u32::MAX` in a blocked form's rows beyond the last.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Bytes of indices, values and lists that a product reads.
    pub fn bytes(&self) -> usize {
        2 * self.indices.len()
            + self.offsets.len()
            + 4 * (self.values.len() + self.row_list.len() + self.used.len())
            + size_of::<Group>() * self.groups.len()
    }

    pub(super) fn blocks(&self) -> usize {
        self.tiles.len() / self.parts
    }

    /// The columns whose activations make the panel of a block.
    pub(super) fn block_columns(&self, block: usize) -> &[u32] {
        &self.used[(block * self.block).min(self.used.len())..self.used.len().min((block + 1) * self.block)]
    }

    /// The rows of a part.
    pub(super) fn part_rows(&self, part: usize) -> Range<usize> {
        let end = (self.part_starts[part + 1] * self.height).min(self.rows);
        self.part_starts[part] * self.height..end
    }

    /// Rows of results with those that fill the last band.
    pub(super) fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(self.height)
    }

    /// Whether a panel is simply a range of the rows of the activations.
    pub(super) fn uses_all_columns(&self) -> bool {
        self.used.len() == self.columns
    }
}

/// The columns worth a place in a panel, and the place of each. Leaving out a few empty columns would only break up
/// the runs in which panels are copied.
fn used_columns(columns: usize, lists: &[Vec<u32>]) -> (Vec<u32>, Vec<u32>) {
    let mut any = vec![false; columns];
    lists.iter().flatten().for_each(|&c| any[c as usize] = true);
    let count = any.iter().filter(|&&u| u).count();
    if count * 8 >= columns * 7 {
        any.fill(true);
    }
    let used: Vec<u32> = (0..columns as u32).filter(|&c| any[c as usize]).collect();
    let mut place = vec![0; columns];
    used.iter().enumerate().for_each(|(i, &c)| place[c as usize] = i as u32);
    (used, place)
}

/// Ranges of bands of about equal work. Beginning and ending a row costs about as much as this many elements.
fn partition(lists: &[Vec<u32>], parts: usize) -> Vec<Range<usize>> {
    const ROW_COST: usize = 4;
    let total: usize = lists.iter().map(|l| l.len() + ROW_COST).sum();
    let mut ranges = vec![];
    let (mut start, mut done) = (0, 0);
    for (band, list) in lists.iter().enumerate() {
        done += list.len() + ROW_COST;
        if done * parts >= total * (ranges.len() + 1) {
            ranges.push(start..band + 1);
            start = band + 1;
        }
    }
    if ranges.is_empty() {
        ranges.push(0..lists.len());
    }
    ranges
}
