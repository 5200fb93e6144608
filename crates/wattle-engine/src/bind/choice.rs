//! Conversions, comparisons and choices: exact element-wise operators over several element types.

use bytemuck::Pod;
use wattle_graph::DType;
use wattle_graph::ops::{self, Comparison};
use wattle_kernels::quantize::floats;

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Operand, Site};

/// Elements of one task.
const PIECE: usize = 16 * 1024;

/// Computes `y[i]` as `f(i)` on all threads.
fn each<T: Send>(io: &Io<'_>, y: &mut [T], f: impl Fn(usize) -> T + Sync) {
    io.cpu.threads.for_each_piece(y, PIECE, |piece, y| {
        y.iter_mut().enumerate().for_each(|(i, y)| *y = f(piece * PIECE + i));
    });
}

/// Which element of an operand belongs to an element of the result.
enum Source {
    Same,
    One,
    /// Counted out when planning.
    Listed(Vec<usize>),
}

impl Source {
    fn new(operand: &Operand<'_>, to: &[usize]) -> Source {
        if operand.extents == to {
            Source::Same
        } else if operand.len() == 1 {
            Source::One
        } else {
            Source::Listed(ops::broadcast_indices(&operand.extents, to))
        }
    }

    fn at(&self, i: usize) -> usize {
        match self {
            Source::Same => i,
            Source::One => 0,
            Source::Listed(list) => list[i],
        }
    }
}

struct Cast {
    from: DType,
    to: DType,
}

pub(super) fn cast(site: &Site<'_>, op: &ops::Cast) -> Option<Bound> {
    let known = |t: DType| matches!(t, DType::F32 | DType::I32 | DType::I64 | DType::U8 | DType::Bool);
    let x = site.input(0);
    let kernel = Cast { from: x.dtype, to: op.to };
    (known(x.dtype) && known(op.to)).then(|| Bound::uniform(site, x.layout, kernel))
}

/// Converts elements that `read` makes numbers of: floats truncate and saturate, integers wrap.
fn convert<T: Pod + Sync>(
    io: &Io<'_>,
    to: DType,
    float: impl Fn(T) -> f32 + Sync,
    integer: Option<impl Fn(T) -> i64 + Sync>,
) -> Result<(), EngineError> {
    let x = io.input::<T>(0)?;
    match (to, integer) {
        (DType::F32, _) => each(io, io.output(0)?, |i| float(x[i])),
        (DType::I32, Some(integer)) => each(io, io.output(0)?, |i| integer(x[i]) as i32),
        (DType::I64, Some(integer)) => each(io, io.output(0)?, |i| integer(x[i])),
        (DType::U8, Some(integer)) => each(io, io.output(0)?, |i| integer(x[i]) as u8),
        (DType::I32, None) => each(io, io.output(0)?, |i| float(x[i]) as i32),
        (DType::I64, None) => each(io, io.output(0)?, |i| float(x[i]) as i64),
        (DType::U8, None) => each(io, io.output(0)?, |i| float(x[i]) as u8),
        (_, Some(integer)) => each(io, io.output(0)?, |i| u8::from(integer(x[i]) != 0)),
        (_, None) => each(io, io.output(0)?, |i| u8::from(float(x[i]) != 0.0)),
    }
    Ok(())
}

impl Kernel for Cast {
    fn name(&self) -> String {
        format!("cast-{}-{}", self.from, self.to)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.from {
            DType::I32 if self.to == DType::F32 => floats(io.cpu, io.input(0)?, io.output(0)?),
            DType::F32 => return convert(io, self.to, |x: f32| x, None::<fn(f32) -> i64>),
            DType::I32 => return convert(io, self.to, |x: i32| x as f32, Some(i64::from)),
            DType::I64 => return convert(io, self.to, |x: i64| x as f32, Some(|x| x)),
            _ => return convert(io, self.to, f32::from, Some(|x: u8| i64::from(x))),
        }
        Ok(())
    }
}

struct Compare {
    comparison: Comparison,
    dtype: DType,
    sources: [Source; 2],
}

pub(super) fn compare(site: &Site<'_>, op: &ops::Compare) -> Option<Bound> {
    let dtype = site.input(0).dtype;
    let known = matches!(dtype, DType::F32 | DType::I32 | DType::I64 | DType::U8 | DType::Bool);
    let sources = [0, 1].map(|i| Source::new(site.input(i), site.output(0)));
    let kernel = Compare { comparison: op.comparison, dtype, sources };
    known.then(|| Bound::row_major(site, kernel))
}

impl Compare {
    fn run_as<T: Pod + Sync + PartialOrd + Default>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (a, b, y) = (io.input::<T>(0)?, io.input::<T>(1)?, io.output::<u8>(0)?);
        let pair = |i| (a[self.sources[0].at(i)], b[self.sources[1].at(i)]);
        let truth = |x: T| x != T::default();
        let mut ask = |holds: fn(T, T) -> bool| {
            each(io, y, |i| {
                let (a, b) = pair(i);
                u8::from(holds(a, b))
            });
        };
        match self.comparison {
            Comparison::Equal => ask(|a, b| a == b),
            Comparison::Greater => ask(|a, b| a > b),
            Comparison::GreaterOrEqual => ask(|a, b| a >= b),
            Comparison::Less => ask(|a, b| a < b),
            Comparison::LessOrEqual => ask(|a, b| a <= b),
            Comparison::And => each(io, y, |i| u8::from(truth(pair(i).0) && truth(pair(i).1))),
            Comparison::Or => each(io, y, |i| u8::from(truth(pair(i).0) || truth(pair(i).1))),
            Comparison::Xor => each(io, y, |i| u8::from(truth(pair(i).0) != truth(pair(i).1))),
        }
        Ok(())
    }
}

impl Kernel for Compare {
    fn name(&self) -> String {
        format!("compare-{}", self.dtype)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.dtype {
            DType::F32 => self.run_as::<f32>(io),
            DType::I32 => self.run_as::<i32>(io),
            DType::I64 => self.run_as::<i64>(io),
            _ => self.run_as::<u8>(io),
        }
    }
}

struct Not;

pub(super) fn not(site: &Site<'_>) -> Bound {
    Bound::uniform(site, site.input(0).layout, Not)
}

impl Kernel for Not {
    fn name(&self) -> String {
        "not".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let x = io.input::<u8>(0)?;
        each(io, io.output(0)?, |i| u8::from(x[i] == 0));
        Ok(())
    }
}

struct Where {
    bytes: usize,
    sources: [Source; 3],
}

pub(super) fn choose(site: &Site<'_>) -> Option<Bound> {
    let bytes = site.input(1).dtype.size();
    let sources = [0, 1, 2].map(|i| Source::new(site.input(i), site.output(0)));
    [1, 4, 8].contains(&bytes).then(|| Bound::row_major(site, Where { bytes, sources }))
}

impl Where {
    fn run_as<T: Pod + Send + Sync>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (condition, a, b) = (io.input::<u8>(0)?, io.input::<T>(1)?, io.input::<T>(2)?);
        let [of_condition, of_a, of_b] = &self.sources;
        each(io, io.output(0)?, |i| {
            if condition[of_condition.at(i)] != 0 { a[of_a.at(i)] } else { b[of_b.at(i)] }
        });
        Ok(())
    }
}

impl Kernel for Where {
    fn name(&self) -> String {
        format!("where-{}byte", self.bytes)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.bytes {
            1 => self.run_as::<u8>(io),
            4 => self.run_as::<u32>(io),
            _ => self.run_as::<u64>(io),
        }
    }
}
