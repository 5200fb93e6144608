//! Names of the forms that receipts can be written in.

use std::path::PathBuf;

use clap::ValueEnum;
use wattle_jobs::export::Format;

/// A form by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
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

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Format {
        match name {
            FormatName::Csv => Format::Csv,
            FormatName::Codecarbon => Format::Codecarbon,
            FormatName::Openmetrics => Format::Openmetrics,
            FormatName::Otlp => Format::Otlp,
            FormatName::ModelCard => Format::ModelCard,
            FormatName::Mlflow => Format::Mlflow,
            FormatName::Html => Format::Html,
        }
    }
}

/// `FORMAT=FILE`.
pub fn parse(text: &str) -> Result<(FormatName, PathBuf), String> {
    let (format, path) = text.split_once('=').ok_or("expected FORMAT=FILE")?;
    let format = FormatName::from_str(format, false).map_err(|_| {
        let names = FormatName::value_variants().iter().filter_map(|f| f.to_possible_value());
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        format!("{format}: expected one of {}", names.join(", "))
    })?;
    if path.is_empty() { Err("expected a file after `=`".to_owned()) } else { Ok((format, path.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_and_refused_by_name() {
        assert_eq!(parse("model-card=a=b.yaml"), Ok((FormatName::ModelCard, PathBuf::from("a=b.yaml"))));
        let error = parse("xml=a").unwrap_err();
        assert!(error.contains("codecarbon") && error.contains("openmetrics"), "{error}");
        assert!(parse("csv").is_err() && parse("csv=").is_err());
    }
}
