//! `wattle train`: a network, from data, with a receipt.

use std::path::PathBuf;

use serde::Serialize;
use wattle_graph::{Model, onnx};
use wattle_jobs::learning::OptimizerName;
use wattle_meter::{Receipt, Unit, Work};
use wattle_report::receipt as receipts;
use wattle_train::atomic_file::write_atomically;
use wattle_train::fit::fit;
use wattle_train::network::Init;
use wattle_train::run_directory::{Config, RunDirectory};
use wattle_train::trainer::{Start, TrainOptions, Trainer, evaluate};

use super::training::{self, DataArgs, Defaults, TrainArgs};
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::models;

const DEFAULTS: Defaults =
    Defaults { epochs: 10, batch: 64, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// Arguments of `wattle train`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle train --model lenet-300-100 --data digits --epochs 20 --out run")]
pub struct Args {
    /// An .onnx classifier, or lenet-300-100, lenet-5, resnet-20, small-conv.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// Folder of the run; by default one named by what decides its result, under `runs`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct RunConfig {
    model: String,
    model_fingerprint: String,
    data: String,
    data_fingerprint: String,
    validation: Option<f64>,
    train: TrainOptions,
}

#[derive(Serialize)]
struct Document {
    test_accuracy: Option<f64>,
    test_loss: f64,
    validation_accuracy: Option<f64>,
    steps: u64,
    /// Whether the run had been finished before and was only read back.
    reused: bool,
    train: TrainOptions,
    files: Files,
    receipt: Receipt,
}

#[derive(Serialize)]
struct Files {
    run: PathBuf,
    model: PathBuf,
    receipt: PathBuf,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let meter = context.meter();
    let prepared = training::prepare(&args.data, args.train.loss)?;
    let data = &prepared.training;
    let options = args.train.options(DEFAULTS, &data.dataset)?;
    let model = training::model(&args.model, data, Init::KaimingNormal, args.train.seed)?;
    let plan = context.plan_options();
    // A training that is refused leaves no folder behind.
    drop(Trainer::new(&model, data, &options, &plan, Start::default())?);
    let config = RunConfig {
        model: args.model.clone(),
        model_fingerprint: models::fingerprint(&model)?,
        data: args.data.data.clone(),
        data_fingerprint: data.dataset.fingerprint(),
        validation: args.data.validation,
        train: options.clone(),
    };
    let config = Config::new("train", &config, &RunConfig { validation: None, ..with_defaults(&config) })?;
    let run = match &args.out {
        Some(path) => RunDirectory::open_at(path, &config)?,
        None => RunDirectory::open("runs".as_ref(), &config)?,
    };
    let bar = crate::bars::bar("training", 0);
    let scope = meter.scope("train");
    let hash = config.hash();
    let fitted = fit(&model, data, &options, &plan, Start::default(), None, Some((&run, &hash)), &mut |p| {
        bar.set_length(p.total);
        bar.set_position(p.step);
    })?;
    drop(scope);
    bar.finish_and_clear();
    let trained = Model { parameters: training::own_parameters(&model, &fitted.parameters), ..model.clone() };
    let scope = meter.scope("evaluate");
    let validation = match prepared.splits.validation() {
        [] => None,
        part => evaluate(&trained, data, part, options.loss, &plan)?.accuracy,
    };
    let test = prepared.splits.take_test().into_indices();
    let test = evaluate(&trained, data, &test, options.loss, &plan)?;
    drop(scope);
    let file = run.file("model.onnx");
    write_atomically(&file, &onnx::encode_model(&trained)?)?;
    let mut receipt = meter.stop();
    let samples = if fitted.reused { 0 } else { fitted.steps * options.batch as u64 };
    receipt.work.samples = Some(Work::counted(samples, Unit::Sample));
    receipt.seeds.insert("seed".into(), args.train.seed);
    context.record(&mut receipt);
    run.write("receipt.json", receipt.to_json().as_bytes())?;
    let files = Files { run: run.path().to_path_buf(), model: file, receipt: run.file("receipt.json") };
    let accuracy = test
        .accuracy
        .map_or(format!("test loss {:.4}", test.loss), |a| format!("test accuracy {:.2} %", 100.0 * a));
    let text = format!(
        "{accuracy} on {} samples after {} steps{}\nmodel {}\n\n{}",
        test.samples,
        fitted.steps,
        if fitted.reused { " (finished before; nothing was computed)" } else { "" },
        files.model.display(),
        receipts::summary(&receipt)
    );
    let document = Document {
        test_accuracy: test.accuracy,
        test_loss: test.loss,
        validation_accuracy: validation,
        steps: fitted.steps,
        reused: fitted.reused,
        train: options,
        files,
        receipt,
    };
    context.print(&document, &text)
}

/// What the fields of a run that may be left out of its name are when they are.
fn with_defaults(config: &RunConfig) -> RunConfig {
    RunConfig {
        model: String::new(),
        model_fingerprint: String::new(),
        data: "digits".into(),
        data_fingerprint: String::new(),
        validation: None,
        train: TrainOptions {
            augmentation: "none".into(),
            seed: 0,
            batch: 0,
            length: String::new(),
            ..config.train.clone()
        },
    }
}
