//! The compressed format of Eyeriss v2 (Chen et al. 2019, Sec. IV-A, Fig. 16): data, count and address vectors.

/// A tile in compressed sparse columns: a column is a segment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Csc {
    /// Non-zero values, and zeros that pad long runs.
    pub data: Vec<i8>,
    /// Zeros before each value within its column, 4 bits.
    pub count: Vec<u8>,
    /// For each column the index in `data` of its first value, then the end; an empty column repeats the next.
    pub address: Vec<u16>,
}

/// Longest run of zeros that a 4-bit count holds; longer ones are broken by an explicit zero (the rule of EIE).
const LONGEST_RUN: usize = 15;

/// Compresses a tile given as columns of equal length.
pub fn encode(columns: &[&[i8]]) -> Csc {
    let mut csc = Csc::default();
    for column in columns {
        csc.address.push(csc.data.len() as u16);
        let mut run = 0;
        for &value in *column {
            if value == 0 && run < LONGEST_RUN {
                run += 1;
                continue;
            }
            csc.data.push(value);
            csc.count.push(run as u8);
            run = 0;
        }
        // Padding that no later value of the column needs is not stored.
        while csc.data.len() > usize::from(csc.address[csc.address.len() - 1]) && csc.data.last() == Some(&0)
        {
            csc.data.pop();
            csc.count.pop();
        }
    }
    csc.address.push(csc.data.len() as u16);
    csc
}

/// The columns, each of `rows` values; `None` when the vectors contradict each other or a column is too long.
pub fn decode(csc: &Csc, rows: usize) -> Option<Vec<Vec<i8>>> {
    let mut columns = vec![];
    if csc.data.len() != csc.count.len()
        || csc.address.last().map(|&e| usize::from(e)) != Some(csc.data.len())
    {
        return None;
    }
    for ends in csc.address.windows(2) {
        let mut column = Vec::with_capacity(rows);
        for index in usize::from(ends[0])..usize::from(ends[1]) {
            column.resize(column.len() + usize::from(*csc.count.get(index)?), 0);
            column.push(csc.data[index]);
        }
        if column.len() > rows {
            return None;
        }
        column.resize(rows, 0);
        columns.push(column);
    }
    Some(columns)
}

/// Bits of a weight tile: 24-bit words of two pairs, odd columns padded, and 7 bits an address.
pub fn weight_bits(csc: &Csc) -> usize {
    24 * weight_words(csc) + 7 * csc.address.len()
}

/// 24-bit words of a weight tile in the SPad, which holds 96.
pub fn weight_words(csc: &Csc) -> usize {
    csc.address.windows(2).map(|ends| usize::from(ends[1] - ends[0]).div_ceil(2)).sum()
}

/// Expected bits of a non-zero or padding weight pair per dense element, for columns of `rows` values of this
/// density: `24 E[ceil(n/2)] / rows + 7 / rows`, n binomial.
pub fn expected_weight_bits(rows: usize, density: f64) -> f64 {
    (24.0 * expected_pairs(rows, density) + 7.0) / rows.max(1) as f64
}

/// `E[ceil(n/2)]` for n binomial in `rows` draws of probability `density`: `(E[n] + P(n odd)) / 2` with
/// `P(n odd) = (1 - (1 - 2 d)^rows) / 2`.
pub fn expected_pairs(rows: usize, density: f64) -> f64 {
    let odd = (1.0 - (1.0 - 2.0 * density).powi(rows as i32)) / 2.0;
    (rows as f64 * density + odd) / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_papers_example_encodes_to_its_vectors() {
        // (row, column) of the values a to l: Fig. 16; columns 3 and 6 are empty.
        let at =
            [(1, 0), (2, 0), (0, 1), (1, 1), (3, 1), (2, 2), (3, 4), (1, 5), (3, 5), (0, 7), (1, 7), (2, 7)];
        let mut columns = [[0i8; 4]; 8];
        for (value, (row, column)) in at.into_iter().enumerate() {
            columns[column][row] = value as i8 + 1;
        }
        let csc = encode(&columns.iter().map(|c| c.as_slice()).collect::<Vec<_>>());
        assert_eq!(csc.data, (1..=12).collect::<Vec<i8>>());
        assert_eq!(csc.count, [1, 0, 0, 0, 1, 2, 3, 1, 1, 0, 0, 0]);
        assert_eq!(csc.address, [0, 2, 5, 6, 6, 7, 9, 9, 12]);
    }

    #[test]
    fn a_run_of_more_than_fifteen_zeros_costs_one_padding_pair() {
        let mut column = vec![0i8; 32];
        column[20] = 7;
        let csc = encode(&[&column]);
        assert_eq!((csc.data.as_slice(), csc.count.as_slice()), (&[0, 7][..], &[15, 4][..]));
        assert_eq!(decode(&csc, 32), Some(vec![column]));
    }

    #[test]
    fn expected_pairs_is_the_mean_over_all_masks() {
        for rows in 1..10u32 {
            let (density, mut mean) = (0.3f64, 0.0);
            for mask in 0..1u32 << rows {
                let n = mask.count_ones();
                let p = density.powi(n as i32) * (1.0 - density).powi((rows - n) as i32);
                mean += p * f64::from(n.div_ceil(2));
            }
            assert!((mean - expected_pairs(rows as usize, density)).abs() < 1e-12);
        }
    }

    /// Tiles as PEs hold them, and columns long and empty enough for runs of more than 15 zeros.
    #[test]
    fn a_million_random_tiles_survive_a_round_trip() {
        let mut state = 11u64;
        let mut draw = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        let (mut padded, mut tile) = (0, vec![]);
        for _ in 0..1_000_000 {
            let (rows, columns, percent) = ([4, 8, 16, 32, 40][draw() % 5], 1 + draw() % 3, draw() % 101);
            tile.clear();
            for _ in 0..rows * columns {
                let value = if draw() % 100 < percent { (draw() % 255) as u8 as i8 } else { 0 };
                tile.push(value);
            }
            let slices: Vec<&[i8]> = tile.chunks(rows).collect();
            let csc = encode(&slices);
            padded += usize::from(csc.data.contains(&0));
            assert!(csc.count.iter().all(|&c| usize::from(c) <= LONGEST_RUN));
            let back = decode(&csc, rows).expect("it was encoded here");
            assert!(back.iter().zip(&slices).all(|(a, b)| a == b), "{tile:?}");
        }
        assert!(padded > 10_000, "only {padded} tiles had a long run");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_tile_survives_a_round_trip(
            rows in 1usize..64, columns in 1usize..16, dense in 0u8..=100, seed in any::<u64>()
        ) {
            let mut state = seed | 1;
            let mut tile = vec![vec![0i8; rows]; columns];
            for value in tile.iter_mut().flatten() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if (state >> 33) % 100 < u64::from(dense) {
                    *value = ((state >> 41) % 255) as i8;
                }
            }
            let csc = encode(&tile.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert!(csc.count.iter().all(|&c| usize::from(c) <= LONGEST_RUN));
            prop_assert_eq!(decode(&csc, rows), Some(tile));
        }
    }
}
