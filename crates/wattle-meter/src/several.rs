//! Several energy sources side by side, as one: the processors' and the graphics cards'.

use std::time::Duration;

use crate::account::Split;
use crate::backend::{Backend, Domain, Moment, Reading};
use crate::{Boundary, WarningKind};

/// The sources, the processors' first; their domains must not overlap.
pub(crate) struct Several {
    sources: Vec<Box<dyn Backend>>,
    domains: Vec<Domain>,
    readings: Vec<Reading>,
}

impl Several {
    /// At least one source.
    pub(crate) fn new(sources: Vec<Box<dyn Backend>>) -> Self {
        let domains: Vec<Domain> = sources.iter().flat_map(|s| s.domains().iter().cloned()).collect();
        let readings = vec![Reading::default(); domains.len()];
        Several { sources, domains, readings }
    }
}

impl Backend for Several {
    fn name(&self) -> &'static str {
        self.sources[0].name()
    }

    fn boundary(&self) -> Boundary {
        let first = self.sources[0].boundary();
        if self.sources.iter().all(|s| s.boundary() == first) { first } else { Boundary::Mixed }
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        self.readings.clear();
        for source in &mut self.sources {
            self.readings.extend_from_slice(source.read(now));
        }
        &self.readings
    }

    fn split(&self) -> Option<Split> {
        self.sources[0].split()
    }

    fn covered(&self) -> Duration {
        self.sources.iter().map(|s| s.covered()).min().unwrap_or_default()
    }

    fn shortest(&self) -> Duration {
        self.sources.iter().map(|s| s.shortest()).max().unwrap_or_default()
    }

    fn warnings(&self) -> Vec<WarningKind> {
        self.sources.iter().flat_map(|s| s.warnings()).collect()
    }
}
