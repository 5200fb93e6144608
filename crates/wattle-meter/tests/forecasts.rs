//! Forecasts of a run's total against trainings as they really went, on a machine that others used too: 60 runs, noted
//! by `benches/forecasts/run.py`. Other notes: `EPOCHS=file cargo test -p wattle-meter --test forecasts -- --nocapture`.
#![allow(clippy::print_stdout, reason = "the table is for docs/results/forecasts.md")]

use std::time::Duration;

use wattle_meter::{Forecast, Progress};

/// After how many epochs of each run a forecast is judged, as shares of the run.
const SHARES: [f64; 4] = [0.1, 0.25, 0.5, 0.75];

/// Ends of the epochs of each run, s.
fn runs() -> Vec<Vec<f64>> {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/forecasts/epochs.csv");
    let path = std::env::var("EPOCHS").unwrap_or(recorded.to_owned());
    let mut runs: Vec<Vec<f64>> = Vec::new();
    for record in csv::Reader::from_path(&path).unwrap_or_else(|e| panic!("{path}: {e}")).records() {
        let record = record.expect("a line of the table");
        let number = |column: usize| record[column].parse::<f64>().expect("a number");
        let run = number(0) as usize;
        if runs.len() <= run {
            runs.resize(run + 1, Vec::new());
        }
        runs[run].push(number(4));
    }
    runs
}

#[test]
fn intervals_hold_what_they_promise_and_the_middle_beats_the_running_mean() {
    let runs = runs();
    assert!(runs.len() >= 50);
    println!("| after | forecasts | held by the interval, % | off, % | running mean off, % | width, % |");
    println!("|---|---|---|---|---|---|");
    let mut all = Score::default();
    for share in SHARES {
        let mut score = Score::default();
        for run in &runs {
            score.take(run, share);
            all.take(run, share);
        }
        score.print(&format!("{:.0} % of the epochs", 100.0 * share));
    }
    all.print("all of these");
    // The window, the floor and the length of a disturbance were chosen on runs of even number; these are the others.
    let mut blind = Score::default();
    for run in runs.iter().skip(1).step_by(2) {
        SHARES.iter().for_each(|&share| blind.take(run, share));
    }
    blind.print("runs not used to choose by");
    for score in [&all, &blind] {
        let held = score.held as f64 / score.judged as f64;
        assert!((0.85..=0.95).contains(&held), "{held}");
        assert!(score.ours < score.mean);
    }
}

#[derive(Default)]
struct Score {
    judged: usize,
    held: usize,
    ours: f64,
    mean: f64,
    width: f64,
}

impl Score {
    /// Time stands for energy too: its forecast is the same computation.
    fn take(&mut self, ends: &[f64], share: f64) {
        let after = ((ends.len() as f64 * share).round() as usize).max(1);
        let progress = |&end: &f64| Progress { elapsed: Duration::from_secs_f64(end), joules: end };
        let seen: Vec<Progress> = ends[..after].iter().map(progress).collect();
        let (Some(forecast), Some(&total)) = (Forecast::of(&seen, ends.len()), ends.last()) else { return };
        let running_mean = ends[after - 1] / after as f64 * ends.len() as f64;
        self.judged += 1;
        self.held += usize::from(forecast.duration.contains(total));
        self.ours += (forecast.duration.value() / total - 1.0).abs();
        self.mean += (running_mean / total - 1.0).abs();
        self.width += (forecast.duration.high() - forecast.duration.low()) / total;
    }

    fn print(&self, name: &str) {
        let share = |sum: f64| 100.0 * sum / self.judged as f64;
        println!(
            "| {name} | {} | {:.0} | {:.1} | {:.1} | {:.0} |",
            self.judged,
            share(self.held as f64),
            share(self.ours),
            share(self.mean),
            share(self.width)
        );
    }
}
