//! Flags that say what else a run is accounted for, of the commands that measure and estimate.

use std::path::PathBuf;

use wattle_jobs::accounting::Accounting;
use wattle_meter::estimate::{Embodied, Water};
use wattle_meter::{Quantity, Unit, stated};

use crate::failure::Failure;

/// The flags.
#[derive(clap::Args, Debug)]
pub struct AccountingArgs {
    /// CSV with the columns timestamp, g_per_kwh in equal steps: each joule has the intensity of its own hour.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["intensity", "region"])]
    series: Option<PathBuf>,
    /// Intensity under contracts and certificates (market-based) in gCO2e/kWh, reported beside the grid's.
    #[arg(long, value_name = "G")]
    market_intensity: Option<String>,
    /// Emissions of making one device or machine in kgCO2e; its share of the lifespan is reported.
    #[arg(long, value_name = "KG")]
    embodied: Option<String>,
    /// Its life in years.
    #[arg(long, default_value = "4", value_name = "A", requires = "embodied")]
    lifespan: String,
    /// Water evaporated on site in L per kWh of the computers (WUE).
    #[arg(long, value_name = "L")]
    wue: Option<String>,
    /// Water used by the power plants in L per kWh of the facility.
    #[arg(long, value_name = "L", requires = "wue")]
    grid_wue: Option<String>,
}

impl AccountingArgs {
    /// What the flags say.
    pub fn options(&self) -> Result<Accounting, Failure> {
        let litres = Unit::LitrePerKilowattHour;
        let grams = Unit::GramCo2ePerKilowattHour;
        let lifespan = given("--lifespan", &Some(self.lifespan.clone()), Unit::Year, (0.01, 100.0))?;
        let embodied = given("--embodied", &self.embodied, Unit::KilogramCo2e, (0.0, 1e9))?;
        let site = given("--wue", &self.wue, litres, (0.0, 1e3))?;
        let grid = given("--grid-wue", &self.grid_wue, litres, (0.0, 1e3))?;
        Ok(Accounting {
            series: self.series.clone(),
            market_intensity: given("--market-intensity", &self.market_intensity, grams, (0.0, 5000.0))?,
            embodied: embodied.zip(lifespan).map(|(total, lifespan)| Embodied { total, lifespan }),
            water: site.map(|site| Water { site, grid }),
        })
    }
}

/// A number that was given, within what makes sense for it.
pub fn given(
    name: &str,
    text: &Option<String>,
    unit: Unit,
    range: (f64, f64),
) -> Result<Option<Quantity>, Failure> {
    let number = |text: &String| stated(name, text, unit, range).map_err(|e| Failure::Input(e.to_string()));
    text.as_ref().map(number).transpose()
}
