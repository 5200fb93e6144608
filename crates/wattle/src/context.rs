//! What every command shares: global flags, where jobs run, and the two streams.

use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use serde::Serialize;
use wattle_jobs::{Env, EnvOptions};
use wattle_meter::{Meter, Receipt};
use wattle_report::{receipt as receipts, visible_lines};

use crate::failure::Failure;
use crate::flags;

/// Flags of every command.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Print one JSON document on stdout, nothing else.
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads to compute with; all cores by default.
    #[cfg(feature = "networks")]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Append the receipt to this file instead of the ledger in the user's data folder.
    #[arg(long, global = true, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Carbon intensity of the electricity in gCO2e/kWh: `57`, or a range `30..90`.
    #[arg(long, global = true, value_name = "G")]
    pub intensity: Option<String>,
    /// Where the electricity comes from, for its carbon intensity and, in Europe and the US, its price: FR, US-CA, gcp:europe-west1, aws:us-east-1.
    #[arg(long, global = true, value_name = "PLACE", conflicts_with = "intensity")]
    pub region: Option<String>,
    /// Price of the electricity in USD/kWh: `0.15`, or a range.
    #[arg(long, global = true, value_name = "USD")]
    pub price: Option<String>,
    /// Power usage effectiveness of the site, at least 1.
    #[arg(long, global = true, value_name = "X")]
    pub pue: Option<String>,
    /// The machine's processor, such as `EPYC 7763`, where energy is modelled: a virtual machine's part is capped by it.
    #[arg(long, global = true, value_name = "NAME")]
    pub cpu_model: Option<String>,
    /// What its whole package may draw (TDP) in W, where the table lacks it or the site has set another.
    #[arg(long, global = true, value_name = "W")]
    pub cpu_tdp: Option<f64>,
    /// Hardware threads of its whole package, not of the virtual machine.
    #[arg(long, global = true, value_name = "N")]
    pub cpu_threads: Option<u32>,
}

impl Globals {
    fn options(self, computes: bool) -> EnvOptions {
        #[cfg(feature = "networks")]
        let threads = self.threads.map(usize::from);
        #[cfg(not(feature = "networks"))]
        let threads = None;
        EnvOptions {
            command: std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect(),
            threads,
            computes,
            runs: None,
            ledger: self.ledger,
            intensity: self.intensity,
            region: self.region,
            price: self.price,
            pue: self.pue,
            cpu_model: self.cpu_model,
            cpu_tdp: self.cpu_tdp,
            cpu_threads: self.cpu_threads,
        }
    }
}

/// Where jobs run, and how their results are printed.
pub struct Context {
    /// Whether stdout gets JSON.
    pub json: bool,
    env: Env,
    /// Meters the command from its start to its result, where the job does not do that itself.
    whole: Mutex<Option<Meter>>,
}

impl Deref for Context {
    type Target = Env;

    fn deref(&self) -> &Env {
        &self.env
    }
}

impl DerefMut for Context {
    fn deref_mut(&mut self) -> &mut Env {
        &mut self.env
    }
}

impl Context {
    /// Resolves the flags: starts the threads of a command that computes, reads the factors.
    pub fn new(globals: Globals, computes: bool) -> Result<Context, Failure> {
        let json = globals.json;
        let env = Env::new(globals.options(computes), |name| std::env::var(name).ok())?;
        Ok(Context { json, env, whole: Mutex::new(None) })
    }

    /// Meters the command until it prints its result: the receipt then goes to the ledger and beside the result.
    pub fn meter_whole(&mut self) {
        self.whole = Mutex::new(Some(self.env.meter()));
    }

    /// Writes the command's one result: the JSON document, or the text for people.
    pub fn print(&self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        let meter = self.whole.lock().unwrap_or_else(PoisonError::into_inner).take();
        let receipt = meter.map(|meter| {
            let mut receipt = meter.stop();
            self.record(&mut receipt);
            receipt
        });
        let text = match (&receipt, self.json) {
            (Some(receipt), true) => serde_json::to_string_pretty(&Metered { document, receipt }),
            (None, true) => serde_json::to_string_pretty(document),
            (Some(receipt), false) => Ok(visible_lines(&flags::typed(&format!(
                "{}\n\nThis command itself took:\n\n{}",
                text.trim_end(),
                receipts::summary(receipt)
            )))),
            (None, false) => Ok(visible_lines(&flags::typed(text))),
        };
        let text = text.map_err(|e| Failure::Run(format!("the result cannot be written as JSON: {e}")))?;
        let text = text.trim_end();
        match writeln!(std::io::stdout().lock(), "{text}") {
            // A reader that has seen enough (`| head`) is no failure.
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Run(format!("stdout: {e}"))),
            _ => Ok(()),
        }
    }
}

/// A result and what it took.
#[derive(Serialize)]
struct Metered<'a, T> {
    #[serde(flatten)]
    document: &'a T,
    receipt: &'a Receipt,
}
