//! Numbers as people state them: `57`, a range `30..90`, or a range with its best value `30..57..90`.

use crate::{Quantity, Source, Unit};

/// A number that cannot be understood, or lies outside what makes sense for it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "{name} = {found:?}: expected a number of {unit} between {least} and {most}, written as 57, 30..90 or 30..57..90"
)]
pub struct StatedError {
    name: String,
    found: String,
    unit: Unit,
    least: f64,
    most: f64,
}

/// Reads what a person stated for `name`: a number, `low..high` or `low..value..high`, in `unit`, all of it from
/// `least` to `most`. A range without its best value takes the middle.
///
/// # Errors
/// [`StatedError`], naming the argument, what was found and what is expected.
pub fn stated(
    name: &str,
    text: &str,
    unit: Unit,
    (least, most): (f64, f64),
) -> Result<Quantity, StatedError> {
    let error = || StatedError { name: name.to_owned(), found: text.to_owned(), unit, least, most };
    let [low, value, high] = interval(text).ok_or_else(error)?;
    if !(least <= low && high <= most) {
        return Err(error());
    }
    Quantity::new(value, low, high, unit, Source::assumed(format!("stated by {name}"))).map_err(|_| error())
}

/// `[low, value, high]`, not yet checked for order.
pub(crate) fn interval(text: &str) -> Option<[f64; 3]> {
    let numbers: Vec<f64> = text.split("..").map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [value] => Some([value; 3]),
        [low, high] => Some([low, (low + high) / 2.0, high]),
        [low, value, high] => Some([low, value, high]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_a_range_and_a_range_with_its_value_are_understood() {
        let read = |text| stated("watts", text, Unit::Watt, (0.0, 1e5)).unwrap();
        assert_eq!((read("330").low(), read("330").high()), (330.0, 330.0));
        assert_eq!((read("3e2..400").low(), read("3e2..400").value()), (300.0, 350.0));
        assert_eq!((read("1..2..9").value(), read("1..2..9").high()), (2.0, 9.0));
        assert_eq!(read("330").source().to_string(), "assumed:stated by watts");
    }

    #[test]
    fn nonsense_is_refused_by_name_with_the_unit() {
        for text in ["", "x", "-1", "9..1", "1..2..3..4", "nan", "inf", "1e9"] {
            let error = stated("watts", text, Unit::Watt, (0.0, 1e5)).unwrap_err().to_string();
            assert!(error.contains("watts") && error.contains(" W "), "{error}");
        }
    }
}
