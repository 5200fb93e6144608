//! One model on several architectures.

use std::path::PathBuf;

use serde::Serialize;
use wattle_accel::Totals;

use super::request::{self, ModelOptions};
use crate::env::Env;
use crate::error::Result;
use crate::observer::Observer;

/// A model and architectures.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The model.
    pub model: ModelOptions,
    /// Shipped architectures, or files; ratios are against the first.
    pub archs: Vec<String>,
    /// Energy table, or binding of an Accelergy table, in place of those of all the architectures.
    pub energy: Option<PathBuf>,
}

/// A model on several architectures.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    schema: u32,
    /// Always `modelled`.
    pub kind: &'static str,
    /// In the order they were asked for.
    pub architectures: Vec<Row>,
    /// Where the numbers come from.
    pub sources: Vec<String>,
    /// Why some ratios are not given; empty when all are.
    pub caveat: String,
}

/// A model on one architecture.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub arch: String,
    /// Its energy table.
    pub energy_table: String,
    /// The technology of that.
    pub technology: String,
    /// The sums.
    pub totals: Totals,
    /// Against the first architecture; `null` where the two do not do the same work, for one leaves some to the host.
    pub speed_up: Option<f64>,
    /// Against the first; `null` also where the technologies differ.
    pub energy_gain: Option<f64>,
}

/// Energies of different technologies are not set against each other.
const TECHNOLOGIES: &str = "energies of different technologies are not set against each other";

/// Estimates a model on each architecture.
///
/// # Errors
/// If the model or an architecture cannot be used, or a layer has no mapping.
pub fn compare(options: &CompareOptions, env: &Env, observer: &mut dyn Observer) -> Result<Compared> {
    let (workload, densities) = options.model.workload(env, observer)?;
    let mut rows: Vec<Row> = vec![];
    let mut sources = vec![densities];
    for name in &options.archs {
        let arch = request::priced(request::architecture(name)?, options.energy.as_deref())?;
        let table = arch.table()?;
        let estimate = request::estimated(&arch, &workload, options.model.objective, env, observer)?;
        let totals = estimate.totals();
        let row = Row {
            arch: arch.name.clone(),
            energy_table: table.id.clone(),
            technology: table.technology,
            totals,
            speed_up: None,
            energy_gain: None,
        };
        rows.push(row);
        sources.extend(estimate.sources.into_iter().filter(|s| !sources.contains(s)).collect::<Vec<_>>());
    }
    let caveat = set_against_the_first(&mut rows);
    Ok(Compared { schema: 1, kind: "modelled", architectures: rows, sources, caveat })
}

/// Fills in the ratios that mean something; gives a sentence on those that do not.
fn set_against_the_first(rows: &mut [Row]) -> String {
    let Some(first) = rows.first().cloned() else { return String::new() };
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 1.0 };
    let mut caveats: Vec<String> = vec![];
    for row in rows {
        let like = row.totals.macs == first.totals.macs && row.totals.host_macs == first.totals.host_macs;
        if !like {
            caveats.push(format!(
                "{} leaves {} of {} MACs to the host, {} leaves {}: no ratios of unlike work",
                row.arch,
                row.totals.host_macs,
                row.totals.macs + row.totals.host_macs as f64,
                first.arch,
                first.totals.host_macs
            ));
            continue;
        }
        row.speed_up = Some(ratio(first.totals.latency_s, row.totals.latency_s));
        if row.technology == first.technology {
            row.energy_gain = Some(ratio(first.totals.energy_j, row.totals.energy_j));
        } else if !caveats.iter().any(|c| c == TECHNOLOGIES) {
            caveats.push(TECHNOLOGIES.to_owned());
        }
    }
    caveats.join("; ")
}
