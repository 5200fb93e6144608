//! Where this user's times of kernels are kept, and who plans with them.

use std::path::PathBuf;

use wattle_engine::timing_file::TimingFile;
use wattle_engine::{EngineError, Plan, PlanOptions, Store};
use wattle_graph::Graph;
use wattle_meter::Machine;
use wattle_meter::environment::user_folder;

use crate::error::Result;

/// Names the file, or, empty, leaves every choice to the cost model.
const VARIABLE: &str = "WATTLE_TIMINGS";

/// Plans a graph that will run many times: where the cost model is in doubt between kernels, times on this machine decide,
/// from the file or, if there are none yet, taken now and kept. A file that cannot be read or written costs only the time.
pub fn compile(graph: &Graph, store: &Store, options: PlanOptions) -> Result<Plan> {
    let Some(file) = file() else { return Ok(Plan::compile(graph, store, &options)?) };
    let timings = file.timings();
    let options = PlanOptions { timings: Some(timings.clone()), ..options };
    let plan = Plan::compile(graph, store, &options)?;
    // What cannot be kept is timed again next time.
    let _ = file.keep(&timings);
    Ok(plan)
}

/// Plans a graph that will run once: with the kernels that were timed before, if any were, and no timing now.
pub fn compile_once(
    graph: &Graph,
    store: &Store,
    options: PlanOptions,
) -> std::result::Result<Plan, EngineError> {
    let timings = file().map(|file| file.known());
    Plan::compile(graph, store, &PlanOptions { timings, ..options })
}

/// The file of times, unless there is none for this user.
fn file() -> Option<TimingFile> {
    let path = path(|name| std::env::var(name).ok())?;
    Some(TimingFile::new(path, description(&Machine::identify())))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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
