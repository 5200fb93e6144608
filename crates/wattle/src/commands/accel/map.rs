//! `wattle accel map`: the best mapping of each layer with the bound that proves it, the front of energy and delay,
//! or the cost of mappings that are given.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_accel::{
    AccelError, Architecture, Constraints, Crew, Effort, Front, LayerMapping, MappingFile, Objective, SPACE,
    Search, Syntax, Workload, each_distinct, front, map_within,
};
use wattle_report::{Align, Table, number};

use super::request::{self, ModelArgs};
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel map`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  wattle accel map model.onnx --arch eyeriss-v2 --objective delay --out best.json\n  \
                        wattle accel map model.onnx --mapping best.json\n  wattle accel map model.onnx --front"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A shipped architecture (see `wattle accel archs`) or a .toml or .yaml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// Energy table, or binding of an Accelergy table, in place of the architecture's.
    #[arg(long, value_name = "FILE")]
    energy: Option<PathBuf>,
    /// Loop factors, orders and spatial loops that are fixed or bounded (.toml, .yaml).
    #[arg(long, value_name = "FILE")]
    constraints: Option<PathBuf>,
    /// Stop the search of a layer after this time, with the best so far and its gap.
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// All mappings that no other beats in both energy and delay.
    #[arg(long, conflicts_with = "objective")]
    front: bool,
    /// Evaluate these mappings as given instead of searching.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["front", "constraints", "seconds"])]
    mapping: Option<PathBuf>,
    /// Write the mappings to this file, which `--mapping` takes.
    #[arg(long, value_name = "FILE", conflicts_with = "front")]
    out: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number of seconds".to_string())?;
    let valid = Duration::try_from_secs_f64(value).ok().filter(|d| *d < Duration::from_secs(1 << 30));
    valid.ok_or_else(|| format!("found {value}, expected a number of seconds, 0 or more"))
}

/// The result as JSON.
#[derive(Serialize)]
struct Document {
    schema: u32,
    arch: String,
    objective: &'static str,
    /// What the proofs cover.
    space: &'static str,
    layers: Vec<Layer>,
    /// Layers without a mapping.
    infeasible: Vec<Infeasible>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Infeasible {
    name: String,
    reason: String,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    /// pJ, cycles, or their product.
    value: f64,
    /// Absent where nothing was searched.
    lower_bound: Option<f64>,
    proven: bool,
    branches: u64,
    opened: u64,
    evaluated: u64,
    energy_pj: f64,
    cycles: f64,
    /// Loops from the outermost in; `x` marks the axes of the array.
    mapping: String,
    /// The same as in a mapping file.
    loops: LayerMapping,
}

#[derive(Serialize)]
struct FrontDocument {
    schema: u32,
    arch: String,
    space: &'static str,
    layers: Vec<FrontLayer>,
    infeasible: Vec<Infeasible>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct FrontLayer {
    name: String,
    proven: bool,
    branches: u64,
    opened: u64,
    evaluated: u64,
    /// From the least energy to the fewest cycles.
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    energy_pj: f64,
    cycles: f64,
    mapping: String,
    loops: LayerMapping,
}

const SCHEMA: u32 = 1;

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arch = request::priced(request::architecture(&args.arch)?, args.energy.as_deref())?;
    let (workload, densities) = args.model.workload(context)?;
    let mut sources = arch.sources()?;
    sources.push(densities);
    let constraints = args.constraints.as_deref().map_or_else(|| Ok(Constraints::default()), constraints)?;
    constraints.check(&workload.layers)?;
    if args.front {
        return show_front(&args, &arch, &workload, &constraints, sources, context);
    }
    let objective = args.model.objective();
    let (found, infeasible) = match &args.mapping {
        Some(path) => {
            let layers = request::given(&arch, &workload, path)?.layers;
            (layers.into_iter().map(|l| (l.name, l.mapped)).collect(), vec![])
        }
        None => searched(&args, &arch, &workload, &constraints, context, |search, layer, table| {
            map_within(&arch, layer, table, search)
        })?,
    };
    if let Some(path) = &args.out {
        let layers = found.iter().map(|(name, m)| (name.as_str(), m.format, &m.mapping));
        let text = MappingFile::new(&arch, layers).text()?;
        std::fs::write(path, text).map_err(|e| Failure::at(path.display(), e))?;
    }
    let mut table = Table::new([
        ("layer", Align::Left),
        ("energy", Align::Right),
        ("cycles", Align::Right),
        ("gap", Align::Right),
        ("opened", Align::Right),
        ("mapping", Align::Left),
    ]);
    let (mut layers, mut proven) = (vec![], 0);
    let buffers = arch.buffer_names();
    for (name, m) in &found {
        let given = args.mapping.is_some();
        proven += usize::from(m.proven());
        let gap = match (given, m.proven()) {
            (true, _) => "as given".to_string(),
            (false, true) => "proven".to_string(),
            (false, false) => number::percent(m.value / m.lower_bound - 1.0),
        };
        table.row([
            name.clone(),
            number::si(m.cost.energy.total() * 1e-12, "J"),
            number::count(m.cost.cycles.total()),
            gap,
            format!("{} of {}", number::count(m.opened as f64), number::count(m.branches as f64)),
            m.mapping.text(&buffers),
        ]);
        layers.push(Layer {
            name: name.clone(),
            value: objective.value(&m.cost),
            lower_bound: (!given).then_some(m.lower_bound),
            proven: !given && m.proven(),
            branches: m.branches,
            opened: m.opened,
            evaluated: m.evaluated,
            energy_pj: m.cost.energy.total(),
            cycles: m.cost.cycles.total(),
            mapping: m.mapping.text(&buffers),
            loops: LayerMapping::new(&arch, name, m.format, &m.mapping),
        });
    }
    // From zero, since a sum of nothing is minus zero.
    let [energy, cycles] = found.iter().fold([0.0; 2], |[energy, cycles], (_, m)| {
        [energy + m.cost.energy.total(), cycles + m.cost.cycles.total()]
    });
    let sums = format!(
        "{} layers: {}, {} cycles",
        found.len(),
        number::si(energy * 1e-12, "J"),
        number::count(cycles)
    );
    let claim = match args.mapping {
        Some(_) => "evaluated as given, nothing searched".to_string(),
        None => format!(
            "least {} proven for {proven} of {} layers, within this space: {SPACE}",
            objective.name(),
            found.len()
        ),
    };
    let text = format!("{table}\n{sums}, modelled on {}\n{claim}\n{}", arch.name, left_over(&infeasible));
    let objective = objective.name();
    let document = Document {
        schema: SCHEMA,
        arch: arch.name.clone(),
        objective,
        space: SPACE,
        layers,
        infeasible,
        sources,
    };
    context.print(&document, &text)
}

fn show_front(
    args: &Args,
    arch: &Architecture,
    workload: &Workload,
    constraints: &Constraints,
    sources: Vec<String>,
    context: &Context,
) -> Result<(), Failure> {
    let (found, infeasible) =
        searched(args, arch, workload, constraints, context, |search, layer, table| {
            front(arch, layer, table, search)
        })?;
    let mut table = Table::new([
        ("layer", Align::Left),
        ("energy", Align::Right),
        ("cycles", Align::Right),
        ("mapping", Align::Left),
    ]);
    let mut layers = vec![];
    let buffers = arch.buffer_names();
    for (name, Front { points, proven, evaluated, branches, opened }) in &found {
        let mut list = vec![];
        for (at, point) in points.iter().enumerate() {
            let (energy_pj, cycles) = (point.cost.energy.total(), point.cost.cycles.total());
            table.row([
                if at == 0 { name.clone() } else { String::new() },
                number::si(energy_pj * 1e-12, "J"),
                number::count(cycles),
                point.mapping.text(&buffers),
            ]);
            let loops = LayerMapping::new(arch, name, point.format, &point.mapping);
            list.push(Point { energy_pj, cycles, mapping: point.mapping.text(&buffers), loops });
        }
        layers.push(FrontLayer {
            name: name.clone(),
            proven: *proven,
            branches: *branches,
            opened: *opened,
            evaluated: *evaluated,
            points: list,
        });
    }
    let proven = layers.iter().filter(|l| l.proven).count();
    let text = format!(
        "{table}\nmappings on {} that no other beats in both energy and delay, modelled; proven for {proven} of {} \
         layers, within this space: {SPACE}\n{}",
        arch.name,
        layers.len(),
        left_over(&infeasible)
    );
    let document =
        FrontDocument { schema: SCHEMA, arch: arch.name.clone(), space: SPACE, layers, infeasible, sources };
    context.print(&document, &text)
}

fn left_over(infeasible: &[Infeasible]) -> String {
    infeasible.iter().map(|l| format!("no mapping: {}\n", l.reason)).collect()
}

fn constraints(path: &Path) -> Result<Constraints, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::at(path.display(), e))?;
    let syntax = Syntax::of(path).unwrap_or(Syntax::Toml);
    Constraints::parse(syntax, &text).map_err(|e| Failure::at(path.display(), e))
}

/// Results by name of layer, and the layers that have none.
type Searched<T> = (Vec<(String, T)>, Vec<Infeasible>);

/// Searches every layer. A layer without a mapping is an error where constraints may be the cause.
fn searched<T: Clone + Send>(
    args: &Args,
    arch: &Architecture,
    workload: &Workload,
    constraints: &Constraints,
    context: &Context,
    find: impl Fn(&Search<'_>, &wattle_accel::Layer, &wattle_accel::EnergyTable) -> Result<T, AccelError> + Sync,
) -> Result<Searched<T>, Failure> {
    let bar = crate::bars::bar(&format!("mapping on {}", arch.name), workload.layers.len() as u64);
    let table = arch.table()?;
    let watch = |_: f64| bar.tick();
    let crew = Crew::of(context.cpu.threads.count());
    let work = |layer: &wattle_accel::Layer| {
        let until = args.seconds.map(|s| Instant::now() + s);
        let search = Search {
            objective: if args.front { Objective::Edp } else { args.model.objective() },
            effort: Effort { until, ..Effort::default() },
            constraints,
            crew: &crew,
            watch: &watch,
        };
        find(&search, layer, &table).map_err(Arc::new)
    };
    // Constraints go by name, so equal layers are alike only where there are none.
    let free = constraints.list.is_empty();
    let results = each_distinct(&workload.layers, &crew, |_, _| free, work, &|| bar.inc(1));
    bar.finish_and_clear();
    let (mut found, mut infeasible) = (vec![], vec![]);
    for (layer, result) in workload.layers.iter().zip(results) {
        match result {
            Ok(result) => found.push((layer.name.clone(), result)),
            Err(error) if free && matches!(*error, AccelError::Infeasible { .. }) => {
                infeasible.push(Infeasible { name: layer.name.clone(), reason: error.to_string() });
            }
            Err(error) => return Err(Failure::Input(error.to_string())),
        }
    }
    Ok((found, infeasible))
}
