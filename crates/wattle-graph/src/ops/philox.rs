//! The random numbers of operators: pure functions of seed, stream, step and position.

/// The increment of SplitMix64, the odd integer nearest to 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea & Flood 2014, figure 16, with Stafford's variant 13).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of the generator for one stream of a seed.
pub(super) fn key(seed: i64, stream: u64) -> u64 {
    mix(stream.wrapping_add(GOLDEN) ^ mix((seed as u64).wrapping_add(GOLDEN)))
}

/// Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3).
fn block(mut c: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let p = 0xD251_1F53u64 * u64::from(c[0]);
        let q = 0xCD9E_8D57u64 * u64::from(c[2]);
        c = [(q >> 32) as u32 ^ c[1] ^ key[0], q as u32, (p >> 32) as u32 ^ c[3] ^ key[1], p as u32];
    }
    c
}

/// The four words that elements `4 index` to `4 index + 3` have in `step`: the counter is (index, step), both 64 bits, low
/// words first.
pub(super) fn words(key: u64, step: i64, index: u64) -> [u32; 4] {
    let counter = [index as u32, (index >> 32) as u32, step as u32, (step >> 32) as u32];
    block(counter, [key as u32, (key >> 32) as u32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_give_their_published_numbers() {
        // Random123's `kat_vectors`, and the first number of SplitMix64 from seed 1234567.
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            block(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
        assert_eq!(block([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(mix(1_234_567u64.wrapping_add(GOLDEN)), 6_457_827_717_110_365_317);
    }
}
