//! Where a number comes from: a counter, a model, a publication, or an assumption.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The origin of a [`Quantity`](crate::Quantity); in JSON and in print `kind:detail`.
///
/// When two quantities are combined their sources combine too: like kinds keep their kind and list both
/// details; unlike kinds become `modelled`, naming both in full, because a number with a modelled or assumed
/// ingredient is no longer a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// Read from a counter, a clock, or by counting; the detail names it.
    Measured(String),
    /// Computed by a model; the detail is the model's id.
    Modelled(String),
    /// Taken from a publication; the detail cites it.
    Published(String),
    /// Neither measured nor published; the detail gives the reason.
    Assumed(String),
}

impl Source {
    /// `measured:<counter>`.
    pub fn measured(counter: impl Into<String>) -> Self {
        Source::Measured(counter.into())
    }

    /// `modelled:<model id>`.
    pub fn modelled(model: impl Into<String>) -> Self {
        Source::Modelled(model.into())
    }

    /// `published:<citation>`.
    pub fn published(citation: impl Into<String>) -> Self {
        Source::Published(citation.into())
    }

    /// `assumed:<reason>`.
    pub fn assumed(reason: impl Into<String>) -> Self {
        Source::Assumed(reason.into())
    }

    /// Whether the number was read rather than computed, cited or assumed.
    pub fn is_measured(&self) -> bool {
        matches!(self, Source::Measured(_))
    }

    /// The first word: `measured`, `modelled`, `published` or `assumed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Measured(_) => "measured",
            Source::Modelled(_) => "modelled",
            Source::Published(_) => "published",
            Source::Assumed(_) => "assumed",
        }
    }

    /// What follows the kind: the counter, model id, citation or reason.
    pub fn detail(&self) -> &str {
        match self {
            Source::Measured(d) | Source::Modelled(d) | Source::Published(d) | Source::Assumed(d) => d,
        }
    }

    /// The source of a number computed from `self` and `other` by `operator` (`" + "`, `" x "`, ...).
    pub(crate) fn combine(&self, operator: &str, other: &Source) -> Source {
        if self == other {
            return self.clone();
        }
        let plain = self.kind() == other.kind() && !self.is_composite() && !other.is_composite();
        let term = |s: &Source| {
            let text = if plain || s.is_composite() { s.detail().to_owned() } else { s.to_string() };
            let binds_looser = operator != " + " && (text.contains(" + ") || text.contains(" - "));
            if binds_looser { format!("({text})") } else { text }
        };
        let (left, right) = (term(self), term(other));
        let listed = operator == " + " && left.split(operator).any(|t| t == right);
        let joined = if listed { left } else { format!("{left}{operator}{right}") };
        match self {
            Source::Measured(_) if plain => Source::Measured(joined),
            Source::Published(_) if plain => Source::Published(joined),
            Source::Assumed(_) if plain => Source::Assumed(joined),
            // The kind already says it once: `modelled:a / measured:b`, not `modelled:modelled:a / measured:b`.
            _ => Source::Modelled(joined.strip_prefix("modelled:").unwrap_or(&joined).to_owned()),
        }
    }

    /// Whether this is a `modelled` source whose detail lists other sources in full.
    fn is_composite(&self) -> bool {
        let ingredient = |kind: &str| {
            self.detail().match_indices(kind).any(|(at, _)| {
                at == 0 || self.detail()[..at].ends_with(' ') || self.detail()[..at].ends_with('(')
            })
        };
        matches!(self, Source::Modelled(_))
            && ["measured:", "modelled:", "published:", "assumed:"].into_iter().any(ingredient)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.detail())
    }
}

/// A source that is not `kind:detail` with one of the four kinds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "source {found:?}: expected measured:<counter>, modelled:<model>, published:<citation> or assumed:<reason>"
)]
pub struct SourceError {
    found: String,
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let error = || SourceError { found: text.to_owned() };
        let (kind, detail) = text.split_once(':').ok_or_else(error)?;
        if detail.trim().is_empty() {
            return Err(error());
        }
        match kind {
            "measured" => Ok(Source::measured(detail)),
            "modelled" => Ok(Source::modelled(detail)),
            "published" => Ok(Source::published(detail)),
            "assumed" => Ok(Source::assumed(detail)),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = SourceError;

    fn try_from(text: String) -> Result<Self, SourceError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> String {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_strangers() {
        for text in ["measured:rapl:package-0", "modelled:cpu-time/1", "published:IEA 2024", "assumed:a desk"]
        {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["guessed:x", "measured", "measured:", "measured:  ", ""] {
            assert!(text.parse::<Source>().is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn mixing_kinds_is_never_a_measurement() {
        let mixed = Source::measured("rapl").combine(" + ", &Source::modelled("dram/1"));
        assert_eq!(mixed.to_string(), "modelled:measured:rapl + modelled:dram/1");
    }

    #[test]
    fn longer_combinations_name_each_ingredient_once_and_keep_brackets() {
        let sum = Source::measured("rapl").combine(" + ", &Source::modelled("dram/1"));
        let more = sum.combine(" + ", &Source::modelled("disk/1"));
        assert_eq!(more.to_string(), "modelled:measured:rapl + modelled:dram/1 + modelled:disk/1");
        let product = sum.combine(" x ", &Source::published("IEA"));
        assert_eq!(product.to_string(), "modelled:(measured:rapl + modelled:dram/1) x published:IEA");
    }

    #[test]
    fn like_kinds_keep_their_kind_and_do_not_repeat_a_term() {
        let both = Source::measured("a").combine(" + ", &Source::measured("b"));
        assert_eq!(both.to_string(), "measured:a + b");
        assert_eq!(both.combine(" + ", &Source::measured("b")), both);
    }
}
