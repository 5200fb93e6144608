//! Image folders: one sub-directory a class, streamed from disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets};
use crate::error::{Error, Result};
use crate::image;

/// The largest side images are brought to when nobody states a size.
const LARGEST_DEFAULT_SIDE: usize = 224;

/// The files of an image folder, decoded when they are needed.
///
/// Classes are the names of the sub-directories, in byte order. If the folder holds a sub-directory `train` (and
/// optionally `val`, `valid` or `validation`, and `test`), the classes are looked for inside those and the parts are
/// kept. Names that start with a dot are skipped; any other file that is not a PNG or JPEG image is an error.
///
/// All samples have one shape: the one the caller states; else the images' own if they agree; else a square whose side
/// is the median of the images' shorter sides, at most 224. Gray if all images are gray, else colour. An image of
/// another shape is scaled so that it covers the target and cropped around its centre.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    root: PathBuf,
    files: Vec<ImageFile>,
    shape: [usize; 3],
}

#[derive(Clone, Debug)]
struct ImageFile {
    path: PathBuf,
    bytes: u64,
}

impl ImageFiles {
    /// The number of images.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// These files in this order, brought to one shape.
    pub(crate) fn new(root: &Path, paths: Vec<PathBuf>, shape: Option<[usize; 3]>) -> Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let metadata = fs::metadata(&path).map_err(|error| Error::reading(&path, &error))?;
            files.push(ImageFile { path, bytes: metadata.len() });
        }
        let listing = Listing { files, ..Listing::default() };
        let shape = common_shape(root, shape, &listing.headers()?)?;
        Ok(Self { root: root.to_owned(), files: listing.files, shape })
    }

    /// `[channels, height, width]` of every image as it is decoded.
    pub(crate) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Decodes one image into `out`, channel by channel.
    pub(crate) fn decode(&self, index: usize, out: &mut [u8]) -> Result<()> {
        image::read(&self.files[index].path)?.write_as(self.shape, out);
        Ok(())
    }

    pub(crate) fn identify(&self, hasher: &mut blake3::Hasher) {
        for file in &self.files {
            let relative = file.path.strip_prefix(&self.root).unwrap_or(&file.path);
            hasher
                .update(relative.to_string_lossy().as_bytes())
                .update(&[0])
                .update(&file.bytes.to_le_bytes());
        }
    }
}

/// Lists the images and reads their headers.
pub(super) fn load(root: &Path, shape: Option<[usize; 3]>) -> Result<Dataset> {
    let train_folder = root.join("train");
    let mut listing = Listing::default();
    let parts = if train_folder.is_dir() {
        let names = class_names(&train_folder)?;
        let train = listing.add(&train_folder, &names, true)?;
        listing.names = names;
        let mut optional = |folders: &[&str]| -> Result<Option<usize>> {
            match folders.iter().map(|name| root.join(name)).find(|path| path.is_dir()) {
                Some(folder) => {
                    let names = listing.names.clone();
                    listing.add(&folder, &names, false).map(Some)
                }
                None => Ok(None),
            }
        };
        let validation = optional(&["val", "valid", "validation"])?;
        let test = optional(&["test"])?;
        SourceParts::consecutive(train, validation, test)
    } else {
        let names = class_names(root)?;
        let count = listing.add(root, &names, true)?;
        listing.names = names;
        SourceParts::undivided(count)
    };
    let shape = common_shape(root, shape, &listing.headers()?)?;
    let [channels, height, width] = shape;
    let Listing { files, labels, names } = listing;
    Dataset::new(
        format!("folder:{}", root.display()),
        SampleShape::Image { channels, height, width },
        Samples::Files(ImageFiles { root: root.to_owned(), files, shape }),
        Targets::Classes { labels, names },
        parts,
    )
}

/// Whether a directory looks like an image folder: some sub-directory (or one inside `train`) holds an image.
pub(super) fn detect(root: &Path) -> bool {
    let holds_image = |folder: &Path| {
        visible(folder).is_ok_and(|entries| {
            entries.iter().any(|path| {
                let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
                matches!(extension.as_str(), "png" | "jpg" | "jpeg")
            })
        })
    };
    let base = if root.join("train").is_dir() { root.join("train") } else { root.to_owned() };
    visible(&base).is_ok_and(|entries| entries.iter().any(|path| path.is_dir() && holds_image(path)))
}

#[derive(Default)]
struct Listing {
    files: Vec<ImageFile>,
    labels: Vec<u32>,
    names: Vec<String>,
}

impl Listing {
    /// Adds the images of each class; returns how many. `complete` demands that every class has some.
    fn add(&mut self, folder: &Path, names: &[String], complete: bool) -> Result<usize> {
        let before = self.files.len();
        for name in class_names(folder)? {
            let class = names.iter().position(|known| *known == name).ok_or_else(|| {
                Error::input(folder.join(&name).display(), format_args!("the class `{name}`"))
                    .expected(format_args!("one of the training part's {} classes", names.len()))
                    .remedy("add training images of that class or remove the folder")
            })?;
            let directory = folder.join(&name);
            let images = visible(&directory)?;
            if images.is_empty() && complete {
                return Err(Error::input(directory.display(), "a class without images")
                    .expected("at least one PNG or JPEG image")
                    .remedy("add images or remove the folder"));
            }
            for path in images {
                let metadata = fs::metadata(&path).map_err(|error| Error::reading(&path, &error))?;
                if metadata.is_dir() {
                    return Err(Error::input(path.display(), "a directory inside a class")
                        .expected("image files only")
                        .remedy("move its images up into the class's folder"));
                }
                self.files.push(ImageFile { path, bytes: metadata.len() });
                self.labels.push(class as u32);
            }
        }
        Ok(self.files.len() - before)
    }

    fn headers(&self) -> Result<Vec<image::Header>> {
        self.files.iter().map(|file| image::read_header(&file.path)).collect()
    }
}

fn class_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in visible(folder)? {
        if !path.is_dir() {
            return Err(Error::input(path.display(), "a file beside the class folders")
                .expected("one sub-directory a class, each with PNG or JPEG images")
                .remedy("move the file elsewhere"));
        }
        names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    if names.is_empty() {
        return Err(
            Error::input(folder.display(), "no sub-directories").expected("one sub-directory a class")
        );
    }
    Ok(names)
}

/// The entries of a directory in byte order, without those that start with a dot.
pub(crate) fn visible(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = |error| Error::reading(folder, &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The shape that was asked for, if it can be had; else the default one.
fn common_shape(root: &Path, asked: Option<[usize; 3]>, headers: &[image::Header]) -> Result<[usize; 3]> {
    let shape = asked.unwrap_or_else(|| default_shape(headers));
    let [channels, height, width] = shape;
    if !matches!(channels, 1 | 3) || height == 0 || width == 0 || height.max(width) > 1 << 13 {
        return Err(Error::input(root.display(), format_args!("images asked for in the shape {shape:?}"))
            .expected("[1 or 3 channels, height, width], each side at most 8192"));
    }
    Ok(shape)
}

fn default_shape(headers: &[image::Header]) -> [usize; 3] {
    let channels = if headers.iter().all(|header| header.gray) { 1 } else { 3 };
    let Some(first) = headers.first() else { return [channels, 1, 1] };
    if headers.iter().all(|header| (header.height, header.width) == (first.height, first.width)) {
        return [channels, first.height, first.width];
    }
    let mut sides: Vec<usize> = headers.iter().map(|header| header.height.min(header.width)).collect();
    sides.sort_unstable();
    let side = sides[sides.len() / 2].min(LARGEST_DEFAULT_SIDE);
    [channels, side, side]
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::{BitDepth::Eight, ColorType};

    fn put(root: &Path, name: &str, side: u32, value: u8) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let data = vec![value; (side * side) as usize];
        fs::write(path, image::encode_png(side, side, ColorType::Grayscale, Eight, &data)).unwrap();
    }

    #[test]
    fn classes_are_sorted_folders_and_equal_sizes_are_kept() {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in [("dog/b.png", 2), ("cat/a.png", 1), ("cat/c.png", 3)] {
            put(root.path(), name, 6, value);
        }
        fs::write(root.path().join(".hidden"), b"x").unwrap();
        let set = load(root.path(), None).unwrap();
        assert_eq!(set.shape.dims(), [1, 6, 6]);
        assert_eq!(
            set.targets,
            Targets::Classes { labels: vec![0, 0, 1], names: vec!["cat".into(), "dog".into()] }
        );
        let Samples::Files(files) = &set.samples else { panic!("files") };
        let mut out = [0; 36];
        files.decode(1, &mut out).unwrap();
        assert_eq!(out, [3; 36]);
    }

    #[test]
    fn different_sizes_are_brought_to_the_median_side_or_the_stated_shape() {
        let root = tempfile::tempdir().unwrap();
        for (name, side) in [("a/1.png", 4), ("a/2.png", 8), ("b/3.png", 300)] {
            put(root.path(), name, side, 5);
        }
        assert_eq!(load(root.path(), None).unwrap().shape.dims(), [1, 8, 8]);
        assert_eq!(load(root.path(), Some([3, 5, 7])).unwrap().shape.dims(), [3, 5, 7]);
        assert!(load(root.path(), Some([4, 5, 7])).is_err());
    }

    #[test]
    fn parts_given_as_folders_are_kept() {
        let root = tempfile::tempdir().unwrap();
        for name in ["train/a/1.png", "train/b/1.png", "train/b/2.png", "val/b/1.png", "test/a/1.png"] {
            put(root.path(), name, 4, 5);
        }
        assert!(detect(root.path()));
        let set = load(root.path(), None).unwrap();
        assert_eq!(set.parts, SourceParts::consecutive(3, Some(1), Some(1)));
        put(root.path(), "test/new/1.png", 4, 5);
        assert!(load(root.path(), None).unwrap_err().to_string().contains("the class `new`"));
    }

    #[test]
    fn an_empty_class_and_a_file_of_another_kind_are_named() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/1.png", 4, 5);
        fs::create_dir(root.path().join("b")).unwrap();
        assert!(load(root.path(), None).unwrap_err().to_string().contains("a class without images"));
        fs::write(root.path().join("b/note.gif"), b"GIF89a").unwrap();
        let error = load(root.path(), None).unwrap_err().to_string();
        assert!(error.contains("note.gif") && error.contains("another kind"), "{error}");
    }
}
