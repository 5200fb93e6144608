//! Samples without targets, out of files that somebody names: what a model is asked about.
//!
//! A file is an image, a text table, an array (`.npy`, or `.npz` for several inputs) or a text; its name says which, else
//! its first bytes do. What it holds becomes one column for each input of the model, as training would read it.

use std::io::Read;
use std::path::Path;

use wattle_graph::DType;

use crate::archive::Archive;
use crate::batches::names;
use crate::bounded;
use crate::column::Column;
use crate::csv::{LABEL_NAMES, Rows};
use crate::error::{Error, Result};
use crate::image::{self, Resize};
use crate::mapping::{ColumnMap, Wanted, fitted_extents};
use crate::npy::{self, Array, Values};
use crate::options::{TableOptions, TextOptions};
use crate::tokens::{self, Sequences, Tokenizer};

/// Samples of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// One column for each input, in the model's order, samples first.
    pub columns: Vec<Column>,
    /// The number that stands for 1 in each column: 255 for bytes of images, else 1.
    pub full_scales: Vec<f32>,
    /// The line that each sample stands in, of a text table; else empty.
    pub lines: Vec<u64>,
    /// What a user should know although nothing is refused.
    pub remarks: Vec<String>,
}

/// How files are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AskOptions {
    /// Which columns or arrays feed which input, where names differ.
    pub columns: ColumnMap,
    /// What becomes of images of another size; refused if left out.
    pub resize: Option<Resize>,
    /// How text becomes tokens.
    pub text: TextOptions,
}

/// The most pixels along a side of what a model is fed.
const LARGEST_SIDE: usize = 1 << 13;

enum Kind {
    Image,
    Rows,
    Array,
    Arrays,
    Text,
}

impl Asked {
    /// Reads a file as these inputs take it.
    ///
    /// # Errors
    /// When it cannot be read, is of no known kind, or does not fit the inputs.
    pub fn read(path: &Path, wanted: &[Wanted], options: &AskOptions) -> Result<Asked> {
        options.columns.check(wanted)?;
        match kind(path)? {
            Kind::Image => images(path, wanted, options.resize),
            Kind::Rows => rows(path, wanted, &options.columns),
            Kind::Array => {
                let want = only(path, wanted, "one array", "put one array for each input into an .npz file")?;
                let array = npy::parse(path, &bounded::read(path)?)?;
                arrays(path, vec![(want, array)])
            }
            Kind::Arrays => archive(path, wanted, &options.columns),
            Kind::Text => text(path, wanted, options),
        }
    }

    /// The number of samples.
    pub fn count(&self) -> usize {
        self.columns.first().and_then(|column| column.extents.first()).copied().unwrap_or(0)
    }
}

fn kind(path: &Path) -> Result<Kind> {
    let mut start = [0; 6];
    let mut file = bounded::open_file(path)?;
    let read = file.read(&mut start).map_err(|error| Error::reading(path, &error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match (&start[..read], name.rsplit_once('.').map(|(_, extension)| extension)) {
        ([0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, ..], _) | (_, Some("png" | "jpg" | "jpeg")) => {
            Ok(Kind::Image)
        }
        ([0x93, b'N', b'U', b'M', b'P', b'Y'], _) | (_, Some("npy")) => Ok(Kind::Array),
        (_, Some("npz")) => Ok(Kind::Arrays),
        (_, Some("csv" | "tsv" | "data")) => Ok(Kind::Rows),
        (_, Some("txt")) => Ok(Kind::Text),
        _ => Err(Error::input(path.display(), "a file of no known kind")
            .expected("an image (.png, .jpg), a table (.csv, .tsv), an array (.npy, .npz) or a text (.txt)")
            .remedy("convert it, or give it the ending of its kind")),
    }
}

/// The input of a model that has one.
fn only<'a>(path: &Path, wanted: &'a [Wanted], found: &str, remedy: &str) -> Result<&'a Wanted> {
    match wanted {
        [one] => Ok(one),
        _ => {
            Err(Error::input(path.display(), format_args!("{found} for a model of {} inputs", wanted.len()))
                .expected(format_args!(
                    "something for each of {}",
                    names(wanted.iter().map(|w| w.name.as_str()))
                ))
                .remedy(remedy))
        }
    }
}

/// Extents as a model states them.
fn shown(extents: &[Option<usize>]) -> String {
    let each = extents.iter().map(|e| e.map_or_else(|| "any".into(), |e| e.to_string()));
    format!("[{}]", each.collect::<Vec<String>>().join(", "))
}

/// Numbers in a sample, where all extents are known.
fn elements(extents: &[Option<usize>]) -> Option<usize> {
    extents.iter().try_fold(1usize, |product, extent| product.checked_mul((*extent)?))
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_ne_bytes).collect()
}

fn images(path: &Path, wanted: &[Wanted], resize: Option<Resize>) -> Result<Asked> {
    let arrays = "make an array of each input and put them into an .npz file";
    let want = only(path, wanted, "one image", arrays)?;
    let pixels = image::read(path)?;
    let (own, gray) = ([pixels.channels, pixels.height, pixels.width], pixels.channels == 1);
    let takes = |expected: &str| {
        Error::input(path.display(), format_args!("an image of {} x {} pixels", own[2], own[1])).expected(
            format_args!("{expected}: the model's input `{}` takes {}", want.name, shown(&want.extents)),
        )
    };
    let shape = match want.extents[..] {
        [channels, height, width] if channels.is_none_or(|c| matches!(c, 1 | 3)) => {
            [channels.unwrap_or(own[0]), height.unwrap_or(own[1]), width.unwrap_or(own[2])]
        }
        // A network of rows takes small images as rows.
        [Some(numbers)] if numbers == own[1] * own[2] => [1, own[1], own[2]],
        [Some(numbers)] if numbers == 3 * own[1] * own[2] => [3, own[1], own[2]],
        [_, _, Some(1 | 3)] => {
            return Err(takes("an image channel by channel")
                .remedy("export the model with the channels before height and width"));
        }
        _ => return Err(takes("numbers that are no image").remedy("save them as an array: numpy.save")),
    };
    if shape[1].max(shape[2]) > LARGEST_SIDE || shape[1].min(shape[2]) == 0 {
        return Err(takes("sides of 1 to 8192 pixels"));
    }
    let mut bytes = vec![0; shape.iter().product()];
    match resize {
        _ if shape[1..] == own[1..] => pixels.write_as(shape, &mut bytes),
        Some(Resize::Crop) => pixels.write_as(shape, &mut bytes),
        Some(Resize::Fit) => pixels.write_inside(shape, &mut bytes),
        None => {
            return Err(takes(&format!("{} x {}", shape[2], shape[1])).remedy(
                "have it resized: the middle of it, as in training: option `resize=crop`, or all of it: option `resize=fit`",
            ));
        }
    }
    let mut remarks = Vec::new();
    if gray != (shape[0] == 1) {
        let (found, made) = if gray { ("gray", "three equal channels") } else { ("in colour", "gray") };
        remarks.push(format!("{}: the image is {found} and was made {made}", path.display()));
    }
    let extents = match want.extents.len() {
        1 => vec![1, bytes.len()],
        _ => [&[1], &shape[..]].concat(),
    };
    let bytes = floats(bytes.into_iter().map(f32::from));
    let column = Column { name: want.name.clone(), dtype: DType::F32, extents, bytes };
    Ok(Asked { columns: vec![column], full_scales: vec![255.0], remarks, ..Asked::default() })
}

fn rows(path: &Path, wanted: &[Wanted], stated: &ColumnMap) -> Result<Asked> {
    let bytes = bounded::read(path)?;
    let empty =
        || Error::input(path.display(), "no rows").expected("a header (optional) and rows of numbers");
    let mut rows = Rows::open(path, &bytes)?.ok_or_else(empty)?;
    let header = rows.header.take();
    let known = header.clone().unwrap_or_else(|| (1..=rows.width).map(|n| n.to_string()).collect());
    let mut asked = Asked::default();
    let feeds: Vec<Vec<usize>> = wanted
        .iter()
        .map(|want| match stated.stated(&want.name) {
            None if wanted.len() == 1 => all_but_label(path, &known, header.is_some(), want, &mut asked),
            _ => stated.of(&want.name).iter().map(|name| place_of(path, &known, name)).collect(),
        })
        .collect::<Result<_>>()?;
    let mut cells = vec![Vec::new(); wanted.len()];
    while let Some((line, record)) = rows.next()? {
        asked.lines.push(line);
        for (cells, places) in cells.iter_mut().zip(&feeds) {
            for &column in places {
                let value = record[column].parse::<f32>().ok().filter(|value| value.is_finite());
                cells.push(value.ok_or_else(|| {
                    Error::input(
                        format_args!("{}, line {line}, column `{}`", path.display(), known[column]),
                        format_args!("`{}`", &record[column]),
                    )
                    .expected("a finite number")
                    .remedy("fill in what is missing, and encode words as the numbers that the model was trained on")
                })?);
            }
        }
    }
    if asked.lines.is_empty() {
        return Err(empty());
    }
    for ((want, places), cells) in wanted.iter().zip(&feeds).zip(cells) {
        if elements(&want.extents).is_some_and(|numbers| numbers != places.len()) {
            return Err(Error::input(path.display(), format_args!("{} columns of numbers", places.len()))
                .expected(format_args!(
                    "as many as the model's input `{}` takes: {}",
                    want.name,
                    shown(&want.extents)
                ))
                .remedy(format_args!("name those that feed it: option `columns={}=a+b`", want.name)));
        }
        let whole: Option<Vec<usize>> = want.extents.iter().copied().collect();
        let mut extents = whole.unwrap_or_else(|| vec![places.len()]);
        extents.insert(0, asked.lines.len());
        let name = want.name.clone();
        asked.columns.push(Column { name, dtype: DType::F32, extents, bytes: floats(cells) });
        asked.full_scales.push(1.0);
    }
    Ok(asked)
}

fn place_of(path: &Path, known: &[String], name: &str) -> Result<usize> {
    known.iter().position(|column| column == name).ok_or_else(|| {
        Error::input(path.display(), format_args!("no column `{name}`"))
            .expected(names(known.iter().map(String::as_str)))
    })
}

/// The columns that feed the only input: all, or all but the one that training would have learnt.
fn all_but_label(
    path: &Path,
    known: &[String],
    header: bool,
    want: &Wanted,
    asked: &mut Asked,
) -> Result<Vec<usize>> {
    let count = elements(&want.extents);
    let label = known.iter().position(|c| header && LABEL_NAMES.contains(&c.to_lowercase().as_str()));
    let left_out = match count {
        Some(count) if count == known.len() => None,
        Some(count) if count + 1 == known.len() => label.or(Some(known.len() - 1)),
        _ => label,
    };
    if let Some(column) = left_out {
        let (path, name) = (path.display(), &known[column]);
        asked
            .remarks
            .push(format!("{path}: column `{name}` is taken for what was to be learnt, and left out"));
    }
    Ok((0..known.len()).filter(|column| Some(*column) != left_out).collect())
}

fn archive(path: &Path, wanted: &[Wanted], stated: &ColumnMap) -> Result<Asked> {
    let mut archive = Archive::open(path)?;
    let mut found = Vec::new();
    for want in wanted {
        let asked_for = stated.of(&want.name).join("+");
        let only = || (wanted.len() == 1 && archive.names().count() == 1).then(|| archive.names().next());
        let name = archive.find(&asked_for).or_else(|| only().flatten()).map(str::to_owned);
        let name = name.ok_or_else(|| {
            Error::input(path.display(), format_args!("no array `{asked_for}`"))
                .expected(format_args!("one for each input; there is {}", names(archive.names())))
                .remedy(format_args!("name the one that feeds it: option `columns={}=array`", want.name))
        })?;
        found.push((want, archive.read(&name)?));
    }
    arrays(path, found)
}

/// Each array is one sample of its input, or several, the first axis counting them.
fn arrays(path: &Path, found: Vec<(&Wanted, Array)>) -> Result<Asked> {
    let mut asked = Asked::default();
    let single = found.len() == 1;
    for (want, array) in found {
        let one = fitted_extents(&array.shape, &want.extents).map(|sample| (1, sample));
        let several = array.shape.split_first().filter(|(count, _)| **count > 0);
        let several =
            several.and_then(|(count, sample)| Some((*count, fitted_extents(sample, &want.extents)?)));
        let extents = match one.or(several) {
            Some((count, sample)) => [&[count], &sample[..]].concat(),
            None => {
                let other = &array.shape;
                return Err(Error::input(path.display(), format_args!("an array of shape {other:?}"))
                    .expected(format_args!(
                        "{} for the model's input `{}`, or several of these along a first axis",
                        shown(&want.extents),
                        want.name
                    ))
                    .remedy(
                        "save it in that shape: array.reshape, or array.transpose if the channels stand last",
                    ));
            }
        };
        // As training takes them: pictures, and whatever bytes the only input is fed.
        let is_scaled = matches!(array.values, Values::Bytes(_)) && (single || extents.len() == 4);
        let full_scale = if is_scaled { 255.0 } else { 1.0 };
        let (dtype, bytes) = match array.values {
            Values::Bytes(values) => (DType::F32, floats(values.into_iter().map(f32::from))),
            Values::Integers(values) if want.dtype == DType::F32 => {
                if let Some(lost) = values.iter().find(|value| (**value as f32) as i64 != **value) {
                    return Err(Error::input(
                        path.display(),
                        format_args!("{lost}, which no f32 is equal to"),
                    )
                    .expected(format_args!("numbers that the model's input `{}` can take", want.name))
                    .remedy("if rounding is meant, save array.astype('float32')"));
                }
                (DType::F32, floats(values.into_iter().map(|value| value as f32)))
            }
            Values::Integers(values) => (DType::I64, values.into_iter().flat_map(i64::to_ne_bytes).collect()),
            Values::Floats(values) => {
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    let found = format_args!("the value {} at element {at}", values[at]);
                    return Err(Error::input(path.display(), found)
                        .expected("finite numbers")
                        .remedy("remove the sample or fill the value in"));
                }
                (DType::F32, floats(values))
            }
        };
        asked.columns.push(Column { name: want.name.clone(), dtype, extents, bytes });
        asked.full_scales.push(full_scale);
    }
    let count = asked.count();
    match asked.columns.iter().find(|column| column.extents[0] != count) {
        None => Ok(asked),
        Some(other) => {
            let found = format_args!("{} samples of `{}`", other.extents[0], other.name);
            Err(Error::input(path.display(), found)
                .expected(format_args!("{count}, as of `{}`", asked.columns[0].name))
                .remedy("give all arrays the same first extent"))
        }
    }
}

/// A text is one sample, as one of a folder of texts a class is.
fn text(path: &Path, wanted: &[Wanted], options: &AskOptions) -> Result<Asked> {
    let table = TableOptions {
        columns: options.columns.clone(),
        text: options.text.clone(),
        ..TableOptions::default()
    };
    let tokenizer = Tokenizer::open(options.text.tokenizer.as_deref(), path)?;
    let length = tokens::length(wanted, &table, path)?;
    let place = || path.display().to_string();
    let text = String::from_utf8(bounded::read(path)?).map_err(|_| {
        Error::input(path.display(), "bytes that are not UTF-8")
            .expected("text in UTF-8")
            .remedy("convert it, for example with iconv -t UTF-8")
    })?;
    let tokens = tokenizer.encode(text.trim_end(), true, &place)?;
    let mut sequences = Sequences::default();
    let mut asked = Asked::default();
    if sequences.add(&tokens, length) {
        asked.remarks.push(format!("{}: the text is cut off after {length} tokens", path.display()));
    }
    let sequences = std::sync::Arc::new(sequences);
    for want in wanted {
        let column = tokens::column_of(want, wanted, &table);
        let field = tokens::input(&want.name, &column, &sequences, length, tokenizer.padding());
        let takes_tokens = want.extents.len() == 1 && !want.dtype.is_float();
        let field = field.filter(|_| takes_tokens).ok_or_else(|| {
            Error::input(path.display(), format_args!("text for the model's input `{}`", want.name))
                .expected(format_args!("what that takes: {}{}", want.dtype, shown(&want.extents)))
                .remedy("ask about an image, a table or an array")
        })?;
        let mut bytes = vec![0; field.info.bytes()];
        field.cells.read(0, &mut bytes)?;
        asked.columns.push(Column {
            name: want.name.clone(),
            dtype: DType::I64,
            extents: vec![1, length],
            bytes,
        });
        asked.full_scales.push(1.0);
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::encode_png;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn read(&self, name: &str, bytes: &[u8], wanted: &[Wanted], options: &AskOptions) -> Result<Asked> {
            let path = self.0.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Asked::read(&path, wanted, options)
        }
    }

    fn takes(extents: &[Option<usize>]) -> Vec<Wanted> {
        vec![Wanted::new("x", DType::F32, extents)]
    }

    #[test]
    fn an_image_of_another_size_is_refused_with_the_option_that_resizes_it() {
        let folder = Folder::new();
        let png = encode_png(4, 2, png::ColorType::Grayscale, png::BitDepth::Eight, &[9; 8]);
        let read = |extents: &[usize], resize| {
            let extents: Vec<_> = extents.iter().copied().map(Some).collect();
            let options = AskOptions { resize, ..AskOptions::default() };
            folder.read("a.png", &png, &takes(&extents), &options)
        };
        let error = read(&[1, 2, 2], None).unwrap_err().to_string();
        assert!(error.contains("4 x 2 pixels") && error.contains("option `resize=crop`"), "{error}");
        assert_eq!(read(&[1, 2, 2], Some(Resize::Crop)).unwrap().columns[0].to_f32().unwrap(), [9.0; 4]);
        let fitted = read(&[1, 4, 4], Some(Resize::Fit)).unwrap().columns[0].to_f32().unwrap();
        assert_eq!((fitted[0], fitted[4], fitted.len()), (0.0, 9.0, 16));
        let colour = read(&[3, 2, 4], None).unwrap();
        assert_eq!((&colour.columns[0].extents[..], colour.full_scales[0]), (&[1, 3, 2, 4][..], 255.0));
        assert!(colour.remarks[0].contains("three equal channels"), "{:?}", colour.remarks);
        assert_eq!(read(&[8], None).unwrap().columns[0].extents, [1, 8]);
        // Inputs of rank 3, and channels last, are not made images.
        for extents in [&[2, 4][..], &[2, 4, 3], &[7]] {
            assert!(read(extents, Some(Resize::Crop)).is_err(), "{extents:?}");
        }
    }

    #[test]
    fn a_table_may_have_the_column_that_was_to_be_learnt() {
        let folder = Folder::new();
        let read = |text: &str, columns: &str| {
            let options = AskOptions { columns: columns.parse().unwrap(), ..AskOptions::default() };
            folder.read("a.csv", text.as_bytes(), &takes(&[Some(2)]), &options)
        };
        let plain = read("1,2\n3,4\n", "").unwrap();
        assert_eq!(
            (plain.columns[0].to_f32().unwrap(), &plain.lines[..]),
            (vec![1.0, 2.0, 3.0, 4.0], &[1, 2][..])
        );
        let named = read("label,a,b\nyes,1,2\n", "").unwrap();
        assert_eq!(named.columns[0].to_f32().unwrap(), [1.0, 2.0]);
        assert!(named.remarks[0].contains("`label`"), "{:?}", named.remarks);
        assert_eq!(read("a,b,c\n1,2,3\n", "x=c+a").unwrap().columns[0].to_f32().unwrap(), [3.0, 1.0]);
        for (text, said) in [
            ("1,2,3,4\n", "option `columns=x=a+b`"),
            ("a,b\n1,?\n", "line 2, column `b`"),
            ("1,inf\n", "finite"),
            ("", "no rows"),
        ] {
            let error = read(text, "").unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn an_array_is_a_sample_or_several() {
        let folder = Folder::new();
        let read = |shape: &str, count: usize, extents: &[Option<usize>]| {
            let array = npy::encode("<f4", shape, &vec![0; 4 * count]);
            folder.read("a.npy", &array, &takes(extents), &AskOptions::default())
        };
        assert_eq!(read("(2, 3)", 6, &[Some(2), Some(3)]).unwrap().columns[0].extents, [1, 2, 3]);
        assert_eq!(read("(5, 3)", 15, &[Some(3)]).unwrap().count(), 5);
        assert_eq!(read("(4, 2, 9)", 72, &[None, Some(9)]).unwrap().count(), 4);
        let error = read("(4,)", 4, &[Some(3)]).unwrap_err().to_string();
        assert!(error.contains("[4]") && error.contains("[3]"), "{error}");
        assert!(read("(0, 3)", 0, &[Some(3)]).is_err());
    }

    #[test]
    fn several_inputs_are_fed_from_an_archive_by_their_names() {
        let folder = Folder::new();
        let wanted = [Wanted::new("a", DType::F32, [Some(2)]), Wanted::new("b", DType::I64, [])];
        let read = |shape: &str, count: usize, columns: &str| {
            let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            for (name, array) in [
                ("a.npy", npy::encode("<f4", "(3, 2)", &[0; 24])),
                ("bee.npy", npy::encode("<i8", shape, &vec![7; 8 * count])),
            ] {
                zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
                std::io::Write::write_all(&mut zip, &array).unwrap();
            }
            let options = AskOptions { columns: columns.parse().unwrap(), ..AskOptions::default() };
            folder.read("a.npz", &zip.finish().unwrap().into_inner(), &wanted, &options)
        };
        let asked = read("(3,)", 3, "b=bee").unwrap();
        let extents: Vec<_> = asked.columns.iter().map(|column| &column.extents[..]).collect();
        assert_eq!((asked.count(), extents), (3, vec![&[3, 2][..], &[3]]));
        let error = read("(3,)", 3, "").unwrap_err().to_string();
        assert!(error.contains("no array `b`") && error.contains("bee"), "{error}");
        let error = read("(2,)", 2, "b=bee").unwrap_err().to_string();
        assert!(error.contains("2 samples of `b`") && error.contains("3, as of `a`"), "{error}");
    }

    #[test]
    fn a_text_needs_a_tokenizer_and_is_padded_to_the_length_of_the_input() {
        let folder = Folder::new();
        let wanted = [Wanted::new("input_ids", DType::I64, [Some(4)])];
        let read = |text: &str, tokenizer: Option<&str>| {
            let text_options = TextOptions { tokenizer: tokenizer.map(Into::into), length: None };
            let options = AskOptions { text: text_options, ..AskOptions::default() };
            folder.read("a.txt", text.as_bytes(), &wanted, &options)
        };
        assert_eq!(read("ab\n", Some("bytes")).unwrap().columns[0].to_i64().unwrap(), [97, 98, 0, 0]);
        assert!(read("abcde", Some("bytes")).unwrap().remarks[0].contains("after 4 tokens"));
        let floats = Asked::read(
            &folder.0.path().join("a.txt"),
            &takes(&[Some(4)]),
            &AskOptions {
                text: TextOptions { tokenizer: Some("bytes".into()), length: None },
                ..AskOptions::default()
            },
        );
        assert!(floats.unwrap_err().to_string().contains("f32[4]"), "measurements are no tokens");
        let error = read("ab", None).unwrap_err().to_string();
        assert!(error.contains("option `tokenizer=bytes`"), "{error}");
    }

    #[test]
    fn other_files_are_refused_by_what_they_are() {
        let folder = Folder::new();
        let read = |name: &str, bytes: &[u8]| {
            folder.read(name, bytes, &takes(&[Some(2)]), &AskOptions::default()).unwrap_err().to_string()
        };
        assert!(read("a.pdf", b"%PDF").contains("an image (.png, .jpg)"));
        assert!(read("a.png", b"none").contains("a.png"));
        let folder_itself = Asked::read(folder.0.path(), &takes(&[Some(2)]), &AskOptions::default());
        assert!(folder_itself.unwrap_err().to_string().contains("a directory"));
    }
}
