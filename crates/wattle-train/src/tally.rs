//! A tally of answers: batch by batch in f64, until metrics are asked for.

use std::collections::BTreeMap;

use crate::metric::Metric;
use crate::objective::Kind;

/// Counts of what was answered and what was right.
#[derive(Clone, Debug)]
pub struct Tally {
    kind: Kind,
    /// The largest k of the metrics wanted.
    tops: Vec<usize>,
    hits: Vec<u64>,
    samples: u64,
    matches: u64,
    positions: u64,
    right: u64,
    /// Negative log-likelihood of the labels, in nats.
    surprise: f64,
    with_surprise: bool,
    /// A class, or an output of yes or no.
    groups: Vec<Group>,
    columns: Vec<Column>,
}

/// How often a class was right, answered, and labelled.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    right: u64,
    answered: u64,
    labelled: u64,
}

impl Group {
    fn occurs(&self) -> bool {
        self.answered + self.labelled > 0
    }

    fn iou(&self) -> f64 {
        ratio(self.right as f64, (self.answered + self.labelled - self.right) as f64)
    }

    fn f1(&self) -> f64 {
        ratio(2.0 * self.right as f64, (self.answered + self.labelled) as f64)
    }
}

/// Numbers of one output: Welford's running mean and squared deviations of the targets, and the errors.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    count: f64,
    mean: f64,
    deviations: f64,
    squared: f64,
    absolute: f64,
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    ratio(sum, count)
}

impl Tally {
    /// An empty tally of such answers, for these metrics.
    pub fn new(kind: Kind, metrics: &[Metric]) -> Tally {
        let mut tops: Vec<usize> =
            metrics.iter().filter_map(|m| if let Metric::Top(k) = m { Some(*k) } else { None }).collect();
        tops.sort_unstable();
        tops.dedup();
        Tally {
            kind,
            hits: vec![0; tops.len()],
            tops,
            samples: 0,
            matches: 0,
            positions: 0,
            right: 0,
            surprise: 0.0,
            with_surprise: metrics.contains(&Metric::Perplexity),
            groups: vec![],
            columns: vec![],
        }
    }

    /// Adds the answers of a batch: `outputs` of these extents, the batch first, row-major; `targets` of the same
    /// extents, or for classes without the axis of the classes.
    ///
    /// # Errors
    /// The label and the number of classes, when a label is none of them.
    pub fn add(
        &mut self,
        outputs: &[f32],
        extents: &[usize],
        targets: &[f64],
    ) -> std::result::Result<(), (i64, usize)> {
        let samples = extents.first().copied().unwrap_or(0);
        self.samples += samples as u64;
        match self.kind {
            Kind::Classes { axis, ignored } => self.add_classes(outputs, extents, targets, axis, ignored),
            Kind::Binary => {
                self.add_answers(outputs, samples, targets);
                Ok(())
            }
            Kind::Values => {
                self.add_values(outputs, samples, targets);
                Ok(())
            }
        }
    }

    fn add_classes(
        &mut self,
        outputs: &[f32],
        extents: &[usize],
        targets: &[f64],
        axis: usize,
        ignored: Option<i64>,
    ) -> std::result::Result<(), (i64, usize)> {
        let classes = extents[axis];
        let inner: usize = extents[axis + 1..].iter().product();
        let positions = targets.len() / extents[0].max(1);
        self.groups.resize(classes.max(self.groups.len()), Group::default());
        let mut scores = vec![0.0f32; classes];
        for (sample, labels) in targets.chunks(positions.max(1)).enumerate() {
            let mut whole = true;
            for (at, &label) in labels.iter().enumerate() {
                let label = label as i64;
                if Some(label) == ignored {
                    continue;
                }
                let class = usize::try_from(label).ok().filter(|&c| c < classes).ok_or((label, classes))?;
                let position = sample * positions + at;
                let first = position / inner * classes * inner + position % inner;
                for (c, score) in scores.iter_mut().enumerate() {
                    *score = outputs[first + c * inner];
                }
                let answer = (0..classes)
                    .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
                    .unwrap_or(0);
                self.positions += 1;
                self.groups[class].labelled += 1;
                self.groups[answer].answered += 1;
                if answer == class {
                    self.right += 1;
                    self.groups[class].right += 1;
                } else {
                    whole = false;
                }
                if !self.tops.is_empty() {
                    let own = scores[class];
                    let better = |&c: &usize| scores[c] > own || scores[c] == own && c < class;
                    let rank = (0..classes).filter(better).count();
                    for (hits, &k) in self.hits.iter_mut().zip(&self.tops) {
                        *hits += u64::from(rank < k);
                    }
                }
                if self.with_surprise {
                    let top = f64::from(scores[answer]);
                    let sum: f64 = scores.iter().map(|&s| (f64::from(s) - top).exp()).sum();
                    self.surprise += top + sum.ln() - f64::from(scores[class]);
                }
            }
            self.matches += u64::from(whole);
        }
        Ok(())
    }

    fn add_answers(&mut self, outputs: &[f32], samples: usize, targets: &[f64]) {
        let width = outputs.len() / samples.max(1);
        self.groups.resize(width.max(self.groups.len()), Group::default());
        for (row, wanted) in outputs.chunks(width.max(1)).zip(targets.chunks(width.max(1))) {
            let mut whole = true;
            for ((&score, &target), group) in row.iter().zip(wanted).zip(&mut self.groups) {
                let (yes, wanted) = (score > 0.0, target > 0.5);
                group.answered += u64::from(yes);
                group.labelled += u64::from(wanted);
                group.right += u64::from(yes && wanted);
                self.right += u64::from(yes == wanted);
                self.positions += 1;
                whole &= yes == wanted;
            }
            self.matches += u64::from(whole);
        }
    }

    fn add_values(&mut self, outputs: &[f32], samples: usize, targets: &[f64]) {
        let width = outputs.len() / samples.max(1);
        self.columns.resize(width.max(self.columns.len()), Column::default());
        for (row, wanted) in outputs.chunks(width.max(1)).zip(targets.chunks(width.max(1))) {
            for ((&found, &target), column) in row.iter().zip(wanted).zip(&mut self.columns) {
                column.count += 1.0;
                let before = target - column.mean;
                column.mean += before / column.count;
                column.deviations += before * (target - column.mean);
                let error = f64::from(found) - target;
                column.squared += error * error;
                column.absolute += error.abs();
            }
        }
    }

    /// One metric of all that was added.
    pub fn value(&self, metric: Metric) -> f64 {
        let occurring = || self.groups.iter().filter(|group| group.occurs());
        let count = || self.columns.iter().map(|c| c.count).sum::<f64>();
        match metric {
            Metric::Accuracy => ratio(self.right as f64, self.positions as f64),
            Metric::Top(k) => {
                let hits = self.tops.iter().position(|&top| top == k).map_or(0, |at| self.hits[at]);
                ratio(hits as f64, self.positions as f64)
            }
            Metric::MeanIou => mean(occurring().map(Group::iou)),
            Metric::Perplexity => ratio(self.surprise, self.positions as f64).exp(),
            Metric::F1 => match (self.kind, &self.groups[..]) {
                (Kind::Classes { .. }, [_, one]) => one.f1(),
                // Of more classes, each position answers one and misses at most one: F1 over all is the accuracy.
                (_, groups) => {
                    let sum = groups.iter().fold(Group::default(), |sum, g| Group {
                        right: sum.right + g.right,
                        answered: sum.answered + g.answered,
                        labelled: sum.labelled + g.labelled,
                    });
                    sum.f1()
                }
            },
            Metric::MacroF1 => match self.kind {
                Kind::Binary => mean(self.groups.iter().map(Group::f1)),
                _ => mean(occurring().map(Group::f1)),
            },
            Metric::ExactMatch => ratio(self.matches as f64, self.samples as f64),
            Metric::R2 => mean(self.columns.iter().map(|c| match (c.deviations, c.squared) {
                (0.0, 0.0) => 1.0,
                (0.0, _) => 0.0,
                (deviations, squared) => 1.0 - squared / deviations,
            })),
            Metric::MeanAbsoluteError => ratio(self.columns.iter().map(|c| c.absolute).sum(), count()),
            Metric::RootMeanSquaredError => {
                ratio(self.columns.iter().map(|c| c.squared).sum(), count()).sqrt()
            }
        }
    }

    /// These metrics by name.
    pub fn values(&self, metrics: &[Metric]) -> BTreeMap<String, f64> {
        metrics.iter().map(|metric| (metric.to_string(), self.value(*metric))).collect()
    }

    /// The accuracy of always answering the class that occurs most; `None` where there are no classes.
    pub fn chance(&self) -> Option<f64> {
        matches!(self.kind, Kind::Classes { .. })
            .then(|| self.groups.iter().map(|g| g.labelled).max())
            .flatten()
            .map(|most| ratio(most as f64, self.positions as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scikit-learn` has the names in the comments.
    fn tally(kind: Kind, metrics: &[Metric], batches: &[(&[f32], &[usize], &[f64])]) -> Tally {
        let mut tally = Tally::new(kind, metrics);
        for (outputs, extents, targets) in batches {
            tally.add(outputs, extents, targets).unwrap();
        }
        tally
    }

    fn close(found: f64, expected: f64, what: &str) {
        assert!((found - expected).abs() < 1e-12, "{what}: {found}, expected {expected}");
    }

    #[test]
    fn classes_are_counted_over_batches_of_any_size() {
        // Answers 0 1 2 2 1, labels 0 2 2 1 1 in two batches.
        let first: &[f32] = &[3.0, 1.0, 2.0, 0.0, 5.0, 4.0, 0.0, 1.0, 2.0];
        let second: &[f32] = &[0.0, 1.0, 2.0, -1.0, 3.0, 2.0];
        let metrics = [Metric::Top(2)];
        let t = tally(
            Kind::Classes { axis: 1, ignored: None },
            &metrics,
            &[(first, &[3, 3], &[0.0, 2.0, 2.0]), (second, &[2, 3], &[1.0, 1.0])],
        );
        close(t.value(Metric::Accuracy), 3.0 / 5.0, "accuracy_score");
        close(t.value(Metric::Top(2)), 1.0, "top_k_accuracy_score(k=2)");
        // Class 0: 1/1, class 1: 1/3, class 2: 1/3.
        close(
            t.value(Metric::MeanIou),
            (1.0 + 1.0 / 3.0 + 1.0 / 3.0) / 3.0,
            "jaccard_score(average='macro')",
        );
        close(t.value(Metric::MacroF1), (1.0 + 0.5 + 0.5) / 3.0, "f1_score(average='macro')");
        close(t.value(Metric::F1), 3.0 / 5.0, "f1_score(average='micro')");
        close(t.chance().unwrap(), 2.0 / 5.0, "the most frequent class");
    }

    #[test]
    fn ignored_positions_count_nowhere_and_classes_may_lie_on_any_axis() {
        // [1, 2 classes, 3 positions]: answers 1 0 0, labels 1 1 ignored.
        let outputs: &[f32] = &[0.0, 2.0, 3.0, 1.0, 1.0, -1.0];
        let kind = Kind::Classes { axis: 1, ignored: Some(-100) };
        let t = tally(kind, &[Metric::Perplexity], &[(outputs, &[1, 2, 3], &[1.0, 1.0, -100.0])]);
        close(t.value(Metric::Accuracy), 0.5, "accuracy");
        close(t.value(Metric::F1), 2.0 / 3.0, "f1_score of class 1: precision 1, recall 1/2");
        close(t.value(Metric::ExactMatch), 0.0, "exact");
        let surprise = (1.0 + (-1f64).exp()).ln() + (1.0 + 1f64.exp()).ln();
        close(t.value(Metric::Perplexity), (surprise / 2.0).exp(), "perplexity");
        // [1, 3 positions, 2 classes]: the same answers.
        let outputs: &[f32] = &[0.0, 1.0, 2.0, 1.0, 3.0, -1.0];
        let kind = Kind::Classes { axis: 2, ignored: Some(-100) };
        let u = tally(kind, &[Metric::Perplexity], &[(outputs, &[1, 3, 2], &[1.0, 1.0, -100.0])]);
        close(u.value(Metric::Perplexity), t.value(Metric::Perplexity), "perplexity");
    }

    #[test]
    fn a_label_that_is_no_class_is_told() {
        let mut t = Tally::new(Kind::Classes { axis: 1, ignored: None }, &[]);
        assert_eq!(t.add(&[0.0, 1.0], &[1, 2], &[2.0]), Err((2, 2)));
        assert_eq!(t.add(&[0.0, 1.0], &[1, 2], &[-1.0]), Err((-1, 2)));
    }

    #[test]
    fn answers_of_yes_or_no() {
        // Answers [[1, 0], [1, 1], [0, 0]], wanted [[1, 0], [0, 1], [1, 0]].
        let outputs: &[f32] = &[2.0, -1.0, 0.5, 0.1, -3.0, -0.5];
        let t = tally(Kind::Binary, &[], &[(outputs, &[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 0.0])]);
        close(t.value(Metric::Accuracy), 4.0 / 6.0, "accuracy of all answers");
        close(t.value(Metric::ExactMatch), 1.0 / 3.0, "accuracy_score of rows");
        close(t.value(Metric::F1), 4.0 / 6.0, "f1_score(average='micro')");
        close(t.value(Metric::MacroF1), (0.5 + 1.0) / 2.0, "f1_score(average='macro')");
        assert_eq!(t.chance(), None);
    }

    #[test]
    fn numbers_far_from_zero_keep_their_digits() {
        // r2_score([1e6 + 3, 1e6 - 0.5, 1e6 + 2, 1e6 + 7], [.. + 2.5, .. + 0, .. + 2, .. + 8]) = 0.9486081370449679.
        let base = 1e6;
        let targets: Vec<f64> = [3.0, -0.5, 2.0, 7.0].iter().map(|x| base + x).collect();
        let outputs: Vec<f32> = [2.5, 0.0, 2.0, 8.0].iter().map(|x| (base + x) as f32).collect();
        let t = tally(
            Kind::Values,
            &[],
            &[(&outputs[..1], &[1, 1], &targets[..1]), (&outputs[1..], &[3, 1], &targets[1..])],
        );
        // Targets near a million have ten digits left.
        let r2 = t.value(Metric::R2);
        assert!((r2 - 0.948_608_137_044_967_9).abs() < 1e-9, "r2_score: {r2}");
        close(t.value(Metric::MeanAbsoluteError), 0.5, "mean_absolute_error");
        close(t.value(Metric::RootMeanSquaredError), 0.375f64.sqrt(), "root_mean_squared_error");
    }

    #[test]
    fn every_output_has_its_own_r2() {
        // r2_score([[0.5, 1], [-1, 1], [7, -6]], [[0, 2], [-1, 2], [8, -5]]) = 0.936800526662278.
        let outputs: &[f32] = &[0.0, 2.0, -1.0, 2.0, 8.0, -5.0];
        let t = tally(Kind::Values, &[], &[(outputs, &[3, 2], &[0.5, 1.0, -1.0, 1.0, 7.0, -6.0])]);
        close(t.value(Metric::R2), 0.936_800_526_662_278, "r2_score(multioutput='uniform_average')");
        let t = tally(Kind::Values, &[], &[(&[2.0, 2.0], &[2, 1], &[2.0, 2.0])]);
        close(t.value(Metric::R2), 1.0, "equal targets, no error");
        let t = tally(Kind::Values, &[], &[(&[2.0, 3.0], &[2, 1], &[2.0, 2.0])]);
        close(t.value(Metric::R2), 0.0, "equal targets, an error");
    }

    #[test]
    fn an_empty_tally_has_numbers_too() {
        let t = Tally::new(Kind::Classes { axis: 1, ignored: None }, &[]);
        assert_eq!(t.value(Metric::Accuracy), 0.0);
        assert_eq!(t.chance(), None);
    }
}
