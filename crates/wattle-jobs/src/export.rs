//! Receipts as files of other tools.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use wattle_meter::{Receipt, export as forms};
use wattle_report::Report;

use crate::error::{JobError, Result};

/// A form that receipts can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One row a receipt, units in the names of columns.
    Csv,
    /// CodeCarbon's emissions.csv.
    Codecarbon,
    /// OpenMetrics text, for a textfile collector; the last receipt.
    Openmetrics,
    /// OpenTelemetry metrics as JSON; the last receipt.
    Otlp,
    /// The co2_eq_emissions block of a Hugging Face model card; the last receipt.
    ModelCard,
    /// A run in an MLflow file store (`mlruns`), one for every receipt.
    Mlflow,
    /// A page with power over time; the last receipt.
    Html,
}

/// Adds the receipt of a run to what a file has: a row to a table that other runs have written, where the form is one; any
/// other form holds one receipt and is written anew.
///
/// # Errors
/// As [`export`]; also if the file is a table of other columns, which stays as it is.
pub fn add(format: Format, receipt: &Receipt, path: &Path) -> Result<()> {
    let rows = match format {
        Format::Csv => forms::spreadsheet(std::slice::from_ref(receipt)),
        Format::Codecarbon => forms::codecarbon(std::slice::from_ref(receipt)),
        _ => return export(format, std::slice::from_ref(receipt), path),
    };
    if path == Path::new("-") || !path.is_file() {
        return write_new(path, &rows);
    }
    append(path, &rows).map_err(|e| JobError::run(format_args!("{}: {e}", path.display())))
}

/// Adds the rows of a table to a table in a file, which must have the same heading.
fn append(path: &Path, table: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    // Best effort: some network file systems have no locks, and one write is nearly as good.
    let _ = file.lock();
    let mut there = String::new();
    file.read_to_string(&mut there)?;
    let (heading, rows) = table.split_once('\n').unwrap_or((table, ""));
    let added = match there.lines().next() {
        None => table.to_owned(),
        Some(first) if first.trim_end() == heading.trim_end() => {
            let cut = if there.ends_with('\n') { "" } else { "\n" };
            format!("{cut}{rows}")
        }
        Some(_) => {
            let text = "it has other columns than a receipt of this form; name a new file";
            return Err(std::io::Error::other(text));
        }
    };
    file.write_all(added.as_bytes())
}

/// Writes receipts in a form, in place of what the file held; `-` is standard output.
///
/// # Errors
/// If there is no receipt, the form needs what the last one does not know, or the file cannot be written.
pub fn export(format: Format, receipts: &[Receipt], path: &Path) -> Result<()> {
    let last = receipts.last().ok_or_else(|| JobError::input("there is no receipt to export"))?;
    let text = match format {
        Format::Csv => forms::spreadsheet(receipts),
        Format::Codecarbon => forms::codecarbon(receipts),
        Format::Openmetrics => forms::open_metrics(last),
        Format::Otlp => forms::otlp(last),
        Format::ModelCard => forms::model_card(last)
            .ok_or_else(|| JobError::run("the receipt knows no carbon, so the card has none"))?,
        Format::Html => {
            let title = last.command.join(" ");
            Report::new("wattle measure", &title).receipt(last).to_html()
        }
        Format::Mlflow => {
            let add = |receipt| forms::mlflow(receipt, path).map(drop);
            return receipts.iter().try_for_each(add).map_err(JobError::run);
        }
    };
    write_new(path, &text)
}

/// Writes a file under a temporary name and renames it, so that no reader finds half of it; `-` is standard output.
///
/// # Errors
/// If it cannot be written.
pub fn write_new(path: &Path, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| match e.kind() {
        // The folder was misspelt; anything else is the machine's.
        std::io::ErrorKind::NotFound => JobError::at(path.display(), e),
        _ => JobError::run(format_args!("{}: {e}", path.display())),
    };
    if path == Path::new("-") {
        return std::io::stdout().lock().write_all(text.as_bytes()).map_err(failed);
    }
    // Pipes and devices cannot be renamed over.
    if path.exists() && !path.is_file() {
        return pass_on(path, text).map_err(failed);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let written = replace(Path::new(&name), text, path);
    if written.is_err() {
        // The first error is the one worth reporting.
        let _ = std::fs::remove_file(&name);
    }
    written.map_err(failed)
}

/// Writes to `part`, which is new and no link that somebody planted, and gives it the name `path`.
fn replace(part: &Path, text: &str, path: &Path) -> std::io::Result<()> {
    let mut file = File::create_new(part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(part, path)
}

/// Writes to a pipe or a device. A pipe that nobody reads is an error: who waits for a reader cannot be told to stop.
fn pass_on(path: &Path, text: &str) -> std::io::Result<()> {
    #[cfg(unix)]
    let mut file = {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().write(true).custom_flags(nonblocking).open(path)?;
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        file
    };
    #[cfg(not(unix))]
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use wattle_meter::{Meter, MeterConfig};

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_pipe_without_a_reader_is_an_error_and_a_link_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, victim, link] = ["pipe", "victim", "link"].map(|name| folder.path().join(name));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from(0o600)).unwrap();
        assert!(write_new(&pipe, "text").unwrap_err().text().contains("pipe"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        write_new(&link, "text").unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&victim), read(&link)), ("precious".into(), "text".into()));
        write_new(Path::new("/dev/null"), "text").unwrap();
    }

    #[test]
    fn a_second_run_adds_a_row_and_a_table_of_others_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("emissions.csv");
        let receipt = Meter::start(MeterConfig::new(["test"])).stop();
        for rows in 1..=3 {
            add(Format::Codecarbon, &receipt, &path).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), rows + 1, "{text}");
            assert_eq!(text.matches("timestamp").count(), 1, "one heading: {text}");
        }
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let refused = add(Format::Csv, &receipt, &path).unwrap_err();
        assert!(refused.text().contains("emissions.csv") && refused.text().contains("other columns"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b\n1,2\n");
    }
}
