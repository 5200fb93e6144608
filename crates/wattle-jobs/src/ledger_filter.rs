//! Which receipts of the ledger are asked for: by time, label and command.

use wattle_meter::{Receipt, Timestamp};

/// What receipts must be; nothing, for all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Started then or later.
    pub since: Option<Timestamp>,
    /// Started before then.
    pub until: Option<Timestamp>,
    /// Have these labels with these values.
    pub labels: Vec<(String, String)>,
    /// Have this text in their command.
    pub command: Option<String>,
}

impl Filter {
    /// Whether a receipt is asked for.
    pub fn keeps(&self, receipt: &Receipt) -> bool {
        self.since.is_none_or(|since| receipt.started >= since)
            && self.until.is_none_or(|until| receipt.started < until)
            && self.labels.iter().all(|(label, value)| receipt.labels.get(label) == Some(value))
            && self.command.as_ref().is_none_or(|text| receipt.command.join(" ").contains(text))
    }
}

/// The instant that a text names: a day in UTC (`2026-11-23`, its beginning), an instant as receipts write it, or how long
/// before `now`: `90min`, `12h`, `7d`, `4w`.
///
/// # Errors
/// When it is none of these.
pub fn instant(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let refused = || {
        format!(
            "`{text}` is no time; expected 2026-11-23, 2026-11-23T01:48:18.123Z, or how long ago: 90min, 12h, 7d, 4w"
        )
    };
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(day) = format!("{text}T00:00:00.000Z").parse() {
        return Ok(day);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let (count, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return Err(refused()),
    };
    let count: u64 = count.parse().map_err(|_| refused())?;
    Ok(Timestamp::from_unix_millis(now.unix_millis().saturating_sub(count.saturating_mul(millis))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_meter::{Meter, MeterConfig};

    #[test]
    fn a_time_is_a_day_an_instant_or_how_long_ago() {
        let now: Timestamp = "2026-11-23T12:00:00.000Z".parse().unwrap();
        let at = |text: &str| instant(text, now).map(|at| at.to_string());
        assert_eq!(at("2026-11-01").unwrap(), "2026-11-01T00:00:00.000Z");
        assert_eq!(at("2026-11-01T10:00:00.500Z").unwrap(), "2026-11-01T10:00:00.500Z");
        assert_eq!(at("36h").unwrap(), "2026-11-22T00:00:00.000Z");
        assert_eq!(at("2w").unwrap(), "2026-11-09T12:00:00.000Z");
        assert_eq!(at("99999999999999999w").unwrap(), "1970-01-01T00:00:00.000Z");
        for text in ["", "7", "d", "2026-02-31", "7 d", "7days", "-1d", "99999999999999999999d"] {
            assert!(at(text).unwrap_err().contains("7d, 4w"), "{text}");
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let mut receipt = Meter::start(MeterConfig::new(["wattle", "train", "m.onnx"])).stop();
        receipt.started = "2026-11-23T12:00:00.000Z".parse().unwrap();
        receipt.labels.insert("project".into(), "a".into());
        let day = |text: &str| Some(instant(text, Timestamp::from_unix_millis(0)).unwrap());
        let project = |value: &str| vec![("project".to_owned(), value.to_owned())];
        let command = |text: &str| Some(text.to_owned());
        let all = Filter {
            since: day("2026-11-23"),
            until: day("2026-11-24"),
            labels: project("a"),
            command: command("train m"),
        };
        assert!(Filter::default().keeps(&receipt) && all.keeps(&receipt));
        for one_off in [
            Filter { since: day("2026-11-24"), ..all.clone() },
            Filter { until: day("2026-11-23"), ..all.clone() },
            Filter { labels: project("b"), ..all.clone() },
            Filter { command: command("eval"), ..all.clone() },
        ] {
            assert!(!one_off.keeps(&receipt), "{one_off:?}");
        }
    }
}
