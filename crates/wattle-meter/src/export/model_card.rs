//! The `co2_eq_emissions` block of a Hugging Face model card. Its `emissions` are in **grams**.

use crate::{Receipt, Source};

/// The block as YAML, to be put between the `---` lines at the top of the card; `None` if no carbon is known.
pub fn model_card(receipt: &Receipt) -> Option<String> {
    let carbon = receipt.carbon.as_ref()?;
    let intensity = &receipt.factors.carbon_intensity;
    let how = match receipt.energy.total.as_ref()?.source() {
        Source::Measured(_) => "measured energy",
        _ => "modelled energy",
    };
    let source = format!(
        "wattle {}: {how}, {} to {} g, at {} {} ({})",
        receipt.software.wattle,
        number(carbon.low()),
        number(carbon.high()),
        intensity.value(),
        intensity.unit(),
        intensity.source().detail(),
    );
    let place = receipt.labels.get("region").map_or("not stated", String::as_str);
    let hardware = receipt.machine.cpu_model.as_deref().unwrap_or("unknown processor");
    let training = receipt.labels.get("training_type").map_or("not stated", String::as_str);
    Some(format!(
        "co2_eq_emissions:\n  emissions: {}\n  source: {}\n  training_type: {}\n  geographical_location: {}\n  hardware_used: {}\n",
        number(carbon.value()),
        text(&source),
        text(training),
        text(place),
        text(&format!("{hardware}, {} logical cores", receipt.machine.cores)),
    ))
}

/// YAML 1.1 readers take `1e-7` without a point for a text.
fn number(value: f64) -> String {
    let plain = format!("{value:.9}");
    let plain = plain.trim_end_matches('0');
    if let Some(whole) = plain.strip_suffix('.') { format!("{whole}.0") } else { plain.to_owned() }
}

/// A double-quoted scalar; JSON's escapes are YAML's.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn emissions_are_in_grams() {
        let card = model_card(&example()).unwrap();
        let golden = "co2_eq_emissions:\n  emissions: 0.01335\n  source: \"wattle 0.1.0: modelled energy, 0.0003 to 0.10192 g, at 445 gCO2e/kWh (world average";
        assert!(card.starts_with(golden), "{card}");
        assert!(card.ends_with(
            "  training_type: \"not stated\"\n  geographical_location: \"not stated\"\n  hardware_used: \"AMD EPYC, 2 logical cores\"\n"
        ));
    }

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        let mut receipt = example();
        receipt.machine.cpu_model = Some("a\": b\n- c".to_owned());
        assert!(model_card(&receipt).unwrap().contains(r#"hardware_used: "a\": b\n- c, 2 logical cores""#));
    }

    #[test]
    fn no_carbon_no_card() {
        let mut receipt = example();
        receipt.carbon = None;
        assert_eq!(model_card(&receipt), None);
    }
}
