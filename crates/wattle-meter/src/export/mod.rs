//! Receipts in the forms that other tools read.
//!
//! All of these carry less than the receipt: most have no place for an interval or a source. Where a format has a free
//! field, it says whether the energy was measured or modelled.

mod codecarbon;
mod mlflow;
mod model_card;
mod open_metrics;
mod otlp;
mod spreadsheet;

pub use codecarbon::codecarbon;
pub use mlflow::mlflow;
pub use model_card::model_card;
pub use open_metrics::{Exposition, open_metrics};
pub use otlp::otlp;
pub use spreadsheet::spreadsheet;

use crate::{Quantity, Receipt, Unit};

/// A field of a comma-separated file (RFC 4180). Text that a spreadsheet would take for a formula, and run, gets an
/// apostrophe in front.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    let text = &*if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn line(fields: impl IntoIterator<Item = String>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|f| field(&f)).collect();
    fields.join(",") + "\n"
}

fn value(quantity: Option<&Quantity>) -> Option<f64> {
    quantity.map(Quantity::value)
}

/// Energy in kWh of the components whose name passes; `None` if there is none.
fn kilowatt_hours(receipt: &Receipt, of: impl Fn(&str) -> bool) -> Option<f64> {
    let parts: Vec<f64> = receipt
        .energy
        .components
        .iter()
        .filter(|c| of(&c.name))
        .filter_map(|c| c.energy.to(Unit::KilowattHour).ok().map(|e| e.value()))
        .collect();
    (!parts.is_empty()).then(|| parts.iter().sum())
}

fn is_memory(component: &str) -> bool {
    component.ends_with("dram")
}

fn is_card(component: &str) -> bool {
    component.starts_with("gpu-")
}

fn is_processor(component: &str) -> bool {
    !is_memory(component) && !is_card(component)
}

/// A name for the run: 32 hexadecimal digits, as MLflow wants them. The same receipt is the same run; two that began in one
/// millisecond are two.
fn run_id(receipt: &Receipt) -> String {
    format!("{:016x}{:016x}", receipt.started.unix_millis(), digest(receipt.to_json().as_bytes()))
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo): the same everywhere and always, which the standard library's hashes are not.
fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_text_and_a_number_is_a_number() {
        for (text, written) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("@SUM(1,2)", "\"'@SUM(1,2)\""),
            ("-x", "'-x"),
            ("-5.5", "-5.5"),
            ("a=b", "a=b"),
        ] {
            assert_eq!(field(text), written);
        }
    }

    #[test]
    fn digests_are_the_published_ones() {
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
