//! Run directories: a run lives in a directory named by the hash of what produced it, so that *resuming is running
//! again*.
//!
//! `runs/<command>-<hash>/` holds `config.toml`, `metrics.jsonl`, `receipt.json` and checkpoints. Options equal to
//! their default stay out of the hash: adding an option to wattle never renames an old run.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::atomic_file::{is_partial, sweep_partial_files, write_atomically};
use crate::lease::{BEAT, LEASE, Lease};
use crate::metrics_log::MetricsLog;
use crate::output_file;
use wattle_data::error::{Error, Result};

const CONFIG: &str = "config.toml";
/// Most bytes of a configuration that are looked at.
const LONGEST: u64 = 1 << 20;
/// What runs of before 0.2 left in their directory.
const LOCK: &str = "lock";

/// A command and its options in canonical form.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    command: String,
    options: toml::Table,
    defaults: toml::Table,
}

impl Config {
    /// Captures `options`, a struct of plain fields; `defaults` is the same struct as wattle would fill it by itself.
    ///
    /// # Errors
    /// If a value cannot be written as TOML (an integer above `i64::MAX`, a map with keys other than text).
    pub fn new<T: Serialize>(command: &str, options: &T, defaults: &T) -> Result<Self> {
        let table = |value: &T| {
            toml::Table::try_from(value).map_err(|error| {
                Error::input(format_args!("configuration of `{command}`"), error)
                    .expected("numbers, text, switches and lists of them; integers up to 2^63 - 1")
            })
        };
        Ok(Self { command: command.to_owned(), options: table(options)?, defaults: table(defaults)? })
    }

    /// The text that is hashed: the command, then each option that differs from its default, one a line, sorted.
    pub fn canonical(&self) -> String {
        let mut lines = Vec::new();
        collect_changes("", &self.options, Some(&self.defaults), &mut lines);
        lines.sort();
        let mut text = format!("wattle config 1\ncommand {}\n", self.command);
        for line in lines {
            text += &line;
            text.push('\n');
        }
        text
    }

    /// The first 16 hexadecimal digits of the BLAKE3 hash of the canonical text.
    pub fn hash(&self) -> String {
        blake3::hash(self.canonical().as_bytes()).to_hex()[..16].to_owned()
    }

    /// `<command>-<hash>`, the name of the run's directory; a command of several words is joined by hyphens.
    pub fn run_name(&self) -> String {
        format!("{}-{}", self.command.replace(' ', "-"), self.hash())
    }

    /// The file form: the run's name, then every option including the defaults.
    fn to_toml(&self) -> String {
        format!("# {}\n{}", self.run_name(), self.options)
    }
}

fn collect_changes(
    prefix: &str,
    options: &toml::Table,
    defaults: Option<&toml::Table>,
    lines: &mut Vec<String>,
) {
    for (key, value) in options {
        let default = defaults.and_then(|table| table.get(key));
        match value {
            toml::Value::Table(inner) => {
                let defaults = default.and_then(toml::Value::as_table);
                collect_changes(&format!("{prefix}{key}."), inner, defaults, lines);
            }
            _ if default == Some(value) => {}
            _ => lines.push(format!("{prefix}{key} = {}", canonical_value(value))),
        }
    }
    // An option that is absent (None) where the default has a value is a change as well.
    for key in defaults.into_iter().flat_map(|table| table.keys()) {
        if !options.contains_key(key) {
            lines.push(format!("{prefix}{key} absent"));
        }
    }
}

fn canonical_value(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        toml::Value::Float(number) => format!("{number:?}"),
        toml::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical_value).collect();
            format!("[{}]", items.join(", "))
        }
        toml::Value::Table(table) => {
            let mut fields: Vec<String> =
                table.iter().map(|(key, value)| format!("{key}: {}", canonical_value(value))).collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(switch) => switch.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
    }
}

/// A run's directory, leased against other processes for as long as this value lives.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    lease: Lease,
}

impl RunDirectory {
    /// Opens or creates `parent/<command>-<hash>/`.
    pub fn open(parent: &Path, config: &Config) -> Result<Self> {
        Self::open_at(&parent.join(config.run_name()), config)
    }

    /// Opens or creates a directory the user named.
    ///
    /// # Errors
    /// One that holds a different run, or files but no run, is refused before anything in it is touched; so is one that
    /// another process works in, see [`Lease::take`].
    pub fn open_at(path: &Path, config: &Config) -> Result<Self> {
        Self::open_with_beat(path, config, BEAT)
    }

    /// Like [`RunDirectory::open_at`], with a sign of life every `beat` instead of every [`BEAT`].
    pub fn open_with_beat(path: &Path, config: &Config, beat: Duration) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| Error::writing(path, &error))?;
        check_owner(path, config)?;
        let lease = Lease::take(path, beat)?;
        // Another process may have made the folder its own before the lease was ours.
        check_owner(path, config)?;
        sweep_partial_files(path).map_err(|error| Error::writing(path, &error))?;
        let run = Self { path: path.to_owned(), lease };
        if run.read(CONFIG)?.is_none() {
            run.write(CONFIG, config.to_toml().as_bytes())?;
        }
        Ok(run)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The contents of a file, or `None` if it does not exist: the stage that writes it has not finished.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.file(name);
        let Some(mut file) = output_file::open(&path)? else { return Ok(None) };
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(|error| Error::reading(&path, &error))?;
        Ok(Some(bytes))
    }

    /// Looks whether the directory is still this process's; see [`Lease::check`]. To ask before a file is written by its
    /// path.
    pub fn check_held(&self) -> Result<()> {
        self.lease.check()
    }

    /// Whether another process was seen to have taken the directory over; cheap enough to ask at every step.
    pub fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Writes a file in one instant.
    ///
    /// # Errors
    /// Also when another process has taken the directory over.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.check_held()?;
        write_atomically(&self.file(name), bytes)
    }

    /// The checkpoints `step-<n>.safetensors` in it, oldest first, each with its step.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let unreadable = |error| Error::reading(&self.path, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".safetensors"));
            if let Some(step) = step.and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The path of the checkpoint taken after `step` batches.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.file(&format!("step-{step}.safetensors"))
    }

    /// Opens `metrics.jsonl` for a run that continues from a checkpoint, or afresh; see [`MetricsLog::open`].
    pub fn metrics(&self, checkpoint: Option<u64>) -> Result<MetricsLog> {
        MetricsLog::open(&self.file("metrics.jsonl"), checkpoint)
    }
}

/// Refuses a directory that is neither empty nor of the run `config`. What a run killed while it was being created
/// leaves behind, a lease and partial files, counts as empty.
fn check_owner(directory: &Path, config: &Config) -> Result<()> {
    let refuse = |found: &dyn std::fmt::Display| {
        Error::input(directory.display(), found)
            .expected(format_args!("an empty directory or the run {}", config.run_name()))
    };
    let unreadable = |error| Error::reading(directory, &error);
    let path = directory.join(CONFIG);
    let text = match output_file::open(&path)? {
        Some(file) => {
            let mut bytes = vec![];
            file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| Error::reading(&path, &error))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        None => {
            for entry in fs::read_dir(directory).map_err(unreadable)? {
                let name = entry.map_err(unreadable)?.file_name();
                if name != LEASE && name != LOCK && !is_partial(&name) {
                    let found = format!("it is no run, but holds `{}`", name.to_string_lossy());
                    return Err(refuse(&found).remedy("choose another output directory"));
                }
            }
            return Ok(());
        }
    };
    match text.lines().next().and_then(|line| line.strip_prefix("# ")) {
        Some(holder) if holder == config.run_name() => Ok(()),
        Some(holder) => Err(refuse(&format_args!("it holds the run {holder}"))
            .remedy("choose another output directory, or repeat the options it was made with")),
        None => {
            let found = format_args!("its {CONFIG} is not that of a run");
            Err(refuse(&found).remedy("choose another output directory"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Serialize)]
    struct Options {
        data: String,
        epochs: u64,
        rate: f64,
        sizes: Vec<u32>,
        tolerance: Option<f64>,
        inner: Inner,
    }

    #[derive(Clone, Serialize)]
    struct Inner {
        flip: bool,
    }

    fn defaults() -> Options {
        Options {
            data: "digits".into(),
            epochs: 10,
            rate: 0.1,
            sizes: vec![300, 100],
            tolerance: None,
            inner: Inner { flip: false },
        }
    }

    fn config(change: impl FnOnce(&mut Options)) -> Config {
        let mut options = defaults();
        change(&mut options);
        Config::new("train", &options, &defaults()).unwrap()
    }

    #[test]
    fn the_names_of_published_runs_never_change() {
        assert_eq!(config(|_| {}).run_name(), "train-580cd7ca75f3b88a");
        let changed = config(|o| {
            o.data = "idx:\"a b\"".into();
            o.rate = 1e-3;
            o.sizes = vec![20];
            o.tolerance = Some(1.0);
            o.inner.flip = true;
        });
        assert_eq!(
            changed.canonical(),
            "wattle config 1\ncommand train\ndata = \"idx:\\\"a b\\\"\"\ninner.flip = true\nrate = 0.001\nsizes = [20]\ntolerance = 1.0\n"
        );
        assert_eq!(changed.run_name(), "train-830e725ed8131294");
    }

    #[test]
    fn a_new_option_at_its_default_keeps_the_name() {
        #[derive(Serialize)]
        struct Grown {
            #[serde(flatten)]
            old: Options,
            novelty: u32,
        }
        let grown = |novelty| Grown { old: defaults(), novelty };
        let same = Config::new("train", &grown(3), &grown(3)).unwrap();
        assert_eq!(same.hash(), config(|_| {}).hash());
        assert_ne!(Config::new("train", &grown(4), &grown(3)).unwrap().hash(), same.hash());
    }

    #[test]
    fn a_directory_holds_one_run() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        drop(RunDirectory::open_at(&out, &config(|_| {})).unwrap());
        drop(RunDirectory::open_at(&out, &config(|_| {})).unwrap());
        let error = RunDirectory::open_at(&out, &config(|o| o.epochs = 11)).unwrap_err();
        assert!(error.to_string().contains("it holds the run train-"), "{error}");
    }

    #[test]
    fn a_directory_of_other_things_is_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let run = parent.path().join("run");
        drop(RunDirectory::open_at(&run, &config(|_| {})).unwrap());
        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.txt"), b"mine").unwrap();
        let toml = parent.path().join("toml");
        fs::create_dir(&toml).unwrap();
        fs::write(toml.join(CONFIG), b"[package]").unwrap();
        for (folder, words) in
            [(&run, "it holds the run"), (&foreign, "holds `thesis.txt`"), (&toml, "not that of a run")]
        {
            // A partial file that a sweep would take, were the folder ours.
            fs::write(folder.join(".wattle-partial-1-0-x"), b"precious").unwrap();
            let names = || -> Vec<_> {
                let mut names: Vec<_> =
                    fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
                names.sort();
                names
            };
            let before = names();
            let error = RunDirectory::open_at(folder, &config(|o| o.epochs = 11)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.kind(), wattle_data::ErrorKind::Input);
            assert_eq!(names(), before);
        }
    }

    #[test]
    fn a_run_killed_while_it_was_created_is_taken_over() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join(LOCK), b"1\n").unwrap();
        fs::write(out.join(".wattle-partial-1-0-config.toml"), b"half").unwrap();
        let run = RunDirectory::open_at(&out, &config(|_| {})).unwrap();
        assert!(run.read(CONFIG).unwrap().is_some() && !out.join(".wattle-partial-1-0-config.toml").exists());
    }

    #[test]
    fn two_writers_are_kept_apart_and_a_dead_one_is_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let held = RunDirectory::open(parent.path(), &config(|_| {})).unwrap();
        let error = RunDirectory::open(parent.path(), &config(|_| {})).unwrap_err();
        assert_eq!(error.kind(), wattle_data::ErrorKind::Busy);
        assert!(error.to_string().contains(&std::process::id().to_string()));
        drop(held);
        RunDirectory::open(parent.path(), &config(|_| {})).unwrap();
    }

    #[test]
    fn checkpoints_are_listed_oldest_first() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(parent.path(), &config(|_| {})).unwrap();
        for step in [100, 20] {
            fs::write(run.checkpoint(step), b"").unwrap();
        }
        fs::write(run.file("step-x.safetensors"), b"").unwrap();
        assert_eq!(run.checkpoints().unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [20, 100]);
    }

    #[test]
    fn an_output_place_that_is_a_file_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        fs::write(&out, b"mine").unwrap();
        assert!(RunDirectory::open_at(&out, &config(|_| {})).is_err());
        assert_eq!(fs::read(&out).unwrap(), b"mine");
    }
}
