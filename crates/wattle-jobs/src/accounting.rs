//! What else a run is accounted for, of the jobs that measure and estimate.

use std::path::{Path, PathBuf};

use wattle_meter::Quantity;
use wattle_meter::estimate::{Embodied, Water};
use wattle_meter::schedule::{self, Series};

use crate::error::{JobError, Result};
use crate::given_file;

/// What is accounted for besides energy, carbon of the grid and money; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accounting {
    /// CSV with the columns timestamp, g_per_kwh in equal steps: each joule has the intensity of its own hour.
    pub series: Option<PathBuf>,
    /// Intensity under contracts and certificates (market-based), gCO2e/kWh, reported beside the grid's.
    pub market_intensity: Option<Quantity>,
    /// Emissions of making one device or machine, and how long it serves.
    pub embodied: Option<Embodied>,
    /// Water per energy, of the site and of the power plants.
    pub water: Option<Water>,
}

impl Accounting {
    /// The same with the series read.
    pub(crate) fn read(&self) -> Result<wattle_meter::Accounting> {
        let named = |path: &PathBuf| Ok::<_, JobError>((path.display().to_string(), series(path)?));
        Ok(wattle_meter::Accounting {
            series: self.series.as_ref().map(named).transpose()?,
            market_intensity: self.market_intensity.clone(),
            embodied: self.embodied.clone(),
            water: self.water.clone(),
        })
    }
}

/// A series of carbon intensities.
pub(crate) fn series(path: &Path) -> Result<Series> {
    let file = given_file::open(path)?;
    schedule::read(file).map_err(|e| JobError::at(path.display(), e))
}
