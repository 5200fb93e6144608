//! Files that people write, as TOML or as YAML: both give the same values.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::AccelError;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl Syntax {
    /// By the ending of the name, `.toml`, `.yaml` or `.yml`; `None` for any other.
    pub fn of(path: &Path) -> Option<Syntax> {
        match path.extension()?.to_str()? {
            "toml" => Some(Syntax::Toml),
            "yaml" | "yml" => Some(Syntax::Yaml),
            _ => None,
        }
    }

    /// The value that a text holds; `what` names it in errors, which say the line.
    pub(crate) fn read<T: DeserializeOwned>(self, what: &str, text: &str) -> Result<T, AccelError> {
        match self {
            Syntax::Toml => toml::from_str(text).map_err(|e| AccelError::invalid(what, e)),
            Syntax::Yaml => serde_yaml_ng::from_str(text).map_err(|e| AccelError::invalid(what, e)),
        }
    }
}
