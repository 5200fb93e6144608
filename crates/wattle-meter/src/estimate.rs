//! What a run will cost or did cost, where nothing can be measured: from device-hours, from operations and a rate,
//! or from parameters and tokens.
//!
//! The formulas are those of the literature: operations of training a transformer `6 N D` and of running it
//! `2 N D` (Kaplan et al. 2020, with N the parameters that are active for a token); time `operations / rate`;
//! energy `time x power x PUE` (Patterson et al. 2021, section 2, whose power is a measured average with host and
//! network, not a maximum); embodied emissions `TE x TS x RS` and the rate `SCI = (E x I + M) per R` (Software
//! Carbon Intensity, ISO/IEC 21031:2024). PUE enters exactly once, in the step `energy`.

use crate::device::Device;
use crate::{Derivation, Factors, Quantity, QuantityError, Source, Unit};

/// Arithmetic or time to account for.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    /// Hours of one device, summed over devices.
    DeviceTime(Quantity),
    /// Operations.
    Flops(Quantity),
    /// Tokens through a transformer.
    Tokens {
        /// All parameters.
        params: Quantity,
        /// Those that take part in computing one token, where that is fewer (mixtures of experts).
        active: Option<Quantity>,
        /// Tokens processed, over all epochs.
        tokens: Quantity,
        /// Whether gradients are computed too.
        training: bool,
    },
}

/// How fast one device works.
#[derive(Debug, Clone, PartialEq)]
pub enum Rate {
    /// Operations a second, achieved.
    Achieved(Quantity),
    /// A share of the device's peak.
    Utilised {
        /// Peak operations a second.
        peak: Quantity,
        /// The share of it.
        utilisation: Quantity,
    },
}

/// Steps of a derivation that are results, with their names in JSON and for people.
pub const RESULTS: [(&str, &str, &str); 14] = [
    ("flops", "flops", "operations"),
    ("run", "run_s", "one run of the graph"),
    ("runs", "runs", "runs"),
    ("duration", "duration_s", "duration"),
    ("device_time", "device_time", "device time"),
    ("days", "days", "days"),
    ("it_energy", "it_energy_kwh", "energy of the devices"),
    ("energy", "energy_kwh", "energy with the facility"),
    ("co2e", "co2e_kg", "carbon"),
    ("market_co2e", "market_co2e_kg", "carbon, market-based"),
    ("embodied", "embodied_kg", "carbon of making the devices"),
    ("sci", "sci_g_per_unit", "carbon for each unit served"),
    ("water", "water_l", "water"),
    ("cost", "cost_usd", "cost"),
];

/// The share of the peak that training reaches where nobody states it.
pub fn usual_utilisation() -> Quantity {
    let reason = "utilisation not stated; published runs reach 20 to 40 % of the peak (LLMCarbon data), good ones more";
    Quantity::new(0.3, 0.15, 0.6, Unit::One, Source::assumed(reason)).expect("ordered constants")
}

/// Where, on how many and with what the work is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Devices that share the work.
    pub devices: u32,
    /// Average power of one device while it works.
    pub power: Option<Quantity>,
    /// Everything spent over what the final run spends: failed runs, searches, retraining. At least 1.
    pub development: Option<Quantity>,
    /// Carbon intensity, electricity price, PUE.
    pub factors: Factors,
    /// Rent of one device, where it is rented.
    pub price_per_hour: Option<Quantity>,
    /// Intensity under contracts and certificates (market-based), reported beside the grid's, never instead.
    pub market_intensity: Option<Quantity>,
    /// Emissions of making the devices.
    pub embodied: Option<Embodied>,
    /// Water.
    pub water: Option<Water>,
    /// Functional units (requests, samples) that the run serves, for the SCI.
    pub functional_units: Option<Quantity>,
}

/// What making one device emitted, and how long it serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Embodied {
    /// Total embodied emissions of one device, kgCO2e.
    pub total: Quantity,
    /// Life of the device.
    pub lifespan: Quantity,
}

/// Water per energy.
#[derive(Debug, Clone, PartialEq)]
pub struct Water {
    /// Evaporated on site per energy of the computers (WUE), L/kWh.
    pub site: Quantity,
    /// Used by the power plants per energy of the facility, L/kWh.
    pub grid: Option<Quantity>,
}

/// Device time of some work, noted step by step; `rate` is not needed for [`Demand::DeviceTime`].
///
/// # Errors
/// [`QuantityError`] where a rate may be zero, or a unit is wrong. `Ok(None)` when operations were given without
/// a rate: they are noted, and nothing more can be said.
pub fn device_time(
    derivation: &mut Derivation,
    work: &Demand,
    rate: Option<&Rate>,
) -> Result<Option<Quantity>, QuantityError> {
    let flops = match work {
        Demand::DeviceTime(time) => {
            derivation.given("run_time", time);
            return Ok(Some(time.to(Unit::Hour)?));
        }
        Demand::Flops(flops) => {
            derivation.given("flops", flops);
            flops.clone()
        }
        Demand::Tokens { params, active, tokens, training } => {
            derivation.given("params", params);
            derivation.given("tokens", tokens);
            let (counted, name) = match active {
                Some(active) => {
                    derivation.given("active_params", active);
                    (active, "active_params")
                }
                None => (params, "params"),
            };
            let each = if *training { 6.0 } else { 2.0 };
            let product = counted.times(tokens)?.scaled(each)?;
            let flops = Quantity::new(
                product.value(),
                product.low(),
                product.high(),
                Unit::Flop,
                product.source().clone(),
            );
            derivation.step("flops", format!("{each} x {name} x tokens"), flops)?
        }
    };
    let Some(rate) = rate else { return Ok(None) };
    let rate = match rate {
        Rate::Achieved(rate) => {
            derivation.given("rate", rate);
            rate.clone()
        }
        Rate::Utilised { peak, utilisation } => {
            derivation.given("peak", peak);
            derivation.given("utilisation", utilisation);
            derivation.step("rate", "peak x utilisation", peak.times(utilisation))?
        }
    };
    let time = flops.ratio_across_sources(&rate)?.to(Unit::Hour);
    derivation.step("run_time", "flops / rate", time).map(Some)
}

/// What device time costs in energy, carbon, money and, where asked for, water and materials.
///
/// Steps noted: `device_time`, `days`, `it_energy`, `energy`, `co2e`, `cost`, and those that the setting asks for.
/// Without a power only time and rent can be told.
///
/// # Errors
/// [`QuantityError`] where a quantity of the setting has the wrong unit.
pub fn footprint(
    derivation: &mut Derivation,
    run_time: &Quantity,
    setting: &Setting,
) -> Result<(), QuantityError> {
    let d = derivation;
    let one = |value: f64| Quantity::exact(value, Unit::One, Source::assumed("stated by option `devices`"));
    let time = match &setting.development {
        Some(factor) => {
            d.given("development", factor);
            d.step("device_time", "run_time x development", run_time.times(factor))?
        }
        None => d.step("device_time", "run_time", Ok(run_time.clone()))?,
    };
    let devices = one(f64::from(setting.devices.max(1)))?;
    d.given("devices", &devices);
    d.step("days", "device_time / devices", time.ratio_across_sources(&devices)?.to(Unit::Day))?;
    if let Some(price) = &setting.price_per_hour {
        d.given("price_per_hour", price);
        d.step("cost", "device_time x price_per_hour", time.times(price))?;
    }
    let embodied = match &setting.embodied {
        Some(Embodied { total, lifespan }) => {
            d.given("device_embodied", total);
            d.given("lifespan", lifespan);
            let share = time.ratio_across_sources(lifespan)?;
            let kilograms = total.times(&share)?.to(Unit::KilogramCo2e);
            Some(d.step("embodied", "device_embodied x device_time / lifespan", kilograms)?)
        }
        None => None,
    };
    let Some(power) = &setting.power else { return Ok(()) };
    d.given("power", power);
    let it_energy = power.times(&time)?.to(Unit::KilowattHour);
    let it_energy = d.step("it_energy", "device_time x power", it_energy)?;
    let factors = &setting.factors;
    d.given("pue", &factors.pue);
    let energy = d.step("energy", "it_energy x pue", it_energy.times(&factors.pue))?;
    d.given("intensity", &factors.carbon_intensity);
    let carbon = energy.times(&factors.carbon_intensity)?.to(Unit::KilogramCo2e);
    let carbon = d.step("co2e", "energy x intensity", carbon)?;
    if let Some(market) = &setting.market_intensity {
        d.given("market_intensity", market);
        let carbon = energy.times(market)?.to(Unit::KilogramCo2e);
        d.step("market_co2e", "energy x market_intensity", carbon)?;
    }
    if setting.price_per_hour.is_none() {
        d.given("electricity_price", &factors.price);
        d.step("cost", "energy x electricity_price", energy.times(&factors.price))?;
    }
    if let Some(Water { site, grid }) = &setting.water {
        d.given("wue", site);
        // WUE is defined per energy of the computers: multiplying the facility's energy would count the PUE twice.
        let mut water = d.step("site_water", "it_energy x wue", it_energy.times(site))?;
        let mut formula = "site_water".to_owned();
        if let Some(grid) = grid {
            d.given("grid_wue", grid);
            let used = d.step("grid_water", "energy x grid_wue", energy.times(grid))?;
            water = water.plus(&used)?;
            formula += " + grid_water";
        }
        d.step("water", formula, Ok(water))?;
    }
    if let Some(units) = &setting.functional_units {
        d.given("functional_units", units);
        let (total, formula) = match &embodied {
            Some(embodied) => (carbon.plus(embodied)?, "(co2e + embodied) / functional_units"),
            None => (carbon, "co2e / functional_units"),
        };
        d.step("sci", formula, total.to(Unit::GramCo2e)?.scaled(1.0 / units.value()))?;
    }
    Ok(())
}

/// A device's peak as a rate, at the stated utilisation or the usual one.
pub fn rate_of(device: &Device, utilisation: Option<Quantity>) -> Option<Rate> {
    let utilisation = utilisation.unwrap_or_else(usual_utilisation);
    Some(Rate::Utilised { peak: device.peak()?, utilisation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(value: f64, unit: Unit) -> Quantity {
        Quantity::exact(value, unit, Source::assumed("stated by test")).unwrap()
    }

    fn setting(power: f64, pue: f64, intensity: f64) -> Setting {
        let factors = Factors {
            pue: exact(pue, Unit::One),
            carbon_intensity: exact(intensity, Unit::GramCo2ePerKilowattHour),
            ..Factors::default()
        };
        Setting {
            devices: 1,
            power: Some(exact(power, Unit::Watt)),
            development: None,
            factors,
            price_per_hour: None,
            market_intensity: None,
            embodied: None,
            water: None,
            functional_units: None,
        }
    }

    fn run(work: Demand, rate: Option<Rate>, setting: &Setting) -> Derivation {
        let mut derivation = Derivation::default();
        let time = device_time(&mut derivation, &work, rate.as_ref()).unwrap().unwrap();
        footprint(&mut derivation, &time, setting).unwrap();
        derivation
    }

    #[test]
    fn gpt3_on_v100s_takes_355_years_and_4_6_million_dollars() {
        let rate = Rate::Achieved(exact(28e12, Unit::FlopPerSecond));
        let mut setting = setting(300.0, 1.0, 400.0);
        setting.price_per_hour = Some(exact(1.5, Unit::UsdPerHour));
        let d = run(Demand::Flops(exact(3.14e23, Unit::Flop)), Some(rate), &setting);
        let years = d.get("device_time").unwrap().to(Unit::Year).unwrap().value();
        assert!((years - 355.60).abs() < 0.005, "{years}");
        assert!((d.get("cost").unwrap().value() - 4_672_619.0).abs() < 0.5);
    }

    #[test]
    fn llmcarbon_forward_estimate_of_gpt3() {
        let work = Demand::Tokens {
            params: exact(175e9, Unit::One),
            active: None,
            tokens: exact(300e9, Unit::One),
            training: true,
        };
        let peak = exact(125e12, Unit::FlopPerSecond);
        let rate = Rate::Utilised { peak, utilisation: exact(0.197, Unit::One) };
        let setting = Setting { devices: 10_000, ..setting(330.0, 1.1, 429.0) };
        let d = run(work, Some(rate), &setting);
        assert!((d.get("days").unwrap().value() - 14.8).abs() < 0.05);
        assert!((d.get("co2e").unwrap().value() / 1000.0 - 553.3).abs() < 0.1);
    }

    #[test]
    fn a_mixture_counts_the_parameters_that_work_on_a_token() {
        let work = |active: Option<Quantity>| Demand::Tokens {
            params: exact(1.5e12, Unit::One),
            active,
            tokens: exact(2e12, Unit::One),
            training: true,
        };
        let flops = |work: &Demand| {
            let mut d = Derivation::default();
            device_time(&mut d, work, None).unwrap();
            d.get("flops").unwrap().value()
        };
        // Switch: 6 x 7.41e9 x 2e12, two hundred times less than with all parameters.
        assert!((flops(&work(Some(exact(7.41e9, Unit::One)))) / 88.92e21 - 1.0).abs() < 1e-12);
        assert!(flops(&work(None)) > 200.0 * 88.92e21);
    }

    #[test]
    fn pue_enters_once_and_water_of_the_site_is_counted_on_the_computers_energy() {
        let mut setting = setting(1000.0, 1.5, 100.0);
        let litres = |x| exact(x, Unit::LitrePerKilowattHour);
        setting.water = Some(Water { site: litres(2.0), grid: Some(litres(3.0)) });
        let d = run(Demand::DeviceTime(exact(10.0, Unit::Hour)), None, &setting);
        let value = |name| d.get(name).unwrap().value();
        let close = |name, expected: f64| assert!((value(name) / expected - 1.0).abs() < 1e-12, "{name}");
        close("it_energy", 10.0);
        close("energy", 15.0);
        close("co2e", 1.5);
        close("water", 10.0 * 2.0 + 15.0 * 3.0);
    }

    #[test]
    fn market_based_carbon_stands_beside_the_grids_and_changes_nothing_else() {
        let plain = run(Demand::DeviceTime(exact(1.0, Unit::Hour)), None, &setting(500.0, 1.0, 400.0));
        let mut with = setting(500.0, 1.0, 400.0);
        with.market_intensity = Some(exact(0.0, Unit::GramCo2ePerKilowattHour));
        let both = run(Demand::DeviceTime(exact(1.0, Unit::Hour)), None, &with);
        assert_eq!(plain.get("co2e"), both.get("co2e"));
        assert_eq!(both.get("market_co2e").unwrap().value(), 0.0);
    }

    #[test]
    fn embodied_share_and_sci_follow_the_standard() {
        let mut setting = setting(1000.0, 1.0, 100.0);
        let lifespan = exact(5.0, Unit::Year);
        setting.embodied = Some(Embodied { total: exact(200.0, Unit::KilogramCo2e), lifespan });
        setting.functional_units = Some(exact(1000.0, Unit::Sample));
        let d = run(Demand::DeviceTime(exact(438.0, Unit::Hour)), None, &setting);
        // 438 h of 43,800 h is a hundredth: 2 kg; 438 kWh at 100 g are 43.8 kg.
        assert!((d.get("embodied").unwrap().value() - 2.0).abs() < 1e-9);
        assert!((d.get("sci").unwrap().value() - 45.8).abs() < 1e-9);
    }

    #[test]
    fn development_multiplies_time_energy_and_cost() {
        let mut twice = setting(500.0, 1.2, 400.0);
        twice.development = Some(exact(2.0, Unit::One));
        let once = run(Demand::DeviceTime(exact(3.0, Unit::Hour)), None, &setting(500.0, 1.2, 400.0));
        let twice = run(Demand::DeviceTime(exact(3.0, Unit::Hour)), None, &twice);
        for name in ["device_time", "energy", "co2e", "cost"] {
            let ratio = twice.get(name).unwrap().value() / once.get(name).unwrap().value();
            assert!((ratio - 2.0).abs() < 1e-12, "{name}");
        }
    }

    #[test]
    fn what_is_assumed_is_named_and_a_result_is_never_called_measured() {
        let power = Device::find("h100").unwrap().training_power().unwrap().0;
        let setting = Setting { power: Some(power), factors: Factors::default(), ..setting(1.0, 1.0, 1.0) };
        let d = run(Demand::DeviceTime(exact(1.0, Unit::Hour)), None, &setting);
        assert_eq!(d.assumed(), ["power", "pue", "electricity_price"]);
        let energy = d.get("energy").unwrap();
        assert_eq!(energy.source().to_string(), "modelled:it_energy x pue");
        assert!(energy.low() < energy.value() && energy.value() < energy.high());
    }

    #[test]
    fn a_unit_in_the_wrong_place_is_an_error() {
        let mut d = Derivation::default();
        let rate = Rate::Achieved(exact(28e12, Unit::Flop));
        assert!(device_time(&mut d, &Demand::Flops(exact(1e20, Unit::Flop)), Some(&rate)).is_err());
    }
}
