//! What a projection would cost: time, energy, carbon and money of a computation, one way, whatever form it was projected
//! with.

use serde::Serialize;

use super::{Interval, Projection, Refusal};
use crate::estimate::{self, Demand, Rate, Setting};
use crate::{Derivation, Factors, Quantity, QuantityError, Source, Unit};

/// Beyond 10^270 GFLOP the products of costs would leave the range of numbers, and of sense.
const MOST: f64 = 270.0;

/// On what a computation is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// Operations that one device delivers, FLOP/s.
    pub rate: Quantity,
    /// Power of one device, W.
    pub power: Option<Quantity>,
    /// Rent of one device, USD/h; without it money is that of the electricity.
    pub price_per_hour: Option<Quantity>,
    /// Carbon intensity, price and PUE.
    pub factors: Factors,
}

/// What a target error takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Projected {
    /// The error, from 0 to 1.
    pub target_error: f64,
    /// Why there is no projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Decimal logarithm of the GFLOP it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log10_gflop: Option<Interval>,
    /// The same by the regression in the other direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_log10_gflop: Option<Interval>,
    /// What that costs; absent beyond all sense.
    #[serde(flatten)]
    pub cost: Option<Cost>,
}

/// What a computation costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Operations.
    pub flops: Quantity,
    /// Time of one device.
    pub device_time: Quantity,
    /// Energy with the facility.
    pub energy_kwh: Option<Quantity>,
    /// Carbon.
    pub co2e_kg: Option<Quantity>,
    /// Money.
    pub cost_usd: Option<Quantity>,
}

impl Projected {
    /// No projection.
    pub fn refused(target_error: f64, refusal: &Refusal) -> Projected {
        Projected {
            target_error,
            refused: Some(refusal.to_string()),
            log10_gflop: None,
            reverse_log10_gflop: None,
            cost: None,
        }
    }

    /// A projection with its price.
    ///
    /// # Errors
    /// [`QuantityError`] if a quantity of the hardware has a unit that does not fit.
    pub fn priced(found: &Projection, hardware: &Hardware) -> Result<Projected, QuantityError> {
        let x = found.log10_gflop;
        Ok(Projected {
            target_error: found.target_error,
            refused: None,
            log10_gflop: Some(x),
            reverse_log10_gflop: found.reverse_log10_gflop,
            cost: if x.high < MOST { Some(cost(x, hardware)?) } else { None },
        })
    }
}

fn cost(x: Interval, hardware: &Hardware) -> Result<Cost, QuantityError> {
    let [value, low, high] = [x.value, x.low, x.high].map(|x| 10f64.powf(x + 9.0));
    let source = Source::modelled("projection of a scaling fit");
    let flops = Quantity::new(value, low, high, Unit::Flop, source)?;
    let setting = Setting {
        devices: 1,
        power: hardware.power.clone(),
        development: None,
        factors: hardware.factors.clone(),
        price_per_hour: hardware.price_per_hour.clone(),
        market_intensity: None,
        embodied: None,
        water: None,
        functional_units: None,
    };
    let mut steps = Derivation::default();
    let rate = Rate::Achieved(hardware.rate.clone());
    let time = estimate::device_time(&mut steps, &Demand::Flops(flops.clone()), Some(&rate))?
        .expect("a rate gives a time");
    estimate::footprint(&mut steps, &time, &setting)?;
    let get = |name| steps.get(name).cloned();
    Ok(Cost {
        flops,
        device_time: time,
        energy_kwh: get("energy"),
        co2e_kg: get("co2e"),
        cost_usd: get("cost"),
    })
}
