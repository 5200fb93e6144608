//! Instants in UTC, written as RFC 3339 with milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted. In JSON `"2026-11-23T01:48:18.123Z"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

const MILLIS_PER_DAY: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z, the last instant with a four-digit year.
const LAST: u64 = 253_402_300_799_999;

impl Timestamp {
    /// The system clock's reading; a clock set before 1970 reads as 1970, after 9999 as its end.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(LAST).min(LAST))
    }

    /// From milliseconds since 1970-01-01T00:00:00Z, at most the end of the year 9999.
    pub fn from_unix_millis(millis: u64) -> Self {
        Timestamp(millis.min(LAST))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn unix_millis(self) -> u64 {
        self.0
    }
}

/// Days since 1970-01-01 to (year, month, day) in the proleptic Gregorian calendar
/// (Fliegel & Van Flandern 1968, on a March-based year so that the leap day comes last).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`]; `None` before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let y = year.checked_sub(u64::from(month <= 2))?;
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = ((153 * month_from_march + 2) / 5 + day).checked_sub(1)?;
    let year_of_era = y % 400;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (y / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0 / MILLIS_PER_DAY);
        let ms = self.0 % MILLIS_PER_DAY;
        let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
    }
}

/// A timestamp that is not of the form `2026-11-23T01:48:18.123Z`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timestamp {found:?}: expected UTC with milliseconds, like 2026-11-23T01:48:18.123Z")]
pub struct TimestampError {
    found: String,
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let parsed = (|| {
            let field = |range: std::ops::Range<usize>| {
                let digits = text.get(range)?;
                digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
            };
            let (h, m, s, ms) = (field(11..13)?, field(14..16)?, field(17..19)?, field(20..23)?);
            let days = days_from_civil(field(0..4)?, field(5..7)?, field(8..10)?)?;
            Some(Timestamp(days * MILLIS_PER_DAY + h * 3_600_000 + m * 60_000 + s * 1000 + ms))
        })();
        // Printing again catches the 31st of February, the 25th hour and wrong punctuation at once.
        parsed.filter(|t| t.to_string() == text).ok_or_else(|| TimestampError { found: text.to_owned() })
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(t: Timestamp) -> String {
        t.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants_print_as_the_calendar_says() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(millis).to_string(), text);
        }
    }

    #[test]
    fn impossible_dates_are_refused() {
        for text in [
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-01-00T00:00:00.000Z",
            "2026-00-01T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "1969-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00.000Z",
            "2026-01-01 00:00:00.000Z",
            "2026-01-01T00:00:00.000Zé",
            "é026-01-01T00:00:00.000Z",
            "",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_form_round_trips(millis in 0..=LAST) {
            let t = Timestamp(millis);
            prop_assert_eq!(t.to_string().parse::<Timestamp>().unwrap(), t);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
