//! The ledger: every receipt, one line of JSON each, only ever appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::environment::LEDGER;
use crate::{Receipt, WarningKind};

/// Where receipts go unless told otherwise: `$WATTLE_LEDGER`, else `$XDG_DATA_HOME/wattle/ledger.jsonl`, else
/// `$HOME/.local/share/wattle/ledger.jsonl`. `None` if `$WATTLE_LEDGER` is set and empty, or there is no home.
///
/// `environment` looks a variable up; commands pass `|name| std::env::var(name).ok()`.
pub fn default_path(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = environment(LEDGER.name) {
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    // The XDG base directory specification: a relative path is invalid and to be ignored.
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("wattle/ledger.jsonl"))
}

/// Appends `receipt` to the ledger at `path`, making its directory if needed. A ledger that cannot be written
/// costs nothing but a warning in the receipt; the return value says whether it was written.
pub fn append(path: &Path, receipt: &mut Receipt) -> bool {
    match try_append(path, receipt) {
        Ok(()) => true,
        Err(e) => {
            receipt.warn(WarningKind::LedgerNotWritten { reason: format!("{}: {e}", path.display()) });
            false
        }
    }
}

fn try_append(path: &Path, receipt: &Receipt) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // Best effort: some network file systems have no locks, and appending alone is nearly as good.
    let _ = file.lock();
    let mut line = Vec::new();
    // A full disk may have cut an earlier line short; it must not swallow this one.
    if !ends_with_newline(&mut file)? {
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, receipt)?;
    line.push(b'\n');
    // One write to a file opened for appending: lines of concurrent writers do not interleave.
    let written = file.write(&line)?;
    if written < line.len() {
        return Err(std::io::Error::new(std::io::ErrorKind::WriteZero, "only part of the line was written"));
    }
    Ok(())
}

/// Whether the file is empty or its last byte is a newline. Things without a length (pipes) count as empty.
fn ends_with_newline(file: &mut File) -> std::io::Result<bool> {
    if !file.metadata()?.is_file() || file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    fn receipts(path: &Path) -> Vec<Receipt> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| Receipt::from_json(line).ok()).collect()
    }

    #[test]
    fn receipts_add_up_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/ledger.jsonl");
        for _ in 0..3 {
            assert!(append(&path, &mut example()));
        }
        assert_eq!(receipts(&path), vec![example(); 3]);
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        fs::write(&path, "{\"schema\":\"wattle.rec").unwrap();
        append(&path, &mut example());
        append(&path, &mut example());
        assert_eq!(receipts(&path).len(), 2);
        assert!(
            fs::read_to_string(&path).unwrap().starts_with("{\"schema\":\"wattle.rec\n"),
            "kept as it was"
        );
    }

    #[test]
    fn concurrent_writers_do_not_interleave() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        append(&path, &mut example());
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| (0..20).for_each(|_| assert!(append(&path, &mut example()))));
            }
        });
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!((lines, receipts(&path).len()), (161, 161));
    }

    #[test]
    fn an_unwritable_ledger_is_a_warning_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut receipt = example();
        assert!(!append(dir.path(), &mut receipt), "a directory is no ledger");
        let warning = receipt.warnings.last().unwrap();
        assert!(matches!(warning.kind, WarningKind::LedgerNotWritten { .. }));
        assert!(warning.message.contains(&dir.path().display().to_string()));
    }

    #[test]
    fn the_path_follows_the_environment() {
        let path = |pairs: &[(&str, &str)]| {
            default_path(|name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_owned()))
        };
        let home = ("HOME", "/home/a");
        assert_eq!(path(&[home]).unwrap(), Path::new("/home/a/.local/share/wattle/ledger.jsonl"));
        assert_eq!(path(&[home, ("XDG_DATA_HOME", "/d")]).unwrap(), Path::new("/d/wattle/ledger.jsonl"));
        assert_eq!(path(&[home, ("XDG_DATA_HOME", "relative")]), path(&[home]));
        assert_eq!(path(&[home, ("WATTLE_LEDGER", "x.jsonl")]).unwrap(), Path::new("x.jsonl"));
        assert_eq!(path(&[home, ("WATTLE_LEDGER", "")]), None);
        assert_eq!(path(&[]), None);
    }
}
