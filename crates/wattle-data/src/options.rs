//! What is asked of a source that could be read in more than one way.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mapping::ColumnMap;
use crate::spec::LoadOptions;
use crate::split::SplitOptions;

/// How data is read as a [`Table`](crate::Table). Everything here enters the table's fingerprint where it changes what
/// training sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableOptions {
    /// Which columns feed which input, where names differ.
    pub columns: ColumnMap,
    /// The columns that are to be learnt. By default `y`, `labels`, `label`, `targets`, `target`, `class`, whichever is
    /// there; in a text table without such a name the last column; in a corpus the next token.
    pub targets: Vec<String>,
    /// The label that does not count: padding, void pixels.
    pub ignore_index: Option<i64>,
    /// What to do about cells without a value in a text table.
    pub missing: Missing,
    /// How the caller will divide the samples: what is measured (means of missing values) is measured on the training
    /// part that these options give.
    pub split: SplitOptions,
    /// The size of images, and whether targets are classes.
    pub load: LoadOptions,
    /// How text becomes tokens.
    pub text: TextOptions,
    /// Bytes of all arrays above which they are left in their file and read sample by sample; by default half of this
    /// machine's memory. Changes no number.
    #[serde(skip)]
    pub in_memory: Option<u64>,
}

/// What to do about cells without a value. Their text is empty, `?`, `na`, `n/a`, `nan` or `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The first is an error.
    #[default]
    Refuse,
    /// Rows that have one are left out.
    Drop,
    /// Features become their column's mean over the training part; rows whose target is missing are left out.
    Mean,
}

impl FromStr for Missing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "drop" => Ok(Self::Drop),
            "mean" => Ok(Self::Mean),
            _ => Err(Error::input(format_args!("missing values `{text}`"), "not a way to treat them")
                .expected("refuse, drop or mean")),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Drop => "drop",
            Self::Mean => "mean",
        })
    }
}

/// How text becomes tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextOptions {
    /// A `tokenizer.json` of the Hugging Face `tokenizers` library.
    pub tokenizer: Option<PathBuf>,
    /// Tokens in a sample. By default what the model's input takes, else 128.
    pub length: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_treat_missing_values_survive_their_text() {
        for way in [Missing::Refuse, Missing::Drop, Missing::Mean] {
            assert_eq!(way.to_string().parse::<Missing>().unwrap(), way);
        }
        assert!("median".parse::<Missing>().unwrap_err().to_string().contains("drop or mean"));
    }
}
