//! An MLflow run in its file store: `<experiment>/<run>/metrics/<key>` with lines of `milliseconds value step`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{run_id, value};
use crate::{Receipt, StopReason};

/// Adds the receipt to the store at `root` (`mlruns`) as a run of experiment 0; returns the run's folder. The receipt
/// itself is its artifact. As MLflow itself does, the store names its own place: it is read where it was made.
///
/// # Errors
/// That of the file system, naming the file.
pub fn mlflow(receipt: &Receipt, root: &Path) -> io::Result<PathBuf> {
    let started = receipt.started.unix_millis();
    let ended = started + (receipt.duration.value() * 1000.0) as u64;
    let id = run_id(receipt);
    let experiment = root.join("0");
    let run = experiment.join(&id);
    let write = |path: PathBuf, text: String| {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        fs::create_dir_all(path.parent().unwrap_or(root)).map_err(named)?;
        fs::write(&path, text).map_err(named)
    };
    fs::create_dir_all(root).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", root.display())))?;
    let place = address(&root.canonicalize()?);
    let about = experiment.join("meta.yaml");
    if !about.exists() {
        write(
            about,
            format!(
                "artifact_location: {place}/0\nexperiment_id: '0'\nlifecycle_stage: active\nname: Default\n"
            ),
        )?;
    }
    let status = if receipt.stop_reason == StopReason::Failed { 4 } else { 3 };
    write(
        run.join("meta.yaml"),
        format!(
            "artifact_uri: {place}/0/{id}/artifacts\nend_time: {ended}\nentry_point_name: ''\nexperiment_id: '0'\n\
             lifecycle_stage: active\nrun_id: {id}\nrun_name: wattle-{started}\nrun_uuid: {id}\nsource_name: ''\n\
             source_type: 4\nsource_version: ''\nstart_time: {started}\nstatus: {status}\ntags: []\nuser_id: ''\n"
        ),
    )?;
    let metrics = [
        ("wattle/duration_seconds", Some(receipt.duration.value())),
        ("wattle/energy_joules", value(receipt.energy.total.as_ref())),
        ("wattle/power_watts", value(receipt.power.as_ref())),
        ("wattle/carbon_grams", value(receipt.carbon.as_ref())),
        ("wattle/cost_usd", value(receipt.cost.as_ref())),
    ];
    for (key, value) in metrics {
        if let Some(value) = value {
            write(run.join("metrics").join(key), format!("{ended} {value} 0\n"))?;
        }
    }
    let steps = receipt.samples.powers().into_iter().enumerate();
    let power: String = steps
        .map(|(step, (_, to, watts))| format!("{} {watts} {step}\n", started + (to * 1000.0) as u64))
        .collect();
    write(run.join("metrics/system/power_watts"), power)?;
    if let Some(total) = &receipt.energy.total {
        write(run.join("tags/wattle.energy_source"), total.source().to_string())?;
    }
    for (key, value) in &receipt.labels {
        write(run.join("tags").join(tag(key)), value.clone())?;
    }
    write(run.join("params/command"), receipt.command.join(" "))?;
    write(run.join("artifacts/receipt.json"), receipt.to_json())?;
    Ok(run)
}

/// A folder as MLflow names it, a `file:` URI (RFC 8089): what is not plain is escaped.
fn address(folder: &Path) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let mut uri = "file://".to_owned();
    let path = folder.to_string_lossy().replace('\\', "/");
    // A Windows drive follows a third slash.
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    for byte in path.bytes() {
        match plain(byte) {
            true => uri.push(char::from(byte)),
            false => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

/// A label as the name of a tag: MLflow takes letters, digits, `_`, `-` and `.`, and a name must stay in its folder.
fn tag(label: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
    let name: String = label.chars().map(safe).collect();
    if name.starts_with('.') { name.replacen('.', "_", 1) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn metrics_are_time_value_step() {
        let root = tempfile::tempdir().unwrap();
        let run = mlflow(&example(), root.path()).unwrap();
        let text = fs::read_to_string(run.join("metrics/wattle/energy_joules")).unwrap();
        assert_eq!(text, "1795398510623 90 0\n");
        let power = fs::read_to_string(run.join("metrics/system/power_watts")).unwrap();
        assert_eq!(power, "1795398510623 7.2 0\n");
        assert_eq!(run.file_name().unwrap().len(), 32);
        assert!(fs::read_to_string(run.join("meta.yaml")).unwrap().contains("status: 3\n"));
        assert!(root.path().join("0/meta.yaml").is_file());
    }

    #[test]
    fn labels_are_tags_and_stay_in_their_folder() {
        let root = tempfile::tempdir().unwrap();
        let mut receipt = example();
        receipt.labels.insert("../../escape".to_owned(), "x".to_owned());
        let run = mlflow(&receipt, root.path()).unwrap();
        assert_eq!(fs::read_to_string(run.join("tags/project")).unwrap(), "demo");
        assert_eq!(fs::read_to_string(run.join("tags/_._.._escape")).unwrap(), "x");
        let artifact = fs::read_to_string(run.join("artifacts/receipt.json")).unwrap();
        assert_eq!(Receipt::from_json(&artifact).unwrap(), receipt);
        let about = fs::read_to_string(run.join("meta.yaml")).unwrap();
        let folder = root.path().canonicalize().unwrap();
        assert!(about.starts_with(&format!("artifact_uri: {}/0/", address(&folder))), "{about}");
        assert_eq!(address(Path::new("/a b/ö#")), "file:///a%20b/%C3%B6%23");
    }

    #[test]
    fn receipts_of_one_millisecond_are_runs_of_their_own_and_a_receipt_is_one_run() {
        let root = tempfile::tempdir().unwrap();
        let mut other = example();
        other.seeds.insert("order".to_owned(), 8);
        let [first, again, second] =
            [&example(), &example(), &other].map(|receipt| mlflow(receipt, root.path()).unwrap());
        assert_eq!(first, again);
        assert_ne!(first, second);
    }
}
