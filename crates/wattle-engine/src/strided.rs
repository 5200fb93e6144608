//! Windows in memory: the part of a stored tensor that a parameter shows, gathered before use and scattered after.

use bytemuck::Pod;
use wattle_graph::{AxisWindow, DType, Window, strides};

use crate::error::EngineError;
use crate::kernel::{Io, Kernel};

/// Where the elements of a window lie in its tensor: runs of neighbours, at every sum of an outer and an inner start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strided {
    /// Starts over the axes before the last that the window cuts.
    outer: Vec<usize>,
    /// Starts within the last axis that the window cuts.
    inner: Vec<usize>,
    /// Elements of a run.
    run: usize,
    /// Bytes of an element.
    size: usize,
}

impl Strided {
    /// The runs of `window` in a tensor of shape `full`, which it fits.
    pub fn new(window: &Window, full: &[usize], dtype: DType) -> Strided {
        let axes = window.axes();
        let last = axes.iter().rposition(|a| *a != AxisWindow::All).unwrap_or(0);
        let strides = strides(full);
        let starts = |axis: usize| -> Vec<usize> {
            let stride = strides[axis];
            match axes.get(axis) {
                None | Some(AxisWindow::All) => (0..full[axis]).map(|i| i * stride).collect(),
                Some(AxisWindow::Range(start, end)) => (*start..*end).map(|i| i * stride).collect(),
                Some(AxisWindow::Indices(list)) => list.iter().map(|i| i * stride).collect(),
            }
        };
        let mut outer = vec![0];
        for axis in 0..last {
            let along = starts(axis);
            outer = outer.iter().flat_map(|a| along.iter().map(move |b| a + b)).collect();
        }
        let stride = strides.get(last).copied().unwrap_or(1);
        let (inner, run) = match axes.get(last) {
            Some(AxisWindow::Range(start, end)) => (vec![start * stride], (end - start) * stride),
            Some(AxisWindow::Indices(list)) => (list.iter().map(|i| i * stride).collect(), stride),
            None | Some(AxisWindow::All) => (vec![0], full.iter().product()),
        };
        Strided { outer, inner, run, size: dtype.size() }
    }

    /// Elements of the window.
    fn len(&self) -> usize {
        self.outer.len() * self.inner.len() * self.run
    }

    fn starts(&self) -> impl Iterator<Item = usize> {
        self.outer.iter().flat_map(|a| self.inner.iter().map(move |b| a + b))
    }

    fn gather<T: Pod>(&self, whole: &[T], part: &mut [T]) {
        for (part, start) in part[..self.len()].chunks_exact_mut(self.run.max(1)).zip(self.starts()) {
            part.copy_from_slice(&whole[start..start + self.run]);
        }
    }

    fn scatter<T: Pod>(&self, part: &[T], whole: &mut [T]) {
        for (part, start) in part[..self.len()].chunks_exact(self.run.max(1)).zip(self.starts()) {
            whole[start..start + self.run].copy_from_slice(part);
        }
    }

    /// Reads the window of operand 0 into result 0.
    pub fn read(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.size {
            1 => self.gather(io.input::<u8>(0)?, io.output(0)?),
            2 => self.gather(io.input::<u16>(0)?, io.output(0)?),
            4 => self.gather(io.input::<u32>(0)?, io.output(0)?),
            _ => self.gather(io.input::<u64>(0)?, io.output(0)?),
        }
        Ok(())
    }

    /// Writes operand 0 to the window of result 0, whose other elements stay as they are.
    pub fn write(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.size {
            1 => self.scatter(io.input::<u8>(0)?, io.output(0)?),
            2 => self.scatter(io.input::<u16>(0)?, io.output(0)?),
            4 => self.scatter(io.input::<u32>(0)?, io.output(0)?),
            _ => self.scatter(io.input::<u64>(0)?, io.output(0)?),
        }
        Ok(())
    }
}

/// The step that reads a window before its first use.
pub(crate) struct ReadWindow(pub Strided);

impl Kernel for ReadWindow {
    fn name(&self) -> String {
        "window-read".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        self.0.read(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_graph::AxisWindow::{All, Indices, Range};

    #[test]
    fn runs_are_the_positions_of_the_window() {
        let full = [3, 4, 5];
        for axes in [
            vec![],
            vec![Range(1, 3)],
            vec![Range(0, 2), Range(1, 3)],
            vec![All, Indices(vec![3, 0])],
            vec![Indices(vec![2, 0]), All, Range(1, 4)],
            vec![All, All, Indices(vec![4, 1, 2])],
            vec![Range(2, 2), Range(0, 1)],
        ] {
            let window = Window::new(axes);
            let strided = Strided::new(&window, &full, DType::F32);
            let positions = window.positions(&full).expect("it fits");
            let whole: Vec<u32> = (0..60).collect();
            let mut part = vec![0; positions.len()];
            strided.gather(&whole, &mut part);
            assert_eq!(part, positions.iter().map(|&p| p as u32).collect::<Vec<_>>(), "{window}");
            let mut back = vec![0; 60];
            strided.scatter(&part, &mut back);
            let expected: Vec<u32> = whole.iter().map(|i| if part.contains(i) { *i } else { 0 }).collect();
            assert_eq!(back, expected, "{window}");
        }
    }
}
