//! Policies: which network learns at which step.
//!
//! All networks of a policy see one set of parameters; each reads and writes its own windows of it.

use std::fmt;
use std::sync::Arc;

use wattle_data::random::{Purpose, Stream};

use crate::step_graph::StepGraph;

/// Chooses the network of every step.
pub trait StepPolicy: Send + Sync {
    /// The network that learns at this step, counted from 0. A function of the step alone: a training that is resumed asks
    /// again. The same network is the same `Arc`, which is what is planned once.
    fn step(&self, step: u64) -> Arc<StepGraph>;

    /// What decides the choice; it enters the keys of runs.
    fn fingerprint(&self) -> String;
}

/// One network at every step.
#[derive(Clone)]
pub struct Always(pub Arc<StepGraph>);

impl StepPolicy for Always {
    fn step(&self, _: u64) -> Arc<StepGraph> {
        self.0.clone()
    }

    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
}

/// One network after the other: each from its step on, the first from the beginning.
#[derive(Clone)]
pub struct InTurn(Vec<(u64, Arc<StepGraph>)>);

impl InTurn {
    /// Networks and the steps they begin at. Whatever the first begins at, it is step 0; `None` without networks.
    pub fn new(mut networks: Vec<(u64, Arc<StepGraph>)>) -> Option<InTurn> {
        networks.sort_by_key(|(step, _)| *step);
        networks.first_mut()?.0 = 0;
        Some(InTurn(networks))
    }
}

impl StepPolicy for InTurn {
    fn step(&self, step: u64) -> Arc<StepGraph> {
        let at = self.0.partition_point(|(begin, _)| *begin <= step).max(1) - 1;
        self.0[at].1.clone()
    }

    fn fingerprint(&self) -> String {
        let each: Vec<String> =
            self.0.iter().map(|(step, network)| format!("{} from {step}", network.fingerprint())).collect();
        format!("in turn: {}", each.join(", "))
    }
}

/// A network drawn anew at every step, all with the same chance.
#[derive(Clone)]
pub struct Sampled {
    networks: Vec<Arc<StepGraph>>,
    seed: u64,
}

impl Sampled {
    /// Draws from these networks; `None` without any.
    pub fn new(networks: Vec<Arc<StepGraph>>, seed: u64) -> Option<Sampled> {
        (!networks.is_empty()).then_some(Sampled { networks, seed })
    }
}

impl StepPolicy for Sampled {
    fn step(&self, step: u64) -> Arc<StepGraph> {
        let mut stream = Stream::new(self.seed, Purpose::Network, &[step]);
        self.networks[stream.below(self.networks.len() as u64) as usize].clone()
    }

    fn fingerprint(&self) -> String {
        let each: Vec<String> = self.networks.iter().map(|network| network.fingerprint()).collect();
        format!("sampled by {} from {}", self.seed, each.join(", "))
    }
}

impl fmt::Debug for dyn StepPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}
