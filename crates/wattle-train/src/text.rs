//! Options as text: a value that prints itself and parses back is written to files as what it prints.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de};
use wattle_data::error::{Error, Result};

/// Writes what the value prints; for `#[serde(with = "crate::text")]` on types of other crates.
pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Parses what [`serialize`] wrote.
pub fn deserialize<'de, T, D>(from: D) -> std::result::Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

/// Writes and reads a type as its text.
macro_rules! as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                $crate::text::serialize(self, to)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                $crate::text::deserialize(from)
            }
        }
    };
}

pub(crate) use as_text;

/// `name:key=value,key=value` taken apart: what is not taken when it is finished is refused.
#[derive(Debug)]
pub(crate) struct Fields {
    /// What the text describes, for errors: ``loss `mse:x=1` ``.
    place: String,
    /// Before the colon.
    pub name: String,
    fields: BTreeMap<String, String>,
}

impl Fields {
    /// Takes `text` apart; `kind` says what it describes.
    pub fn of(kind: &str, text: &str) -> Result<Fields> {
        let text = text.trim();
        let place = format!("{kind} `{text}`");
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut fields = BTreeMap::new();
        for field in rest.split(',').map(str::trim).filter(|f| !f.is_empty()) {
            let Some((key, value)) = field.split_once('=') else {
                return Err(Error::input(&place, format_args!("`{field}`")).expected("key=value"));
            };
            if fields.insert(key.trim().to_string(), value.trim().to_string()).is_some() {
                return Err(Error::input(&place, format_args!("`{key}` is given twice")));
            }
        }
        Ok(Fields { place, name: name.trim().to_string(), fields })
    }

    /// The text of a field, if it is given.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.fields.remove(key)
    }

    /// The number of a field, if it is given; refused when `fits` does not hold.
    pub fn number<T: FromStr>(
        &mut self,
        key: &str,
        expected: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>> {
        let Some(text) = self.fields.remove(key) else { return Ok(None) };
        let refused =
            || Error::input(&self.place, format_args!("{key} is `{text}`")).expected(expected.to_string());
        text.parse().ok().filter(fits).map(Some).ok_or_else(refused)
    }

    /// An error at this text.
    pub fn refuse(&self, found: impl Display) -> Error {
        Error::input(&self.place, found)
    }

    /// Refuses what has not been taken; `known` lists what could have been.
    pub fn finish(self, known: &str) -> Result<()> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => Err(Error::input(&self.place, format_args!("`{key}` is not known"))
                .expected(if known.is_empty() { "nothing after the name" } else { known })),
        }
    }
}
