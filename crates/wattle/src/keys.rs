//! Whatever can change the result of a run is in its name: every option of every command that keeps runs, varied.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use wattle_data::SampleShape;
use wattle_graph::onnx;
use wattle_jobs::{JobError, Observer, find_tickets, shrink, train};
use wattle_train::network::{self, Init};
use wattle_train::weights::write_weights;

use crate::Cli;
use crate::commands::{Command, networks, ticket};
use crate::context::Context;

/// Two lines of arguments that differ in one option, and what becomes of the run's name.
struct Variation {
    /// Its name; with the command in front where commands differ.
    option: &'static str,
    lines: [&'static str; 2],
    /// Why the run is the same one, if it is.
    same: Option<&'static str>,
}

impl Variation {
    fn is_of(&self, command: &str, option: &str) -> bool {
        match self.option.rsplit_once(' ') {
            Some((own, name)) => own == command && name == option,
            None => self.option == option,
        }
    }
}

/// These lines ask for different runs.
const fn another(option: &'static str, one: &'static str, other: &'static str) -> Variation {
    Variation { option, lines: [one, other], same: None }
}

/// These lines ask for the same run, for this reason.
const fn same(option: &'static str, one: &'static str, other: &'static str, why: &'static str) -> Variation {
    Variation { option, lines: [one, other], same: Some(why) }
}

const PRINTED: &str = "only what is printed";
const COSTED: &str = "only what the run is said to cost";

/// Every option of all these commands. A new one is missing here, and the test says so.
const VARIATIONS: &[Variation] = &[
    // Which network, which data.
    another("model", "--model m.onnx", "--model other.onnx"),
    another("preset", "--preset open-lth", "--preset paper-2019"),
    another("data", "--data csv:rows.csv", "--data csv:others.csv"),
    another("validation", "", "--validation 25%"),
    another("normalise", "", "--normalise unit"),
    another("columns", "--columns x=a+b+c+d+second", "--columns x=b+a+c+d+second"),
    another("target", "--target label", "--target second"),
    another("missing", "", "--missing mean"),
    another("tokenizer", "", "--tokenizer bytes"),
    another("init-from", "", "--init-from w.safetensors"),
    // How it learns.
    another("epochs", "--epochs 2", "--epochs 3"),
    another("batch", "--batch 4", "--batch 5"),
    another("optimizer", "--optimizer sgd", "--optimizer nesterov"),
    another("lr", "--lr 0.05", "--lr 0.5"),
    another("weight-decay", "", "--weight-decay 0.1"),
    another("schedule", "--schedule constant", "--schedule linear"),
    another("loss", "--loss cross-entropy", "--loss cross-entropy:smoothing=0.1"),
    another("label-smoothing", "", "--label-smoothing 0.1"),
    another("ignore-index", "", "--ignore-index 0"),
    another(
        "augment",
        "--data digits --model lenet-300-100 --batch 64",
        "--data digits --model lenet-300-100 --batch 64 --augment crop:1",
    ),
    another("seed", "", "--seed 1"),
    another("accumulate", "", "--accumulate 2"),
    another("clip", "", "--clip 1"),
    another("freeze", "", "--freeze fc2.bias"),
    another("no-decay", "--weight-decay 0.1", "--weight-decay 0.1 --no-decay bias"),
    another("lr-scale", "", "--lr-scale fc2.*=0.5"),
    another("average", "", "--average 0.9"),
    another("stop", "", "--stop 1"),
    another("metric", "", "--metric accuracy"),
    another("teacher", "", "--teacher other.onnx"),
    another("temperature", "--teacher other.onnx", "--teacher other.onnx --temperature 2"),
    // How tickets are looked for.
    another("fraction", "--fraction 0.2", "--fraction 0.3"),
    another("scope", "--scope global", "--scope layer-wise"),
    another("rewind", "--rewind 1it", "--rewind 2it"),
    same("levels", "--levels 1", "--levels 2", "further levels extend a run; each level is kept by itself"),
    same(
        "max-rounds",
        "--max-rounds 1",
        "--max-rounds 2",
        "further levels extend a run; each is kept by itself",
    ),
    same("tolerance", "", "--tolerance 3", "chooses among the levels that are kept, anew by every process"),
    same("sparse-format", "", "--sparse-format dense", "the form of the file, written anew by every process"),
    same("dense", "", "--dense", "the form of the file, written anew by every process"),
    another("train with-normalisation", "", "--with-normalisation"),
    same(
        "shrink with-normalisation",
        "",
        "--with-normalisation",
        "the form of the file, written anew by every process",
    ),
    same("accel", "", "--accel eyeriss-v2", "looks at the networks that were found, anew by every process"),
    // Where it is kept and computed, what is told of it.
    same("out", "", "--out elsewhere", "only where it is kept"),
    same("threads", "--threads 1", "--threads 2", "the same bits on any number of threads"),
    same("json", "", "--json", PRINTED),
    same("ledger", "--ledger ledger", "--ledger other", "only where the receipt is copied to"),
    same("intensity", "", "--intensity 57", COSTED),
    same("region", "", "--region FR", COSTED),
    same("price", "", "--price 0.3", COSTED),
    same("pue", "", "--pue 1.5", COSTED),
    same("cpu-model", "", "--cpu-model epyc-7763", COSTED),
    same("cpu-tdp", "--cpu-threads 16 --cpu-tdp 65", "--cpu-threads 16 --cpu-tdp 105", COSTED),
    same("cpu-threads", "--cpu-tdp 65 --cpu-threads 8", "--cpu-tdp 65 --cpu-threads 16", COSTED),
];

/// What every line has but for what it says itself.
const BASE: &[&str] =
    &["--model m.onnx", "--data csv:rows.csv", "--epochs 2", "--batch 4", "--threads 1", "--ledger ledger"];

/// A folder with the files that the variations name.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the machine has room");
    let path = |name: &str| folder.path().join(name);
    for (name, seed) in [("m.onnx", 1), ("other.onnx", 2)] {
        let model = network::build("lenet-300-100", &SampleShape::Features(5), 3, Init::KaimingNormal, seed)
            .expect("it exists");
        fs::write(path(name), onnx::encode_model(&model).expect("our own")).expect("it is new");
        if seed == 2 {
            write_weights(&path("w.safetensors"), &model.parameters).expect("it is new");
        }
    }
    for (name, factor) in [("rows.csv", 3), ("others.csv", 5)] {
        let mut text = "a,b,c,d,second,label\n".to_string();
        for row in 0..60 {
            let [a, b, c, d] = [1, 2, 3, 4].map(|k| (row * factor * k) % 17);
            text += &format!("{a}.5,{b}.5,{c}.5,{d}.5,{},{}\n", (row / 2) % 3, row % 3);
        }
        fs::write(path(name), text).expect("it is new");
    }
    folder
}

/// Ends a job as soon as it asks, which is after its run has its name.
struct Impatient;

impl Observer for Impatient {
    fn cancelled(&mut self) -> bool {
        true
    }
}

/// The name of the run that this line keeps: that of its folder, as its configuration says.
fn run_name(folder: &Path, line: &str) -> Result<String, String> {
    let runs = tempfile::tempdir_in(folder).map_err(|e| e.to_string())?;
    let words: Vec<String> = line.split_whitespace().map(|word| located(folder, runs.path(), word)).collect();
    let cli = Cli::try_parse_from(std::iter::once("wattle".to_string()).chain(words))
        .map_err(|e| format!("refused: {e}"))?;
    let mut context = Context::new(cli.globals, true).map_err(|e| format!("{e:?}"))?;
    context.runs = runs.path().join("runs");
    let Command::Networks(command) = cli.command else { return Err("not a command of networks".into()) };
    let ended: Result<(), JobError> = match command {
        networks::Command::Train(args) => train(&args.job(), &context, &mut Impatient).map(drop),
        networks::Command::Shrink(args) => shrink(&args.job(), &context, &mut Impatient).map(drop),
        networks::Command::Ticket(ticket::Command::Find(args)) => {
            find_tickets(&args.job(), &context, &mut Impatient).map(drop)
        }
        _ => return Err("a command that keeps no runs".into()),
    };
    if let Err(error) = ended.as_ref().map_err(|e| (e.kind(), e))
        && error.0 != wattle_jobs::ErrorKind::Cancelled
    {
        return Err(format!("failed: {}", error.1));
    }
    let [run] = &configurations(runs.path())[..] else { return Err("there is not one run".into()) };
    let text = fs::read_to_string(run).map_err(|e| e.to_string())?;
    let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
    name.map(str::to_owned).ok_or_else(|| format!("no name in {text}"))
}

/// A word with the files it names where they are: the process has one working directory for all its tests.
fn located(folder: &Path, runs: &Path, word: &str) -> String {
    match word {
        "m.onnx" | "other.onnx" | "w.safetensors" | "ledger" | "other" => {
            folder.join(word).display().to_string()
        }
        "elsewhere" => runs.join("runs").join(word).display().to_string(),
        _ => match word.strip_prefix("csv:") {
            Some(name) => format!("csv:{}", folder.join(name).display()),
            None => word.to_owned(),
        },
    }
}

/// The configurations of the runs below a folder, without those of their levels.
fn configurations(runs: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(runs.join("runs")).into_iter().flatten().flatten();
    found.map(|entry| entry.path().join("config.toml")).filter(|path| path.exists()).collect()
}

/// A command, what it is asked anyway, and what this line says in place of it.
fn line(command: &str, said: &str) -> String {
    let mut line = command.to_string();
    for base in BASE {
        let option = base.split(' ').next().unwrap_or_default();
        if !said.split_whitespace().any(|word| word == option) {
            line += &format!(" {base}");
        }
    }
    format!("{line} {said}")
}

/// Commands that keep runs, each with its options: those whose folder is named by what decides the result.
fn commands() -> Vec<(String, Vec<String>)> {
    fn walk(command: &clap::Command, path: &str, found: &mut Vec<(String, Vec<String>)>) {
        let keeps = |a: &clap::Arg| {
            a.get_long() == Some("out")
                && a.get_help().is_some_and(|help| help.to_string().contains("named by what"))
        };
        if command.get_arguments().any(keeps) {
            let options = command.get_arguments().filter(|a| a.get_id() != "help" && a.get_id() != "version");
            let named = options.map(|a| a.get_long().unwrap_or(a.get_id().as_str()).to_string()).collect();
            found.push((path.to_string(), named));
        }
        for inner in command.get_subcommands() {
            walk(inner, format!("{path} {}", inner.get_name()).trim(), found);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut found = vec![];
    walk(&root, "", &mut found);
    found
}

#[test]
fn every_option_that_can_change_a_result_changes_the_name_of_its_run() {
    let commands = commands();
    let names: Vec<&str> = commands.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["shrink", "train", "ticket find"], "commands that keep runs");
    let files = files();
    let wrong = RefCell::new(vec![]);
    let name_of = |line: &str| {
        let found = run_name(files.path(), line);
        found.inspect_err(|error| wrong.borrow_mut().push(format!("`{line}`: {error}"))).ok()
    };
    for (command, options) in &commands {
        for option in options {
            let Some(variation) = VARIATIONS.iter().find(|v| v.is_of(command, option)) else {
                wrong.borrow_mut().push(format!("`{command} --{option}` has no variation in this test"));
                continue;
            };
            let lines = variation.lines.map(|said| line(command, said));
            let [Some(one), Some(other)] = [&lines[0], &lines[1]].map(|line| name_of(line)) else { continue };
            match variation.same {
                None if one == other => {
                    wrong
                        .borrow_mut()
                        .push(format!("two results, one name {one}: `{}` and `{}`", lines[0], lines[1]));
                }
                Some(why) if one != other => {
                    wrong.borrow_mut().push(format!("`{command} --{option}` names another run: {why}?"));
                }
                _ => {}
            }
        }
    }
    for variation in VARIATIONS {
        let is_known =
            commands.iter().any(|(command, options)| options.iter().any(|o| variation.is_of(command, o)));
        if !is_known {
            wrong.borrow_mut().push(format!("no command has `{}` any more", variation.option));
        }
    }
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_model_that_is_named_first_is_the_one_named_by_its_flag() {
    let files = files();
    let rest = "--data csv:rows.csv --epochs 2 --batch 4 --threads 1 --ledger ledger";
    for command in ["train", "shrink", "ticket find"] {
        let [first, flag, other] = ["m.onnx", "--model m.onnx", "other.onnx"]
            .map(|said| run_name(files.path(), &format!("{command} {said} {rest}")).expect("it is fine"));
        assert_eq!(first, flag, "{command}");
        assert_ne!(first, other, "{command}");
    }
}

#[test]
fn a_file_of_the_same_name_with_other_contents_is_another_run() {
    let files = files();
    let path = |name: &str| files.path().join(name);
    for (command, said, changed, with) in [
        ("train", "", "m.onnx", "other.onnx"),
        ("train", "", "rows.csv", "others.csv"),
        ("train", "--teacher other.onnx", "other.onnx", "m.onnx"),
        ("train", "--init-from w.safetensors", "w.safetensors", "third.safetensors"),
        ("shrink", "", "m.onnx", "other.onnx"),
        ("shrink", "", "rows.csv", "others.csv"),
        ("ticket find", "--init-from w.safetensors", "w.safetensors", "third.safetensors"),
    ] {
        let third = network::build("lenet-300-100", &SampleShape::Features(5), 3, Init::KaimingNormal, 3)
            .expect("it exists");
        write_weights(&path("third.safetensors"), &third.parameters).expect("there is room");
        let line = line(command, said);
        let before = run_name(files.path(), &line).expect("it is fine");
        let kept = fs::read(path(changed)).expect("it is there");
        fs::copy(path(with), path(changed)).expect("there is room");
        let after = run_name(files.path(), &line).expect("it is fine");
        assert_ne!(before, after, "`{line}` with other contents of {changed}");
        fs::write(path(changed), kept).expect("there is room");
        assert_eq!(run_name(files.path(), &line).expect("it is fine"), before);
    }
}
