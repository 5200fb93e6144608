//! Batch normalisation's running statistics after known batches, against their formulas.
//!
//! Convention: that of ONNX BatchNormalization (operator set 15, `training_mode`): after each batch
//! `running = momentum running + (1 - momentum) statistic`, where the variance is the *population* variance of the
//! batch (divided by n, biased). PyTorch's `running_var` divides by n - 1 instead.

use std::sync::Arc;

use wattle_data::{
    Augmentation, BatchOptions, Batches, Dataset, INPUT, Loader, Normalisation, SampleShape, Samples,
    SourceParts, Targets,
};
use wattle_engine::{Cpu, PlanOptions};
use wattle_graph::ops::{BatchNormalization, Flatten, Gemm};
use wattle_graph::{DType, Dim, Graph, Model, Parameter, Parameters, Tensor};
use wattle_train::loss::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::trainer::{Start, TrainOptions, Trainer, TrainingData};

const BATCH: usize = 4;
const STEPS: usize = 7;
const SEED: u64 = 11;
const MOMENTUM: f64 = 0.75;
/// Numbers of one channel in one batch: 4 images of 2 x 3.
const COUNT: usize = BATCH * 6;

/// Images of two channels: one around 3, one around -40 with a tenth of the spread.
fn data() -> TrainingData {
    let noise = |i: usize| ((i * i * 37 + i * 11) % 101) as f32 / 50.0 - 1.0;
    let image = |n: usize| {
        (0..12).map(move |i| if i < 6 { 3.0 + noise(12 * n + i) } else { -40.0 + 0.1 * noise(12 * n + i) })
    };
    let samples = Samples::Floats((0..20).flat_map(image).collect());
    let targets = Targets::Classes {
        labels: (0..20).map(|n| n % 2).collect(),
        names: vec!["even".into(), "odd".into()],
    };
    let shape = SampleShape::Image { channels: 2, height: 2, width: 3 };
    let dataset = Dataset::new("noise".into(), shape, samples, targets, SourceParts::undivided(20)).unwrap();
    TrainingData {
        dataset: Arc::new(dataset),
        indices: (0..20).collect(),
        normalisation: Normalisation::identity(2),
    }
}

/// `x -> batch normalisation -> dense`, so that the statistics are those of the samples themselves.
fn network() -> Model {
    let mut graph = Graph::new("normalised");
    let mut parameters = Parameters::new();
    let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), 2.into(), 2.into(), 3.into()]);
    let mut vector = |graph: &mut Graph, parameter: Parameter, shape: &[usize], value: f32| {
        let values = vec![value; shape.iter().product()];
        parameters.insert(parameter.tensor.clone(), Tensor::f32(shape, values));
        graph.parameter(parameter, DType::F32, shape)
    };
    let scale = vector(&mut graph, Parameter::trainable("scale"), &[2], 1.0);
    let bias = vector(&mut graph, Parameter::trainable("bias"), &[2], 0.0);
    let mean = vector(&mut graph, Parameter::state("mean"), &[2], 10.0);
    let variance = vector(&mut graph, Parameter::state("variance"), &[2], 5.0);
    let op = BatchNormalization { epsilon: 1e-5, momentum: MOMENTUM as f32, training: false };
    let operands = [x, scale, bias, mean, variance].map(Some);
    let y = graph.apply_all(op, &operands, "bn").unwrap()[0];
    let y = graph.apply(Flatten { axis: 1 }, &[y]).unwrap();
    let w = vector(&mut graph, Parameter::trainable("w"), &[2, 12], 0.1);
    let b = vector(&mut graph, Parameter::trainable("b"), &[2], 0.0);
    let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
    let y = graph.apply_all(op, &[Some(y), Some(w), Some(b)], "fc").unwrap()[0];
    graph.output(y);
    Model::new(graph, parameters)
}

/// Running mean and variance of each channel after the batches, with `divisor` under the squares.
fn expected(data: &TrainingData, divisor: f64) -> [(f64, f64); 2] {
    let options =
        BatchOptions::training(BATCH, SEED, Augmentation::NONE).normalised(INPUT, data.normalisation.clone());
    let source = Batches::new(data.dataset.clone(), &data.indices, options).unwrap();
    let mut loader = Loader::new(Arc::new(source), 2);
    let mut running = [(10.0, 5.0); 2];
    for _ in 0..STEPS {
        let inputs = loader.next_batch().unwrap().columns[0].to_f32().unwrap();
        for (channel, (mean, variance)) in running.iter_mut().enumerate() {
            let numbers: Vec<f64> =
                inputs.chunks(6).skip(channel).step_by(2).flatten().map(|&x| f64::from(x)).collect();
            assert_eq!(numbers.len(), COUNT);
            let average = numbers.iter().sum::<f64>() / COUNT as f64;
            let spread = numbers.iter().map(|x| (x - average).powi(2)).sum::<f64>() / divisor;
            *mean = MOMENTUM * *mean + (1.0 - MOMENTUM) * average;
            *variance = MOMENTUM * *variance + (1.0 - MOMENTUM) * spread;
        }
    }
    running
}

#[test]
fn running_statistics_follow_the_population_statistics_of_each_batch() {
    let data = data();
    let options = TrainOptions {
        batch: BATCH,
        length: format!("{STEPS}it"),
        learning_rate: 0.1,
        schedule: "constant".into(),
        optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-2 },
        loss: Loss::CrossEntropy { label_smoothing: 0.0 },
        augmentation: "none".into(),
        seed: SEED,
    };
    for threads in [1, 2] {
        let plan = PlanOptions::new(Arc::new(Cpu::new(threads).unwrap()));
        let mut trainer = Trainer::new(&network(), &data, &options, &plan, Start::default()).unwrap();
        for _ in 0..STEPS {
            trainer.advance().unwrap();
        }
        let parameters = trainer.parameters().unwrap();
        let found = |name: &str| parameters.get(name).unwrap().to_f64().into_owned();
        let (means, variances) = (found("mean"), found("variance"));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs();
        for (channel, (mean, variance)) in expected(&data, COUNT as f64).into_iter().enumerate() {
            assert!(close(means[channel], mean), "mean {channel}: {}, expected {mean}", means[channel]);
            let found = variances[channel];
            assert!(close(found, variance), "variance {channel}: {found}, expected {variance}");
        }
        let (_, unbiased) = expected(&data, COUNT as f64 - 1.0)[0];
        assert!(!close(variances[0], unbiased), "the test tells the two conventions apart");
    }
}
