//! Receipts as files of other tools.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use wattle_meter::{Receipt, export};
use wattle_report::Report;

use crate::failure::Failure;

/// A form that receipts can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

/// `FORMAT=FILE`.
pub fn parse(text: &str) -> Result<(Format, PathBuf), String> {
    let (format, path) = text.split_once('=').ok_or("expected FORMAT=FILE")?;
    let format = Format::from_str(format, false).map_err(|_| {
        let names: Vec<String> = Format::value_variants().iter().map(|f| f.to_string()).collect();
        format!("{format}: expected one of {}", names.join(", "))
    })?;
    if path.is_empty() { Err("expected a file after `=`".to_owned()) } else { Ok((format, path.into())) }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |v| v.get_name()))
    }
}

/// Writes receipts in a form; `-` is stdout.
pub fn write(format: Format, receipts: &[Receipt], path: &Path) -> Result<(), Failure> {
    let last = receipts.last().ok_or_else(|| Failure::Input("there is no receipt to export".to_owned()))?;
    let text = match format {
        Format::Csv => export::spreadsheet(receipts),
        Format::Codecarbon => export::codecarbon(receipts),
        Format::Openmetrics => export::open_metrics(last),
        Format::Otlp => export::otlp(last),
        Format::ModelCard => export::model_card(last)
            .ok_or_else(|| Failure::Run("the receipt knows no carbon, so the card has none".to_owned()))?,
        Format::Html => {
            let title = last.command.join(" ");
            Report::new("wattle measure", &title).receipt(last).to_html()
        }
        Format::Mlflow => {
            for receipt in receipts {
                export::mlflow(receipt, path).map_err(|e| Failure::Run(e.to_string()))?;
            }
            return Ok(());
        }
    };
    write_new(path, &text)
}

/// Writes a file under a temporary name and renames it, so that no reader finds half of it.
pub fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Run(format!("{}: {e}", path.display()));
    if path == Path::new("-") {
        return std::io::stdout().lock().write_all(text.as_bytes()).map_err(failed);
    }
    // Pipes and devices cannot be renamed over.
    if path.exists() && !path.is_file() {
        return std::fs::write(path, text).map_err(failed);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    std::fs::write(&name, text).and_then(|()| std::fs::rename(&name, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_and_refused_by_name() {
        assert_eq!(parse("model-card=a=b.yaml"), Ok((Format::ModelCard, PathBuf::from("a=b.yaml"))));
        let error = parse("xml=a").unwrap_err();
        assert!(error.contains("codecarbon") && error.contains("openmetrics"), "{error}");
        assert!(parse("csv").is_err() && parse("csv=").is_err());
    }
}
