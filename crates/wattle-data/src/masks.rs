//! Images with a class for every pixel: a folder `images` and a folder `masks` of PNG files of the same names, or both
//! inside `train`, `val` and `test`.
//!
//! A mask is a gray or indexed PNG whose numbers (of a palette: its indices, not its colours) are classes. Images are
//! brought to one shape as in image folders; masks follow them, each pixel taking the class of the nearest one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wattle_graph::DType;

use crate::column::ColumnInfo;
use crate::columns::{Cells, Columns, Field, Parts};
use crate::dataset::SourceParts;
use crate::error::{Error, Result};
use crate::folder::{ImageFiles, visible};
use crate::image;
use crate::mapping::Wanted;
use crate::options::TableOptions;
use crate::table::Picture;

/// Lists the pairs, reads the headers of all images and every mask.
pub(crate) fn load(root: &Path, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    let train = root.join("train");
    let mut pairs = Vec::new();
    let parts = if train.join("images").is_dir() {
        let find = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
        let train = add(&train, &mut pairs)?;
        let mut optional = |names: &[&str]| find(names).map(|folder| add(&folder, &mut pairs)).transpose();
        let validation = optional(&["val", "valid", "validation"])?;
        SourceParts::consecutive(train, validation, optional(&["test"])?)
    } else {
        SourceParts::undivided(add(root, &mut pairs)?)
    };
    for (image, mask) in &pairs {
        let (picture, labels) = (image::read_header(image)?, image::read_header(mask)?);
        if (picture.width, picture.height) != (labels.width, labels.height) {
            return Err(Error::input(
                mask.display(),
                format_args!("{} x {} pixels", labels.width, labels.height),
            )
            .expected(format_args!(
                "{} x {}, as its image {} has",
                picture.width,
                picture.height,
                image.display()
            )));
        }
    }
    let (images, masks): (Vec<PathBuf>, Vec<PathBuf>) = pairs.into_iter().unzip();
    let count = images.len();
    let files = ImageFiles::new(root, images, options.load.image_shape)?;
    let [channels, height, width] = files.shape();
    let name = match wanted {
        [want] => want.name.clone(),
        _ => {
            return Err(Error::input(
                root.display(),
                format_args!("one image a sample for {} inputs", wanted.len()),
            )
            .expected("a model of one input"));
        }
    };
    let picture = |border| Some(Picture { height, width, border });
    let image = Field {
        full_scale: 255.0,
        picture: picture(0.0),
        ..Field::new(ColumnInfo::new(name, DType::F32, [channels, height, width]), Images(files), "images")
    };
    let mask = Field {
        picture: picture(options.ignore_index.unwrap_or(0) as f64),
        ..Field::new(
            ColumnInfo::new("mask", DType::I64, [height, width]),
            Masks { masks, height, width },
            "masks",
        )
    };
    let parts = Parts {
        ignore_index: options.ignore_index,
        ..Parts::of(format!("masks:{}", root.display()), vec![image], vec![mask], parts)
    };
    Columns::new(parts, count)
}

/// Whether a directory looks like images with masks.
pub(crate) fn detect(root: &Path) -> bool {
    let both = |folder: PathBuf| folder.join("images").is_dir() && folder.join("masks").is_dir();
    both(root.to_owned()) || both(root.join("train"))
}

/// Adds the pairs of a folder; returns how many there are.
fn add(folder: &Path, pairs: &mut Vec<(PathBuf, PathBuf)>) -> Result<usize> {
    let (images, masks) = (visible(&folder.join("images"))?, visible(&folder.join("masks"))?);
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_owned();
    let by_stem: BTreeMap<_, _> = masks.iter().map(|mask| (stem(mask), mask)).collect();
    let before = pairs.len();
    for image in images {
        let mask = by_stem.get(&stem(&image)).copied().ok_or_else(|| {
            Error::input(image.display(), "an image without a mask")
                .expected(format_args!("a PNG file of the same name in {}", folder.join("masks").display()))
        })?;
        pairs.push((image, mask.clone()));
    }
    let found = pairs.len() - before;
    if found < masks.len()
        && let Some(mask) = masks.iter().find(|mask| !pairs[before..].iter().any(|(_, used)| used == *mask))
    {
        return Err(Error::input(mask.display(), "a mask without an image")
            .expected(format_args!("an image of the same name in {}", folder.join("images").display())));
    }
    Ok(found)
}

#[derive(Debug)]
struct Images(ImageFiles);

impl Cells for Images {
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()> {
        let mut pixels = vec![0; out.len() / 4];
        self.0.decode(sample, &mut pixels)?;
        for (byte, element) in pixels.iter().zip(out.as_chunks_mut::<4>().0) {
            *element = f32::from(*byte).to_ne_bytes();
        }
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        self.0.identify(&mut hasher);
        Some(hasher.finalize().to_hex().to_string())
    }
}

#[derive(Debug)]
struct Masks {
    masks: Vec<PathBuf>,
    height: usize,
    width: usize,
}

impl Cells for Masks {
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()> {
        let labels = image::read_labels(&self.masks[sample])?;
        for (label, element) in labels.nearest(self.height, self.width).zip(out.as_chunks_mut::<8>().0) {
            *element = i64::from(label).to_ne_bytes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;
    use crate::image::encode_png;
    use png::{BitDepth::*, ColorType::*};
    use std::fs;

    fn put(root: &Path, name: &str, bytes: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn tiny() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        put(root, "images/a.png", &encode_png(2, 1, Grayscale, Eight, &[10, 20]));
        put(root, "masks/a.png", &encode_png(2, 1, Indexed, Eight, &[1, 0]));
        put(root, "images/b.png", &encode_png(2, 1, Grayscale, Eight, &[30, 40]));
        put(root, "masks/b.png", &encode_png(2, 1, Grayscale, Eight, &[255, 2]));
        directory
    }

    fn options() -> TableOptions {
        TableOptions { ignore_index: Some(255), ..TableOptions::default() }
    }

    fn wanted() -> [Wanted; 1] {
        [Wanted::new("x", DType::F32, [None, None, None])]
    }

    #[test]
    fn every_pixel_has_the_class_of_its_number() {
        let directory = tiny();
        assert!(detect(directory.path()));
        let table = load(directory.path(), &wanted(), &options()).unwrap();
        assert_eq!(table.columns()[0], ColumnInfo::new("x", DType::F32, [1, 1, 2]));
        assert_eq!(table.columns()[1], ColumnInfo::new("targets", DType::I64, [1, 2]));
        let mut out = [0; 16];
        table.read(0, 1, &mut out).unwrap();
        assert_eq!(out.as_chunks().0.iter().map(|b| i64::from_ne_bytes(*b)).collect::<Vec<_>>(), [1, 0]);
        table.read(1, 0, &mut out[..8]).unwrap();
        assert_eq!(out[..8], [30f32.to_ne_bytes(), 40f32.to_ne_bytes()].concat()[..]);
        assert_eq!((table.label_range(1), table.full_scale(0)), (Some((0, 2)), 255.0));
        assert_eq!(table.picture(1), Some(Picture { height: 1, width: 2, border: 255.0 }));
    }

    #[test]
    fn what_does_not_pair_is_named() {
        for (name, bytes, part) in [
            ("images/c.png", encode_png(2, 1, Grayscale, Eight, &[0, 0]), "c.png: an image without a mask"),
            ("masks/c.png", encode_png(2, 1, Grayscale, Eight, &[0, 0]), "c.png: a mask without an image"),
            ("masks/a.png", encode_png(1, 1, Grayscale, Eight, &[0]), "1 x 1 pixels; expected 2 x 1"),
            ("masks/b.png", encode_png(2, 1, Rgb, Eight, &[0; 6]), "colours"),
        ] {
            let directory = tiny();
            put(directory.path(), name, &bytes);
            let error = load(directory.path(), &wanted(), &options()).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
