//! OpenTelemetry metrics as OTLP/JSON: `hw.energy` (J) and `hw.power` (W) of the hardware semantic conventions, whose
//! status is still "development".

use serde_json::{Value, json};

use super::{is_card, is_memory};
use crate::{Component, Receipt};

/// The body of one OTLP/HTTP metrics request. Times are decimal strings of nanoseconds, as protobuf's JSON form wants.
pub fn otlp(receipt: &Receipt) -> String {
    let start = u128::from(receipt.started.unix_millis()) * 1_000_000;
    let end = start + (receipt.duration.value() * 1e9) as u128;
    let seconds = receipt.duration.value();
    let point = |component: &Component, value: f64| {
        json!({
            "attributes": [
                attribute("hw.id", &component.name),
                attribute("hw.type", kind(&component.name)),
                attribute("wattle.source", &component.energy.source().to_string()),
            ],
            "startTimeUnixNano": start.to_string(),
            "timeUnixNano": end.to_string(),
            "asDouble": value,
        })
    };
    let parts = &receipt.energy.components;
    let energy: Vec<Value> = parts.iter().map(|c| point(c, c.energy.value())).collect();
    let power: Vec<Value> =
        parts.iter().filter(|_| seconds > 0.0).map(|c| point(c, c.energy.value() / seconds)).collect();
    let mut about =
        vec![attribute("service.name", "wattle"), attribute("service.version", &receipt.software.wattle)];
    about.extend(receipt.labels.iter().map(|(key, value)| attribute(&format!("wattle.label.{key}"), value)));
    let document = json!({
        "resourceMetrics": [{
            "resource": {"attributes": about},
            "scopeMetrics": [{
                "scope": {"name": "wattle-meter", "version": receipt.software.wattle},
                "metrics": [
                    {
                        "name": "hw.energy",
                        "unit": "J",
                        "description": "Energy consumed by the component",
                        "sum": {"dataPoints": energy, "aggregationTemporality": 2, "isMonotonic": true},
                    },
                    {
                        "name": "hw.power",
                        "unit": "W",
                        "description": "Average power of the component over the run",
                        "gauge": {"dataPoints": power},
                    },
                ],
            }],
        }],
    });
    document.to_string() + "\n"
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn kind(component: &str) -> &'static str {
    if is_card(component) {
        "gpu"
    } else if is_memory(component) {
        "memory"
    } else if component == "machine" {
        "battery"
    } else {
        "cpu"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn energy_is_a_cumulative_sum_in_joules_with_the_required_attributes() {
        let document: Value = serde_json::from_str(&otlp(&example())).unwrap();
        let metrics = &document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        assert_eq!(metrics[0]["name"], "hw.energy");
        let about = &document["resourceMetrics"][0]["resource"]["attributes"];
        assert_eq!(about[2], attribute("wattle.label.project", "demo"));
        assert_eq!(metrics[0]["sum"]["isMonotonic"], true);
        let point = &metrics[0]["sum"]["dataPoints"][0];
        assert_eq!(point["asDouble"], 90.0);
        assert_eq!(point["attributes"][0]["key"], "hw.id");
        assert_eq!(point["attributes"][1]["value"]["stringValue"], "cpu");
        assert_eq!(point["startTimeUnixNano"], "1795398498123000000");
        assert_eq!(point["timeUnixNano"], "1795398510623000000");
    }
}
