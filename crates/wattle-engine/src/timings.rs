//! Times of kernels on one machine, to choose between those that the cost model cannot tell apart.
//!
//! A layer is timed when it is planned for the first time, on noise and on its real weights, with as much other memory
//! touched between two runs as the network has weights. Whoever holds the [`Timings`] keeps them: a choice made
//! from them is then the same in every run, and so are the bits of the result.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wattle_graph::DType;
use wattle_kernels::arena::{ALIGNMENT, Arena, Span};
use wattle_kernels::{Cpu, Threads};
use wattle_meter::timing::{Times, Turns, in_turns, once};

use crate::bytes;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Site};
use crate::sharing::is_small;
use crate::sparse_cost::{Doubt, Form};

/// Turns of all contenders, after one run of each; the least time of each counts, since other programs only add to it.
const TURNS: Turns = Turns { warm_up: 0, least: 2, most: 7, enough: Duration::from_millis(100) };
/// The kernel that the cost model would take is kept unless another takes less than this share of its time.
const FASTER: f64 = 0.95;
/// Bytes touched between two runs at most: more than any second-level cache.
const TOUCHED: usize = 4 << 20;

/// Seconds that a layer takes in each form, by description of the layer, its instruction set and threads.
pub type LayerTimes = BTreeMap<String, BTreeMap<String, f64>>;

/// What has been timed on a machine so far.
#[derive(Default)]
pub struct Timings {
    layers: Mutex<LayerTimes>,
    grown: AtomicBool,
    /// Whether nothing new is timed.
    only_known: bool,
}

impl fmt::Debug for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timings of {} layers", self.all().len())
    }
}

impl Timings {
    /// Goes on from times taken before, on the same machine.
    pub fn new(known: LayerTimes) -> Timings {
        Timings { layers: Mutex::new(known), ..Timings::default() }
    }

    /// Times taken before, on the same machine, and no others: a layer that is not among them is left to the cost model.
    pub fn known(known: LayerTimes) -> Timings {
        Timings { layers: Mutex::new(known), only_known: true, ..Timings::default() }
    }

    /// All that is known.
    pub fn all(&self) -> LayerTimes {
        self.layers.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Whether a layer was timed since the start.
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// The contender that is fastest here; the model's choice, if none is clearly faster. `network` is the size of all
    /// weights in bytes; `lone` says that the layer will run on one thread, whatever the site has.
    pub(crate) fn fastest(
        &self,
        site: &Site<'_>,
        doubt: &Doubt,
        mut contenders: Vec<(Form, Bound)>,
        network: usize,
        lone: bool,
    ) -> Result<Bound, EngineError> {
        let threads = if lone { 1 } else { site.cpu.threads.count() };
        let key = format!("{} {} x{threads}", doubt.layer(), site.cpu.isa.name());
        let known = self.all().remove(&key).unwrap_or_default();
        let times: Option<Vec<f64>> =
            contenders.iter().map(|(f, _)| known.get(&f.to_string()).copied()).collect();
        let times = match times {
            Some(times) => times,
            None if self.only_known => {
                let modelled = contenders.iter().position(|(form, _)| *form == doubt.taken());
                return Ok(contenders.swap_remove(modelled.unwrap_or(0)).1);
            }
            None => {
                let times = measure(site, &mut contenders, network, lone)?;
                let named = contenders.iter().map(|(form, _)| form.to_string()).zip(times.iter().copied());
                self.layers.lock().unwrap_or_else(|e| e.into_inner()).insert(key, named.collect());
                self.grown.store(true, Ordering::Relaxed);
                times
            }
        };
        let mut ranked: Vec<_> =
            contenders.into_iter().zip(times).map(|((f, bound), t)| (f, t, bound)).collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
        let least = ranked[0].1;
        let close = ranked.iter().position(|(form, time, _)| *form == doubt.taken() && least > FASTER * time);
        let (form, time, bound) = ranked.remove(close.unwrap_or(0));
        let others = ranked.iter().map(|(form, time, _)| format!(", {form} {:.3} ms", 1e3 * time));
        let others: String = others.collect();
        let modelled = bound.why.as_ref().map_or(String::new(), |why| format!("{why}; "));
        let why = format!("{modelled}timed, {form} {:.3} ms{others}", 1e3 * time);
        Ok(bound.because(why))
    }
}

/// One contender with its memory.
struct Runner<'a> {
    bound: &'a mut Bound,
    arena: Arena,
    inputs: Vec<Option<Span>>,
    outputs: Vec<Span>,
    scratch: Span,
    alone: bool,
}

impl Runner<'_> {
    fn new<'a>(site: &Site<'_>, bound: &'a mut Bound, lone: bool) -> Result<Runner<'a>, EngineError> {
        let mut end = 0;
        let mut next = |bytes: usize| {
            let span = Span::in_arena(end, bytes);
            end = span.end().next_multiple_of(ALIGNMENT);
            span
        };
        let size = |extents: &[usize], of: usize| extents.iter().product::<usize>() * of;
        let inputs: Vec<_> = site
            .inputs
            .iter()
            .enumerate()
            .map(|(i, o)| {
                o.as_ref()
                    .filter(|_| !bound.taken.contains(&i))
                    .map(|o| next(size(&o.extents, o.dtype.size())))
            })
            .collect();
        let outputs: Vec<_> =
            site.outputs.iter().map(|(extents, dtype)| next(size(extents, dtype.size()))).collect();
        let bytes = inputs.iter().flatten().chain(&outputs).map(|s| s.bytes).sum();
        let scratch = next(bound.scratch * size_of::<f32>());
        let alone = lone || is_small(site, bound.density, bytes);
        if end > site.options.memory_limit {
            return Err(EngineError::TooLarge { needed: end, limit: site.options.memory_limit });
        }
        let mut arena = Arena::try_new(end)?;
        for (i, span) in inputs.iter().enumerate() {
            let (Some(span), Some(operand)) = (*span, &site.inputs[i]) else { continue };
            if let Some(constant) = operand.constant {
                let content = bytes::of(constant, bound.input_layouts[i]);
                arena.write::<u8>(span)?.copy_from_slice(&content);
                continue;
            }
            let mut state = 1u32;
            // Numerical Recipes' generator: any noise that is neither zero nor subnormal will do.
            let mut noise = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            match operand.dtype {
                DType::F32 => {
                    let x = arena.write::<f32>(span)?;
                    x.iter_mut().for_each(|x| *x = noise() as f32 / (1 << 23) as f32 - 1.0);
                }
                _ => arena.write::<u8>(span)?.iter_mut().for_each(|x| *x = noise() as u8),
            }
        }
        Ok(Runner { bound, arena, inputs, outputs, scratch, alone })
    }

    fn run(&mut self, cpu: &Cpu, single: &Cpu) -> Result<Duration, EngineError> {
        let io = Io {
            views: self.arena.views(),
            inputs: &self.inputs,
            outputs: &self.outputs,
            scratch: self.scratch,
            cpu: if self.alone { single } else { cpu },
        };
        once(|| self.bound.kernel.as_mut().map_or(Ok(()), |kernel| kernel.run(&io)))
    }
}

/// Seconds of each contender.
fn measure(
    site: &Site<'_>,
    contenders: &mut [(Form, Bound)],
    network: usize,
    lone: bool,
) -> Result<Vec<f64>, EngineError> {
    let single = Cpu { isa: site.cpu.isa, threads: Threads::single() };
    let runners = contenders.iter_mut().map(|(_, bound)| Runner::new(site, bound, lone));
    let mut runners: Vec<Runner<'_>> = runners.collect::<Result<_, _>>()?;
    for runner in &mut runners {
        runner.run(site.cpu, &single)?;
    }
    let mut other = vec![0u8; network.min(TOUCHED)];
    let times = in_turns(&TURNS, runners.len(), |contender| {
        site.cpu
            .threads
            .for_each_piece(&mut other, 1 << 16, |_, piece| piece.iter_mut().for_each(|b| *b = !*b));
        runners[contender].run(site.cpu, &single)
    })?;
    Ok(times.iter().map(Times::least).collect())
}
