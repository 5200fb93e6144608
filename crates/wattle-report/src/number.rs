//! Numbers as people read them: three significant digits, SI prefixes, units.

use wattle_meter::{Quantity, Unit};

const PREFIXES: [(&str, f64); 10] = [
    ("E", 1e18),
    ("P", 1e15),
    ("T", 1e12),
    ("G", 1e9),
    ("M", 1e6),
    ("k", 1e3),
    ("", 1.0),
    ("m", 1e-3),
    ("µ", 1e-6),
    ("n", 1e-9),
];

/// A value with its unit, scaled by an SI prefix: `412 µJ`, `3.1 ms`, `2.23 GMAC`.
pub fn si(value: f64, unit: &str) -> String {
    let (mantissa, prefix) = scaled(value);
    join(&mantissa, &format!("{prefix}{unit}"))
}

/// A count: whole up to four digits, then scaled: `1797`, `1.17 M`, `2.23 G`.
pub fn count(value: f64) -> String {
    if value.abs() < 9999.5 && value.fract() == 0.0 { format!("{value}") } else { si(value, "") }
}

/// A share as a percentage with one decimal place: `0.9712` gives `97.1 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A time span: `3.1 ms`, `12.5 s`, `2 min 5 s`, `1 h 3 min`.
pub fn seconds(value: f64) -> String {
    if !(119.5..8.64e9).contains(&value) {
        return si(value, "s");
    }
    let whole = value.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours} h {minutes} min") } else { format!("{minutes} min {rest} s") }
}

/// Three significant digits without trailing zeros, no prefix: `0.0455`, `12.5`, `1e-7`.
pub fn plain(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        format!("{}", value + 0.0)
    } else if (1e-4..1e6).contains(&size) {
        significant(value)
    } else {
        let text = format!("{value:.2e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{exponent}", trim_zeros(mantissa))
    }
}

/// A quantity's value in its unit, without interval or source.
pub fn value_of(quantity: &Quantity) -> String {
    in_unit(quantity.value(), quantity.unit())
}

/// A quantity with its interval, if it has one: `412 µJ (300 to 500 µJ)`.
pub fn quantity(quantity: &Quantity) -> String {
    let value = value_of(quantity);
    if quantity.low() == quantity.high() {
        return value;
    }
    let low = in_unit(quantity.low(), quantity.unit());
    let high = in_unit(quantity.high(), quantity.unit());
    let (low_number, low_unit) = low.split_once(' ').unwrap_or((&low, ""));
    let (_, high_unit) = high.split_once(' ').unwrap_or((&high, ""));
    if low_unit == high_unit {
        format!("{value} ({low_number} to {high})")
    } else {
        format!("{value} ({low} to {high})")
    }
}

fn in_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Second => seconds(value),
        Unit::GramCo2e => si(value, "g CO2e"),
        Unit::Sample => join(&count(value), "samples"),
        Unit::One => plain(value),
        Unit::Joule | Unit::Watt | Unit::Mac | Unit::Flop | Unit::Byte => si(value, unit.symbol()),
        // Prefixes on dollars or on compound units would only puzzle.
        _ => join(&plain(value), unit.symbol()),
    }
}

/// Mantissa and prefix; numbers beyond the prefixes fall back to an exponent.
fn scaled(value: f64) -> (String, &'static str) {
    if value == 0.0 || !value.is_finite() || value.abs() >= 1e21 {
        return (plain(value), "");
    }
    // Rounding may carry into the next prefix: 999.7 k is 1 M.
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    match PREFIXES.iter().find(|(_, scale)| rounded.abs() >= *scale * (1.0 - 1e-12)) {
        Some((prefix, scale)) => (significant(rounded / scale), prefix),
        None => (plain(value), ""),
    }
}

/// Three significant digits in positional notation.
fn significant(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    let magnitude = rounded.abs().log10().floor() as i32;
    // log10 of 0.001 may come out a hair low; a digit too many is trimmed below.
    let decimals = (2 - magnitude).clamp(0, 12) as usize;
    trim_zeros(&format!("{rounded:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn join(number: &str, unit: &str) -> String {
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wattle_meter::Source;

    use super::*;

    #[test]
    fn numbers_read_as_in_the_manual() {
        for (value, unit, text) in [
            (1.17e6, "", "1.17 M"),
            (2.233e9, "MAC", "2.23 GMAC"),
            (412e-6, "J", "412 µJ"),
            (3.1e-3, "s", "3.1 ms"),
            (999.7e3, "", "1 M"),
            (999.4, "B", "999 B"),
            (1000.0, "B", "1 kB"),
            (0.0, "J", "0 J"),
            (-0.002, "J", "-2 mJ"),
            (1e-9, "J", "1 nJ"),
            (1e-3, "J", "1 mJ"),
            (3e-12, "J", "3e-12 J"),
            (3.14e23, "FLOP", "3.14e23 FLOP"),
            (f64::NAN, "J", "NaN J"),
        ] {
            assert_eq!(si(value, unit), text);
        }
        assert_eq!(count(1797.0), "1797");
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(percent(0.9712), "97.1 %");
        assert_eq!(plain(0.04551), "0.0455");
        assert_eq!(plain(4.5e-6), "4.5e-6");
    }

    #[test]
    fn long_times_read_as_clocks_do() {
        for (value, text) in
            [(0.0031, "3.1 ms"), (59.96, "60 s"), (125.0, "2 min 5 s"), (3780.0, "1 h 3 min")]
        {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn an_interval_shows_only_where_there_is_one() {
        let q =
            |value, low, high, unit| Quantity::new(value, low, high, unit, Source::modelled("m")).unwrap();
        assert_eq!(quantity(&q(412e-6, 300e-6, 500e-6, Unit::Joule)), "412 µJ (300 to 500 µJ)");
        assert_eq!(quantity(&q(0.9, 0.3, 3.0, Unit::Joule)), "900 mJ (300 mJ to 3 J)");
        assert_eq!(quantity(&q(2.0, 2.0, 2.0, Unit::GramCo2e)), "2 g CO2e");
        assert_eq!(quantity(&q(1.2, 1.0, 1.56, Unit::One)), "1.2 (1 to 1.56)");
    }

    proptest! {
        #[test]
        fn three_digits_are_never_more_than_half_a_unit_off(exponent in -9.0..20.9f64) {
            let value = 10f64.powf(exponent);
            let (mantissa, prefix) = scaled(value);
            let scale = PREFIXES.iter().find(|p| p.0 == prefix).unwrap().1;
            let shown: f64 = mantissa.parse::<f64>().unwrap() * scale;
            prop_assert!((shown - value).abs() <= 0.00501 * value, "{value} shown as {mantissa} {prefix}");
            prop_assert!(mantissa.len() <= 4, "{mantissa}");
        }
    }
}
