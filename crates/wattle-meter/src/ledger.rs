//! The ledger: every receipt, one line of JSON each, only ever appended to.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::environment::{LEDGER, user_folder};
use crate::{Quantity, Receipt, WarningKind};

/// Where receipts go unless told otherwise: `$WATTLE_LEDGER`, else `$XDG_DATA_HOME/wattle/ledger.jsonl`, else
/// `$HOME/.local/share/wattle/ledger.jsonl`, else, on Windows, `%LOCALAPPDATA%\wattle\ledger.jsonl`. `None` if
/// `$WATTLE_LEDGER` is set and empty, or there is no home.
///
/// `environment` looks a variable up; commands pass `|name| std::env::var(name).ok()`.
pub fn default_path(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = environment(LEDGER.name) {
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    let data = user_folder(environment, "XDG_DATA_HOME", ".local/share")?;
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

/// The receipts of the ledger at `path`, oldest first, and how many lines could not be read (cut short, or of another
/// version).
///
/// # Errors
/// That of the file system.
pub fn read(path: &Path) -> std::io::Result<(Vec<Receipt>, usize)> {
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let read: Vec<Option<Receipt>> = lines.map(|line| Receipt::from_json(line).ok()).collect();
    let unreadable = read.iter().filter(|r| r.is_none()).count();
    Ok((read.into_iter().flatten().collect(), unreadable))
}

/// What receipts are summed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// The value of a label; receipts without it are one group.
    Label(String),
    /// The calendar month of the start, UTC.
    Month,
    /// Nothing: one sum.
    All,
}

/// The sum of a group of receipts.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Sum {
    /// The label's value, the month, or `all`.
    pub group: String,
    /// Receipts in it.
    pub receipts: usize,
    /// Of these, how many know no energy; their joules are missing, not zero.
    pub without_energy: usize,
    /// Time, s.
    pub duration: Option<Quantity>,
    /// Energy, J.
    pub energy: Option<Quantity>,
    /// Carbon, g.
    pub carbon: Option<Quantity>,
    /// Money, USD.
    pub cost: Option<Quantity>,
}

/// Sums by group, in the order of the groups' names.
pub fn sums(receipts: &[Receipt], by: &Group) -> Vec<Sum> {
    let mut groups: BTreeMap<String, Vec<&Receipt>> = BTreeMap::new();
    for receipt in receipts {
        let name = match by {
            Group::All => "all".to_owned(),
            Group::Month => receipt.started.to_string().chars().take(7).collect(),
            Group::Label(label) => {
                receipt.labels.get(label).cloned().unwrap_or_else(|| format!("(no {label})"))
            }
        };
        groups.entry(name).or_default().push(receipt);
    }
    let sum = |group: String, receipts: &[&Receipt]| {
        let total = |of: fn(&Receipt) -> Option<&Quantity>| {
            Quantity::sum(receipts.iter().filter_map(|r| of(r))).ok().flatten()
        };
        Sum {
            group,
            receipts: receipts.len(),
            without_energy: receipts.iter().filter(|r| r.energy.total.is_none()).count(),
            duration: total(|r| Some(&r.duration)),
            energy: total(|r| r.energy.total.as_ref()),
            carbon: total(|r| r.carbon.as_ref()),
            cost: total(|r| r.cost.as_ref()),
        }
    };
    groups.into_iter().map(|(group, receipts)| sum(group, &receipts)).collect()
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
        read(path).unwrap().0
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
        assert_eq!(read(&path).unwrap().1, 1, "the torn line is counted, not hidden");
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
    fn sums_by_label_and_month_keep_their_intervals_and_name_what_is_missing() {
        let mut other = example();
        other.started = "2026-12-01T00:00:00.000Z".parse().unwrap();
        other.labels.clear();
        let mut unknown = example();
        unknown.energy.total = None;
        let all = [example(), other, unknown];
        let by_month = sums(&all, &Group::Month);
        assert_eq!(by_month.iter().map(|s| s.group.as_str()).collect::<Vec<_>>(), ["2026-11", "2026-12"]);
        assert_eq!((by_month[0].receipts, by_month[0].without_energy), (2, 1));
        let by_label = sums(&all, &Group::Label("project".to_owned()));
        assert_eq!(by_label.iter().map(|s| s.group.as_str()).collect::<Vec<_>>(), ["(no project)", "demo"]);
        let total = sums(&all, &Group::All)[0].energy.clone().unwrap();
        assert_eq!((total.low(), total.value(), total.high()), (60.0, 180.0, 600.0));
        assert_eq!(sums(&[], &Group::All), []);
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
        assert_eq!(path(&[("LOCALAPPDATA", "/l"), home]), path(&[home]));
        assert_eq!(path(&[("LOCALAPPDATA", "/l")]).unwrap(), Path::new("/l/wattle/ledger.jsonl"));
        assert_eq!(path(&[home, ("WATTLE_LEDGER", "x.jsonl")]).unwrap(), Path::new("x.jsonl"));
        assert_eq!(path(&[home, ("WATTLE_LEDGER", "")]), None);
        assert_eq!(path(&[]), None);
    }
}
