//! What makes a ticket a ticket: exactly these weights, from exactly that step, and nothing of the others.
//!
//! Each test is named for a mistake that a published implementation made (or nearly made).

use std::path::Path;
use std::sync::Arc;

use wattle_data::{DataSpec, LoadOptions, Normalisation, SplitOptions, Splits};
use wattle_engine::{Cpu, PlanOptions};
use wattle_graph::{Mask, Model, Parameters, Tensor};
use wattle_tickets::{
    FindOptions, Fractions, Level, PRESETS, Prunable, Scope, find, level_directory, preset, prunable, prune,
};
use wattle_train::checkpoint::Checkpoint;
use wattle_train::evaluation::evaluate;
use wattle_train::experiment::{Experiment, Start};
use wattle_train::fit::{FINAL, Progress, fit};
use wattle_train::network::{Init, build};
use wattle_train::objective::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::options::TrainOptions;
use wattle_train::run_directory::{Config, RunDirectory};
use wattle_train::training_data::TrainingData;

const PLAIN: Optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
const MOMENTUM: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-3 };
const FRACTIONS: Fractions = Fractions { conv: 0.3, dense: 0.2, output: 0.1 };

struct Setting {
    model: Model,
    data: TrainingData,
    validation: Vec<u32>,
    layers: Vec<Prunable>,
}

fn setting(network: &str) -> Setting {
    let dataset = Arc::new(DataSpec::parse("digits").unwrap().load(&LoadOptions::default()).unwrap());
    let splits = Splits::new(&dataset, &SplitOptions::default()).unwrap();
    let normalisation = Normalisation::measure(&dataset, splits.train()).unwrap();
    let model = build(network, &dataset.shape, 10, Init::KaimingNormal, 3).unwrap();
    let layers = prunable(&model.graph, FRACTIONS);
    let indices = splits.train().to_vec();
    let data = TrainingData { dataset, indices, normalisation };
    Setting { model, data, validation: splits.validation().to_vec(), layers }
}

fn plan(threads: usize) -> PlanOptions {
    PlanOptions::new(Arc::new(Cpu::new(threads).unwrap()))
}

/// A search: how levels are trained, and how they are found.
#[derive(Clone)]
struct Options {
    train: TrainOptions,
    find: FindOptions,
}

/// Ten steps; the learning rate changes at every one, so that a schedule begun anew would show.
fn options(optimizer: Optimizer, rewind: &str, levels: u32) -> Options {
    let train = TrainOptions {
        batch: 16,
        length: "10it".parse().unwrap(),
        schedule: "cosine".parse().unwrap(),
        optimizer,
        seed: 5,
        ..TrainOptions::new(Loss::cross_entropy())
    };
    let find = FindOptions { scope: Scope::LayerWise, rewind: rewind.parse().unwrap(), levels };
    Options { train, find }
}

fn experiment(setting: &Setting, train: &TrainOptions, threads: usize) -> Experiment {
    let Setting { model, data, validation, .. } = setting;
    let source = data.source(train).unwrap();
    let validation = Some(data.part(validation).unwrap());
    Experiment { validation, ..Experiment::new(model.clone(), source, train.clone(), plan(threads)) }
}

fn search(setting: &Setting, options: &Options, threads: usize) -> Vec<Level> {
    let experiment = experiment(setting, &options.train, threads);
    find(&experiment, &setting.layers, &options.find, &mut |_: Progress| {}).unwrap()
}

/// The same search, kept in a folder.
fn search_in(setting: &Setting, options: &Options, folder: &Path) -> Result<Vec<Level>, wattle_data::Error> {
    let mut experiment = experiment(setting, &options.train, 1);
    let config = Config::new("test", &serde_json::json!({}), &serde_json::json!({})).unwrap();
    experiment.directory = Some(Arc::new(RunDirectory::open_at(folder, &config).unwrap()));
    find(&experiment, &setting.layers, &options.find, &mut |_: Progress| {})
}

/// What training from `from` at step `start` until step `stop` gives, without any search.
fn trained(setting: &Setting, options: &Options, from: &Parameters, start: Start, stop: u64) -> Parameters {
    let model = Model { parameters: from.clone(), ..setting.model.clone() };
    let whole = experiment(setting, &options.train, 1);
    let part = Experiment { model, validation: None, start, stop_at: Some(stop), ..whole };
    fit(&part, &mut |_| {}).unwrap().parameters
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.as_f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// Every tensor of the network (not the optimiser's) has the same bits in both.
fn assert_same(setting: &Setting, a: &Parameters, b: &Parameters, what: &str) {
    for (name, _) in setting.model.parameters.iter() {
        assert!(bits(a.get(name).unwrap()) == bits(b.get(name).unwrap()), "{what}: {name}");
    }
}

#[test]
fn rewinding_without_pruning_repeats_the_original_run_to_the_bit() {
    // Batch statistics, schedule and order of samples all have to go on from step 4; plain SGD has no state that
    // rewinding makes fresh.
    for network in ["lenet-300-100", "resnet-20"] {
        let setting = setting(network);
        let options = options(PLAIN, "4it", 0);
        let original = trained(&setting, &options, &setting.model.parameters, Start::default(), 10);
        let level = search(&setting, &options, 1).remove(0);
        assert_same(&setting, &level.trained, &original, network);
        let mut full = level.start.clone();
        for layer in &setting.layers {
            let len = full.get(&layer.tensor).unwrap().len();
            assert!(full.set_mask(&layer.tensor, Mask::full(len)));
        }
        let masked = trained(&setting, &options, &full, Start { step: 4, fresh_at: 4 }, 10);
        assert_same(&setting, &masked, &original, "a full mask");
        let early = trained(&setting, &options, &level.start, Start::default(), 6);
        assert!(
            setting
                .model
                .parameters
                .iter()
                .any(|(name, _)| bits(early.get(name).unwrap()) != bits(original.get(name).unwrap())),
            "a schedule and order begun at 0 are another run"
        );
    }
}

#[test]
fn every_level_starts_from_its_mask_times_the_rewound_weights() {
    for (network, rewind, step) in
        [("lenet-300-100", "0it", 0), ("lenet-300-100", "3it", 3), ("resnet-20", "3it", 3)]
    {
        let setting = setting(network);
        let options = options(MOMENTUM, rewind, 2);
        let rewound = trained(&setting, &options, &setting.model.parameters, Start::default(), step);
        for level in search(&setting, &options, 1) {
            for (name, _) in setting.model.parameters.iter() {
                let mut expected = Tensor::clone(rewound.get(name).unwrap());
                if let Some(mask) = level.start.mask(name) {
                    mask.apply(&mut expected);
                }
                let start = level.start.get(name).unwrap();
                assert!(bits(start) == bits(&expected), "{network}, level {}: {name}", level.level);
            }
            let masked = setting.layers.iter().filter(|l| level.start.mask(&l.tensor).is_some()).count();
            assert_eq!(masked, if level.level == 0 { 0 } else { setting.layers.len() });
            // And that start is what was trained.
            let again = trained(&setting, &options, &level.start, Start { step, fresh_at: step }, 10);
            assert_same(&setting, &level.trained, &again, "trained from the start");
        }
    }
}

#[test]
fn every_level_removes_exactly_the_ceiling_of_its_share() {
    let setting = setting("lenet-300-100");
    for scope in [Scope::LayerWise, Scope::Global] {
        let mut options = options(MOMENTUM, "0it", 3);
        options.find.scope = scope;
        let levels = search(&setting, &options, 1);
        let alive = |level: &Level| -> Vec<usize> {
            let count = |l: &Prunable| {
                let len = level.start.get(&l.tensor).unwrap().len();
                level.start.mask(&l.tensor).map_or(len, Mask::count)
            };
            setting.layers.iter().map(count).collect()
        };
        // ceil(n / 5) and ceil(n / 10), without floating point.
        let left = |n: usize, one_in: usize| n - n.div_ceil(one_in);
        for pair in levels.windows(2) {
            let (before, after) = (alive(&pair[0]), alive(&pair[1]));
            match scope {
                Scope::LayerWise => {
                    let expected: Vec<usize> =
                        before.iter().zip([5, 5, 10]).map(|(&n, one_in)| left(n, one_in)).collect();
                    assert_eq!(after, expected);
                }
                Scope::Global => {
                    assert_eq!(after.iter().sum::<usize>(), left(before.iter().sum(), 5));
                }
            }
            let total: usize = alive(&levels[0]).iter().sum();
            assert_eq!(pair[1].density, after.iter().sum::<usize>() as f64 / total as f64);
        }
    }
}

#[test]
fn ties_fall_by_layer_and_then_by_index() {
    let mut equal = Parameters::new();
    for name in ["first", "second"] {
        equal.insert(name, Tensor::f32([10], vec![-0.5; 10]));
    }
    let layer = |tensor: &str| Prunable { tensor: tensor.into(), fraction: 0.3 };
    let layers = [layer("first"), layer("second")];
    let dead = |masks: &[(String, Mask)]| -> Vec<Vec<usize>> {
        masks.iter().map(|(_, m)| (0..10).filter(|&i| !m.get(i)).collect()).collect()
    };
    assert_eq!(dead(&prune(&equal, &layers, Scope::Global)), [(0..6).collect(), Vec::<usize>::new()]);
    assert_eq!(dead(&prune(&equal, &layers, Scope::LayerWise)), [vec![0, 1, 2], vec![0, 1, 2]]);
}

#[test]
fn dead_weights_and_their_optimiser_state_are_positive_zero_in_memory_and_on_disk() {
    let setting = setting("lenet-300-100");
    let sgd = |momentum, nesterov, weight_decay| Optimizer::Sgd { momentum, nesterov, weight_decay };
    for optimizer in [
        PLAIN,
        sgd(0.0, false, 0.1),
        sgd(0.9, false, 0.1),
        sgd(0.9, true, 0.1),
        Optimizer::Adam { weight_decay: 0.0 },
        Optimizer::Adam { weight_decay: 0.1 },
        Optimizer::AdamW { weight_decay: 0.1 },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let layers = &setting.layers;
        let levels = search_in(&setting, &options(optimizer, "2it", 1), folder.path()).unwrap();
        let file = Checkpoint::read(&level_directory(folder.path(), 1).join(FINAL)).unwrap();
        for layer in layers {
            let mask = levels[1].trained.mask(&layer.tensor).unwrap();
            let dead: Vec<usize> = (0..mask.len()).filter(|&i| !mask.get(i)).collect();
            assert!(!dead.is_empty());
            let mut seen = 0;
            for suffix in ["", ".velocity", ".first_moment", ".second_moment"] {
                let name = format!("{}{suffix}", layer.tensor);
                let Some(tensor) = levels[1].trained.get(&name) else { continue };
                let saved = file.tensors.iter().find(|t| t.name == name).unwrap().to_f32().unwrap();
                let memory = bits(tensor);
                for &i in &dead {
                    assert_eq!((memory[i], saved[i].to_bits()), (0, 0), "{optimizer:?}: {name}[{i}]");
                }
                seen += 1;
            }
            let states = match optimizer {
                Optimizer::Sgd { momentum: 0.0, .. } => 0,
                Optimizer::Sgd { .. } => 1,
                _ => 2,
            };
            assert_eq!(seen, 1 + states, "{optimizer:?}");
        }
    }
}

#[test]
fn surviving_weights_of_either_sign_are_trained() {
    let setting = setting("lenet-300-100");
    let level = search(&setting, &options(PLAIN, "0it", 1), 1).remove(1);
    let (start, end) = (level.start.get("fc2.weight").unwrap(), level.trained.get("fc2.weight").unwrap());
    let (start, end) = (start.as_f32().unwrap(), end.as_f32().unwrap());
    for negative in [true, false] {
        let alive: Vec<usize> =
            (0..start.len()).filter(|&i| start[i] != 0.0 && (start[i] < 0.0) == negative).collect();
        let moved = alive.iter().filter(|&&i| start[i] != end[i]).count();
        assert!(moved > alive.len() / 2, "negative {negative}: {moved} of {} moved", alive.len());
    }
}

#[test]
fn levels_are_judged_on_the_validation_part() {
    let setting = setting("lenet-300-100");
    let options = options(PLAIN, "0it", 1);
    for level in search(&setting, &options, 1) {
        let model = Model { parameters: level.trained, ..setting.model.clone() };
        let part = setting.data.part(&setting.validation).unwrap();
        let found = evaluate(&model, &part, &options.train.loss, &[], &plan(1)).unwrap();
        assert_eq!(found, level.validation);
        assert_eq!(found.samples, setting.validation.len());
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_any_level() {
    let setting = setting("lenet-300-100");
    let options = options(MOMENTUM, "2it", 2);
    for (one, two) in search(&setting, &options, 1).into_iter().zip(search(&setting, &options, 2)) {
        assert_same(&setting, &one.start, &two.start, "start");
        assert_same(&setting, &one.trained, &two.trained, "trained");
        assert_eq!(one.validation, two.validation);
    }
}

#[test]
fn a_layer_without_any_weight_left_still_trains() {
    let mut setting = setting("lenet-300-100");
    setting.layers.iter_mut().for_each(|layer| layer.fraction = 1.0);
    let levels = search(&setting, &options(MOMENTUM, "0it", 1), 1);
    assert_eq!(levels[1].density, 0.0);
    assert!(levels[1].validation.loss.is_finite());
}

#[test]
fn presets_stay_what_they_were_published_as() {
    let texts: Vec<String> = PRESETS
        .iter()
        .map(|name| serde_json::to_string_pretty(&preset(name, 0).unwrap()).unwrap() + "\n")
        .collect();
    assert_eq!(texts.concat(), include_str!("golden/presets.json"));
}

#[test]
fn every_level_has_seen_the_same_number_of_steps() {
    let setting = setting("lenet-300-100");
    let levels = search(&setting, &options(MOMENTUM, "4it", 2), 1);
    assert_eq!(levels.iter().map(|l| l.steps).collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!(levels.iter().map(|l| l.steps_spent).collect::<Vec<_>>(), [10, 16, 22]);
}

#[test]
fn a_search_that_runs_again_reads_its_levels_back() {
    let setting = setting("lenet-300-100");
    let folder = tempfile::tempdir().unwrap();
    let first = search_in(&setting, &options(MOMENTUM, "2it", 1), folder.path()).unwrap();
    let again = search_in(&setting, &options(MOMENTUM, "2it", 2), folder.path()).unwrap();
    assert!(again.iter().map(|l| l.notes.is_some()).eq([false, false, true]), "the third level is new");
    for (a, b) in first.iter().zip(&again) {
        assert_eq!((&a.trained, &a.validation), (&b.trained, &b.validation));
    }
}

#[test]
fn a_folder_of_another_search_is_refused_whatever_differs() {
    let folder = tempfile::tempdir().unwrap();
    let (first, base) = (setting("lenet-300-100"), options(MOMENTUM, "2it", 1));
    search_in(&first, &base, folder.path()).unwrap();
    let refused = |setting: &Setting, options: &Options, what: &str| {
        let error = search_in(setting, options, folder.path()).expect_err(what).to_string();
        assert!(error.contains("it holds the run level-"), "{what}: {error}");
    };
    let changed = |change: &dyn Fn(&mut Options)| {
        let mut options = base.clone();
        change(&mut options);
        options
    };
    refused(&first, &changed(&|o| o.train.learning_rate = 0.1), "learning rate");
    refused(&first, &changed(&|o| o.train.seed = 6), "seed");
    refused(&first, &changed(&|o| o.train.clip = Some(1.0)), "clipping");
    refused(&first, &changed(&|o| o.find.rewind = "3it".parse().unwrap()), "rewind point");
    refused(&first, &changed(&|o| o.find.scope = Scope::Global), "scope");
    let mut model = setting("lenet-300-100");
    model.model.parameters.insert("fc.bias", Tensor::f32([10], vec![1e-20; 10]));
    refused(&model, &base, "one weight of the model");
    let mut data = setting("lenet-300-100");
    data.data.indices.pop();
    refused(&data, &base, "one sample less");
    let mut layers = setting("lenet-300-100");
    layers.layers[0].fraction = 0.25;
    refused(&layers, &base, "the share of one layer");
}
