//! Text files: a folder with one sub-folder of texts a class, a folder of texts, or one file with a text a line.
//!
//! With classes every text is one sample of a fixed number of tokens, cut off or padded. Without, every text is cut into
//! samples of that many tokens, and what is to be learnt of each token is the next one; the padding of the last sample
//! has the ignored index as its target.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batches::names;
use crate::bounded;
use crate::columns::{Columns, Field, Memory, Parts};
use crate::dataset::SourceParts;
use crate::error::{Error, Result};
use crate::mapping::Wanted;
use crate::options::TableOptions;
use crate::tokens::{self, DEFAULT_IGNORED, Sequences, Tokenizer};
use crate::{column::ColumnInfo, folder::visible};
use wattle_graph::DType;

/// One text and, in a folder of classes, its class.
struct Text {
    place: String,
    text: String,
    class: Option<usize>,
}

/// Reads and tokenises everything.
pub(crate) fn load(path: &Path, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    let tokenizer = Tokenizer::open(options.text.tokenizer.as_deref(), path)?;
    let length = tokens::length(wanted, options, path)?;
    let (parts, class_names) = if path.is_dir() { folder(path)? } else { (lines(path)?, None) };
    let mut sequences = Sequences::default();
    let (mut labels, mut counts, mut cut, mut skipped) = (Vec::new(), [None; 3], 0u64, 0u64);
    for (count, texts) in counts.iter_mut().zip(parts) {
        let Some(texts) = texts else { continue };
        let before = sequences.count();
        for Text { place, text, class } in texts {
            let tokens = tokenizer.encode(&text, class.is_some(), &|| place.clone())?;
            match class {
                Some(class) => {
                    cut += u64::from(sequences.add(&tokens, length));
                    labels.push(class as i64);
                }
                None => skipped += u64::from(sequences.add_chunks(&tokens, length) == 0),
            }
        }
        *count = Some(sequences.count() - before);
    }
    let mut remarks = Vec::new();
    if cut > 0 {
        remarks.push(format!("{}: {cut} texts are cut off after {length} tokens", path.display()));
    }
    if skipped > 0 {
        let name = path.display();
        remarks.push(format!("{name}: {skipped} texts of less than two tokens have nothing to learn"));
    }
    let (count, sequences) = (sequences.count(), Arc::new(sequences));
    let inputs = inputs(path, wanted, options, &sequences, length, &tokenizer)?;
    let ignored = options.ignore_index.unwrap_or(DEFAULT_IGNORED);
    let target = if class_names.is_some() {
        Field::new(ColumnInfo::new("class", DType::I64, []), Memory::integers(&labels), "folder")
    } else {
        tokens::next_token(&sequences, length, ignored)
    };
    let learns_next = class_names.is_none();
    let [train, validation, test] = counts;
    let parts = Parts {
        class_names,
        ignore_index: options.ignore_index.or(learns_next.then_some(ignored)),
        remarks,
        options: format!("tokenizer {}", tokenizer.identity()),
        ..Parts::of(
            format!("text:{}", path.display()),
            inputs,
            vec![target],
            SourceParts::consecutive(train.unwrap_or(0), validation, test),
        )
    };
    Columns::new(parts, count)
}

/// Whether a directory holds texts, or sub-directories of texts.
pub(crate) fn detect(root: &Path) -> bool {
    let is_text = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "txt");
    let holds = |folder: &Path| visible(folder).is_ok_and(|entries| entries.iter().any(is_text));
    let base = if root.join("train").is_dir() { root.join("train") } else { root.to_owned() };
    holds(&base)
        || visible(&base).is_ok_and(|entries| entries.iter().any(|path| path.is_dir() && holds(path)))
}

fn inputs(
    path: &Path,
    wanted: &[Wanted],
    options: &TableOptions,
    sequences: &Arc<Sequences>,
    length: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<Field>> {
    let field = |want: &Wanted| {
        let column = tokens::column_of(want, wanted, options);
        tokens::input(&want.name, &column, sequences, length, tokenizer.padding()).ok_or_else(|| {
            Error::input(path.display(), format_args!("nothing for the model's input `{}`", want.name))
                .expected("input_ids, attention_mask or token_type_ids, which text has")
                .remedy("state which of these feeds it")
        })
    };
    wanted.iter().map(field).collect()
}

/// Training, validation and test texts.
type Divided = [Option<Vec<Text>>; 3];

fn lines(path: &Path) -> Result<Divided> {
    let bytes = bounded::read(path)?;
    let mut texts = Vec::new();
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let place = format!("{}, line {}", path.display(), number + 1);
        let text = utf8(line.strip_suffix(b"\r").unwrap_or(line), &place)?;
        if !text.trim().is_empty() {
            texts.push(Text { place, text: text.to_owned(), class: None });
        }
    }
    Ok([Some(texts), None, None])
}

fn utf8<'a>(bytes: &'a [u8], place: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        Error::input(place, format_args!("byte {} is not UTF-8", error.valid_up_to()))
            .expected("text in UTF-8")
            .remedy("convert it, for example with iconv -t UTF-8")
    })
}

fn folder(root: &Path) -> Result<(Divided, Option<Vec<String>>)> {
    let train = root.join("train");
    let (train, others) = if train.is_dir() {
        let find = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
        (train, [find(&["val", "valid", "validation"]), find(&["test"])])
    } else {
        (root.to_owned(), [None, None])
    };
    let entries = visible(&train)?;
    let folders: Vec<PathBuf> = entries.into_iter().filter(|path| path.is_dir()).collect();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let classes: Option<Vec<String>> =
        (!folders.is_empty()).then(|| folders.iter().map(|path| name(path)).collect());
    let mut parts = [Some(part(&train, classes.as_deref())?), None, None];
    for (part_of, folder) in parts[1..].iter_mut().zip(others) {
        *part_of = folder.map(|folder| part(&folder, classes.as_deref())).transpose()?;
    }
    Ok((parts, classes))
}

fn part(folder: &Path, classes: Option<&[String]>) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in visible(folder)? {
        match classes {
            None => texts.push(read(&path, None)?),
            Some(classes) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let class = classes.iter().position(|class| *class == name).filter(|_| path.is_dir());
                let class = class.ok_or_else(|| {
                    Error::input(path.display(), "not the folder of a class")
                        .expected(names(classes.iter().map(String::as_str)))
                        .remedy("move it away, or add training texts of that class")
                })?;
                for file in visible(&path)? {
                    texts.push(read(&file, Some(class))?);
                }
            }
        }
    }
    Ok(texts)
}

fn read(path: &Path, class: Option<usize>) -> Result<Text> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::input(path.display(), "a directory inside a folder of texts")
            .expected("text files only")
            .remedy("move its files up"));
    }
    let place = path.display().to_string();
    let text = utf8(&bounded::read(path)?, &place)?.to_owned();
    Ok(Text { place, text, class })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Table, TextOptions};

    fn options(length: usize) -> TableOptions {
        let text = TextOptions { tokenizer: Some("bytes".into()), length: Some(length) };
        TableOptions { text, ..TableOptions::default() }
    }

    fn read(table: &Columns, sample: usize, column: usize) -> Vec<i64> {
        let mut out = vec![0; table.columns()[column].bytes()];
        table.read(sample, column, &mut out).unwrap();
        out.as_chunks().0.iter().map(|b| i64::from_ne_bytes(*b)).collect()
    }

    fn wanted() -> Vec<Wanted> {
        ["input_ids", "attention_mask"].map(|name| Wanted::new(name, DType::I64, [None])).to_vec()
    }

    #[test]
    fn lines_become_chunks_that_learn_the_next_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines.txt");
        fs::write(&path, "abcdefg\r\n\nx\nhi").unwrap();
        let table = load(&path, &wanted(), &options(4)).unwrap();
        assert_eq!(table.count(), 3);
        let letters = |text: &str| text.bytes().map(i64::from).collect::<Vec<_>>();
        assert_eq!((read(&table, 0, 0), read(&table, 0, 2)), (letters("abcd"), letters("bcde")));
        assert_eq!((read(&table, 1, 0), read(&table, 1, 1)), (letters("ef\0\0"), vec![1, 1, 0, 0]));
        assert_eq!(read(&table, 1, 2), [102, 103, -100, -100]);
        assert_eq!(read(&table, 2, 2), [105, -100, -100, -100]);
        assert_eq!(table.label_range(2), Some((98, 105)));
        assert!(table.remarks()[0].contains("1 texts of less than two tokens"));
    }

    #[test]
    fn folders_are_classes_and_keep_their_parts() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("train/good/1.txt", "fine"),
            ("train/bad/1.txt", "no"),
            ("train/bad/2.txt", "nooooo"),
            ("test/good/1.txt", "yes"),
        ] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert!(detect(directory.path()));
        let table =
            load(directory.path(), &[Wanted::new("tokens", DType::I64, [Some(4)])], &options(4)).unwrap();
        assert_eq!(table.classes().unwrap().names, ["bad", "good"]);
        assert_eq!(table.classes().unwrap().labels, [0, 0, 1, 1]);
        assert_eq!(*table.parts(), SourceParts::consecutive(3, None, Some(1)));
        assert_eq!(read(&table, 1, 0), [110, 111, 111, 111]);
        assert!(table.remarks()[0].contains("1 texts are cut off after 4 tokens"));
        let other = load(directory.path(), &[Wanted::new("tokens", DType::I64, [Some(5)])], &options(4));
        assert!(other.unwrap_err().to_string().contains("samples of 4 tokens; expected 5"));
    }

    #[test]
    fn what_is_no_text_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines.txt");
        fs::write(&path, b"fine\nna\xffve\n").unwrap();
        let error = load(&path, &wanted(), &options(4)).unwrap_err().to_string();
        assert!(error.contains("line 2: byte 2 is not UTF-8"), "{error}");
        fs::write(&path, b"fine").unwrap();
        let error = load(&path, &wanted(), &TableOptions::default()).unwrap_err().to_string();
        assert!(error.contains("no tokenizer"), "{error}");
        let third = [wanted(), vec![Wanted::new("positions", DType::I64, [None])]].concat();
        let error = load(&path, &third, &options(4)).unwrap_err().to_string();
        assert!(error.contains("`positions`"), "{error}");
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn a_tokenizer_file_decides_the_tokens() {
        let directory = tempfile::tempdir().unwrap();
        let tokenizer = directory.path().join("tokenizer.json");
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{"[PAD]":3,"hello":0,"world":1,"[UNK]":2},"unk_token":"[UNK]"}}"#;
        fs::write(&tokenizer, json).unwrap();
        let path = directory.path().join("lines.txt");
        fs::write(&path, "Hello world hello there\n").unwrap();
        let mut options = options(4);
        options.text.tokenizer = Some(tokenizer.clone());
        let table = load(&path, &wanted(), &options).unwrap();
        assert_eq!((read(&table, 0, 0), read(&table, 0, 2)), (vec![0, 1, 0, 3], vec![1, 0, 2, -100]));
        let before = table.fingerprint();
        fs::write(&tokenizer, json.replace(r#""world":1"#, r#""word":1"#)).unwrap();
        assert_ne!(load(&path, &wanted(), &options).unwrap().fingerprint(), before);
        fs::write(&tokenizer, "{}").unwrap();
        assert!(load(&path, &wanted(), &options).unwrap_err().to_string().contains("not a tokenizer"));
    }
}
