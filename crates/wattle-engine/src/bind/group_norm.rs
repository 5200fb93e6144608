//! Normalisation over groups of channels of each sample, and its gradient: each group is one run of memory.

use wattle_graph::{DType, ops};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

/// Sums are formed in as many parts as the widest vectors have lanes, in the same order on every machine.
const LANES: usize = 16;

/// How a tensor `[N, C, d..]` falls into groups.
#[derive(Clone, Copy)]
struct Groups {
    /// Groups of one sample.
    count: usize,
    /// Channels of one group.
    channels: usize,
    /// Elements of one channel.
    plane: usize,
    epsilon: f32,
}

struct Forward(Groups);

struct Backward(Groups);

fn groups(site: &Site<'_>, op: &ops::GroupNormalization) -> Option<Groups> {
    let [_, c, ref spatial @ ..] = site.input(0).extents[..] else { return None };
    let count = op.groups.unwrap_or(c);
    let plane: usize = spatial.iter().product();
    let known = site.all(DType::F32) && count > 0 && c >= count && plane > 0;
    known.then(|| Groups { count, channels: c / count, plane, epsilon: op.epsilon })
}

pub(super) fn forward(site: &Site<'_>, op: &ops::GroupNormalization) -> Option<Bound> {
    Some(Bound::row_major(site, Forward(groups(site, op)?)))
}

pub(super) fn backward(site: &Site<'_>, op: &ops::GroupNormalizationGradient) -> Option<Bound> {
    let groups = groups(site, &op.forward)?;
    let samples = site.input(0).extents[0];
    Some(Bound::row_major(site, Backward(groups)).scratch(samples * groups.count * groups.sums()))
}

/// The sum of `f` over pairs of elements.
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| f(*a, *b)).sum();
    for (a, b) in left.zip(right) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f(*a, *b);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

impl Groups {
    /// Elements of one group.
    fn len(&self) -> usize {
        self.channels * self.plane
    }

    /// What is kept of a group: mean, inverse deviation, then for each channel the gradients of scale and bias.
    fn sums(&self) -> usize {
        2 + 2 * self.channels
    }

    /// Mean and `1 / sqrt(var + epsilon)` of a group.
    fn statistics(&self, x: &[f32]) -> (f32, f32) {
        let count = x.len() as f32;
        let mean = sum(x, x, |v, _| v) / count;
        let variance = sum(x, x, |v, _| (v - mean) * (v - mean)) / count;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }

    /// The first channel of group `index`, counted over all samples.
    fn first_channel(&self, index: usize) -> usize {
        index % self.count * self.channels
    }
}

impl Kernel for Forward {
    fn name(&self) -> String {
        "group_norm-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, scale, bias) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.input::<f32>(2)?);
        let groups = self.0;
        io.cpu.threads.for_each_piece(io.output::<f32>(0)?, groups.len(), |index, y| {
            let x = &x[index * groups.len()..][..groups.len()];
            let (mean, inv_std) = groups.statistics(x);
            let first = groups.first_channel(index);
            let planes = x.chunks_exact(groups.plane).zip(y.chunks_exact_mut(groups.plane));
            for (c, (x, y)) in planes.enumerate() {
                let factor = inv_std * scale[first + c];
                let shift = bias[first + c];
                y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * factor + shift);
            }
        });
        Ok(())
    }
}

impl Kernel for Backward {
    fn name(&self) -> String {
        "group_norm_gradient-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, scale, dy) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.input::<f32>(2)?);
        let groups = self.0;
        let sums = &mut io.scratch()?[..x.len() / groups.len() * groups.sums()];
        let of = |index: usize| index * groups.len()..(index + 1) * groups.len();
        io.cpu.threads.for_each_piece(sums, groups.sums(), |index, sums| {
            let (x, dy) = (&x[of(index)], &dy[of(index)]);
            let (mean, inv_std) = groups.statistics(x);
            (sums[0], sums[1]) = (mean, inv_std);
            let planes = x.chunks_exact(groups.plane).zip(dy.chunks_exact(groups.plane));
            for ((x, dy), sums) in planes.zip(sums[2..].chunks_exact_mut(2)) {
                sums[0] = sum(x, dy, |x, dy| (x - mean) * dy) * inv_std;
                sums[1] = sum(dy, dy, |dy, _| dy);
            }
        });
        let sums: &[f32] = sums;
        io.cpu.threads.for_each_piece(io.output::<f32>(0)?, groups.len(), |index, dx| {
            let (x, dy) = (&x[of(index)], &dy[of(index)]);
            let sums = &sums[index * groups.sums()..][..groups.sums()];
            let (mean, inv_std, first) = (sums[0], sums[1], groups.first_channel(index));
            let (mut along, mut level) = (0.0, 0.0);
            for (c, sums) in sums[2..].chunks_exact(2).enumerate() {
                along += sums[0] * scale[first + c];
                level += sums[1] * scale[first + c];
            }
            let count = groups.len() as f32;
            let (along, level) = (along / count * inv_std, level / count);
            let planes = x.chunks_exact(groups.plane).zip(dy.chunks_exact(groups.plane));
            for (c, ((x, dy), dx)) in planes.zip(dx.chunks_exact_mut(groups.plane)).enumerate() {
                let scale = scale[first + c];
                for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                    *dx = inv_std * (dy * scale - level - (x - mean) * along);
                }
            }
        });
        let (dscale, dbias) = (io.output::<f32>(1)?, io.output::<f32>(2)?);
        dscale.fill(0.0);
        dbias.fill(0.0);
        for (index, sums) in sums.chunks_exact(groups.sums()).enumerate() {
            let first = groups.first_channel(index);
            for (c, sums) in sums[2..].chunks_exact(2).enumerate() {
                dscale[first + c] += sums[0];
                dbias[first + c] += sums[1];
            }
        }
        Ok(())
    }
}
