//! Where a job runs: the processor, the meter, the price and the carbon of its joules, the folders it writes to.

use std::path::{Path, PathBuf};

use wattle_meter::intensity::Place;
use wattle_meter::prices;
use wattle_meter::{
    FactorTexts, Factors, Meter, MeterConfig, Package, Quantity, Receipt, WarningKind, ledger,
};

use crate::error::{JobError, Result};

/// What an environment is made of; everything may be left out.
#[derive(Clone, Debug, Default)]
pub struct EnvOptions {
    /// What receipts say was run: a program and its arguments.
    pub command: Vec<String>,
    /// Threads to compute with; all cores by default.
    pub threads: Option<usize>,
    /// Whether networks will be run, and so more than one thread is worth starting.
    pub computes: bool,
    /// Folder under which runs are kept, `runs` by default.
    pub runs: Option<PathBuf>,
    /// File that receipts are appended to; the user's ledger by default.
    pub ledger: Option<PathBuf>,
    /// Carbon intensity of the electricity in gCO2e/kWh: `57`, or a range `30..90`.
    pub intensity: Option<String>,
    /// Where the electricity comes from: `FR`, `US-CA`, `gcp:europe-west1`.
    pub region: Option<String>,
    /// Price of the electricity in USD/kWh, or a range.
    pub price: Option<String>,
    /// Power usage effectiveness of the site, at least 1.
    pub pue: Option<String>,
    /// The machine's processor, a name of the table in `wattle-meter`, for energy that is modelled.
    pub cpu_model: Option<String>,
    /// Thermal design power of its package, W.
    pub cpu_tdp: Option<f64>,
    /// Hardware threads of its package.
    pub cpu_threads: Option<u32>,
}

/// Where a job runs. Nothing in it changes what a job finds, only how fast, where it is kept and what it is said to cost.
#[derive(Clone)]
pub struct Env {
    /// Instruction set and threads.
    #[cfg(feature = "networks")]
    pub cpu: std::sync::Arc<wattle_engine::Cpu>,
    /// Folder under which runs are kept that nobody named.
    pub runs: PathBuf,
    command: Vec<String>,
    region: Option<String>,
    ledger: Option<PathBuf>,
    factors: Factors,
    factor_warning: Option<WarningKind>,
    package: Option<Package>,
}

impl Env {
    /// Starts the threads and reads the factors; `variable` looks up an environment variable where an option is left out.
    ///
    /// # Errors
    /// If a factor, a place or an instruction set is not one; [`ErrorKind::Input`](crate::ErrorKind::Input).
    pub fn new(options: EnvOptions, variable: impl Fn(&str) -> Option<String>) -> Result<Env> {
        #[cfg(feature = "networks")]
        let cpu = networks::cpu(options.threads, options.computes, &variable)?;
        let texts =
            FactorTexts { carbon_intensity: options.intensity, price: options.price, pue: options.pue };
        let (factors, factor_warning) = Factors::resolve(&texts, &variable).map_err(JobError::input)?;
        let place = options.region.as_deref().map(Place::find).transpose();
        let place = place.map_err(|e| JobError::option("region", e))?;
        let package = Package::stated(options.cpu_model.as_deref(), options.cpu_tdp, options.cpu_threads);
        let mut env = Env {
            #[cfg(feature = "networks")]
            cpu,
            runs: options.runs.unwrap_or_else(|| "runs".into()),
            command: options.command,
            region: place.as_ref().map(|place| name_of(place, options.region.as_deref())),
            ledger: options.ledger.or_else(|| ledger::default_path(&variable)),
            factors,
            factor_warning,
            package: package.map_err(JobError::input)?,
        };
        if let Some(place) = place {
            env.set_intensity(place.intensity());
            let unpriced = env.factors_assumed().iter().any(|factor| factor == "price");
            if let Some(price) = prices::electricity(&place.id).filter(|_| unpriced) {
                env.factors.price = price;
                env.stated("price");
            }
        }
        Ok(env)
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

    /// The cloud region that was named as the place, such as `aws:us-east-1`; `None` for other places.
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

    /// The machine's processor, where it was stated.
    pub fn package(&self) -> Option<&Package> {
        self.package.as_ref()
    }

    /// How a job is metered.
    pub fn meter_config(&self) -> MeterConfig {
        let mut config = MeterConfig::new(self.command.iter().map(String::as_str));
        config.labels.extend(self.region.iter().map(|region| ("region".to_owned(), region.clone())));
        config.factors = self.factors.clone();
        config.warnings.extend(self.factor_warning.clone());
        config.package = self.package.clone();
        config
    }

    /// Starts metering a job.
    pub fn meter(&self) -> Meter {
        Meter::start(self.meter_config())
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
}

/// A cloud region as the user wrote it, for the table knows the grid that feeds it; any other place by the table's name.
fn name_of(place: &Place, region: Option<&str>) -> String {
    let written = region.unwrap_or_default().trim().to_lowercase();
    if written.contains(':') { written } else { place.id.clone() }
}

#[cfg(feature = "networks")]
mod networks {
    use std::sync::Arc;

    use wattle_engine::{Cpu, Isa, PlanOptions};

    use super::Env;
    use crate::error::{JobError, Result};

    /// Names the instruction set to compute with, for comparisons; the widest of the processor by default.
    const ISA: &str = "WATTLE_ISA";

    pub fn cpu(
        threads: Option<usize>,
        computes: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Arc<Cpu>> {
        let cores = std::thread::available_parallelism().map_or(1, |n| if computes { n.get() } else { 1 });
        let isa = match variable(ISA).filter(|name| !name.is_empty()) {
            Some(name) => Isa::named(&name).map_err(|e| JobError::at(ISA, e))?,
            None => Isa::detect(),
        };
        Cpu::with_isa(isa, threads.unwrap_or(cores)).map(Arc::new).map_err(JobError::input)
    }

    impl Env {
        /// Planning for this processor.
        pub fn plan_options(&self) -> PlanOptions {
            PlanOptions::new(self.cpu.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_states_the_intensity_and_a_wrong_one_is_named_by_its_field() {
        let with = |region: &str| EnvOptions { region: Some(region.into()), ..EnvOptions::default() };
        let env = Env::new(with("aws:us-east-1"), |_| None).unwrap();
        assert_eq!(env.cloud_region(), Some("aws:us-east-1"));
        assert!(!env.factors_assumed().iter().any(|factor| factor == "intensity"));
        let refused = Env::new(with("Atlantis"), |_| None).err().unwrap();
        assert_eq!(refused.option_name(), Some("region"));
    }
}
