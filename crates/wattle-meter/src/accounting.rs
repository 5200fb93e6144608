//! What a receipt can also account for where its user says how: the intensity of each hour, contracts for electricity,
//! making the machine, water.
//!
//! The formulas are those of [`estimate`](crate::estimate). None of these replaces the carbon of the grid
//! (location-based); they stand beside it.

use serde::{Deserialize, Serialize};

use crate::estimate::{Embodied, Water};
use crate::schedule::Series;
use crate::{Quantity, QuantityError, Receipt, Source, Unit, WarningKind};

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accounting {
    /// Intensity over time, with the name of where it comes from.
    pub series: Option<(String, Series)>,
    /// Intensity under contracts and certificates (market-based), gCO2e/kWh.
    pub market_intensity: Option<Quantity>,
    /// Emissions of making the machine, and how long it serves.
    pub embodied: Option<Embodied>,
    /// Water per energy.
    pub water: Option<Water>,
}

/// What came of it; part of a receipt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Accounts {
    /// Energy x PUE x market-based intensity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub market_carbon: Option<Quantity>,
    /// Emissions of making the machine x duration / lifespan (ISO/IEC 21031, all of the machine reserved).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embodied_carbon: Option<Quantity>,
    /// Energy x water of the site + energy x PUE x water of the power plants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub water: Option<Quantity>,
}

impl Accounting {
    /// Adds to a finished receipt what was asked for. With a series, the carbon of the grid is that of the hours in which
    /// the energy was spent; a run that the series does not cover keeps the intensity it had, with a warning.
    ///
    /// # Errors
    /// [`QuantityError`] where a factor has a unit that does not fit.
    pub fn apply(&self, receipt: &mut Receipt) -> Result<(), QuantityError> {
        if let Some((name, series)) = &self.series {
            match met(series, name, receipt)? {
                Some(intensity) => {
                    receipt.factors.carbon_intensity = intensity;
                    receipt.carbon =
                        receipt.energy.total.as_ref().map(|e| receipt.factors.carbon(e)).transpose()?;
                }
                None => receipt.warn(WarningKind::IntensityNotCovered { series: name.clone() }),
            }
        }
        let Some(energy) = &receipt.energy.total else { return Ok(()) };
        let energy = energy.to(Unit::KilowattHour)?;
        let facility = energy.times(&receipt.factors.pue)?;
        let mut accounts = Accounts::default();
        let called = |q: Quantity, how: &str| q.with_source(Source::modelled(how));
        if let Some(market) = &self.market_intensity {
            let carbon = facility.times(market)?;
            accounts.market_carbon =
                Some(called(carbon, "energy.total x factors.pue x stated market intensity"));
        }
        if let Some(Embodied { total, lifespan }) = &self.embodied {
            let share = receipt.duration.ratio_across_sources(&lifespan.to(Unit::Second)?)?;
            let grams = total.to(Unit::GramCo2e)?.times(&share)?;
            accounts.embodied_carbon = Some(called(grams, "stated embodied emissions x duration / lifespan"));
        }
        if let Some(Water { site, grid }) = &self.water {
            let mut litres = energy.times(site)?;
            if let Some(grid) = grid {
                litres = litres.plus(&facility.times(grid)?)?;
            }
            let how = "energy.total x stated WUE + energy.total x factors.pue x stated water of the grid";
            accounts.water = Some(called(litres, how));
        }
        receipt.accounts = (accounts != Accounts::default()).then_some(accounts);
        Ok(())
    }
}

/// The mean intensity that the run met, weighted by the energy it spent; from the lowest to the highest it met. `None` if
/// the series does not cover the run.
fn met(series: &Series, name: &str, receipt: &Receipt) -> Result<Option<Quantity>, QuantityError> {
    let begun = receipt.started.unix_millis() as f64 / 1000.0 - series.first_minute as f64 * 60.0;
    let step = series.step_hours * 3600.0;
    let end = receipt.duration.value();
    let mut readings = receipt.samples.readings.clone();
    if readings.first().is_none_or(|first| first.0 > 0.0) {
        readings.insert(0, (0.0, 0.0));
    }
    // The last reading kept may lie before the end.
    let spent = receipt.energy.total.as_ref().map_or(0.0, Quantity::value);
    readings.push((end, spent.max(readings.last().map_or(0.0, |last| last.1))));
    let (mut energy, mut grams, mut low, mut high) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for pair in readings.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let watts = (after - before) / (to - from).max(1e-9);
        let mut at = from;
        while at < to || (at == from && from == to && end == 0.0) {
            let index = ((begun + at) / step).floor();
            let covered = index >= 0.0 && (index as usize) < series.g_per_kwh.len();
            let Some(&g) = covered.then(|| &series.g_per_kwh[index as usize]) else { return Ok(None) };
            // A border that rounding puts where we stand already must not stop the walk.
            let next = ((index + 1.0) * step - begun).max(at + 1e-6).min(to);
            (energy, grams) = (energy + watts * (next - at), grams + watts * (next - at) * g);
            (low, high) = (g.min(low), g.max(high));
            if next <= at {
                break;
            }
            at = next;
        }
    }
    if !low.is_finite() {
        return Ok(None);
    }
    let value = if energy > 0.0 { (grams / energy).clamp(low, high) } else { low.midpoint(high) };
    let source = Source::assumed(format!("stated by {name}, weighted by the energy of each of its steps"));
    Quantity::new(value, low, high, Unit::GramCo2ePerKilowattHour, source).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::receipt::tests::example;
    use crate::schedule;

    fn exact(value: f64, unit: Unit) -> Quantity {
        Quantity::exact(value, unit, Source::assumed("stated")).unwrap()
    }

    /// Two hours, one at 100 W and one at 300 W, begun half an hour before a step.
    fn two_hours() -> Receipt {
        let mut receipt = example();
        receipt.started = "2026-01-01T00:30:00.000Z".parse::<Timestamp>().unwrap();
        receipt.duration = exact(7200.0, Unit::Second);
        receipt.samples.readings = vec![(0.0, 0.0), (3600.0, 360_000.0), (7200.0, 1_440_000.0)];
        receipt.energy.total = Some(exact(1_440_000.0, Unit::Joule));
        receipt.factors.pue = exact(1.5, Unit::One);
        receipt
    }

    fn hours(g: &[u32]) -> Option<(String, Series)> {
        let rows = g.iter().enumerate().map(|(h, g)| format!("2026-01-01T{h:02}:00Z,{g}\n"));
        let text = format!("timestamp,g_per_kwh\n{}", rows.collect::<String>());
        Some(("hourly.csv".to_owned(), schedule::read(text.as_bytes()).unwrap()))
    }

    #[test]
    fn each_joule_has_the_carbon_of_its_own_hour() {
        let mut receipt = two_hours();
        let accounting = Accounting { series: hours(&[100, 200, 400]), ..Accounting::default() };
        accounting.apply(&mut receipt).unwrap();
        // 180 kJ at 100 g, 180 + 540 kJ at 200 g, 540 kJ at 400 g.
        let mean = (180.0 * 100.0 + 720.0 * 200.0 + 540.0 * 400.0) / 1440.0;
        let met = &receipt.factors.carbon_intensity;
        assert!((met.value() - mean).abs() < 1e-9, "{met:?}");
        assert_eq!((met.low(), met.high()), (100.0, 400.0));
        let grams = receipt.carbon.unwrap();
        assert!((grams.value() - 0.4 * 1.5 * mean).abs() < 1e-9, "{grams:?}");
    }

    #[test]
    fn a_run_outside_the_series_keeps_its_range_and_says_so() {
        for series in [hours(&[100, 200]), hours(&[5; 2])] {
            let mut receipt = two_hours();
            let before = receipt.carbon.clone();
            Accounting { series, ..Accounting::default() }.apply(&mut receipt).unwrap();
            assert_eq!(receipt.carbon, before);
            assert!(
                receipt.warnings.iter().any(|w| matches!(w.kind, WarningKind::IntensityNotCovered { .. }))
            );
        }
    }

    #[test]
    fn market_embodied_and_water_stand_beside_the_grid_and_change_nothing_else() {
        let mut receipt = two_hours();
        let before = receipt.clone();
        let litres = |x| exact(x, Unit::LitrePerKilowattHour);
        let accounting = Accounting {
            series: None,
            market_intensity: Some(exact(10.0, Unit::GramCo2ePerKilowattHour)),
            embodied: Some(Embodied {
                total: exact(1300.0, Unit::KilogramCo2e),
                lifespan: exact(4.0, Unit::Year),
            }),
            water: Some(Water { site: litres(1.8), grid: Some(litres(3.0)) }),
        };
        accounting.apply(&mut receipt).unwrap();
        let accounts = receipt.accounts.take().unwrap();
        assert_eq!(receipt, before);
        let close = |q: Option<Quantity>, expected: f64, unit: Unit| {
            let q = q.unwrap();
            assert_eq!(q.unit(), unit);
            assert!((q.value() / expected - 1.0).abs() < 1e-12, "{q:?}, expected {expected}");
        };
        close(accounts.market_carbon, 0.4 * 1.5 * 10.0, Unit::GramCo2e);
        close(accounts.embodied_carbon, 1.3e6 * 2.0 / (4.0 * 365.0 * 24.0), Unit::GramCo2e);
        close(accounts.water, 0.4 * 1.8 + 0.6 * 3.0, Unit::Litre);
    }
}
