//! What every command shares: global flags, the processor, the meter, and the two streams.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use serde::Serialize;
use wattle_meter::intensity::Place;
use wattle_meter::prices;
use wattle_meter::{FactorTexts, Factors};
use wattle_meter::{Meter, MeterConfig, Quantity, Receipt, WarningKind, ledger};
use wattle_report::receipt as receipts;

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
}

/// The resolved globals.
pub struct Context {
    /// Whether stdout gets JSON.
    pub json: bool,
    /// Instruction set and threads.
    #[cfg(feature = "networks")]
    pub cpu: std::sync::Arc<wattle_engine::Cpu>,
    region: Option<String>,
    ledger: Option<PathBuf>,
    factors: Factors,
    factor_warning: Option<WarningKind>,
    /// Meters the command from its start to its result, where the command does not do that itself.
    whole: Mutex<Option<Meter>>,
}

impl Context {
    /// Resolves the flags: starts the threads of a command that computes, reads the factors.
    #[cfg_attr(not(feature = "networks"), allow(unused_variables, reason = "a meter needs no threads"))]
    pub fn new(globals: Globals, computes: bool) -> Result<Context, Failure> {
        #[cfg(feature = "networks")]
        let cpu = networks::cpu(globals.threads, computes)?;
        let environment = |name: &str| std::env::var(name).ok();
        let texts =
            FactorTexts { carbon_intensity: globals.intensity, price: globals.price, pue: globals.pue };
        let mut place = None;
        let (factors, factor_warning) =
            Factors::resolve(&texts, environment).map_err(|e| Failure::Input(e.to_string()))?;
        if let Some(region) = &globals.region {
            place = Some(Place::find(region).map_err(|e| Failure::at("--region", e))?);
        }
        let ledger = globals.ledger.or_else(|| ledger::default_path(environment));
        let mut context = Context {
            json: globals.json,
            #[cfg(feature = "networks")]
            cpu,
            region: place.as_ref().map(|place| name_of(place, &globals.region)),
            ledger,
            factors,
            factor_warning,
            whole: Mutex::new(None),
        };
        if let Some(place) = place {
            context.set_intensity(place.intensity());
            let unpriced = context.factors_assumed().iter().any(|factor| factor == "price");
            if let Some(price) = prices::electricity(&place.id).filter(|_| unpriced) {
                context.factors.price = price;
                context.stated("price");
            }
        }
        Ok(context)
    }

    /// Takes a carbon intensity that somebody stated.
    pub fn set_intensity(&mut self, intensity: Quantity) {
        self.factors.carbon_intensity = intensity;
        self.stated("intensity");
    }

    /// Takes a factor off the list of those that nobody stated.
    fn stated(&mut self, name: &str) {
        if let Some(WarningKind::FactorsAssumed { factors }) = &mut self.factor_warning {
            factors.retain(|factor| factor != name);
            if factors.is_empty() {
                self.factor_warning = None;
            }
        }
    }

    /// The cloud region that `--region` names, such as `aws:us-east-1`; `None` for other places.
    pub fn cloud_region(&self) -> Option<&str> {
        self.region.as_deref().filter(|region| region.contains(':'))
    }

    /// Carbon intensity, price and PUE.
    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    /// Names of the factors that nobody gave: `intensity`, `price`, `pue`.
    pub fn factors_assumed(&self) -> &[String] {
        match &self.factor_warning {
            Some(WarningKind::FactorsAssumed { factors }) => factors,
            _ => &[],
        }
    }

    /// How this command is metered.
    pub fn meter_config(&self) -> MeterConfig {
        let arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
        let mut config = MeterConfig::new(arguments);
        config.labels.extend(self.region.iter().map(|region| ("region".to_owned(), region.clone())));
        config.factors = self.factors.clone();
        config.warnings.extend(self.factor_warning.clone());
        config
    }

    /// Meters the command until it prints its result: the receipt then goes to the ledger and beside the result.
    pub fn meter_whole(&mut self) {
        self.whole = Mutex::new(Some(Meter::start(self.meter_config())));
    }

    /// Where receipts are appended, unless nowhere.
    pub fn ledger(&self) -> Option<&Path> {
        self.ledger.as_deref()
    }

    /// Appends a finished receipt to the ledger; a ledger that cannot be written becomes a warning in it.
    pub fn record(&self, receipt: &mut Receipt) {
        if let Some(path) = &self.ledger {
            ledger::append(path, receipt);
        }
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
            (Some(receipt), false) => Ok(flags::typed(&format!(
                "{}\n\nThis command itself took:\n\n{}",
                text.trim_end(),
                receipts::summary(receipt)
            ))),
            (None, false) => Ok(flags::typed(text)),
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

/// A cloud region as the user wrote it, for the table knows the grid that feeds it; any other place by the table's name.
fn name_of(place: &Place, region: &Option<String>) -> String {
    let written = region.as_deref().unwrap_or_default().trim().to_lowercase();
    if written.contains(':') { written } else { place.id.clone() }
}

/// A result and what it took.
#[derive(Serialize)]
struct Metered<'a, T> {
    #[serde(flatten)]
    document: &'a T,
    receipt: &'a Receipt,
}

#[cfg(feature = "networks")]
mod networks {
    use std::sync::Arc;

    use wattle_engine::{Cpu, Isa, PlanOptions};
    use wattle_meter::Meter;

    use super::Context;
    use crate::failure::Failure;

    /// Names the instruction set to compute with, for comparisons; the widest of the processor by default.
    const ISA: &str = "WATTLE_ISA";

    pub fn cpu(threads: Option<u16>, computes: bool) -> Result<Arc<Cpu>, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, |n| if computes { n.get() } else { 1 });
        let threads = threads.map_or(cores, usize::from);
        let isa = match std::env::var(ISA) {
            Ok(name) if !name.is_empty() => Isa::named(&name).map_err(|e| Failure::at(ISA, e))?,
            _ => Isa::detect(),
        };
        Cpu::with_isa(isa, threads).map(Arc::new).map_err(|e| Failure::Input(e.to_string()))
    }

    impl Context {
        /// Planning for this processor.
        pub fn plan_options(&self) -> PlanOptions {
            PlanOptions::new(self.cpu.clone())
        }

        /// Starts metering the command.
        pub fn meter(&self) -> Meter {
            Meter::start(self.meter_config())
        }

        /// A progress bar on stderr for work of `length` steps; hidden when stderr is no terminal.
        pub fn progress(&self, what: &str, length: u64) -> indicatif::ProgressBar {
            let bar = indicatif::ProgressBar::new(length);
            let style = indicatif::ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}");
            bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
            bar.set_message(what.to_string());
            bar
        }
    }
}
