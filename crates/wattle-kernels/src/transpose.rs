//! Permutation of axes, for any element type, and copies between strided layouts.

use crate::Cpu;
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;

/// Most axes of a permutation, after neighbours that stay neighbours are merged.
const AXES: usize = 8;
/// Side of the square blocks of a transposition: a block's lines fit the first-level cache.
const BLOCK: usize = 16;
/// Planes up to this number are interleaved one by one.
const FEW: usize = 4;
/// Elements of one task, roughly.
const PIECE: usize = 32 * 1024;

/// A permutation of a shape's axes, prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    axes: usize,
    /// Sizes of the result's axes.
    size: [usize; AXES],
    /// Steps in the input along the result's axes.
    step: [usize; AXES],
}

impl Permutation {
    /// The result's axis i is the input's axis `order[i]`; `None` if `order` is no permutation of the axes or more than
    /// eight axes remain after merging.
    pub fn new(shape: &[usize], order: &[usize]) -> Option<Self> {
        let mut seen = 0u64;
        if order.len() != shape.len() || shape.len() > 64 {
            return None;
        }
        let mut out = Permutation { axes: 0, size: [1; AXES], step: [1; AXES] };
        for &axis in order {
            if axis >= shape.len() || seen >> axis & 1 == 1 {
                return None;
            }
            seen |= 1 << axis;
            let (size, step) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
            if size == 1 {
                continue;
            }
            if let Some(last) = out.axes.checked_sub(1)
                && out.step[last] == step * size
            {
                out.size[last] *= size;
                out.step[last] = step;
                continue;
            }
            *out.size.get_mut(out.axes)? = size;
            out.step[out.axes] = step;
            out.axes += 1;
        }
        out.axes = out.axes.max(1);
        Some(out)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.size[..self.axes].iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes `from` with its axes permuted.
pub fn permute<T: Copy + Send + Sync>(cpu: &Cpu, permutation: &Permutation, from: &[T], to: &mut [T]) {
    let len = permutation.len();
    assert!(
        from.len() == len && to.len() == len,
        "{permutation:?} of {} elements to {}",
        from.len(),
        to.len()
    );
    if len == 0 {
        return;
    }
    let Permutation { axes, size, step } = *permutation;
    let last = axes - 1;
    let inner = size[last];
    if step[last] == 1 {
        // Whole rows move.
        let rows = (PIECE / inner).max(1);
        return cpu.threads.for_each_piece(to, rows * inner, |i, to| {
            for (j, to) in to.chunks_exact_mut(inner).enumerate() {
                let start = start(&size[..last], &step[..last], i * rows + j);
                to.copy_from_slice(&from[start..start + inner]);
            }
        });
    }
    if axes >= 2 && step[last - 1] == 1 && inner <= FEW {
        return interleave(cpu, permutation, from, to);
    }
    // The axis that is contiguous in the input: square blocks of it and the last axis use cache lines on both sides.
    let near = (0..last).find(|&i| step[i] == 1).expect("some axis is contiguous in the input");
    let to_step: usize = size[near + 1..axes].iter().product();
    let (mut other_size, mut other_step, mut other_to, mut others) = ([1; AXES], [0; AXES], [0; AXES], 0);
    for i in (0..last).filter(|&i| i != near) {
        (other_size[others], other_step[others]) = (size[i], step[i]);
        other_to[others] = size[i + 1..axes].iter().product();
        others += 1;
    }
    let count: usize = other_size[..others].iter().product();
    let strips = size[near].div_ceil(BLOCK);
    let shared = Shared::new(to);
    let group = (PIECE / (BLOCK * inner)).max(1);
    let tasks = count * strips;
    cpu.threads.for_each(tasks.div_ceil(group), |task| {
        for strip in task * group..tasks.min((task + 1) * group) {
            let (other, strip) = (strip / strips, strip % strips);
            let from_start = start(&other_size[..others], &other_step[..others], other);
            let to_start = start(&other_size[..others], &other_to[..others], other);
            let rows = strip * BLOCK..size[near].min((strip + 1) * BLOCK);
            for columns in (0..inner).step_by(BLOCK) {
                let columns = columns..inner.min(columns + BLOCK);
                if size_of::<T>() == size_of::<f32>() && rows.len() == BLOCK && columns.len() == BLOCK {
                    let start = from_start + rows.start + columns.start * step[last];
                    let from = &from[start..start + (BLOCK - 1) * step[last] + BLOCK];
                    let to = to_start + rows.start * to_step + columns.start;
                    let to = shared.pointer(to, (BLOCK - 1) * to_step + BLOCK);
                    // Elements of this size move as vectors do, bit for bit.
                    cpu.isa.run(Square {
                        from: from.as_ptr().cast(),
                        from_step: step[last],
                        to: to.cast(),
                        to_step,
                    });
                    continue;
                }
                for row in rows.clone() {
                    // SAFETY: (other, row, columns) names these elements of the result alone.
                    let to = unsafe { shared.slice(to_start + row * to_step + columns.start, columns.len()) };
                    for (to, column) in to.iter_mut().zip(columns.clone()) {
                        *to = from[from_start + row + column * step[last]];
                    }
                }
            }
        }
    });
}

/// Few planes that become the last axis, such as the colours of an image: `to[i * planes + p] = from[p * step + i]`.
fn interleave<T: Copy + Send + Sync>(cpu: &Cpu, permutation: &Permutation, from: &[T], to: &mut [T]) {
    let Permutation { axes, size, step } = *permutation;
    let (last, planes, len) = (axes - 1, size[axes - 1], size[axes - 2]);
    let run = (PIECE / planes).min(len);
    let runs = len.div_ceil(run);
    let others: usize = size[..last - 1].iter().product();
    let to = Shared::new(to);
    cpu.threads.for_each(others * runs, |task| {
        let (other, first) = (task / runs, task % runs * run);
        let count = run.min(len - first);
        let start = start(&size[..last - 1], &step[..last - 1], other) + first;
        // SAFETY: tasks have elements of their own.
        let to = unsafe { to.slice((other * len + first) * planes, count * planes) };
        let plane = |p: usize| &from[start + p * step[last]..][..count];
        match planes {
            2 => {
                let (a, b) = (plane(0), plane(1));
                to.chunks_exact_mut(2).zip(a).zip(b).for_each(|((to, a), b)| (to[0], to[1]) = (*a, *b));
            }
            3 => {
                let (a, b, c) = (plane(0), plane(1), plane(2));
                let pixels = to.chunks_exact_mut(3).zip(a).zip(b).zip(c);
                pixels.for_each(|(((to, a), b), c)| (to[0], to[1], to[2]) = (*a, *b, *c));
            }
            _ => {
                for p in 0..planes {
                    to[p..].iter_mut().step_by(planes).zip(plane(p)).for_each(|(to, x)| *to = *x);
                }
            }
        }
    });
}

/// Transposes [`BLOCK`] x [`BLOCK`] elements.
struct Square {
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
}

impl Kernel for Square {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(BLOCK.is_multiple_of(S::LANES)) };
        for k in (0..BLOCK).step_by(S::LANES) {
            for n in (0..BLOCK).step_by(S::LANES) {
                // SAFETY: whoever made this had BLOCK rows and columns on both sides.
                unsafe {
                    let from = self.from.add(n * self.from_step + k);
                    s.transpose(from, self.from_step, self.to.add(k * self.to_step + n), self.to_step);
                }
            }
        }
    }
}

/// The offset of the element with a given number in row-major order.
fn start(size: &[usize], step: &[usize], mut index: usize) -> usize {
    let mut start = 0;
    for (size, step) in size.iter().zip(step).rev() {
        start += index % size * step;
        index /= size;
    }
    start
}

/// The permutation from NCHW to NHWC for images of `channels` by `pixels`.
pub fn to_channels_last(batch: usize, channels: usize, pixels: usize) -> Permutation {
    Permutation::new(&[batch, channels, pixels], &[0, 2, 1]).expect("three axes")
}

/// The permutation from NHWC to NCHW.
pub fn to_channels_first(batch: usize, channels: usize, pixels: usize) -> Permutation {
    Permutation::new(&[batch, pixels, channels], &[0, 2, 1]).expect("three axes")
}

/// One side of a strided copy: where it starts and its step along each axis (negative runs backwards, 0 repeats).
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// The first element.
    pub start: usize,
    /// Step along each axis.
    pub steps: &'a [isize],
}

/// Copies `size` elements between two strided layouts (slices, concatenation, padding, expansion), on the calling
/// thread.
pub fn copy_strided<T: Copy>(size: &[usize], from: &[T], from_at: Strided, to: &mut [T], to_at: Strided) {
    assert!(size.len() == from_at.steps.len() && size.len() == to_at.steps.len(), "one step an axis");
    if size.contains(&0) {
        return;
    }
    let Some((&inner, outer)) = size.split_last() else {
        to[to_at.start] = from[from_at.start];
        return;
    };
    let last = outer.len();
    let (from_step, to_step) = (from_at.steps[last], to_at.steps[last]);
    for row in 0..outer.iter().product() {
        let (mut index, mut f, mut t) = (row, from_at.start as isize, to_at.start as isize);
        for axis in (0..last).rev() {
            let at = (index % outer[axis]) as isize;
            index /= outer[axis];
            f += at * from_at.steps[axis];
            t += at * to_at.steps[axis];
        }
        if (from_step, to_step) == (1, 1) {
            to[t as usize..t as usize + inner].copy_from_slice(&from[f as usize..f as usize + inner]);
        } else {
            for i in 0..inner as isize {
                to[(t + i * to_step) as usize] = from[(f + i * from_step) as usize];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cpus;

    #[test]
    fn permutations_move_every_element() {
        let cases: [(&[usize], &[usize]); 12] = [
            (&[5, 7], &[1, 0]),
            (&[33, 70], &[1, 0]),
            (&[2, 3, 4, 5], &[0, 2, 3, 1]),
            (&[2, 3, 4, 5], &[3, 2, 1, 0]),
            (&[2, 40, 3, 20], &[0, 2, 1, 3]),
            (&[2, 17, 19], &[0, 2, 1]),
            (&[6], &[0]),
            (&[1, 4, 1], &[2, 1, 0]),
            (&[3, 0], &[1, 0]),
            (&[2, 3, 50], &[0, 2, 1]),
            (&[2, 20000], &[1, 0]),
            (&[2, 4, 3, 33], &[2, 0, 3, 1]),
        ];
        for (shape, order) in cases {
            let len: usize = shape.iter().product();
            let from: Vec<u32> = (0..len as u32).collect();
            let out: Vec<usize> = order.iter().map(|&i| shape[i]).collect();
            let want: Vec<u32> = (0..len)
                .map(|mut k| {
                    let mut index = vec![0; shape.len()];
                    for i in (0..out.len()).rev() {
                        index[order[i]] = k % out[i];
                        k /= out[i];
                    }
                    index.iter().zip(shape).fold(0, |a, (i, s)| a * s + i) as u32
                })
                .collect();
            for cpu in cpus().iter().flatten() {
                let mut to = vec![u32::MAX; len];
                permute(cpu, &Permutation::new(shape, order).unwrap(), &from, &mut to);
                assert_eq!(to, want, "{shape:?} {order:?}");
            }
        }
        assert_eq!(Permutation::new(&[2, 2], &[0, 0]), None);
    }

    #[test]
    fn strided_copies_slice_and_reverse() {
        let from: Vec<i64> = (0..12).collect();
        let mut to = [0i64; 4];
        // Rows 2 and 0, columns 3 and 1 of a 3 x 4 matrix.
        let (from_at, to_at) =
            (Strided { start: 11, steps: &[-8, -2] }, Strided { start: 0, steps: &[2, 1] });
        copy_strided(&[2, 2], &from, from_at, &mut to, to_at);
        assert_eq!(to, [11, 9, 3, 1]);
    }
}
