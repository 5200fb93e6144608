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
            Syntax::Yaml => {
                check_yaml(text).map_err(|found| AccelError::invalid(what, found))?;
                serde_yaml_ng::from_str(text).map_err(|e| AccelError::invalid(what, e))
            }
        }
    }
}

/// Most bytes of a YAML file: 4 MiB, ten times the largest table of energies known.
const LONGEST_YAML: usize = 4 << 20;

/// Most lists and maps in brackets inside one another. The parser's time grows with the square of it.
const DEEPEST_YAML: usize = 200;

/// Refuses what would take long to read. Brackets in quotes count too, which only files made to be slow will notice.
fn check_yaml(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_YAML {
        return Err(format!("{} bytes of YAML, expected at most {LONGEST_YAML}", text.len()));
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST_YAML {
            return Err(format!("more than {DEEPEST_YAML} brackets inside one another"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn yaml_that_is_made_to_be_slow_is_refused_at_once() {
        let begun = Instant::now();
        let lines = "k: 1\n".repeat(LONGEST_YAML / 4);
        for text in ["[".repeat(1 << 20), "{".repeat(1 << 20), "[{a: ".repeat(1000), lines] {
            assert!(Syntax::Yaml.read::<toml::Value>("test", &text).is_err());
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let deep = format!("a: {}1{}", "[".repeat(100), "]".repeat(100));
        assert!(Syntax::Yaml.read::<toml::Value>("test", &deep).is_ok());
    }
}
