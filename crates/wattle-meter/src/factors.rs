//! What turns joules into grams and money: stated factors, never a silent country.

use serde::{Deserialize, Serialize};

use crate::environment::{self, Variable};
use crate::stated::interval;
use crate::{Quantity, QuantityError, Source, Unit, WarningKind};

/// The factors behind a receipt's carbon and cost. Energy in a receipt is IT energy: `pue` enters exactly once,
/// here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Factors {
    /// Carbon intensity of the electricity, gCO2e/kWh.
    pub carbon_intensity: Quantity,
    /// Price of the electricity, USD/kWh.
    pub price: Quantity,
    /// Power usage effectiveness: facility energy over IT energy, at least 1.
    pub pue: Quantity,
}

/// Factors as a user types them, before they are understood; `None` means not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactorTexts {
    /// gCO2e/kWh: `57`, `30..90` or `30..57..90`.
    pub carbon_intensity: Option<String>,
    /// USD/kWh, likewise.
    pub price: Option<String>,
    /// Likewise, at least 1.
    pub pue: Option<String>,
}

/// A factor that cannot be understood.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} = {found:?}: expected {expected}, written as a number, low..high or low..value..high")]
pub struct FactorError {
    name: String,
    found: String,
    expected: &'static str,
}

impl Default for Factors {
    /// A range that covers nearly every place on Earth, visible in every receipt.
    fn default() -> Self {
        let default = |(value, low, high): (f64, f64, f64), unit, source| {
            Quantity::new(value, low, high, unit, source).expect("the constants below are ordered")
        };
        Factors {
            carbon_intensity: default(
                (445.0, 36.0, 784.0),
                Unit::GramCo2ePerKilowattHour,
                Source::published(
                    "world average 2024 by IEA, as shipped by carbontracker 2.4.7; range: 5th to 95th percentile \
                     of 212 countries 2022-2024 by Ember (CC BY 4.0)",
                ),
            ),
            price: default(
                (0.15, 0.03, 0.45),
                Unit::UsdPerKilowattHour,
                Source::assumed("price not given; a range wide enough for most tariffs"),
            ),
            pue: default(
                (1.2, 1.0, 1.56),
                Unit::One,
                Source::assumed(
                    "site not given; from a desk (1) to an unknown data centre (1.56, Green Algorithms v3)",
                ),
            ),
        }
    }
}

impl Factors {
    /// The factors from the command line, else from the environment, else the defaults; with a warning that
    /// names what was not given.
    ///
    /// `environment` looks a variable up; commands pass `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// [`FactorError`] naming the argument or variable that is not a factor.
    pub fn resolve(
        given: &FactorTexts,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Factors, Option<WarningKind>), FactorError> {
        let mut missing = Vec::new();
        let mut pick = |argument: &Option<String>, option: &str, variable: Variable, kind: &Kind, default| {
            if let Some(text) = argument {
                return kind.parse(&format!("option `{option}`"), text);
            }
            match environment(variable.name).filter(|text| !text.trim().is_empty()) {
                Some(text) => kind.parse(variable.name, &text),
                None => {
                    missing.push(option.to_owned());
                    Ok(default)
                }
            }
        };
        let defaults = Factors::default();
        let factors = Factors {
            carbon_intensity: pick(
                &given.carbon_intensity,
                "intensity",
                environment::CARBON_INTENSITY,
                &INTENSITY,
                defaults.carbon_intensity,
            )?,
            price: pick(&given.price, "price", environment::PRICE, &PRICE, defaults.price)?,
            pue: pick(&given.pue, "pue", environment::PUE, &PUE, defaults.pue)?,
        };
        let warning = (!missing.is_empty()).then_some(WarningKind::FactorsAssumed { factors: missing });
        Ok((factors, warning))
    }

    /// Grams of CO2e for `energy` of IT: `energy x PUE x intensity` (GHG protocol scope 2, location-based).
    ///
    /// # Errors
    /// [`QuantityError::Units`] if `energy` is not an energy or a factor has been given another unit.
    pub fn carbon(&self, energy: &Quantity) -> Result<Quantity, QuantityError> {
        self.apply(energy, &self.carbon_intensity, "factors.carbon_intensity")
    }

    /// Dollars for `energy` of IT: `energy x PUE x price`.
    ///
    /// # Errors
    /// [`QuantityError::Units`] if `energy` is not an energy or a factor has been given another unit.
    pub fn cost(&self, energy: &Quantity) -> Result<Quantity, QuantityError> {
        self.apply(energy, &self.price, "factors.price")
    }

    /// The result names the factors by their place in the receipt, where their own sources stand in full.
    fn apply(&self, energy: &Quantity, factor: &Quantity, name: &str) -> Result<Quantity, QuantityError> {
        let product = energy.times(&self.pue)?.times(factor)?;
        let energy = energy.source().to_string();
        let energy = energy.strip_prefix("modelled:").unwrap_or(&energy);
        let energy = if energy.contains(" + ") { format!("({energy})") } else { energy.to_owned() };
        Ok(product.with_source(Source::modelled(format!("{energy} x factors.pue x {name}"))))
    }
}

struct Kind {
    unit: Unit,
    least: f64,
    most: f64,
    expected: &'static str,
}

// The upper bounds only catch slips of unit (mg for g, cents for dollars).
const INTENSITY: Kind = Kind {
    unit: Unit::GramCo2ePerKilowattHour,
    least: 0.0,
    most: 5000.0,
    expected: "gCO2e/kWh between 0 and 5000",
};
const PRICE: Kind =
    Kind { unit: Unit::UsdPerKilowattHour, least: 0.0, most: 100.0, expected: "USD/kWh between 0 and 100" };
const PUE: Kind = Kind { unit: Unit::One, least: 1.0, most: 10.0, expected: "a ratio between 1 and 10" };

impl Kind {
    fn parse(&self, name: &str, text: &str) -> Result<Quantity, FactorError> {
        let error = || FactorError { name: name.to_owned(), found: text.to_owned(), expected: self.expected };
        let [low, value, high] = interval(text).ok_or_else(error)?;
        if !(self.least <= low && high <= self.most) {
            return Err(error());
        }
        let source = Source::assumed(format!("stated by {name}"));
        Quantity::new(value, low, high, self.unit, source).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(intensity: &str, price: &str, pue: &str) -> FactorTexts {
        let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        FactorTexts { carbon_intensity: some(intensity), price: some(price), pue: some(pue) }
    }

    #[test]
    fn an_argument_beats_the_environment_which_beats_the_default() {
        let environment = |name: &str| match name {
            "WATTLE_CARBON_INTENSITY" => Some("100".to_owned()),
            "WATTLE_PRICE" => Some("0.1..0.4".to_owned()),
            _ => None,
        };
        let (f, warning) = Factors::resolve(&texts("30..57..90", "", ""), environment).unwrap();
        assert_eq!(f.carbon_intensity.value(), 57.0);
        assert_eq!(f.carbon_intensity.source().to_string(), "assumed:stated by option `intensity`");
        assert_eq!((f.price.low(), f.price.value(), f.price.high()), (0.1, 0.25, 0.4));
        assert_eq!(f.price.source().to_string(), "assumed:stated by WATTLE_PRICE");
        assert_eq!(f.pue, Factors::default().pue);
        assert_eq!(warning, Some(WarningKind::FactorsAssumed { factors: vec!["pue".to_owned()] }));
    }

    #[test]
    fn factors_all_given_raise_no_warning() {
        let (_, warning) = Factors::resolve(&texts("57", "0.2", "1"), |_| None).unwrap();
        assert_eq!(warning, None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let cases = ["", "x", "-1", "90..30", "1..2..3..4", "nan", "inf", "6000"];
        for text in cases.into_iter().filter(|t| !t.is_empty()) {
            let error = Factors::resolve(&texts(text, "", ""), |_| None).unwrap_err();
            assert!(error.to_string().contains("option `intensity`"), "{error}");
        }
        assert!(Factors::resolve(&texts("", "", "0.9"), |_| None).is_err(), "PUE is at least 1");
    }

    #[test]
    fn pue_enters_carbon_and_cost_exactly_once() {
        let (f, _) = Factors::resolve(&texts("57", "0.2", "1.5"), |_| None).unwrap();
        let kwh = Quantity::exact(10.0, Unit::KilowattHour, Source::measured("bill")).unwrap();
        assert!((f.carbon(&kwh).unwrap().value() - 855.0).abs() < 1e-9);
        assert!((f.cost(&kwh).unwrap().value() - 3.0).abs() < 1e-12);
        assert_eq!(f.carbon(&kwh).unwrap().source().kind(), "modelled");
    }

    #[test]
    fn bloom_training_energy_gives_the_published_grams() {
        // Luccioni et al. 2023: 433,196 kWh at 57 g/kWh is 24.69 t.
        let (f, _) = Factors::resolve(&texts("57", "0", "1"), |_| None).unwrap();
        let kwh = Quantity::exact(433_196.0, Unit::KilowattHour, Source::published("BLOOM")).unwrap();
        assert!((f.carbon(&kwh).unwrap().value() / 1e6 - 24.69).abs() < 0.005);
    }

    #[test]
    fn the_default_is_a_visible_range_with_a_citation() {
        let f = Factors::default();
        assert!(f.carbon_intensity.high() > 10.0 * f.carbon_intensity.low());
        assert_eq!(f.carbon_intensity.source().kind(), "published");
        assert_eq!(f.price.source().kind(), "assumed");
    }
}
