//! Shares as text.

use crate::error::{Error, Result};

/// Reads a share of something: `10%` and `0.1` are the same one.
///
/// # Errors
/// When the text is neither, or the share is below 0, or 1 or more.
pub fn parse_share(text: &str) -> Result<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    };
    share.filter(|share| (0.0..1.0).contains(share)).ok_or_else(|| {
        Error::input("a share", format_args!("`{text}`"))
            .expected("0 or more and below 1, such as 10% or 0.1")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_and_fractions_are_the_same_shares() {
        for (text, share) in
            [("10%", 0.1), ("0.1", 0.1), (" 12.5 % ", 0.125), ("0", 0.0), ("0%", 0.0), (".5", 0.5)]
        {
            assert_eq!(parse_share(text).unwrap(), share);
        }
        for text in ["", "%", "10", "100%", "1", "-5%", "-0.1", "nan", "ten%", "10%%", "inf"] {
            let error = parse_share(text).unwrap_err().to_string();
            assert!(error.contains("such as 10% or 0.1"), "{error}");
        }
    }
}
