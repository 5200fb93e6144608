//! A number that carries its unit, its interval and its source.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Source, Unit};

/// A value with unit, interval and source.
///
/// Invariant: all three numbers are finite and `low <= value <= high`. What is absent is an `Option`, never zero.
///
/// Arithmetic propagates the interval by its corners, as if all errors conspired: the result is never narrower
/// than the truth, at the price of sometimes being wider. Sources combine as described at [`Source`].
///
/// ```
/// use wattle_meter::{Quantity, Source, Unit};
/// let energy = Quantity::new(36_000.0, 30_000.0, 45_000.0, Unit::Joule, Source::modelled("cpu-time/1"))?;
/// let intensity =
///     Quantity::exact(57.0, Unit::GramCo2ePerKilowattHour, Source::published("Luccioni et al. 2023"))?;
/// let carbon = energy.times(&intensity)?;
/// assert_eq!(carbon.unit(), Unit::GramCo2e);
/// assert!((carbon.value() - 0.57).abs() < 1e-12);
/// # Ok::<(), wattle_meter::QuantityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Quantity {
    value: f64,
    unit: Unit,
    low: f64,
    high: f64,
    source: Source,
}

/// A quantity that cannot exist, or arithmetic that would mislead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// A non-finite number, or an interval that does not contain its value.
    #[error("{value} [{low}, {high}] {unit}: expected finite numbers with low <= value <= high")]
    Interval {
        /// The value given.
        value: f64,
        /// The lower bound given.
        low: f64,
        /// The upper bound given.
        high: f64,
        /// The unit given.
        unit: Unit,
    },
    /// Two units that this operation does not bring together.
    #[error("{left} {operation} {right}: these units do not combine")]
    Units {
        /// Unit of the left operand.
        left: Unit,
        /// Name of the operation.
        operation: &'static str,
        /// Unit of the right operand.
        right: Unit,
    },
    /// A ratio of a measured and an unmeasured number.
    #[error(
        "ratio of {left} and {right}: measured and unmeasured numbers do not compare; \
         call `ratio_across_sources` if that is truly wanted, and say so beside the result"
    )]
    Sources {
        /// Source of the numerator.
        left: Source,
        /// Source of the denominator.
        right: Source,
    },
    /// A divisor whose interval contains zero.
    #[error("division by {value} [{low}, {high}]: the divisor may be zero, so the quotient has no bounds")]
    MaybeZero {
        /// The divisor.
        value: f64,
        /// Its lower bound.
        low: f64,
        /// Its upper bound.
        high: f64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    value: f64,
    unit: Unit,
    low: f64,
    high: f64,
    source: Source,
}

impl TryFrom<Fields> for Quantity {
    type Error = QuantityError;

    fn try_from(f: Fields) -> Result<Self, QuantityError> {
        Quantity::new(f.value, f.low, f.high, f.unit, f.source)
    }
}

impl Quantity {
    /// A value known to lie between `low` and `high`.
    ///
    /// # Errors
    /// [`QuantityError::Interval`] unless all numbers are finite and `low <= value <= high`.
    pub fn new(value: f64, low: f64, high: f64, unit: Unit, source: Source) -> Result<Self, QuantityError> {
        let ordered = low <= value && value <= high;
        if ordered && low.is_finite() && high.is_finite() {
            Ok(Quantity { value, unit, low, high, source })
        } else {
            Err(QuantityError::Interval { value, low, high, unit })
        }
    }

    /// A value without an interval of its own: a count, a clock reading, a published figure.
    ///
    /// # Errors
    /// [`QuantityError::Interval`] if `value` is not finite.
    pub fn exact(value: f64, unit: Unit, source: Source) -> Result<Self, QuantityError> {
        Quantity::new(value, value, value, unit, source)
    }

    /// A count, exact up to 2^53.
    pub fn count(n: u64, unit: Unit, source: Source) -> Self {
        let value = n as f64;
        Quantity { value, unit, low: value, high: value, source }
    }

    /// The best single number, in [`unit`](Self::unit).
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The lower end of the interval.
    pub fn low(&self) -> f64 {
        self.low
    }

    /// The upper end of the interval.
    pub fn high(&self) -> f64 {
        self.high
    }

    /// The unit of value and bounds.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Where the number comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether `x` lies in the interval; a ratio that contains 1 says "no difference shown".
    pub fn contains(&self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// The same quantity in another unit of the same kind (J and kWh).
    ///
    /// # Errors
    /// [`QuantityError::Units`] where the units measure different things.
    pub fn to(&self, unit: Unit) -> Result<Quantity, QuantityError> {
        let factor = self.unit.factor_to(unit).ok_or(QuantityError::Units {
            left: self.unit,
            operation: "to",
            right: unit,
        })?;
        build(self.value * factor, self.low * factor, self.high * factor, unit, self.source.clone())
    }

    /// The sum; the right side is first converted to this unit.
    ///
    /// # Errors
    /// [`QuantityError::Units`] where the units measure different things.
    pub fn plus(&self, other: &Quantity) -> Result<Quantity, QuantityError> {
        let b = self.aligned("plus", other)?;
        let source = self.source.combine(" + ", &other.source);
        build(self.value + b.value, self.low + b.low, self.high + b.high, self.unit, source)
    }

    /// The difference; its interval is the widest that the two allow.
    ///
    /// # Errors
    /// [`QuantityError::Units`] where the units measure different things.
    pub fn minus(&self, other: &Quantity) -> Result<Quantity, QuantityError> {
        let b = self.aligned("minus", other)?;
        let source = self.source.combine(" - ", &other.source);
        build(self.value - b.value, self.low - b.high, self.high - b.low, self.unit, source)
    }

    /// The sum of many, or `None` of none: the energy of no component is unknown, not zero.
    ///
    /// # Errors
    /// [`QuantityError::Units`] where the units measure different things.
    pub fn sum<'a>(terms: impl IntoIterator<Item = &'a Quantity>) -> Result<Option<Quantity>, QuantityError> {
        let mut terms = terms.into_iter();
        let Some(first) = terms.next() else { return Ok(None) };
        terms.try_fold(first.clone(), |total, term| total.plus(term)).map(Some)
    }

    /// The product, for unit pairs that mean something: W x s, J x g/kWh, J x USD/kWh, anything x ratio.
    ///
    /// # Errors
    /// [`QuantityError::Units`] for any other pair.
    pub fn times(&self, other: &Quantity) -> Result<Quantity, QuantityError> {
        let (unit, factor) = self.unit.times(other.unit).ok_or(QuantityError::Units {
            left: self.unit,
            operation: "times",
            right: other.unit,
        })?;
        let corners =
            [self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high];
        let (low, high) = bounds(corners);
        let source = self.source.combine(" x ", &other.source);
        build(self.value * other.value * factor, low * factor, high * factor, unit, source)
    }

    /// The value and its interval multiplied by a plain number that is part of the question, such as 1000 in
    /// "energy of 1000 inferences". It is no new information, so the source stays.
    ///
    /// # Errors
    /// [`QuantityError::Interval`] if the result is not finite.
    pub fn scaled(&self, factor: f64) -> Result<Quantity, QuantityError> {
        let (low, high) = bounds([self.low * factor, self.high * factor]);
        build(self.value * factor, low, high, self.unit, self.source.clone())
    }

    /// The quotient of like with like: same units give a pure number, J / s gives W. When exactly one side is
    /// measured the ratio is refused for same units, because it would compare a counter with a model.
    ///
    /// # Errors
    /// [`QuantityError::Sources`], [`QuantityError::Units`], or [`QuantityError::MaybeZero`].
    pub fn ratio(&self, other: &Quantity) -> Result<Quantity, QuantityError> {
        let compares = self.unit.factor_to(other.unit).is_some();
        if compares && self.source.is_measured() != other.source.is_measured() {
            return Err(QuantityError::Sources { left: self.source.clone(), right: other.source.clone() });
        }
        self.ratio_across_sources(other)
    }

    /// Like [`ratio`](Self::ratio), for callers that know the sources differ in kind and will say so. The
    /// result's source names both.
    ///
    /// # Errors
    /// [`QuantityError::Units`] or [`QuantityError::MaybeZero`].
    pub fn ratio_across_sources(&self, other: &Quantity) -> Result<Quantity, QuantityError> {
        let b = if self.unit.factor_to(other.unit).is_some() { other.to(self.unit)? } else { other.clone() };
        let (unit, factor) = self.unit.per(b.unit).ok_or(QuantityError::Units {
            left: self.unit,
            operation: "per",
            right: other.unit,
        })?;
        if b.contains(0.0) {
            return Err(QuantityError::MaybeZero { value: b.value, low: b.low, high: b.high });
        }
        let corners = [self.low / b.low, self.low / b.high, self.high / b.low, self.high / b.high];
        let (low, high) = bounds(corners);
        let source = self.source.combine(" / ", &other.source);
        build(self.value / b.value * factor, low * factor, high * factor, unit, source)
    }

    /// The same numbers under another source; for a model that labels its own result.
    #[must_use]
    pub(crate) fn with_source(mut self, source: Source) -> Quantity {
        self.source = source;
        self
    }

    fn aligned(&self, operation: &'static str, other: &Quantity) -> Result<Quantity, QuantityError> {
        other.to(self.unit).map_err(|_| QuantityError::Units {
            left: self.unit,
            operation,
            right: other.unit,
        })
    }
}

/// Rounding may put a computed value an ulp outside its computed bounds; the bounds give way, not the value.
fn build(value: f64, low: f64, high: f64, unit: Unit, source: Source) -> Result<Quantity, QuantityError> {
    Quantity::new(value, low.min(value), high.max(value), unit, source)
}

fn bounds<const N: usize>(corners: [f64; N]) -> (f64, f64) {
    let low = corners.iter().copied().fold(f64::INFINITY, f64::min);
    let high = corners.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

impl fmt::Display for Quantity {
    /// `12.3 J [10.1, 15.2] (modelled:cpu-time/1)`; the interval is left out where it is a point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.value, self.unit)?;
        if self.low < self.high {
            write!(f, " [{}, {}]", self.low, self.high)?;
        }
        write!(f, " ({})", self.source)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joules(low: f64, value: f64, high: f64, source: Source) -> Quantity {
        Quantity::new(value, low, high, Unit::Joule, source).unwrap()
    }

    #[test]
    fn a_number_outside_its_interval_cannot_exist() {
        let s = || Source::measured("x");
        assert!(Quantity::new(1.0, 2.0, 3.0, Unit::Joule, s()).is_err());
        assert!(Quantity::new(f64::NAN, f64::NAN, f64::NAN, Unit::Joule, s()).is_err());
        assert!(Quantity::exact(f64::INFINITY, Unit::Joule, s()).is_err());
        let json = r#"{"value":5,"unit":"J","low":6,"high":7,"source":"measured:x"}"#;
        assert!(serde_json::from_str::<Quantity>(json).is_err(), "nor can it be read from JSON");
    }

    #[test]
    fn json_form_is_the_documented_one() {
        let q = joules(1.0, 1.5, 2.0, Source::measured("rapl:package-0"));
        let json = serde_json::to_string(&q).unwrap();
        assert_eq!(
            json,
            r#"{"value":1.5,"unit":"J","low":1.0,"high":2.0,"source":"measured:rapl:package-0"}"#
        );
        assert_eq!(serde_json::from_str::<Quantity>(&json).unwrap(), q);
    }

    #[test]
    fn a_measured_and_a_modelled_joule_add_with_a_label_but_give_no_ratio() {
        let measured = joules(10.0, 10.0, 10.0, Source::measured("rapl"));
        let modelled = joules(2.0, 4.0, 8.0, Source::modelled("m/1"));
        let sum = measured.plus(&modelled).unwrap();
        assert_eq!((sum.low(), sum.value(), sum.high()), (12.0, 14.0, 18.0));
        assert_eq!(sum.source().kind(), "modelled");
        assert!(matches!(measured.ratio(&modelled), Err(QuantityError::Sources { .. })));
        let asked = measured.ratio_across_sources(&modelled).unwrap();
        assert_eq!((asked.low(), asked.value(), asked.high()), (1.25, 2.5, 5.0));
        assert_eq!(asked.source().to_string(), "modelled:measured:rapl / modelled:m/1");
    }

    #[test]
    fn power_of_modelled_energy_over_measured_time_is_modelled_and_allowed() {
        let time = Quantity::exact(2.0, Unit::Second, Source::measured("clock")).unwrap();
        let power = joules(2.0, 4.0, 8.0, Source::modelled("m/1")).ratio(&time).unwrap();
        assert_eq!((power.unit(), power.value()), (Unit::Watt, 2.0));
        assert_eq!(power.source().kind(), "modelled");
    }

    #[test]
    fn units_that_do_not_belong_together_are_refused() {
        let s = || Source::measured("x");
        let time = Quantity::exact(2.0, Unit::Second, s()).unwrap();
        let energy = Quantity::exact(2.0, Unit::Joule, s()).unwrap();
        assert!(matches!(energy.plus(&time), Err(QuantityError::Units { .. })));
        assert!(matches!(energy.times(&time), Err(QuantityError::Units { .. })));
        assert!(matches!(time.ratio(&energy), Err(QuantityError::Units { .. })));
    }

    #[test]
    fn joules_and_kilowatt_hours_convert_and_compare() {
        let kwh = Quantity::exact(2.0, Unit::KilowattHour, Source::measured("bill")).unwrap();
        assert_eq!(kwh.to(Unit::Joule).unwrap().value(), 7.2e6);
        let ratio = kwh.ratio(&kwh.to(Unit::Joule).unwrap()).unwrap();
        assert!((ratio.value() - 1.0).abs() < 1e-15, "{ratio}");
    }

    #[test]
    fn a_divisor_that_may_be_zero_is_refused() {
        let s = Source::modelled("m");
        let a = joules(1.0, 1.0, 1.0, s.clone());
        assert!(matches!(a.ratio(&joules(-1.0, 1.0, 2.0, s)), Err(QuantityError::MaybeZero { .. })));
    }

    #[test]
    fn the_sum_of_nothing_is_unknown() {
        assert_eq!(Quantity::sum([]).unwrap(), None);
    }

    proptest! {
        #[test]
        fn arithmetic_keeps_true_values_inside_the_interval(
            a in -1e6..1e6f64, da in 0.0..1e3f64, ta in 0.0..1.0f64,
            b in 1.0..1e6f64, db in 0.0..1e3f64, tb in 0.0..1.0f64,
        ) {
            let s = || Source::modelled("m");
            let x = Quantity::new(a + da / 2.0, a, a + da, Unit::Joule, s()).unwrap();
            let y = Quantity::new(b + db / 2.0, b, b + db, Unit::Joule, s()).unwrap();
            let r = Quantity::new(b + db / 2.0, b, b + db, Unit::One, s()).unwrap();
            let (tx, ty) = (a + da * ta, b + db * tb);
            let near = |q: &Quantity, truth: f64| {
                let slack = 1e-9 * (1.0 + truth.abs());
                q.low() - slack <= truth && truth <= q.high() + slack
            };
            prop_assert!(near(&x.plus(&y).unwrap(), tx + ty));
            prop_assert!(near(&x.minus(&y).unwrap(), tx - ty));
            prop_assert!(near(&x.times(&r).unwrap(), tx * ty));
            prop_assert!(near(&x.ratio(&y).unwrap(), tx / ty));
        }
    }
}
