//! Plans that were made before, for as long as they fit a budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use wattle_graph::{Fingerprint, Graph};

use crate::choices::{BatchSplit, PlanOptions, Sparse};
use crate::error::EngineError;
use crate::kernel::lock;
use crate::plan::Plan;
use crate::store::{Store, StoredKey};
use crate::timings::Timings;

/// Keeps plans by what decides them: the graph, the options, the masks of its parameters, and which version of which store
/// was frozen into it. When the plans take more memory than allowed, those go that were asked for least recently.
///
/// A plan of unfrozen parameters runs on every store that has them under the same masks.
pub struct PlanCache {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    plans: HashMap<Key, Entry>,
    bytes: usize,
    /// Counts requests.
    clock: u64,
}

struct Entry {
    plan: Arc<Plan>,
    bytes: usize,
    /// When it was last asked for.
    used: u64,
    /// Kept alive, since the key holds its address.
    _timings: Option<Arc<Timings>>,
}

/// Everything that decides a plan.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    graph: Fingerprint,
    /// The address of the `Cpu`, which the plan keeps alive.
    cpu: usize,
    /// The address of the `Timings`, which the entry keeps alive.
    timings: usize,
    rewrite: bool,
    memory_limit: usize,
    sparse: Sparse,
    batch: BatchSplit,
    /// Identities of the kernels of custom operators.
    kernels: Vec<String>,
    stored: Vec<StoredKey>,
}

impl Key {
    fn new(graph: &Graph, store: &Store, options: &PlanOptions) -> Result<Key, EngineError> {
        // Every option is named, so that a new one cannot be forgotten.
        let PlanOptions { cpu, rewrite, freeze, memory_limit, sparse, timings, batch, kernels } = options;
        Ok(Key {
            graph: graph.fingerprint(),
            cpu: Arc::as_ptr(cpu).addr(),
            timings: timings.as_ref().map_or(0, |timings| Arc::as_ptr(timings).addr()),
            rewrite: *rewrite,
            memory_limit: *memory_limit,
            sparse: *sparse,
            batch: *batch,
            kernels: kernels.identities().into_iter().map(str::to_owned).collect(),
            stored: store.keys(graph, freeze)?,
        })
    }
}

impl PlanCache {
    /// An empty cache for plans of about `bytes` bytes together: constants, packed weights, descriptions of steps. The arenas
    /// of sessions are not part of a plan.
    pub fn new(bytes: usize) -> PlanCache {
        PlanCache { limit: bytes, held: Mutex::new(Held::default()) }
    }

    /// The plan of `graph`; see [`Plan::compile`], which makes it where it is not held.
    pub fn get(&self, graph: &Graph, store: &Store, options: &PlanOptions) -> Result<Arc<Plan>, EngineError> {
        let key = Key::new(graph, store, options)?;
        if let Some(plan) = lock(&self.held).find(&key) {
            return Ok(plan);
        }
        let plan = Arc::new(Plan::compile(graph, store, options)?);
        let mut held = lock(&self.held);
        // Another thread may have made it meanwhile, or the store may have been written: the key no longer says which.
        if let Some(plan) = held.find(&key) {
            return Ok(plan);
        }
        let bytes = plan.bytes();
        if bytes <= self.limit && Key::new(graph, store, options)? == key {
            let used = held.clock;
            let entry = Entry { plan: plan.clone(), bytes, used, _timings: options.timings.clone() };
            held.bytes += bytes;
            held.plans.insert(key, entry);
            held.shrink_to(self.limit);
        }
        Ok(plan)
    }

    /// About how many bytes the plans take.
    pub fn bytes(&self) -> usize {
        lock(&self.held).bytes
    }
}

impl Held {
    fn find(&mut self, key: &Key) -> Option<Arc<Plan>> {
        self.clock += 1;
        let entry = self.plans.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.plan.clone())
    }

    fn shrink_to(&mut self, limit: usize) {
        while self.bytes > limit {
            let oldest = self.plans.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| self.plans.remove(&key)) else { break };
            self.bytes -= entry.bytes;
        }
    }
}
