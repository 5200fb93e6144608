//! Times of kernels, kept on disk: one file a machine, so that a layer is timed once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wattle_engine::{LayerTimes, Plan, PlanOptions, Timings};
use wattle_graph::{Graph, Parameters};
use wattle_meter::Machine;
use wattle_meter::environment::user_folder;
use wattle_train::atomic_file::write_atomically;

use crate::error::Result;

const SCHEMA: &str = "wattle.timings/1";
/// Names the file, or, empty, leaves every choice to the cost model.
const VARIABLE: &str = "WATTLE_TIMINGS";

/// What the file holds. Times of another machine or version are nobody's.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Document {
    schema: String,
    machine: String,
    wattle: String,
    /// Seconds of each form, by layer.
    layers: LayerTimes,
}

/// Plans a graph that will run many times: where the cost model is in doubt between kernels, times on this machine decide,
/// from the file or, if there are none yet, taken now and kept. A file that cannot be read or written costs only the time.
pub fn compile(graph: &Graph, parameters: &Parameters, options: PlanOptions) -> Result<Plan> {
    let Some(path) = path(|name| std::env::var(name).ok()) else {
        return Ok(Plan::compile(graph, parameters, &options)?);
    };
    let machine = description(&Machine::identify());
    let timings = Arc::new(Timings::new(read(&path, &machine).unwrap_or_default()));
    let options = PlanOptions { timings: Some(timings.clone()), ..options };
    let plan = Plan::compile(graph, parameters, &options)?;
    if timings.has_grown() {
        let document = Document {
            schema: SCHEMA.to_owned(),
            machine,
            wattle: env!("CARGO_PKG_VERSION").to_owned(),
            layers: timings.all(),
        };
        // Without a file, the layer is timed again next time.
        let _ = write(&path, &document);
    }
    Ok(plan)
}

/// `$WATTLE_TIMINGS`, else `wattle/timings.json` in the user's folder for caches; `None` if that variable is empty or there
/// is no such folder.
fn path(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = environment(VARIABLE) {
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    let cache = user_folder(environment, "XDG_CACHE_HOME", ".cache")?;
    Some(cache.join("wattle/timings.json"))
}

/// What tells machines apart whose kernels may differ in speed.
fn description(machine: &Machine) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let hypervisor = if machine.virtualised == Some(true) { ", virtual" } else { "" };
    format!(
        "{}, {}, {} processors{hypervisor}",
        known(&machine.cpu_model),
        known(&machine.cpu_id),
        machine.cores
    )
}

fn read(path: &Path, machine: &str) -> Option<LayerTimes> {
    let document: Document = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let same = document.schema == SCHEMA
        && document.machine == machine
        && document.wattle == env!("CARGO_PKG_VERSION");
    same.then_some(document.layers)
}

fn write(path: &Path, document: &Document) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let bytes = serde_json::to_vec_pretty(document)?;
    write_atomically(path, &bytes).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_on_the_same_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/timings.json");
        let times = [("csr".to_owned(), 1e-3), ("dense".to_owned(), 0.1 + 0.2)].into();
        let layers: LayerTimes = [("a layer".to_owned(), times)].into();
        let wattle = env!("CARGO_PKG_VERSION").to_owned();
        write(
            &path,
            &Document { schema: SCHEMA.into(), machine: "a".into(), wattle, layers: layers.clone() },
        )
        .unwrap();
        assert_eq!(read(&path, "a"), Some(layers));
        assert_eq!(read(&path, "b"), None);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read(&path, "a"), None);
    }

    #[test]
    fn the_file_follows_the_environment() {
        let path =
            |pairs: &[(&str, &str)]| path(|name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_owned()));
        let home = ("HOME", "/home/a");
        assert_eq!(path(&[home]).unwrap(), Path::new("/home/a/.cache/wattle/timings.json"));
        assert_eq!(path(&[home, ("XDG_CACHE_HOME", "/c")]).unwrap(), Path::new("/c/wattle/timings.json"));
        assert_eq!(path(&[home, (VARIABLE, "t.json")]).unwrap(), Path::new("t.json"));
        assert_eq!(path(&[home, (VARIABLE, "")]), None);
        assert_eq!(path(&[]), None);
    }
}
