//! How a network learns: what is asked for, and what a command chooses where nothing is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use wattle_data::Augmentation;
use wattle_train::early_stop::EarlyStop;
use wattle_train::groups::{Groups, Names, Rates};
use wattle_train::metric::Metric;
use wattle_train::moment::Moment;
use wattle_train::objective::{Difference, Distillation, Loss, TARGETS};
use wattle_train::optimizer::Optimizer;
use wattle_train::options::TrainOptions;
use wattle_train::schedule::Schedule;

use crate::error::{JobError, Result};
use crate::models;

/// Optimisers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// With momentum 0.9.
    Sgd,
    /// Without momentum.
    SgdPlain,
    /// With Nesterov's momentum 0.9.
    Nesterov,
    /// Adam.
    Adam,
    /// Adam with decoupled weight decay.
    Adamw,
}

impl OptimizerName {
    /// Every optimiser with its name and a sentence about it.
    pub const ALL: [(&str, OptimizerName, &str); 5] = [
        ("sgd", OptimizerName::Sgd, "with momentum 0.9"),
        ("sgd-plain", OptimizerName::SgdPlain, "without momentum"),
        ("nesterov", OptimizerName::Nesterov, "with Nesterov's momentum 0.9"),
        ("adam", OptimizerName::Adam, "Adam"),
        ("adamw", OptimizerName::Adamw, "Adam with decoupled weight decay"),
    ];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        OptimizerName::ALL.into_iter().find(|(_, one, _)| *one == self).map_or("", |(name, ..)| name)
    }

    /// The optimiser with this weight decay.
    pub fn with_decay(self, weight_decay: f64) -> Optimizer {
        match self {
            OptimizerName::Sgd => Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay },
            OptimizerName::SgdPlain => Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay },
            OptimizerName::Nesterov => Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay },
            OptimizerName::Adam => Optimizer::Adam { weight_decay },
            OptimizerName::Adamw => Optimizer::AdamW { weight_decay },
        }
    }
}

/// How a network is trained; the command chooses what is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearningOptions {
    /// Passes over the training samples.
    pub epochs: Option<u64>,
    /// Samples in a batch.
    pub batch: Option<usize>,
    /// The optimiser.
    pub optimizer: Option<OptimizerName>,
    /// Learning rate that the schedule scales.
    pub lr: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// How the learning rate changes.
    pub schedule: Option<Schedule>,
    /// What is made small; by the kind of targets if left out.
    pub loss: Option<Loss>,
    /// Share of the target spread over all classes, 0 to below 1.
    pub label_smoothing: f32,
    /// The label of positions that do not count.
    pub ignore_index: Option<i64>,
    /// What is done to images.
    pub augment: Option<Augmentation>,
    /// Decides initial weights, order of samples, augmentation and ties.
    pub seed: u64,
    /// Batches whose gradients are averaged before an update.
    pub accumulate: Option<u64>,
    /// Largest norm of all gradients together.
    pub clip: Option<f64>,
    /// Parameters that are left alone.
    pub freeze: Names,
    /// Parameters that do not decay.
    pub no_decay: Names,
    /// Factors of the learning rate.
    pub lr_scale: Rates,
    /// What moving averages of the parameters keep at each step.
    pub average: Option<f64>,
    /// When to stop before the end.
    pub stop: Option<EarlyStop>,
    /// What is told of answers beside the loss.
    pub metrics: Vec<Metric>,
    /// Whose answers are learnt, without labels.
    pub teacher: Option<PathBuf>,
    /// What both answers are divided by, above 0.
    pub temperature: Option<f64>,
}

/// What a command trains with where nothing is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Passes over the data.
    pub epochs: u64,
    /// Samples in a batch.
    pub batch: usize,
    /// The optimiser.
    pub optimizer: OptimizerName,
    /// Learning rate.
    pub lr: f64,
    /// Schedule, as text.
    pub schedule: &'static str,
}

/// What samples say of what is to be learnt of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// Whether it is a class: a whole number.
    pub has_classes: bool,
    /// The label that does not count.
    pub ignored: Option<i64>,
    /// Targets by their names in the data, and what their columns are called.
    pub targets: Vec<(String, String)>,
}

impl LearningOptions {
    /// All options: what was asked for, and the defaults for the rest.
    ///
    /// # Errors
    /// If a number is out of its range, or options contradict each other.
    pub fn resolved(&self, defaults: Defaults, lesson: &Lesson) -> Result<TrainOptions> {
        let lr = self.lr.unwrap_or(defaults.lr);
        positive("lr", lr)?;
        let decay = self.weight_decay.unwrap_or(0.0);
        if !(decay >= 0.0 && decay.is_finite()) {
            return Err(JobError::option("weight_decay", format_args!("found {decay}, expected 0 or more")));
        }
        if let Some(clip) = self.clip {
            positive("clip", clip)?;
        }
        if let Some(share) = self.average.filter(|share| !(0.0..1.0).contains(share)) {
            return Err(JobError::option(
                "average",
                format_args!("found {share}, expected 0 to below 1, as 0.999"),
            ));
        }
        if self.accumulate == Some(0) {
            return Err(JobError::option("accumulate", "found 0, expected at least 1 batch"));
        }
        Ok(TrainOptions {
            batch: self.batch.unwrap_or(defaults.batch),
            length: Moment::At { epochs: self.epochs.unwrap_or(defaults.epochs), iterations: 0 },
            learning_rate: lr,
            schedule: match &self.schedule {
                Some(schedule) => schedule.clone(),
                None => defaults.schedule.parse()?,
            },
            optimizer: self.optimizer.unwrap_or(defaults.optimizer).with_decay(decay),
            augmentation: self.augment.unwrap_or(Augmentation::NONE),
            seed: self.seed,
            accumulate: self.accumulate.unwrap_or(1),
            clip: self.clip,
            groups: Groups {
                freeze: self.freeze.clone(),
                no_decay: self.no_decay.clone(),
                rates: self.lr_scale.clone(),
            },
            average: self.average,
            stop: self.stop,
            metrics: self.metrics.clone(),
            ..TrainOptions::new(self.objective(lesson)?)
        })
    }

    /// What is made small. What the samples say holds where nothing is asked for.
    pub fn objective(&self, lesson: &Lesson) -> Result<Loss> {
        let column = |name: &str| {
            let named = lesson.targets.iter().find(|(own, _)| own == name);
            // The only target is meant where none is named, whatever its column is called beside a model's inputs.
            let only = lesson.targets.first().filter(|_| name == TARGETS && lesson.targets.len() == 1);
            named.or(only).map(|(_, column)| column.clone())
        };
        Ok(self.asked(lesson.has_classes)?.ignoring(lesson.ignored).renamed(&column))
    }

    /// The label that does not count, as an option or the loss says.
    pub fn ignored(&self) -> Option<i64> {
        self.ignore_index.or(self.loss.as_ref().and_then(Loss::ignored))
    }

    fn asked(&self, has_classes: bool) -> Result<Loss> {
        let mut loss = match (&self.teacher, &self.loss) {
            (Some(path), _) => self.distillation(path)?,
            (None, _) if self.temperature.is_some() => {
                let found = "it divides the answers of a teacher, and none is named";
                return Err(JobError::option("temperature", found));
            }
            (None, Some(loss)) => loss.clone(),
            (None, None) if has_classes => Loss::cross_entropy(),
            (None, None) => Loss::Difference(Difference::squared()),
        };
        let smoothing = self.label_smoothing;
        if !(0.0..1.0).contains(&smoothing) {
            let found = format_args!("found {smoothing}, expected 0 to below 1");
            return Err(JobError::option("label_smoothing", found));
        }
        let terms = loss.each_cross_entropy(&mut |objective| {
            if smoothing != 0.0 {
                objective.smoothing = smoothing;
            }
            objective.ignored = self.ignore_index.or(objective.ignored);
        });
        // Beside a teacher the label is one of the data, which are read all the same.
        let stray = match (smoothing != 0.0, self.ignore_index.is_some() && self.teacher.is_none()) {
            (true, _) => Some(("label_smoothing", "a smoothed target")),
            (_, true) => Some(("ignore_index", "an ignored label")),
            _ => None,
        };
        match stray.filter(|_| terms == 0) {
            Some((option, what)) => Err(JobError::option(
                option,
                format_args!("{what} belongs to cross entropy, and the loss has no such term"),
            )),
            None => Ok(loss),
        }
    }

    /// The loss that is asked for, with its teacher, or else the teacher's answers alone.
    fn distillation(&self, path: &Path) -> Result<Loss> {
        let teacher = Arc::new(models::load(path)?);
        if let Some(loss) = &self.loss {
            let refuse = |option, found: &str| Err(JobError::option(option, found));
            return match (loss.needs_teacher(), self.temperature) {
                (false, _) => {
                    refuse("teacher", "the loss does not ask for one; expected none, or `distil` in the loss")
                }
                (_, Some(_)) => refuse("temperature", "the loss says it itself: `distil:t=4`"),
                _ => Ok(loss.clone().taught_by(&teacher)),
            };
        }
        let temperature = self.temperature.unwrap_or(1.0);
        positive("temperature", temperature)?;
        Ok(Loss::Distillation(Distillation::new(temperature, &teacher)))
    }
}

fn positive(option: &'static str, found: f64) -> Result<()> {
    if found > 0.0 && found.is_finite() {
        return Ok(());
    }
    Err(JobError::option(option, format_args!("found {found}, expected a positive number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults =
        Defaults { epochs: 10, batch: 64, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

    const CLASSES: &Lesson = &Lesson { has_classes: true, ignored: None, targets: vec![] };

    /// One variation of each option, with none of them at what the defaults would choose.
    fn variations() -> Vec<(&'static str, LearningOptions)> {
        let base = LearningOptions::default;
        vec![
            ("epochs", LearningOptions { epochs: Some(11), ..base() }),
            ("batch", LearningOptions { batch: Some(65), ..base() }),
            ("optimizer", LearningOptions { optimizer: Some(OptimizerName::Adam), ..base() }),
            ("lr", LearningOptions { lr: Some(0.5), ..base() }),
            ("weight_decay", LearningOptions { weight_decay: Some(0.1), ..base() }),
            ("schedule", LearningOptions { schedule: Some(Schedule::CONSTANT), ..base() }),
            ("loss", LearningOptions { loss: Some("mse".parse().unwrap()), ..base() }),
            ("label_smoothing", LearningOptions { label_smoothing: 0.1, ..base() }),
            ("ignore_index", LearningOptions { ignore_index: Some(-100), ..base() }),
            ("augment", LearningOptions { augment: Some("flip".parse().unwrap()), ..base() }),
            ("seed", LearningOptions { seed: 1, ..base() }),
            ("accumulate", LearningOptions { accumulate: Some(2), ..base() }),
            ("clip", LearningOptions { clip: Some(1.0), ..base() }),
            ("freeze", LearningOptions { freeze: "a".parse().unwrap(), ..base() }),
            ("no_decay", LearningOptions { no_decay: "bias".parse().unwrap(), ..base() }),
            ("lr_scale", LearningOptions { lr_scale: "a=2".parse().unwrap(), ..base() }),
            ("average", LearningOptions { average: Some(0.999), ..base() }),
            ("stop", LearningOptions { stop: Some("3".parse().unwrap()), ..base() }),
            ("metrics", LearningOptions { metrics: vec![Metric::Top(5)], ..base() }),
        ]
    }

    #[test]
    fn every_option_given_changes_what_names_a_run() {
        let text = |options: &LearningOptions| {
            let resolved = options.resolved(DEFAULTS, CLASSES).unwrap();
            crate::kept::config("train", &resolved).unwrap().canonical()
        };
        let mut seen = vec![("nothing", text(&LearningOptions::default()))];
        for (name, options) in variations() {
            let found = text(&options);
            for (other, before) in &seen {
                assert_ne!(&found, before, "{name} and {other} name one run");
            }
            seen.push((name, found));
        }
        // The destructuring names every field: a new one does not compile until it is varied above or excused here. A
        // teacher and its temperature are part of the loss, by the teacher's fingerprint.
        let LearningOptions {
            epochs: _,
            batch: _,
            optimizer: _,
            lr: _,
            weight_decay: _,
            schedule: _,
            loss: _,
            label_smoothing: _,
            ignore_index: _,
            augment: _,
            seed: _,
            accumulate: _,
            clip: _,
            freeze: _,
            no_decay: _,
            lr_scale: _,
            average: _,
            stop: _,
            metrics: _,
            teacher: _,
            temperature: _,
        } = LearningOptions::default();
        assert_eq!(seen.len(), 20);
    }

    #[test]
    fn what_is_asked_for_never_becomes_a_default() {
        let hash = |lr: f64, optimizer| {
            let options = LearningOptions { lr: Some(lr), optimizer, ..LearningOptions::default() };
            crate::kept::config("train", &options.resolved(DEFAULTS, CLASSES).unwrap()).unwrap().hash()
        };
        let hashes = [hash(0.05, None), hash(0.5, None), hash(0.5, Some(OptimizerName::Adam))];
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
        // Asking for what the command would choose anyway is the same run.
        let chosen = LearningOptions::default().resolved(DEFAULTS, CLASSES).unwrap();
        assert_eq!(hashes[0], crate::kept::config("train", &chosen).unwrap().hash());
    }

    #[test]
    fn what_the_samples_say_of_labels_and_targets_holds_unless_another_is_asked_for() {
        let price = ("price".to_string(), "targets".to_string());
        let lesson = Lesson { has_classes: true, ignored: Some(-100), targets: vec![price] };
        let text = |loss: Option<&str>, ignore_index| {
            let loss = loss.map(|text| text.parse().unwrap());
            let options = LearningOptions { loss, ignore_index, ..LearningOptions::default() };
            options.objective(&lesson).unwrap().to_string()
        };
        assert_eq!(text(None, None), "cross-entropy:ignore=-100");
        assert_eq!(text(None, Some(0)), "cross-entropy:ignore=0");
        assert_eq!(text(Some("cross-entropy:ignore=7"), None), "cross-entropy:ignore=7");
        assert_eq!(text(Some("mse + 0.5*mae:target=price"), None), "mse + 0.5*mae");
        assert!(text(Some("mae + cross-entropy"), None).contains("ignore=-100"));
        assert!(text(Some("mae + cross-entropy"), Some(7)).contains("ignore=7"), "a term of a sum");
    }

    #[test]
    fn contradictions_are_named_by_their_option() {
        let refused = |options: LearningOptions| {
            options.resolved(DEFAULTS, CLASSES).unwrap_err().option_name().unwrap_or_default()
        };
        let base = LearningOptions::default;
        let mse = || Some("mse".parse::<Loss>().unwrap());
        assert_eq!(refused(LearningOptions { lr: Some(-1.0), ..base() }), "lr");
        assert_eq!(refused(LearningOptions { temperature: Some(2.0), ..base() }), "temperature");
        assert_eq!(refused(LearningOptions { loss: mse(), ignore_index: Some(0), ..base() }), "ignore_index");
        assert_eq!(refused(LearningOptions { accumulate: Some(0), ..base() }), "accumulate");
    }
}
