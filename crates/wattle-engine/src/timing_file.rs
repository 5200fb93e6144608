//! Times of kernels, kept in a file, so that a layer is timed once on a machine and a build.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wattle_kernels::BUILD;

use crate::timings::{LayerTimes, Timings};

const SCHEMA: &str = "wattle.timings/2";
/// Machines and builds that the file remembers; those written longest ago leave first.
const REMEMBERED: usize = 8;
/// Longest wait for another writer: what cannot be kept is only timed again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A file with times of kernels; those of this machine and of the kernels as they were built count.
#[derive(Clone, Debug)]
pub struct TimingFile {
    path: PathBuf,
    machine: String,
}

#[derive(Serialize, Deserialize)]
struct Document {
    schema: String,
    /// The one written last is the last.
    sets: Vec<Set>,
}

/// What was timed on one machine with one build of the kernels.
#[derive(Serialize, Deserialize)]
struct Set {
    machine: String,
    /// As [`wattle_kernels::BUILD`].
    build: String,
    /// Seconds of each form, by layer.
    layers: LayerTimes,
}

impl TimingFile {
    /// The file at `path`; `machine` tells machines apart whose kernels may differ in speed.
    pub fn new(path: impl Into<PathBuf>, machine: impl Into<String>) -> TimingFile {
        TimingFile { path: path.into(), machine: machine.into() }
    }

    /// Timings for a plan that will run many times: known layers are not timed again, others are. Hand them to
    /// [`TimingFile::keep`] when the plan is made. A file that cannot be read is one that knows nothing.
    pub fn timings(&self) -> Arc<Timings> {
        Arc::new(Timings::new(self.layers(BUILD)))
    }

    /// Timings for a plan that will run once, for which timing would cost more than it gains: what is known decides, and
    /// what is not is left to the cost model.
    pub fn known(&self) -> Arc<Timings> {
        Arc::new(Timings::known(self.layers(BUILD)))
    }

    /// Adds to the file what was timed since. A layer that another process has added meanwhile keeps that one's times;
    /// no entry of another process is lost.
    ///
    /// # Errors
    /// When the file cannot be written, or another process is at it for more than two seconds.
    pub fn keep(&self, timings: &Timings) -> io::Result<()> {
        if timings.has_grown() { self.add(BUILD, &timings.all()) } else { Ok(()) }
    }

    fn layers(&self, build: &str) -> LayerTimes {
        let found = read(&self.path).sets.into_iter().find(|set| self.is_mine(set, build));
        found.map(|set| set.layers).unwrap_or_default()
    }

    fn is_mine(&self, set: &Set, build: &str) -> bool {
        set.machine == self.machine && set.build == build
    }

    fn add(&self, build: &str, layers: &LayerTimes) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let _lock = lock(&beside(&self.path, "lock"))?;
        let mut document = read(&self.path);
        let place = document.sets.iter().position(|set| self.is_mine(set, build));
        let mut set = match place {
            Some(place) => document.sets.remove(place),
            None => Set { machine: self.machine.clone(), build: build.to_owned(), layers: LayerTimes::new() },
        };
        for (layer, times) in layers {
            let known = set.layers.entry(layer.clone()).or_default();
            for (form, &seconds) in times {
                known.entry(form.clone()).or_insert(seconds);
            }
        }
        document.sets.push(set);
        let old = document.sets.len().saturating_sub(REMEMBERED);
        document.sets.drain(..old);
        replace(&self.path, &serde_json::to_vec_pretty(&document)?)
    }
}

/// What the file holds; nothing if it is damaged, of another schema, or not there.
fn read(path: &Path) -> Document {
    let bytes = fs::metadata(path).ok().filter(|m| m.is_file()).and_then(|_| fs::read(path).ok());
    let found = bytes.and_then(|bytes| serde_json::from_slice::<Document>(&bytes).ok());
    found
        .filter(|document| document.schema == SCHEMA)
        .unwrap_or(Document { schema: SCHEMA.to_owned(), sets: vec![] })
}

/// Takes the writers' lock; it goes with its holder, however that ends. Where the file system has no locks, the last of
/// two writers in one moment wins, and what the other timed is timed again.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(file);
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Replaces the file in one instant: readers see the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = beside(path, &format!("{}-{count}", std::process::id()));
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A hidden file beside `path`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(layer: &str, seconds: f64) -> LayerTimes {
        [(layer.to_owned(), [("csr".to_owned(), seconds)].into())].into()
    }

    #[test]
    fn times_come_back_on_the_same_machine_and_build_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/timings.json");
        let file = TimingFile::new(&path, "a");
        let layers = times("a layer", 0.1 + 0.2);
        file.add(BUILD, &layers).unwrap();
        assert_eq!(file.timings().all(), layers);
        assert_eq!(file.known().all(), layers);
        assert!(TimingFile::new(&path, "b").timings().all().is_empty());
        assert!(file.layers("another build").is_empty());
        for damaged in ["{", "{\"schema\":\"wattle.timings/1\",\"sets\":[]}"] {
            fs::write(&path, damaged).unwrap();
            assert!(file.timings().all().is_empty());
        }
    }

    #[test]
    fn writers_at_one_time_lose_no_entry_and_the_first_time_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timings.json");
        thread::scope(|scope| {
            for writer in 0..4 {
                let file = TimingFile::new(&path, format!("machine {}", writer % 2));
                scope.spawn(move || {
                    for layer in 0..25 {
                        file.add(BUILD, &times(&format!("{writer} {layer}"), 1.0)).unwrap();
                    }
                });
            }
        });
        for machine in 0..2 {
            let file = TimingFile::new(&path, format!("machine {machine}"));
            assert_eq!(file.layers(BUILD).len(), 50);
        }
        let file = TimingFile::new(&path, "machine 0");
        file.add(BUILD, &times("0 0", 2.0)).unwrap();
        assert_eq!(file.layers(BUILD)["0 0"]["csr"], 1.0);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    #[test]
    fn builds_of_long_ago_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = TimingFile::new(folder.path().join("timings.json"), "a");
        for build in 0..REMEMBERED {
            file.add(&build.to_string(), &times("l", 1.0)).unwrap();
        }
        file.add("0", &times("k", 1.0)).unwrap();
        file.add("new", &times("l", 1.0)).unwrap();
        assert_eq!(file.layers("0").len(), 2);
        assert!(file.layers("1").is_empty() && !file.layers("new").is_empty());
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timings.json");
        fs::create_dir(&path).unwrap();
        assert!(TimingFile::new(&path, "a").add(BUILD, &times("l", 1.0)).is_err());
        assert!(path.is_dir());
    }
}
