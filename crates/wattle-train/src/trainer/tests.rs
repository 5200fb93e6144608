use super::*;
use crate::evaluation::evaluate;
use crate::network::{Init, build};
use crate::objective::Loss;
use crate::optimizer::Optimizer;
use crate::policy::{InTurn, Sampled};
use crate::training_data::TrainingData;
use wattle_data::{
    Batch, Column, ColumnInfo, DataSpec, LoadOptions, Normalisation, Source, SplitOptions, Splits,
};
use wattle_engine::{Cpu, PlanOptions};
use wattle_graph::ops::{BatchNormalization, MatMul};
use wattle_graph::{DType, Dim, Example, Graph, Model, Parameter, Tensor};

const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };

fn digits() -> (TrainingData, Splits) {
    let dataset = Arc::new(DataSpec::parse("digits").unwrap().load(&LoadOptions::default()).unwrap());
    let splits = Splits::new(&dataset, &SplitOptions::default()).unwrap();
    let normalisation = Normalisation::measure(&dataset, splits.train()).unwrap();
    let indices = splits.train().to_vec();
    (TrainingData { dataset, indices, normalisation }, splits)
}

fn options(optimizer: Optimizer) -> TrainOptions {
    TrainOptions {
        batch: 32,
        length: "3ep".parse().unwrap(),
        learning_rate: 0.05,
        schedule: "cosine".parse().unwrap(),
        optimizer,
        seed: 7,
        ..TrainOptions::new(Loss::cross_entropy())
    }
}

fn plan(threads: usize) -> PlanOptions {
    PlanOptions::new(Arc::new(Cpu::new(threads).unwrap()))
}

fn experiment(network: &str, options: TrainOptions, threads: usize) -> Experiment {
    let (data, _) = digits();
    let model = build(network, &data.dataset.shape, 10, Init::KaimingNormal, 1).unwrap();
    Experiment::new(model, data.source(&options).unwrap(), options, plan(threads))
}

fn trained(experiment: &Experiment, end: u64) -> Parameters {
    let mut trainer = Trainer::new(experiment).unwrap();
    while trainer.step() < end {
        trainer.advance().unwrap();
    }
    trainer.parameters()
}

#[test]
fn a_network_learns_the_digits() {
    let (data, splits) = digits();
    let experiment = experiment("small-conv", options(SGD), 1);
    let mut trainer = Trainer::new(&experiment).unwrap();
    assert_eq!(trainer.notes().sentences(), Vec::<String>::new());
    let total = trainer.timeline().total;
    let first = trainer.advance().unwrap();
    assert!(first.norm.is_some_and(|norm| norm > 0.0));
    let mut last = first.loss;
    while trainer.step() < total {
        last = trainer.advance().unwrap().loss;
    }
    assert!(last < 0.5 * first.loss, "loss went from {} to {last}", first.loss);
    let model = Model { parameters: trainer.parameters(), ..experiment.model.clone() };
    let part = data.part(splits.validation()).unwrap();
    let found = evaluate(&model, &part, &Loss::cross_entropy(), &[], &plan(1)).unwrap();
    assert!(found.accuracy.unwrap() > 0.9, "{found:?}");
    assert!(found.chance.unwrap() < 0.2, "{found:?}");
}

/// Rows of 64 numbers, normalised, then ten classes: as an exporter writes it in training mode, or not.
fn normalised(training: bool) -> Model {
    let (mut graph, mut parameters) = (Graph::new("norm"), Parameters::new());
    let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), Dim::Known(64)]);
    let mut operands = vec![Some(x)];
    for (name, value) in [("scale", 1.0), ("bias", 0.0), ("mean", 0.5), ("var", 2.0)] {
        let parameter = match name {
            "scale" | "bias" => Parameter::trainable(name),
            _ => Parameter::state(name),
        };
        operands.push(Some(graph.parameter(parameter, DType::F32, &[64])));
        parameters.insert(name, Tensor::f32([64], vec![value; 64]));
    }
    let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training };
    let y = graph.apply_all(op, &operands, "norm").unwrap()[0];
    let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[64, 10]);
    parameters.insert("w", Example::noise(&[64, 10], 3));
    let y = graph.apply(MatMul::default(), &[y, w]).unwrap();
    graph.output(y);
    Model::new(graph, parameters)
}

#[test]
fn a_model_in_training_mode_is_judged_as_it_answers_once_it_is_written() {
    let (data, splits) = digits();
    let part = data.part(splits.validation()).unwrap();
    let judged =
        |training| evaluate(&normalised(training), &part, &Loss::cross_entropy(), &[], &plan(1)).unwrap();
    assert_eq!(judged(true), judged(false));
}

#[test]
fn stopping_and_going_on_changes_no_bit_and_neither_does_the_number_of_threads() {
    for (optimizer, accumulate) in [(SGD, 1), (Optimizer::Adam { weight_decay: 1e-4 }, 3)] {
        let options = TrainOptions {
            learning_rate: 0.01,
            accumulate,
            average: Some(0.9),
            clip: Some(1.0),
            ..options(optimizer)
        };
        let whole = trained(&experiment("lenet-300-100", options.clone(), 1), 12);
        let mut rest = experiment("lenet-300-100", options.clone(), 2);
        rest.model.parameters = trained(&rest, 5);
        rest.start.step = 5;
        assert_eq!(trained(&rest, 12), whole);
    }
}

/// Two columns of numbers that depend on the sample alone, in batches of any size: labels 0 to 3, every fifth ignored.
struct Fixed {
    batch: usize,
    columns: Vec<ColumnInfo>,
}

impl Fixed {
    fn new(batch: usize) -> Fixed {
        let columns = vec![ColumnInfo::new("x", DType::F32, [6]), ColumnInfo::new("targets", DType::I64, [])];
        Fixed { batch, columns }
    }
}

impl Source for Fixed {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn epoch_len(&self) -> u64 {
        24 / self.batch as u64
    }

    fn fill(&self, step: u64, batch: &mut Batch) -> Result<()> {
        let samples: Vec<u64> = (0..self.batch as u64).map(|i| step * self.batch as u64 + i).collect();
        let x: Vec<f32> =
            samples.iter().flat_map(|s| (0..6).map(move |j| ((s * 7 + j * 3) % 11) as f32 / 11.0)).collect();
        let labels: Vec<i64> = samples.iter().map(|s| if s % 5 == 0 { -1 } else { (s % 4) as i64 }).collect();
        let column = |info: &ColumnInfo, bytes: Vec<u8>| Column {
            name: info.name.clone(),
            dtype: info.dtype,
            extents: [&[self.batch], &info.extents[..]].concat(),
            bytes,
        };
        batch.columns = vec![
            column(&self.columns[0], x.iter().flat_map(|v| v.to_ne_bytes()).collect()),
            column(&self.columns[1], labels.iter().flat_map(|v| v.to_ne_bytes()).collect()),
        ];
        (batch.step, batch.epoch, batch.real) = (step, step / self.epoch_len(), self.batch);
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("fixed {}", self.batch)
    }
}

fn fixed(batch: usize, accumulate: u64, policy: Option<Arc<dyn StepPolicy>>) -> Experiment {
    let options = TrainOptions {
        batch,
        accumulate,
        loss: "cross-entropy:ignore=-1".parse().unwrap(),
        length: "2ep".parse().unwrap(),
        schedule: "constant".parse().unwrap(),
        learning_rate: 0.1,
        ..options(SGD)
    };
    let sample = wattle_data::SampleShape::Features(6);
    let model = build("lenet-300-100", &sample, 4, Init::KaimingNormal, 1).unwrap();
    Experiment { policy, ..Experiment::new(model, Arc::new(Fixed::new(batch)), options, plan(1)) }
}

#[test]
fn batches_that_are_added_up_are_one_large_batch() {
    // Batches of 3 have other shares of ignored labels: averages of averages would be off.
    let large = trained(&fixed(12, 1, None), 4);
    let small = trained(&fixed(3, 4, None), 4);
    for (name, tensor) in large.iter() {
        for (a, b) in tensor.to_f64().iter().zip(small.get(name).unwrap().to_f64().iter()) {
            assert!((a - b).abs() < 2e-6, "{name}: {a} {b}");
        }
    }
}

#[test]
fn batches_that_do_not_fill_a_step_are_left_out_of_their_epoch() {
    // 8 batches of 3, 3 for a step: 2 steps, and 2 batches left.
    let experiment = fixed(3, 3, None);
    assert_eq!(experiment.timeline().unwrap().iterations_per_epoch, 2);
    let trainer = Trainer::new(&experiment).unwrap();
    assert_eq!([0, 1, 2, 3].map(|step| trainer.batch_of(step)), [0, 3, 8, 11]);
    let error = fixed(3, 9, None).timeline().unwrap_err().to_string();
    assert!(error.contains("an epoch has 8"), "{error}");
}

#[test]
fn a_batch_of_one_learns() {
    let mut trainer = Trainer::new(&fixed(1, 1, None)).unwrap();
    // Sample 0 is ignored: nothing to learn from, and no NaN either.
    assert_eq!(trainer.advance().unwrap().loss, 0.0);
    assert!(trainer.advance().unwrap().loss > 0.0);
}

#[test]
fn networks_in_turn_learn_on_one_set_of_parameters() {
    let whole = fixed(4, 1, None);
    let bound = binding::bind(&whole.model, whole.data.columns(), 4).unwrap();
    let network = |freeze: &str| {
        let mut options = StepOptions::from(&whole.options);
        options.groups.freeze = freeze.parse().unwrap();
        Arc::new(StepGraph::new(&bound.model, &whole.options.loss, &options).unwrap())
    };
    let (all, head) = (network(""), network("fc1.*,fc2.*"));
    let policy = InTurn::new(vec![(0, all.clone()), (3, head.clone()), (5, all.clone())]).unwrap();
    let at = |end| trained(&fixed(4, 1, Some(Arc::new(policy.clone()))), end);
    let (three, five, six) = (at(3), at(5), at(6));
    let same = |a: &Parameters, b: &Parameters, name: &str| a.get(name) == b.get(name);
    assert!(same(&three, &five, "fc1.weight") && !same(&three, &five, "fc.weight"));
    assert!(same(&three, &five, "fc1.weight.velocity"), "what does not learn keeps its state");
    assert!(!same(&five, &six, "fc1.weight"));
    assert_eq!(at(3), trained(&whole, 3), "one network at a time is one network");
    let sampled = Sampled::new(vec![all, head], 5).unwrap();
    let choices: Vec<String> =
        (0..20).map(|step| sampled.step(step).facts().trained.len().to_string()).collect();
    assert!(choices.contains(&"6".to_string()) && choices.contains(&"2".to_string()), "{choices:?}");
}

#[test]
fn what_does_not_fit_is_refused_with_names() {
    let refused = |change: &dyn Fn(&mut Experiment)| {
        let mut experiment = fixed(4, 1, None);
        change(&mut experiment);
        Trainer::new(&experiment).err().expect("a refusal").to_string()
    };
    let target = refused(&|e| e.options.loss = "mse".parse().unwrap());
    assert!(target.contains("column `targets` has [] a sample, but [4] is judged"), "{target}");
    let missing = refused(&|e| e.options.loss = "mse:target=price".parse().unwrap());
    assert!(missing.contains("no column `price`; the columns are: x, targets"), "{missing}");
    let batch = refused(&|e| e.options.batch = 5);
    assert!(batch.contains("batches of 4 samples"), "{batch}");
    let pattern = refused(&|e| e.options.groups.freeze = "encoder.*".parse().unwrap());
    assert!(pattern.contains("encoder.*") && pattern.contains("fc1.weight"), "{pattern}");
}
