//! Judges forecasts by recorded trainings: `cargo run --release -p wattle-meter --example forecasts -- epochs.csv`,
//! the file as `benches/forecasts/run.py` writes it.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::time::Duration;

use wattle_meter::{Forecast, Progress};

/// After how many epochs of each run a forecast is judged, as shares of the run.
const SHARES: [f64; 4] = [0.1, 0.25, 0.5, 0.75];

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which file? epochs.csv of benches/forecasts/run.py")?;
    let mut runs: Vec<Vec<f64>> = Vec::new();
    for record in csv::Reader::from_path(path)?.records() {
        let record = record?;
        let (run, seconds) = (record[0].parse::<usize>()?, record[4].parse::<f64>()?);
        if runs.len() <= run {
            runs.resize(run + 1, Vec::new());
        }
        runs[run].push(seconds);
    }
    println!("| after | runs | held by the interval, % | mean error, % | mean error of the running mean, % | width of the interval, % |");
    println!("|---|---|---|---|---|---|");
    let mut all = Score::default();
    for share in SHARES {
        let mut score = Score::default();
        for run in runs.iter().filter(|run| run.len() >= 4) {
            let after = ((run.len() as f64 * share).round() as usize).max(1);
            score.take(run, after);
            all.take(run, after);
        }
        score.print(&format!("{:.0} % of the epochs", 100.0 * share));
    }
    all.print("all of these");
    Ok(())
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
    fn take(&mut self, ends: &[f64], after: usize) {
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
