//! A search for tickets that its observer ends, as a library call.

use wattle_jobs::shrink::SparseForm;
use wattle_jobs::training::data::DataOptions;
use wattle_jobs::training::learning::LearningOptions;
use wattle_jobs::{Env, EnvOptions, ErrorKind, Observer, ShrinkJob, Silent, shrink};

/// Asks for an end some steps after a stage has begun, and looks at the page on the way.
struct Impatient {
    stage: &'static str,
    page: std::path::PathBuf,
    seen: Vec<String>,
    drawn: bool,
    ends: bool,
}

impl Observer for Impatient {
    fn progress(&mut self, what: &str, done: u64, _total: u64) {
        if self.seen.last().is_none_or(|last| last != what) {
            self.seen.push(what.to_owned());
        }
        self.drawn |= self.page.exists();
        self.ends = what == self.stage && done > 10;
    }

    fn cancelled(&mut self) -> bool {
        self.ends
    }
}

#[test]
fn a_search_ends_within_a_level_when_it_is_asked_to_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::new(EnvOptions { threads: Some(1), ..EnvOptions::default() }, |_| None).unwrap();
    let job = |out: &str| ShrinkJob {
        model: "lenet-300-100".into(),
        data: DataOptions::of("digits"),
        learning: LearningOptions { epochs: Some(2), ..LearningOptions::default() },
        init_from: None,
        tolerance: 100.0,
        max_rounds: 1,
        rewind: "2%".parse().unwrap(),
        sparse_format: SparseForm::Compact,
        with_normalisation: false,
        accel: None,
        out: Some(folder.path().join(out)),
    };
    let page = folder.path().join("run/report.html");
    let mut observer = Impatient { stage: "round 1", page, seen: vec![], drawn: false, ends: false };
    let ended = shrink(&job("run"), &env, &mut observer).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Cancelled);
    assert_eq!(observer.seen, ["dense", "round 1"]);
    assert!(observer.drawn, "the curves are drawn while it runs");
    assert!(folder.path().join("run/receipt.json").exists(), "what it has cost is kept");
    let resumed = shrink(&job("run"), &env, &mut Silent).unwrap();
    let whole = shrink(&job("whole"), &env, &mut Silent).unwrap();
    assert_eq!(resumed.lean.value, whole.lean.value);
    let [a, b] =
        ["run", "whole"].map(|run| std::fs::read(folder.path().join(run).join("lean.onnx")).unwrap());
    assert!(a == b, "the same bytes");
}
