//! The best mapping of each layer with the bound that proves it, the front of energy and delay, or the cost of mappings
//! that are given.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_accel::{
    AccelError, Architecture, Constraints, Crew, Effort, EnergyTable, Layer as WorkloadLayer, LayerMapping,
    MappingFile, Objective, SPACE, Search, Syntax, Workload, each_distinct, front, map_within,
};

use super::request::{self, HardwareOptions, ModelOptions};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::export::write_new;
use crate::given_file;
use crate::observer::{Observer, Stage};

/// A model on an architecture, and what is searched.
#[derive(Clone, Debug)]
pub struct MapOptions {
    /// The model.
    pub model: ModelOptions,
    /// The architecture; its mappings are evaluated as given instead of searching, where there are any.
    pub hardware: HardwareOptions,
    /// Loop factors, orders and spatial loops that are fixed or bounded (.toml, .yaml).
    pub constraints: Option<PathBuf>,
    /// After this time the search of a layer ends, with the best so far and its gap.
    pub time: Option<Duration>,
    /// All mappings that no other beats in both energy and delay.
    pub front: bool,
    /// Where the mappings are written.
    pub out: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Mapped {
    /// The best mapping of each layer.
    Best(Best),
    /// The front of each layer.
    Front(Fronts),
}

/// The best mappings.
#[derive(Clone, Debug, Serialize)]
pub struct Best {
    schema: u32,
    /// The architecture.
    pub arch: String,
    /// What is least: `energy`, `delay` or `edp`.
    pub objective: &'static str,
    /// What the proofs cover.
    pub space: &'static str,
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// Layers without a mapping.
    pub infeasible: Vec<Infeasible>,
    /// Where the numbers come from.
    pub sources: Vec<String>,
}

/// A layer that cannot be mapped.
#[derive(Clone, Debug, Serialize)]
pub struct Infeasible {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The best mapping of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// pJ, cycles, or their product.
    pub value: f64,
    /// Absent where nothing was searched.
    pub lower_bound: Option<f64>,
    /// Whether there is none better in the space.
    pub proven: bool,
    /// Branches of the search.
    pub branches: u64,
    /// Of these, opened.
    pub opened: u64,
    /// Mappings evaluated.
    pub evaluated: u64,
    /// Energy, pJ.
    pub energy_pj: f64,
    /// Cycles.
    pub cycles: f64,
    /// Loops from the outermost in; `x` marks the axes of the array.
    pub mapping: String,
    /// The same as in a mapping file.
    pub loops: LayerMapping,
}

/// The fronts of energy and delay.
#[derive(Clone, Debug, Serialize)]
pub struct Fronts {
    schema: u32,
    /// The architecture.
    pub arch: String,
    /// What the proofs cover.
    pub space: &'static str,
    /// The layers in order.
    pub layers: Vec<FrontLayer>,
    /// Layers without a mapping.
    pub infeasible: Vec<Infeasible>,
    /// Where the numbers come from.
    pub sources: Vec<String>,
}

/// The front of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct FrontLayer {
    /// Its name.
    pub name: String,
    /// Whether no mapping of the space is missing.
    pub proven: bool,
    /// Branches of the search.
    pub branches: u64,
    /// Of these, opened.
    pub opened: u64,
    /// Mappings evaluated.
    pub evaluated: u64,
    /// From the least energy to the fewest cycles.
    pub points: Vec<Point>,
}

/// A mapping on the front.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Energy, pJ.
    pub energy_pj: f64,
    /// Cycles.
    pub cycles: f64,
    /// Loops from the outermost in.
    pub mapping: String,
    /// The same as in a mapping file.
    pub loops: LayerMapping,
}

const SCHEMA: u32 = 1;

/// Maps.
///
/// # Errors
/// If the model, the architecture or a file cannot be used, or constraints leave a layer without a mapping.
pub fn map(options: &MapOptions, env: &Env, observer: &mut dyn Observer) -> Result<Mapped> {
    let arch = options.hardware.architecture()?;
    let (workload, densities) = options.model.workload(env, observer)?;
    let mut sources = arch.sources()?;
    sources.push(densities);
    let constraints =
        options.constraints.as_deref().map_or_else(|| Ok(Constraints::default()), constraints)?;
    constraints.check(&workload.layers)?;
    let asked = Asked { options, arch: &arch, workload: &workload, constraints: &constraints, env };
    if options.front {
        return asked.front(sources, observer).map(Mapped::Front);
    }
    let objective = options.model.objective;
    let given = options.hardware.mapping.as_deref();
    let (found, infeasible) = match given {
        Some(path) => {
            let layers = request::given(&arch, &workload, path)?.layers;
            (layers.into_iter().map(|l| (l.name, l.mapped)).collect(), vec![])
        }
        None => asked.searched(observer, |search, layer, table| map_within(&arch, layer, table, search))?,
    };
    if let Some(path) = &options.out {
        let layers = found.iter().map(|(name, m)| (name.as_str(), m.format, &m.mapping));
        write_new(path, &MappingFile::new(&arch, layers).text()?)?;
    }
    let buffers = arch.buffer_names();
    let layers = found.iter().map(|(name, m)| Layer {
        name: name.clone(),
        value: objective.value(&m.cost),
        lower_bound: given.is_none().then_some(m.lower_bound),
        proven: given.is_none() && m.proven(),
        branches: m.branches,
        opened: m.opened,
        evaluated: m.evaluated,
        energy_pj: m.cost.energy.total(),
        cycles: m.cost.cycles.total(),
        mapping: m.mapping.text(&buffers),
        loops: LayerMapping::new(&arch, name, m.format, &m.mapping),
    });
    Ok(Mapped::Best(Best {
        schema: SCHEMA,
        arch: arch.name.clone(),
        objective: objective.name(),
        space: SPACE,
        layers: layers.collect(),
        infeasible,
        sources,
    }))
}

fn constraints(path: &Path) -> Result<Constraints> {
    let text = given_file::text(path)?;
    let syntax = Syntax::of(path).unwrap_or(Syntax::Toml);
    Constraints::parse(syntax, &text).map_err(|e| JobError::at(path.display(), e))
}

/// What every search needs.
struct Asked<'a> {
    options: &'a MapOptions,
    arch: &'a Architecture,
    workload: &'a Workload,
    constraints: &'a Constraints,
    env: &'a Env,
}

/// Results by name of layer, and the layers that have none.
type Searched<T> = (Vec<(String, T)>, Vec<Infeasible>);

impl Asked<'_> {
    fn front(&self, sources: Vec<String>, observer: &mut dyn Observer) -> Result<Fronts> {
        let arch = self.arch;
        let (found, infeasible) =
            self.searched(observer, |search, layer, table| front(arch, layer, table, search))?;
        let buffers = arch.buffer_names();
        let layers = found.into_iter().map(|(name, front)| {
            let points = front.points.iter().map(|point| Point {
                energy_pj: point.cost.energy.total(),
                cycles: point.cost.cycles.total(),
                mapping: point.mapping.text(&buffers),
                loops: LayerMapping::new(arch, &name, point.format, &point.mapping),
            });
            FrontLayer {
                points: points.collect(),
                name,
                proven: front.proven,
                branches: front.branches,
                opened: front.opened,
                evaluated: front.evaluated,
            }
        });
        let layers = layers.collect();
        Ok(Fronts { schema: SCHEMA, arch: arch.name.clone(), space: SPACE, layers, infeasible, sources })
    }

    /// Searches every layer. A layer without a mapping is an error where constraints may be the cause.
    fn searched<T: Clone + Send>(
        &self,
        observer: &mut dyn Observer,
        find: impl Fn(&Search<'_>, &WorkloadLayer, &EnergyTable) -> std::result::Result<T, AccelError> + Sync,
    ) -> Result<Searched<T>> {
        let Asked { options, arch, workload, constraints, env } = self;
        let table = arch.table()?;
        let crew = Crew::of(env.cpu.threads.count());
        let work = |layer: &WorkloadLayer| {
            let until = options.time.map(|time| Instant::now() + time);
            let search = Search {
                objective: if options.front { Objective::Edp } else { options.model.objective },
                effort: Effort { until, ..Effort::default() },
                constraints,
                crew: &crew,
                watch: &|_| {},
            };
            find(&search, layer, &table).map_err(Arc::new)
        };
        // Constraints go by name, so equal layers are alike only where there are none.
        let free = constraints.list.is_empty();
        let layers = workload.layers.len() as u64;
        let stage = Stage::begin(observer, format!("mapping on {}", arch.name), layers);
        let results = each_distinct(&workload.layers, &crew, |_, _| free, work, &|| stage.advance());
        let (mut found, mut infeasible) = (vec![], vec![]);
        for (layer, result) in workload.layers.iter().zip(results) {
            match result {
                Ok(result) => found.push((layer.name.clone(), result)),
                Err(error) if free && matches!(*error, AccelError::Infeasible { .. }) => {
                    infeasible.push(Infeasible { name: layer.name.clone(), reason: error.to_string() });
                }
                Err(error) => return Err(JobError::input(error)),
            }
        }
        Ok((found, infeasible))
    }
}
