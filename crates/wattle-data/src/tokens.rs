//! Text as numbers of tokens: tokenizers, and sequences of one length with their padding.

use std::path::Path;
use std::sync::Arc;

use wattle_graph::DType;

use crate::column::ColumnInfo;
use crate::columns::{Cells, Field};
use crate::error::{Error, Result};
use crate::mapping::Wanted;
use crate::options::TableOptions;

/// Tokens in a sample where neither the model nor the options say.
const DEFAULT_LENGTH: usize = 128;

/// The target of padding where the options state no ignored index.
pub(crate) const DEFAULT_IGNORED: i64 = -100;

/// What turns text into tokens.
pub(crate) enum Tokenizer {
    /// A file of the `tokenizers` library.
    #[cfg(feature = "tokenizers")]
    File {
        tokenizer: Box<tokenizers::Tokenizer>,
        /// Hash of the file.
        identity: String,
    },
    /// Every byte is a token of its own number, 0 to 255; padding is 0.
    Bytes,
}

/// The path that stands for [`Tokenizer::Bytes`].
pub(crate) const BYTES: &str = "bytes";

impl Tokenizer {
    /// Opens a `tokenizer.json`; the text `bytes` takes bytes as they are.
    pub(crate) fn open(path: Option<&Path>, place: &Path) -> Result<Self> {
        match path {
            None => Err(Error::input(place.display(), "text, and no tokenizer")
                .expected(
                    "a tokenizer.json of the Hugging Face tokenizers library, or `bytes` for a token a byte",
                )
                .remedy(
                    "name one: option `tokenizer=tokenizer.json`, or take bytes: option `tokenizer=bytes`",
                )),
            Some(path) if path == Path::new(BYTES) => Ok(Self::Bytes),
            Some(path) => Self::from_file(path),
        }
    }

    #[cfg(feature = "tokenizers")]
    fn from_file(path: &Path) -> Result<Self> {
        let bytes = crate::bounded::read(path)?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
            Error::input(path.display(), format_args!("not a tokenizer ({error})"))
                .expected("a tokenizer.json of the Hugging Face tokenizers library")
                .remedy("save it with tokenizer.save('tokenizer.json')")
        })?;
        // Lengths are decided here.
        tokenizer.with_padding(None);
        let _ = tokenizer.with_truncation(None);
        let identity = blake3::hash(&bytes).to_hex()[..16].to_owned();
        Ok(Self::File { tokenizer: Box::new(tokenizer), identity })
    }

    #[cfg(not(feature = "tokenizers"))]
    fn from_file(path: &Path) -> Result<Self> {
        Err(Error::input(path.display(), "a tokenizer file, which this build does not read")
            .expected("`bytes`, a token a byte")
            .remedy("build it with the cargo feature `tokenizers`, or store token numbers as an array"))
    }

    /// What identifies it: part of the fingerprint.
    pub(crate) fn identity(&self) -> &str {
        match self {
            #[cfg(feature = "tokenizers")]
            Self::File { identity, .. } => identity,
            Self::Bytes => BYTES,
        }
    }

    /// The token that fills up short sequences.
    pub(crate) fn padding(&self) -> u32 {
        match self {
            #[cfg(feature = "tokenizers")]
            Self::File { tokenizer, .. } => {
                let usual = ["<pad>", "[PAD]", "<|endoftext|>", "</s>"];
                usual.iter().find_map(|token| tokenizer.token_to_id(token)).unwrap_or(0)
            }
            Self::Bytes => 0,
        }
    }

    /// The tokens of a text, with the special ones around it if `special`.
    pub(crate) fn encode(&self, text: &str, special: bool, place: &dyn Fn() -> String) -> Result<Vec<u32>> {
        match self {
            #[cfg(feature = "tokenizers")]
            Self::File { tokenizer, .. } => match tokenizer.encode_fast(text, special) {
                Ok(encoding) => Ok(encoding.get_ids().to_vec()),
                Err(error) => {
                    Err(Error::input(place(), format_args!("text that the tokenizer refuses ({error})")))
                }
            },
            Self::Bytes => {
                let _ = (special, place);
                Ok(text.bytes().map(u32::from).collect())
            }
        }
    }
}

/// Sequences of tokens, each cut out of one long row.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    tokens: Vec<u32>,
    /// Where each sample begins and how many tokens it has, at most the common length.
    spans: Vec<(usize, usize)>,
}

impl Sequences {
    pub(crate) fn count(&self) -> usize {
        self.spans.len()
    }

    /// Adds a text as one sample; what is longer than `length` is cut off. Returns whether it was.
    pub(crate) fn add(&mut self, tokens: &[u32], length: usize) -> bool {
        let kept = &tokens[..tokens.len().min(length)];
        self.spans.push((self.tokens.len(), kept.len()));
        self.tokens.extend_from_slice(kept);
        kept.len() < tokens.len()
    }

    /// Adds a text as samples of `length` tokens, of which each has the next one as its target; the last may be shorter.
    /// Returns how many there are: none for a text of less than two tokens.
    pub(crate) fn add_chunks(&mut self, tokens: &[u32], length: usize) -> usize {
        let (before, start) = (self.spans.len(), self.tokens.len());
        let learnable = tokens.len().saturating_sub(1);
        for first in (0..learnable).step_by(length) {
            self.spans.push((start + first, length.min(learnable - first)));
        }
        if learnable > 0 {
            self.tokens.extend_from_slice(tokens);
        }
        self.spans.len() - before
    }
}

/// One view of sequences as a column.
#[derive(Debug)]
struct View {
    sequences: Arc<Sequences>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Tokens { padding: u32 },
    Mask,
    Zeros,
    Next { ignored: i64 },
}

impl Cells for View {
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()> {
        let (start, real) = self.sequences.spans[sample];
        let tokens = &self.sequences.tokens;
        for (place, element) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let inside = place < real;
            let value = match self.what {
                What::Tokens { padding } => i64::from(if inside { tokens[start + place] } else { padding }),
                What::Mask => i64::from(inside),
                What::Zeros => 0,
                What::Next { ignored } if inside => {
                    tokens.get(start + place + 1).map_or(ignored, |token| i64::from(*token))
                }
                What::Next { ignored } => ignored,
            };
            *element = value.to_ne_bytes();
        }
        Ok(())
    }

    fn length(&self, sample: usize) -> Option<usize> {
        Some(self.sequences.spans[sample].1)
    }
}

/// The names of the columns that text has.
const COLUMNS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// Whether a column of text has this name.
pub(crate) fn is_column(name: &str) -> bool {
    COLUMNS.contains(&name)
}

/// The common length: what an input of the model takes, or what the options say.
pub(crate) fn length(wanted: &[Wanted], options: &TableOptions, place: &Path) -> Result<usize> {
    let of_text = |want: &&Wanted| wanted.len() == 1 || is_column(&column_of(want, wanted, options));
    let fixed = wanted.iter().filter(of_text).find_map(|want| want.extents.last().copied().flatten());
    let fault =
        |found: String, expected: String| Err(Error::input(place.display(), found).expected(expected));
    match (fixed, options.text.length) {
        (Some(fixed), Some(asked)) if fixed != asked => fault(
            format!("samples of {asked} tokens"),
            format!("{fixed}, which is what the model's input takes"),
        ),
        (fixed, asked) => match asked.or(fixed).unwrap_or(DEFAULT_LENGTH) {
            0 => fault("samples of no tokens".into(), "1 token or more".into()),
            length if length > 1 << 20 => {
                fault(format!("samples of {length} tokens"), "at most 1048576".into())
            }
            length => Ok(length),
        },
    }
}

/// The column of text that feeds an input: as stated, else of the same name; a single input takes the tokens.
pub(crate) fn column_of(want: &Wanted, wanted: &[Wanted], options: &TableOptions) -> String {
    match options.columns.stated(&want.name) {
        Some([column]) if is_column(column) => column.clone(),
        _ if is_column(&want.name) => want.name.clone(),
        _ if wanted.len() == 1 => COLUMNS[0].to_owned(),
        _ => want.name.clone(),
    }
}

/// An input's column of sequences.
pub(crate) fn input(
    name: &str,
    column: &str,
    sequences: &Arc<Sequences>,
    length: usize,
    padding: u32,
) -> Option<Field> {
    let what = match COLUMNS.iter().position(|known| *known == column)? {
        0 => What::Tokens { padding },
        1 => What::Mask,
        _ => What::Zeros,
    };
    let view = View { sequences: sequences.clone(), what };
    Some(Field::new(
        ColumnInfo::new(name, DType::I64, [length]),
        view,
        format!("column `{column}` of its text"),
    ))
}

/// The target of every token: the one after it, or `ignored` in the padding.
pub(crate) fn next_token(sequences: &Arc<Sequences>, length: usize, ignored: i64) -> Field {
    let view = View { sequences: sequences.clone(), what: What::Next { ignored } };
    Field::new(ColumnInfo::new("next_token", DType::I64, [length]), view, "the next token")
}
