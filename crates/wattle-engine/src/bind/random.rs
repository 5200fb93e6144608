//! What is drawn: random numbers and dropout, in row-major order.

use wattle_graph::{DType, Operator, ops, ops::RandomKind};
use wattle_kernels::random::{self, Distribution};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

/// The step that operand `index` holds.
fn step(io: &Io<'_>, index: usize, float: bool) -> Result<u64, EngineError> {
    Ok(if float { io.input::<f32>(index)?[0] as i64 } else { io.input::<i64>(index)?[0] } as u64)
}

struct Random {
    op: ops::Random,
    distribution: Distribution,
    float_step: bool,
}

pub(super) fn random(site: &Site<'_>, op: &ops::Random) -> Option<Bound> {
    let distribution = match op.kind {
        RandomKind::Uniform { low, high } => Distribution::Uniform { low, high },
        RandomKind::Normal { mean, deviation } => Distribution::Normal { mean, deviation },
        RandomKind::Gumbel => Distribution::Gumbel,
        RandomKind::Bernoulli { probability } => {
            Distribution::Bernoulli { threshold: RandomKind::threshold(probability) }
        }
    };
    let float_step = site.input(1).dtype == DType::F32;
    let kernel = Random { op: op.clone(), distribution, float_step };
    // Of `like`, only the shape matters.
    (op.dtype == DType::F32 && site.input(1).dtype != DType::F64)
        .then(|| Bound::row_major(site, kernel).takes(2))
}

impl Kernel for Random {
    fn name(&self) -> String {
        format!("{}-f32", self.op.name().to_lowercase())
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let key = self.op.key(io.input::<i64>(0)?[0]);
        random::random(io.cpu, self.distribution, key, step(io, 1, self.float_step)?, io.output(0)?);
        Ok(())
    }
}

struct Dropout {
    op: ops::Dropout,
    float_step: bool,
}

pub(super) fn dropout(site: &Site<'_>, op: &ops::Dropout) -> Option<Bound> {
    let float_step = site.input(2).dtype == DType::F32;
    let kernel = Dropout { op: op.clone(), float_step };
    (site.input(0).dtype == DType::F32 && site.input(2).dtype != DType::F64)
        .then(|| Bound::row_major(site, kernel))
}

impl Kernel for Dropout {
    fn name(&self) -> String {
        "dropout-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (key, step) = (self.op.key(io.input::<i64>(1)?[0]), step(io, 2, self.float_step)?);
        let scale = (1.0 / (1.0 - f64::from(self.op.ratio))) as f32;
        random::dropout(io.cpu, self.op.threshold(), scale, key, step, io.input(0)?, io.output(0)?);
        Ok(())
    }
}
