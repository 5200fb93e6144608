use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::binding;
use crate::early_stop::EarlyStop;
use crate::network::{Init, build};
use crate::objective::Loss;
use crate::options::TrainOptions;
use crate::policy::{InTurn, StepPolicy};
use crate::step_graph::{StepGraph, StepOptions};
use crate::training_data::TrainingData;
use wattle_data::{DataSpec, LoadOptions, Normalisation, SampleShape, SplitOptions, Splits};
use wattle_engine::{BatchSplit, Cpu, Freeze, Isa, PlanOptions, Sparse};

/// Six epochs on 160 digits, judged by 80 others.
fn experiment(change: impl Fn(&mut TrainOptions)) -> Experiment {
    let dataset = Arc::new(DataSpec::parse("digits").unwrap().load(&LoadOptions::default()).unwrap());
    let splits = Splits::new(&dataset, &SplitOptions::default()).unwrap();
    let normalisation = Normalisation::measure(&dataset, splits.train()).unwrap();
    let data = TrainingData { dataset, indices: splits.train()[..160].to_vec(), normalisation };
    let mut options = TrainOptions {
        batch: 32,
        length: "6ep".parse().unwrap(),
        learning_rate: 0.05,
        ..TrainOptions::new(Loss::cross_entropy())
    };
    change(&mut options);
    let model = build("lenet-300-100", &data.dataset.shape, 10, Init::KaimingNormal, 1).unwrap();
    let source = data.source(&options).unwrap();
    let validation = Some(data.part(&splits.validation()[..80]).unwrap());
    let plan = PlanOptions::new(Arc::new(Cpu::new(1).unwrap()));
    Experiment { validation, ..Experiment::new(model, source, options, plan) }
}

fn kept(mut experiment: Experiment, path: &Path) -> Experiment {
    let directory = RunDirectory::open_at(path, &experiment.config().unwrap()).unwrap();
    experiment.directory = Some(Arc::new(directory));
    experiment
}

/// Counts joules, and cancels after so many steps.
#[derive(Default)]
struct Follower {
    epochs: Vec<Epoch>,
    cancel_at: Option<u64>,
    step: u64,
}

impl Watcher for Follower {
    fn progress(&mut self, progress: Progress) {
        self.step = progress.step;
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.epochs.push(epoch.clone());
    }

    fn joules(&mut self) -> Option<f64> {
        self.cancel_at.is_none().then_some(self.step as f64)
    }

    fn is_cancelled(&mut self) -> bool {
        self.cancel_at.is_some_and(|at| self.step >= at)
    }
}

#[test]
fn sums_survive_their_notes_to_the_bit() {
    let parts = BTreeMap::from([("mse".to_string(), 0.3)]);
    let sums = Sums { loss: 0.1 + 0.2, norm: 1.0 / 3.0, parts, count: 7 };
    assert_eq!(Sums::from_notes(&sums.to_notes()), sums);
    assert_eq!(Sums::from_notes(&BTreeMap::new()), Sums::default());
    for best in [Best::default(), Best { found: Some((0.1, 12)), waited: 3 }] {
        assert_eq!(best_from_notes(&best_to_notes(&best)), best);
    }
}

#[test]
fn every_epoch_tells_its_numbers() {
    let mut follower = Follower::default();
    let fitted = fit(&experiment(|o| o.clip = Some(5.0)), &mut follower).unwrap();
    assert_eq!((fitted.steps, follower.epochs.len()), (30, 6));
    let last = &follower.epochs[5];
    assert!(last.loss < follower.epochs[0].loss && last.validation_loss.is_some());
    assert!(last.validation["accuracy"] > 0.5, "{last:?}");
    assert_eq!((last.learning_rate, last.joules, last.epoch), (0.05, Some(30.0), 6));
    assert!(last.gradient_norm.is_some_and(|norm| norm > 0.0));
}

#[test]
fn an_interrupted_training_ends_as_if_nothing_had_been() {
    let change = |o: &mut TrainOptions| {
        o.average = Some(0.8);
        o.stop = Some("2:metric=accuracy".parse::<EarlyStop>().unwrap());
    };
    let folder = tempfile::tempdir().unwrap();
    let whole = kept(experiment(change), &folder.path().join("whole"));
    let expected = fit(&whole, &mut |_| {}).unwrap();
    let broken = folder.path().join("broken");
    for cancel_at in [7, 10, 16] {
        let follower = &mut Follower { cancel_at: Some(cancel_at), ..Follower::default() };
        let error = fit(&kept(experiment(change), &broken), follower);
        if expected.steps > cancel_at {
            assert!(error.unwrap_err().to_string().contains("cancelled after step"), "{cancel_at}");
        }
    }
    let found = fit(&kept(experiment(change), &broken), &mut |_| {}).unwrap();
    assert_eq!((found.parameters, found.steps), (expected.parameters.clone(), expected.steps));
    let lines = |name: &str| std::fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).unwrap();
    assert_eq!(lines("broken"), lines("whole"));
    let again = fit(&kept(experiment(change), &broken), &mut |_| {}).unwrap();
    assert!(again.reused && again.parameters == expected.parameters);
}

#[test]
fn a_directory_of_another_experiment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = kept(experiment(|o| o.length = "1ep".parse().unwrap()), folder.path());
    fit(&first, &mut |_| {}).unwrap();
    let changes: [fn(&mut TrainOptions); 4] = [
        |o| o.learning_rate = 0.5,
        |o| o.seed = 1,
        |o| o.clip = Some(1.0),
        |o| o.loss = "cross-entropy:smoothing=0.1".parse().unwrap(),
    ];
    for change in changes {
        let mut other = experiment(|o| {
            o.length = "1ep".parse().unwrap();
            change(o);
        });
        other.directory = first.directory.clone();
        let error = fit(&other, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("a checkpoint of the run"), "{error}");
    }
    let mut model = experiment(|o| o.length = "1ep".parse().unwrap());
    model.model.parameters.insert("fc.bias", wattle_graph::Tensor::f32([10], vec![1.0; 10]));
    model.directory = first.directory.clone();
    assert!(fit(&model, &mut |_| {}).is_err());
}

#[test]
fn training_stops_when_validation_does_and_gives_the_best_network() {
    let stop: EarlyStop = "2:delta=0.1".parse().unwrap();
    let mut experiment = experiment(|o| {
        o.stop = Some(stop);
        o.length = "60ep".parse().unwrap();
    });
    let mut follower = Follower::default();
    let fitted = fit(&experiment, &mut follower).unwrap();
    assert!(fitted.stopped_early && fitted.steps < 300, "{}", fitted.steps);
    let losses: Vec<f64> = follower.epochs.iter().map(|e| e.validation_loss.unwrap()).collect();
    let mut best = Best::default();
    for &loss in &losses {
        stop.improves(&mut best, loss, 0);
    }
    assert_eq!((best.waited, fitted.steps), (2, 5 * losses.len() as u64));
    let model = Model { parameters: fitted.parameters, ..experiment.model.clone() };
    let source = experiment.validation.clone().unwrap();
    let found = evaluate(&model, &source, &experiment.options.loss, &[], &experiment.plan).unwrap();
    assert_eq!(Some(found.loss), best.found.map(|(loss, _)| loss), "{losses:?}");
    experiment.validation = None;
    let error = fit(&experiment, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("no validation part"), "{error}");
}

#[test]
fn no_epochs_give_the_network_as_it_is() {
    let mut experiment = experiment(|o| o.length = "0ep".parse().unwrap());
    let fitted = fit(&experiment, &mut |_| {}).unwrap();
    assert_eq!((fitted.steps, &fitted.parameters), (0, &experiment.model.parameters));
    // Not even something to train is needed.
    experiment.options.groups.freeze = "*".parse().unwrap();
    assert!(fit(&experiment, &mut |_| {}).is_ok());
}

#[test]
fn the_average_is_what_is_learnt_where_it_is_kept() {
    let fitted = fit(&experiment(|o| o.average = Some(0.9)), &mut |_| {}).unwrap();
    let tensor = |name: &str| fitted.parameters.get(name).unwrap().clone();
    assert_eq!(tensor("fc.weight"), tensor("fc.weight.average"));
}

#[test]
fn whatever_decides_a_training_is_in_its_key() {
    let base = || experiment(|_| {});
    // A new field does not compile until it is varied below or stands among those that change no bit.
    let Experiment {
        model: _,
        data: _,
        validation: _,
        options: _,
        plan: _,
        policy: _,
        start: _,
        stop_at: _,
        directory: _,
    } = base();
    let with = |change: &dyn Fn(&mut Experiment)| {
        let mut experiment = base();
        change(&mut experiment);
        experiment.key().unwrap()
    };
    let in_turn = |e: &Experiment, second| -> Arc<dyn StepPolicy> {
        let bound = binding::bind(&e.model, e.data.columns(), 32).unwrap();
        let network = StepGraph::new(&bound.model, &e.options.loss, &StepOptions::from(&e.options)).unwrap();
        let network = Arc::new(network);
        Arc::new(InTurn::new(vec![(0, network.clone()), (second, network)]).unwrap())
    };
    let scalar = || Arc::new(Cpu::with_isa(Isa::named("scalar").unwrap(), 1).unwrap());
    let other = || {
        build(
            "lenet-300-100",
            &SampleShape::Image { channels: 1, height: 8, width: 8 },
            10,
            Init::KaimingNormal,
            2,
        )
    };
    let keys = [
        with(&|_| {}),
        with(&|e| e.model = other().unwrap()),
        with(&|e| e.data = experiment(|o| o.seed = 3).data),
        with(&|e| e.options.seed = 3),
        with(&|e| e.options.stop = Some("1".parse().unwrap())),
        with(&|e| (e.options.stop, e.validation) = (Some("1".parse().unwrap()), Some(e.data.clone()))),
        with(&|e| e.policy = Some(in_turn(e, 5))),
        with(&|e| e.policy = Some(in_turn(e, 6))),
        with(&|e| e.start.step = 5),
        with(&|e| e.start.fresh_at = 5),
        with(&|e| e.stop_at = Some(5)),
        with(&|e| e.plan.cpu = scalar()),
        with(&|e| e.plan.rewrite = false),
        with(&|e| e.plan.freeze = Freeze::None),
        with(&|e| e.plan.sparse = Sparse::Never),
        with(&|e| e.plan.batch = BatchSplit::Whole),
    ];
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "variation {i} has the key of another");
    }
    let folder = tempfile::tempdir().unwrap();
    for same in [
        with(&|e| e.plan.cpu = Arc::new(Cpu::new(2).unwrap())),
        with(&|e| e.plan.memory_limit /= 2),
        // What is only told, where nothing stops early.
        with(&|e| e.validation = None),
        kept(base(), folder.path()).key().unwrap(),
    ] {
        assert_eq!(same, keys[0]);
    }
}
