//! Training, validation and test parts that never share a sample.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::{Purpose, Stream};
use crate::table::{Classes, Table};

/// Test parts are drawn with this seed whatever the user's is: results on one data set stay comparable.
const TEST_SEED: u64 = 0;

/// Share of the training samples that is kept for choosing if nobody says otherwise, and every command's default: inputs
/// are normalised by what is left, so that another share would be another network.
pub const VALIDATION: f64 = 0.2;

/// Share of all samples that is kept for judging if nobody says otherwise.
pub const TEST: f64 = 0.2;

/// How to divide a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SplitOptions {
    /// Seed of the validation part, separate from the seeds of initialisation and order.
    pub seed: u64,
    /// Share of the training samples that becomes the validation part, if the source has none.
    pub validation: f64,
    /// Share of all samples that becomes the test part, if the source has none.
    pub test: f64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { seed: 0, validation: VALIDATION, test: TEST }
    }
}

/// The parts of a data set as ascending sample indices, pairwise disjoint.
#[derive(Debug, PartialEq, Eq)]
pub struct Splits {
    train: Vec<u32>,
    validation: Vec<u32>,
    test: Vec<u32>,
}

/// The test part. It can be had only by giving up the [`Splits`], and neither can be copied: what selects a model can
/// therefore not have looked at it, and it is evaluated once.
#[derive(Debug, PartialEq, Eq)]
pub struct TestSet(Vec<u32>);

impl TestSet {
    /// The samples, for the one evaluation.
    pub fn into_indices(self) -> Vec<u32> {
        self.0
    }

    /// The number of samples.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Splits {
    /// Divides a data set. Parts its source came with are kept; a missing test part is cut out of the training samples
    /// first (the same for every seed), then a missing validation part. Both are stratified: the classes keep their
    /// shares to within one sample, and no class loses its last training sample.
    pub fn new(table: &dyn Table, options: &SplitOptions) -> Result<Self> {
        for (name, share) in [("validation", options.validation), ("test", options.test)] {
            if !(0.0..1.0).contains(&share) {
                return Err(
                    Error::input(format_args!("the {name} share"), share).expected("0 or more and below 1")
                );
            }
        }
        if table.count() > u32::MAX as usize {
            return Err(Error::input(table.name(), format_args!("{} samples", table.count()))
                .expected(format_args!("at most {}", u32::MAX)));
        }
        let indices =
            |range: &std::ops::Range<usize>| (range.start as u32..range.end as u32).collect::<Vec<_>>();
        let mut train = indices(&table.parts().train);
        let test = match &table.parts().test {
            Some(range) => indices(range),
            None => cut(table.classes(), &mut train, options.test, TEST_SEED, 0),
        };
        let validation = match &table.parts().validation {
            Some(range) => indices(range),
            None => cut(table.classes(), &mut train, options.validation, options.seed, 1),
        };
        Ok(Self { train, validation, test })
    }

    /// Samples to learn from.
    pub fn train(&self) -> &[u32] {
        &self.train
    }

    /// Samples that choose between models; empty if a share of 0 was asked for.
    pub fn validation(&self) -> &[u32] {
        &self.validation
    }

    /// The number of test samples, which is all that may be known of them in advance.
    pub fn test_count(&self) -> usize {
        self.test.len()
    }

    /// Gives up the other parts for the test part: training is over.
    pub fn take_test(self) -> TestSet {
        TestSet(self.test)
    }
}

/// Moves ceil(share * n) of the n samples in `pool` into a new part, class by class.
fn cut(target: Option<Classes<'_>>, pool: &mut Vec<u32>, share: f64, seed: u64, part: u64) -> Vec<u32> {
    let class_of = |sample: u32| target.map_or(0, |classes| classes.labels[sample as usize] as usize);
    let mut classes = vec![Vec::new(); target.map_or(1, |classes| classes.names.len())];
    for &sample in pool.iter() {
        classes[class_of(sample)].push(sample);
    }
    // The small slack keeps a product that is whole but for rounding from being rounded up once more.
    let total = (pool.len() as f64 * share - 1e-9).ceil().max(0.0) as usize;
    let quotas = quotas(&classes.iter().map(Vec::len).collect::<Vec<_>>(), total);
    let mut taken = Vec::with_capacity(total);
    for (class, (members, quota)) in classes.iter_mut().zip(quotas).enumerate() {
        Stream::new(seed, Purpose::Split, &[part, class as u64]).shuffle(members);
        taken.extend_from_slice(&members[..quota]);
    }
    taken.sort_unstable();
    pool.retain(|sample| taken.binary_search(sample).is_err());
    taken
}

/// Divides `total` among classes in proportion to their sizes by largest remainder (ties to the lower class), leaving
/// every class that has members at least one.
fn quotas(sizes: &[usize], total: usize) -> Vec<usize> {
    let all = sizes.iter().sum::<usize>().max(1) as u128;
    let share = |size: usize| size as u128 * total as u128;
    let mut quotas: Vec<usize> = sizes.iter().map(|&size| (share(size) / all) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(share(sizes[class]) % all));
    let mut missing = total - quotas.iter().sum::<usize>();
    for class in order {
        if missing > 0 {
            quotas[class] += 1;
            missing -= 1;
        }
    }
    quotas.iter().zip(sizes).map(|(&quota, &size)| quota.min(size.saturating_sub(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataSpec, Dataset, LoadOptions, SampleShape, Samples, SourceParts, Targets};
    use proptest::prelude::*;

    fn toy(labels: Vec<u32>, parts: SourceParts) -> Dataset {
        let names = (0..=*labels.iter().max().unwrap()).map(|c| c.to_string()).collect();
        let samples = Samples::Bytes { data: vec![0; labels.len()], full_scale: 255 };
        let (shape, targets) = (SampleShape::Features(1), Targets::Classes { labels, names });
        Dataset::new("toy".into(), shape, samples, targets, parts).unwrap()
    }

    #[test]
    fn digits_are_divided_as_the_baselines_were() {
        let digits = DataSpec::Digits.load(&LoadOptions::default()).unwrap();
        let splits = Splits::new(&digits, &SplitOptions { validation: 0.0, ..Default::default() }).unwrap();
        assert_eq!((splits.train().len(), splits.validation().len(), splits.test_count()), (1437, 0, 360));
    }

    #[test]
    fn own_parts_of_the_source_are_kept() {
        let set = toy([0, 1].repeat(10), SourceParts::consecutive(14, Some(2), Some(4)));
        let splits = Splits::new(&set, &SplitOptions::default()).unwrap();
        assert_eq!(splits.train(), (0..14).collect::<Vec<_>>());
        assert_eq!(splits.validation(), [14, 15]);
        assert_eq!(splits.take_test().into_indices(), [16, 17, 18, 19]);
    }

    #[test]
    fn the_seed_moves_the_validation_part_but_never_the_test_part() {
        let set = toy([0, 1, 2].repeat(100), SourceParts::undivided(300));
        let with = |seed| Splits::new(&set, &SplitOptions { seed, ..Default::default() }).unwrap();
        assert_eq!(with(1), with(1));
        assert_ne!(with(1).validation(), with(2).validation());
        assert_eq!(with(1).take_test(), with(2).take_test());
    }

    #[test]
    fn shares_outside_their_range_are_refused() {
        let set = toy(vec![0, 1], SourceParts::undivided(2));
        for share in [-0.1, 1.0, f64::NAN] {
            assert!(Splits::new(&set, &SplitOptions { test: share, ..Default::default() }).is_err());
        }
    }

    proptest! {
        #[test]
        fn parts_are_disjoint_complete_and_stratified(
            labels in proptest::collection::vec(0u32..5, 2..300),
            seed: u64,
            validation in 0.0..0.9f64,
            test in 0.0..0.9f64,
        ) {
            let labels = [vec![0, 1], labels].concat();
            let set = toy(labels.clone(), SourceParts::undivided(labels.len()));
            let splits = Splits::new(&set, &SplitOptions { seed, validation, test }).unwrap();
            let mut all = [splits.train(), splits.validation(), &splits.test].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len() as u32).collect::<Vec<_>>());
            for class in 0..5 {
                let of = |part: &[u32]| part.iter().filter(|&&i| labels[i as usize] == class).count();
                let size = labels.iter().filter(|&&label| label == class).count();
                prop_assert!(size == 0 || of(splits.train()) > 0);
                let due = size as f64 * (labels.len() as f64 * test).ceil() / labels.len() as f64;
                prop_assert!((of(&splits.test) as f64 - due).abs() <= 1.0 || of(&splits.test) == size - 1);
            }
        }
    }
}
