//! Named NumPy arrays as the columns of a table: any number of inputs and targets of any rank and type.
//!
//! The first axis counts the samples. Own parts of the source are arrays named alike: of a column `x`, `x_train` (or just
//! `x`), `x_val` and `x_test`, or `train_x`, `val_x` and `test_x`.

use std::path::Path;

use wattle_graph::DType;

use crate::archive::{Archive, Opened};
use crate::batches::names;
use crate::column::ColumnInfo;
use crate::columns::{Cells, Columns, Field, Parts, Stacked};
use crate::dataset::SourceParts;
use crate::error::{Error, Result};
use crate::mapping::Wanted;
use crate::options::TableOptions;
use crate::positioned::half_the_memory;
use crate::table::Picture;

/// Names under which the input of a model of one input is looked for, and those of targets.
const INPUTS: [&str; 5] = ["x", "inputs", "input", "images", "data"];
const TARGETS: [&str; 6] = ["y", "labels", "label", "targets", "target", "class"];

/// The arrays of one column: training part, validation part, test part.
type Trio = [Option<String>; 3];

/// Opens the arrays that feed the wanted inputs, and the targets.
pub(crate) fn load(path: &Path, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    let mut archive = Archive::open(path)?;
    let targets = targets(&archive, options)?;
    let target_arrays: Vec<&String> = targets.iter().flat_map(|(_, trio)| trio.iter().flatten()).collect();
    let mut inputs = Vec::new();
    for want in wanted {
        let trio = input(&archive, want, wanted.len() == 1, &target_arrays, options)?;
        inputs.push((want.name.clone(), trio));
    }
    let whole: u64 = {
        let all = inputs.iter().chain(&targets).flat_map(|(_, trio)| trio.iter().flatten());
        let mut sum = 0;
        for array in all.cloned().collect::<Vec<String>>() {
            sum += archive.size(&array)?;
        }
        sum
    };
    let in_file = whole > options.in_memory.unwrap_or_else(half_the_memory);
    let mut left = 0;
    let mut counts: Option<(String, [Option<usize>; 3])> = None;
    let mut open = |(name, trio): (String, Trio)| -> Result<Field> {
        let (field, found, bytes) = column(&mut archive, name, &trio, in_file)?;
        left += bytes;
        match &counts {
            None => counts = Some((field.origin.clone(), found)),
            Some((first, expected)) if *expected != found => {
                return Err(Error::input(
                    format_args!("{}, {}", path.display(), field.origin),
                    format_args!("{} samples", in_words(found)),
                )
                .expected(format_args!("{}, as in {first}", in_words(*expected)))
                .remedy("give all arrays the same first extent"));
            }
            Some(_) => {}
        }
        Ok(field)
    };
    let mut inputs: Vec<Field> = inputs.into_iter().map(&mut open).collect::<Result<_>>()?;
    let mut targets: Vec<Field> = targets.into_iter().map(&mut open).collect::<Result<_>>()?;
    find_pictures(&mut inputs, &mut targets, wanted, options.ignore_index);
    let [train, validation, test] = counts.map_or([None; 3], |(_, counts)| counts);
    let train = train.unwrap_or(0);
    let count = train + validation.unwrap_or(0) + test.unwrap_or(0);
    let remarks = if left > 0 {
        vec![format!("{}: {left} bytes of arrays are read from the file as they are needed", path.display())]
    } else {
        Vec::new()
    };
    let parts = Parts {
        ignore_index: options.ignore_index,
        task: options.load.task,
        remarks,
        ..Parts::of(
            format!("npz:{}", path.display()),
            inputs,
            targets,
            SourceParts::consecutive(train, validation, test),
        )
    };
    Columns::new(parts, count)
}

/// Whether arrays can be found under the names a model gives its inputs, rather than under the usual ones.
pub(crate) fn feeds(archive: &Archive, wanted: &[Wanted]) -> bool {
    wanted.iter().all(|want| trio(archive, &want.name).is_some())
}

fn in_words(counts: [Option<usize>; 3]) -> String {
    let [train, validation, test] = counts.map(|count| count.unwrap_or(0));
    if validation + test == 0 {
        train.to_string()
    } else {
        format!("{train} training, {validation} validation and {test} test")
    }
}

/// The arrays of a column.
fn trio(archive: &Archive, name: &str) -> Option<Trio> {
    let first = |parts: &[&str]| {
        let spelt = parts.iter().flat_map(|part| [format!("{name}_{part}"), format!("{part}_{name}")]);
        spelt.into_iter().find_map(|name| archive.find(&name).map(String::from))
    };
    let train = archive.find(name).map(String::from).or_else(|| first(&["train"]))?;
    Some([Some(train), first(&["val", "valid", "validation"]), first(&["test"])])
}

fn missing(archive: &Archive, name: &str, what: &str) -> Error {
    Error::input(archive.path.display(), format_args!("no array `{name}` for {what}"))
        .expected(names(archive.names()))
        .remedy("name the array, or save it under that name")
}

fn input(
    archive: &Archive,
    want: &Wanted,
    only: bool,
    targets: &[&String],
    options: &TableOptions,
) -> Result<Trio> {
    let what = format!("the model's input `{}`", want.name);
    match options.columns.stated(&want.name) {
        Some([array]) => return trio(archive, array).ok_or_else(|| missing(archive, array, &what)),
        Some(several) => {
            return Err(Error::input(
                archive.path.display(),
                format_args!("{} arrays for {what}", several.len()),
            )
            .expected("one")
            .remedy("join them to one array with numpy.concatenate or numpy.stack"));
        }
        None => {}
    }
    if let Some(found) = trio(archive, &want.name) {
        return Ok(found);
    }
    if only {
        if let Some(found) = INPUTS.iter().find_map(|name| trio(archive, name)) {
            return Ok(found);
        }
        let others: Vec<&str> = archive.names().filter(|name| !targets.iter().any(|t| t == name)).collect();
        if let [other] = others[..] {
            return Ok([Some(other.to_owned()), None, None]);
        }
    }
    Err(missing(archive, &want.name, &what))
}

fn targets(archive: &Archive, options: &TableOptions) -> Result<Vec<(String, Trio)>> {
    if options.targets.is_empty() {
        let usual = TARGETS.iter().find_map(|name| Some(((*name).to_owned(), trio(archive, name)?)));
        return Ok(usual.into_iter().collect());
    }
    let found = |name: &String| {
        let trio = trio(archive, name).ok_or_else(|| missing(archive, name, "the target"))?;
        Ok((name.clone(), trio))
    };
    options.targets.iter().map(found).collect()
}

/// Opens the arrays of a column one after the other; also how many samples each has, and how many bytes stay in the file.
fn column(
    archive: &mut Archive,
    name: String,
    trio: &Trio,
    in_file: bool,
) -> Result<(Field, [Option<usize>; 3], u64)> {
    let mut form: Option<(DType, Vec<usize>)> = None;
    let (mut counts, mut left) = ([None; 3], 0);
    let mut stacked: Vec<(usize, Box<dyn Cells>)> = Vec::new();
    let mut origin = String::new();
    let mut names = Vec::new();
    for (part, array) in trio.iter().enumerate() {
        let Some(array) = array else { continue };
        let Opened { dtype, shape, cells, in_file: bytes } = archive.array(array, in_file)?;
        left += bytes;
        let place = format!("{}, array `{array}`", archive.path.display());
        let Some((count, extents)) = shape.split_first() else {
            return Err(Error::input(place, "a single number").expected("one element or more a sample"));
        };
        match &form {
            None => {
                form = Some((dtype, extents.to_vec()));
                origin = format!("array `{array}`");
            }
            Some((first, expected)) if (*first, expected.as_slice()) != (dtype, extents) => {
                return Err(Error::input(place, format_args!("{dtype} samples of extents {extents:?}"))
                    .expected(format_args!("{first} samples of extents {expected:?}, as in {origin}")));
            }
            Some(_) => {}
        }
        if extents.contains(&0) {
            return Err(Error::input(place, format_args!("samples of extents {extents:?}"))
                .expected("one element or more a sample"));
        }
        counts[part] = Some(*count);
        names.push((format!("array `{array}`"), *count));
        stacked.push((*count, cells));
    }
    let (dtype, extents) = form.unwrap_or((DType::F32, Vec::new()));
    let field = Field::new(ColumnInfo::new(name, dtype, extents), Stacked(stacked), origin);
    Ok((Field { stacked: names, ..field }, counts, left))
}

/// Inputs of floats or bytes with three axes are pictures, and so are targets of integers with two of the same size. Bytes
/// are those of a picture too where they are the only input and taken as floats, even as rows; beside others they may be
/// categories.
fn find_pictures(inputs: &mut [Field], targets: &mut [Field], wanted: &[Wanted], ignore_index: Option<i64>) {
    let mut sizes = Vec::new();
    if let ([field], [want]) = (&mut *inputs, wanted)
        && field.info.dtype == DType::U8
        && want.dtype.is_float()
    {
        field.full_scale = 255.0;
    }
    for field in inputs {
        if let ([_, height, width], DType::F32 | DType::F64 | DType::U8) =
            (field.info.extents.as_slice(), field.info.dtype)
        {
            field.picture = Some(Picture { height: *height, width: *width, border: 0.0 });
            if field.info.dtype == DType::U8 {
                field.full_scale = 255.0;
            }
            sizes.push([*height, *width]);
        }
    }
    for field in targets.iter_mut().filter(|field| !field.info.dtype.is_float()) {
        if let [height, width] | [1, height, width] = *field.info.extents.as_slice()
            && sizes.contains(&[height, width])
        {
            field.picture = Some(Picture { height, width, border: ignore_index.unwrap_or(0) as f64 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;
    use crate::Task;
    use crate::npy::encode;
    use std::fs;
    use std::io::Write;

    fn le<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        values.into_iter().flatten().collect()
    }

    /// A folder of arrays, and the same as an `.npz` file that packs nothing.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new(arrays: &[(&str, Vec<u8>)]) -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            fs::create_dir(files.folder()).unwrap();
            let mut zip = zip::ZipWriter::new(fs::File::create(files.npz()).unwrap());
            let plain =
                zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            for (name, bytes) in arrays {
                fs::write(files.folder().join(format!("{name}.npy")), bytes).unwrap();
                zip.start_file(format!("{name}.npy"), plain).unwrap();
                zip.write_all(bytes).unwrap();
            }
            zip.finish().unwrap();
            files
        }

        fn folder(&self) -> std::path::PathBuf {
            self.0.path().join("arrays")
        }

        fn npz(&self) -> std::path::PathBuf {
            self.0.path().join("arrays.npz")
        }
    }

    fn tokens() -> Files {
        Files::new(&[
            ("input_ids", encode("<i8", "(3, 2)", &le((0..6i64).map(i64::to_le_bytes)))),
            ("attention_mask", encode("|b1", "(3, 2)", &[1, 1, 1, 0, 1, 1])),
            ("score", encode(">f4", "(3,)", &le([0.5f32, 1.0, 2.0].map(f32::to_be_bytes)))),
            ("y", encode("<i4", "(3,)", &le([0i32, 1, 0].map(i32::to_le_bytes)))),
        ])
    }

    fn wanted() -> Vec<Wanted> {
        vec![
            Wanted::new("input_ids", DType::I64, [Some(2)]),
            Wanted::new("attention_mask", DType::I64, [Some(2)]),
        ]
    }

    fn read(table: &impl Table, sample: usize, column: usize) -> Vec<u8> {
        let mut out = vec![0; table.columns()[column].bytes()];
        table.read(sample, column, &mut out).unwrap();
        out
    }

    #[test]
    fn arrays_feed_the_inputs_of_their_names_from_memory_and_from_the_file_alike() {
        let files = tokens();
        let mut prints = Vec::new();
        for path in [files.folder(), files.npz()] {
            for in_memory in [None, Some(0)] {
                let options = TableOptions { in_memory, ..TableOptions::default() };
                let table = load(&path, &wanted(), &options).unwrap();
                assert_eq!((table.count(), table.inputs(), table.columns().len()), (3, 2, 3));
                assert_eq!(read(&table, 2, 0), le([4i64, 5].map(i64::to_ne_bytes)));
                assert_eq!(read(&table, 1, 1), [1, 0]);
                assert_eq!(table.columns()[2], ColumnInfo::new("targets", DType::I64, []));
                assert_eq!(table.classes().unwrap().labels, [0, 1, 0]);
                assert_eq!(table.remarks().len(), usize::from(in_memory.is_some()));
                prints.push(table.fingerprint());
            }
        }
        assert!(prints.iter().all(|print| *print == prints[0]));
    }

    #[test]
    fn targets_and_other_names_are_taken_as_stated() {
        let files = tokens();
        let options = TableOptions {
            columns: "x=score".parse().unwrap(),
            targets: vec!["score".into()],
            ..TableOptions::default()
        };
        let table = load(&files.npz(), &[Wanted::new("x", DType::F32, [])], &options).unwrap();
        assert_eq!(table.columns()[0].name, "x");
        assert_eq!(
            (read(&table, 1, 0), read(&table, 1, 1)),
            (1f32.to_ne_bytes().to_vec(), 1f32.to_ne_bytes().to_vec())
        );
        assert!(table.classes().is_none());
        let two = TableOptions { targets: vec!["y".into(), "score".into()], ..TableOptions::default() };
        let table = load(&files.npz(), &wanted(), &two).unwrap();
        let found: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
        assert_eq!(found, ["input_ids", "attention_mask", "targets.y", "targets.score"]);
    }

    #[test]
    fn whole_numbers_are_values_and_whole_floats_classes_if_asked_for() {
        let files = Files::new(&[
            ("x", encode("<f4", "(2, 1)", &[0; 8])),
            ("year", encode("<i4", "(2,)", &le([1990i32, 2001].map(i32::to_le_bytes)))),
            ("kind", encode("<f8", "(2,)", &le([1f64, 0.0].map(f64::to_le_bytes)))),
            ("real", encode("<f8", "(2,)", &le([0.1f64, 0.5].map(f64::to_le_bytes)))),
        ]);
        let loaded = |target: &str, task| {
            let mut options = TableOptions { targets: vec![target.into()], ..TableOptions::default() };
            options.load.task = task;
            load(&files.npz(), &[Wanted::new("x", DType::F32, [None])], &options)
        };
        let years = loaded("year", Some(Task::Values)).unwrap();
        assert_eq!(
            (years.columns()[1].dtype, read(&years, 1, 1)),
            (DType::F32, 2001f32.to_ne_bytes().to_vec())
        );
        assert!(loaded("year", None).unwrap_err().to_string().contains("labels from 1990"));
        assert_eq!(loaded("kind", Some(Task::Classes)).unwrap().classes().unwrap().labels, [1, 0]);
        let error = loaded("real", Some(Task::Classes)).unwrap_err().to_string();
        assert!(error.contains("sample 0, element 0: 0.1"), "{error}");
        let real = loaded("real", None).unwrap();
        assert_eq!(read(&real, 0, 1), 0.1f32.to_ne_bytes());
        assert!(real.remarks()[0].contains("f64 rounded to f32"));
    }

    #[test]
    fn a_target_named_like_an_input_is_both() {
        let files = tokens();
        let options = TableOptions { targets: vec!["input_ids".into()], ..TableOptions::default() };
        let table = load(&files.npz(), &wanted(), &options).unwrap();
        assert_eq!(table.columns()[2], ColumnInfo::new("targets", DType::I64, [2]));
        assert_eq!(table.label_range(2), Some((0, 5)));
        let named = [Wanted::new("targets", DType::F32, [])];
        let options = TableOptions { columns: "targets=score".parse().unwrap(), ..TableOptions::default() };
        let table = load(&files.npz(), &named, &options).unwrap();
        assert_eq!([&table.columns()[0].name, &table.columns()[1].name], ["targets", "targets_"]);
    }

    #[test]
    fn own_parts_are_kept() {
        let array = |n: usize| encode("|u1", &format!("({n}, 2)"), &vec![n as u8; 2 * n]);
        let label =
            |n: usize| encode("|u1", &format!("({n},)"), &(0..n as u8).map(|i| i % 2).collect::<Vec<_>>());
        let files = Files::new(&[
            ("x_train", array(4)),
            ("y_train", label(4)),
            ("x_test", array(2)),
            ("y_test", label(2)),
        ]);
        let table =
            load(&files.npz(), &[Wanted::new("anything", DType::U8, [None])], &TableOptions::default())
                .unwrap();
        assert_eq!(*table.parts(), SourceParts::consecutive(4, None, Some(2)));
        assert_eq!((read(&table, 3, 0), read(&table, 4, 0)), (vec![4, 4], vec![2, 2]));
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let with = |name: &'static str, bytes: Vec<u8>| {
            let mut arrays = vec![
                ("a", encode("<f4", "(2, 2)", &le([0f32; 4].map(f32::to_le_bytes)))),
                ("b", encode("<i8", "(2,)", &le([0i64, 1].map(i64::to_le_bytes)))),
            ];
            arrays.retain(|(kept, _)| *kept != name);
            arrays.push((name, bytes));
            let files = Files::new(&arrays);
            let options = TableOptions { targets: vec!["b".into()], ..TableOptions::default() };
            let wanted = [Wanted::new("a", DType::F32, [None])];
            load(&files.npz(), &wanted, &options).unwrap_err().to_string()
        };
        for (name, bytes, parts) in [
            (
                "a",
                encode("<f4", "(2, 2)", &le([0.0, 0.0, f32::NAN, 0.0].map(f32::to_le_bytes))),
                vec!["array `a`", "sample 1, element 0", "NaN"],
            ),
            (
                "a",
                encode("<f4", "(3, 1)", &[0; 12]),
                vec!["array `b`", "2 samples", "expected 3", "array `a`"],
            ),
            (
                "b",
                encode("<i8", "(2,)", &le([1i64, 2].map(i64::to_le_bytes))),
                vec!["labels from 1 to 2", "subtract 1"],
            ),
            (
                "b",
                encode("<i8", "(2,)", &le([-1i64, 1].map(i64::to_le_bytes))),
                vec!["sample 0", "the label -1", "ignored index"],
            ),
            ("a", encode("<f4", "()", &[0; 4]), vec!["a single number"]),
            ("a", encode("|O", "(2,)", &[]), vec!["pickled"]),
        ] {
            let error = with(name, bytes);
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        let files = tokens();
        let error = load(
            &files.npz(),
            &[Wanted::new("ids", DType::I64, [None]), wanted()[1].clone()],
            &TableOptions::default(),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("`ids`") && error.contains("`attention_mask`"), "{error}");
    }

    #[test]
    fn an_array_in_fortran_order_is_turned_wherever_it_is_kept() {
        let text = encode("|u1", "(2, 3)", &[1, 4, 2, 5, 3, 6]);
        let header = String::from_utf8_lossy(&text[10..text.len() - 6]).replace("False", "True ");
        let turned = [&text[..10], header.as_bytes(), &text[text.len() - 6..]].concat();
        let files = Files::new(&[("x", turned), ("other", encode("|u1", "(2,)", &[0, 1]))]);
        for in_memory in [None, Some(0)] {
            let options =
                TableOptions { in_memory, targets: vec!["other".into()], ..TableOptions::default() };
            let table = load(&files.npz(), &[Wanted::new("x", DType::U8, [None])], &options).unwrap();
            assert_eq!((read(&table, 0, 0), read(&table, 1, 0)), (vec![1, 2, 3], vec![4, 5, 6]));
            let remark = in_memory.map(|_| "2 bytes of arrays are read from the file");
            assert!(remark.is_none_or(|remark| table.remarks()[0].contains(remark)), "{:?}", table.remarks());
        }
    }

    #[test]
    fn an_ignored_index_is_neither_a_class_nor_a_fault() {
        let files = Files::new(&[
            ("x", encode("|u1", "(2, 1, 2, 2)", &[0; 8])),
            ("y", encode("<i8", "(2, 2, 2)", &le([0i64, -100, 1, 2, 2, -100, 0, 0].map(i64::to_le_bytes)))),
        ]);
        let options = TableOptions { ignore_index: Some(-100), ..TableOptions::default() };
        let table = load(&files.npz(), &[Wanted::new("x", DType::U8, [None, None, None])], &options).unwrap();
        assert_eq!(table.label_range(1), Some((0, 2)));
        assert_eq!(table.picture(1), Some(Picture { height: 2, width: 2, border: -100.0 }));
        assert_eq!((table.picture(0).map(|p| p.border), table.full_scale(0)), (Some(0.0), 255.0));
        assert!(table.classes().is_none());
    }
}
