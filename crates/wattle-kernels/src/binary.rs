//! Functions of two tensors, with broadcasting.

use crate::Cpu;
use crate::simd::vectorised;

/// Most axes of a broadcast, after axes that can be merged are.
const AXES: usize = 8;
/// Elements of one task, roughly.
const PIECE: usize = 16 * 1024;

/// A function of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
    /// x, or x y where x is below 0.
    PRelu,
}

/// How two shapes meet: the axes of the result and each operand's steps along them, merged where possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broadcast {
    axes: usize,
    size: [usize; AXES],
    a: [usize; AXES],
    b: [usize; AXES],
}

impl Broadcast {
    /// Two tensors of one shape with `len` elements.
    pub fn same(len: usize) -> Self {
        Self::new(&[len], &[len]).expect("a shape meets itself")
    }

    /// The broadcast of two shapes by ONNX's rule (axes aligned at the end, 1 stretches); `None` if they do not meet or
    /// need more than eight axes.
    pub fn new(a: &[usize], b: &[usize]) -> Option<Self> {
        let rank = a.len().max(b.len());
        let dim = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        // Axes from the last to the first, merged as they come.
        let mut merged = [(1usize, 0usize, 0usize); AXES];
        let (mut axes, mut a_step, mut b_step) = (0usize, 1, 1);
        for i in (0..rank).rev() {
            let (m, n) = (dim(a, i), dim(b, i));
            if m != n && m != 1 && n != 1 {
                return None;
            }
            let size = if m == 1 { n } else { m };
            let step = (size, if m == 1 { 0 } else { a_step }, if n == 1 { 0 } else { b_step });
            a_step *= m;
            b_step *= n;
            if size == 1 {
                continue;
            }
            if let Some((last, x, y)) = axes.checked_sub(1).map(|k| merged[k])
                && step.1 == x * last
                && step.2 == y * last
            {
                merged[axes - 1].0 *= size;
                continue;
            }
            *merged.get_mut(axes)? = step;
            axes += 1;
        }
        let mut out = Broadcast { axes: axes.max(1), size: [1; AXES], a: [0; AXES], b: [0; AXES] };
        for (i, (size, a, b)) in merged[..axes].iter().rev().enumerate() {
            (out.size[i], out.a[i], out.b[i]) = (*size, *a, *b);
        }
        Some(out)
    }

    /// Elements of the result.
    pub fn len(&self) -> usize {
        self.size[..self.axes].iter().product()
    }

    /// Whether the result has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of the first operand that are read.
    fn extent(&self, steps: &[usize; AXES]) -> usize {
        if self.is_empty() {
            return 0;
        }
        1 + (0..self.axes).map(|i| (self.size[i] - 1) * steps[i]).sum::<usize>()
    }

    /// Calls `f(piece of y, start in a, start in b)` for each innermost row, on all threads.
    fn rows(&self, cpu: &Cpu, y: &mut [f32], f: impl Fn(&mut [f32], usize, usize) + Sync) {
        let inner = self.size[self.axes - 1];
        let (a_step, b_step) = (self.a[self.axes - 1], self.b[self.axes - 1]);
        if self.axes == 1 {
            return cpu.threads.for_each_piece(y, PIECE, |i, y| f(y, i * PIECE * a_step, i * PIECE * b_step));
        }
        let count = (PIECE / inner).max(1);
        cpu.threads.for_each_piece(y, count * inner, |i, y| {
            for (j, y) in y.chunks_exact_mut(inner).enumerate() {
                let (mut row, mut a, mut b) = (i * count + j, 0, 0);
                for axis in (0..self.axes - 1).rev() {
                    let at = row % self.size[axis];
                    row /= self.size[axis];
                    a += at * self.a[axis];
                    b += at * self.b[axis];
                }
                f(y, a, b);
            }
        });
    }
}

/// `y = f(a, b)`.
pub fn binary(cpu: &Cpu, f: Binary, broadcast: &Broadcast, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert_eq!(y.len(), broadcast.len(), "result of {broadcast:?}");
    assert!(a.len() >= broadcast.extent(&broadcast.a) && b.len() >= broadcast.extent(&broadcast.b));
    let last = broadcast.axes - 1;
    broadcast.rows(cpu, y, |y, i, j| {
        let a = &a[i..][..if broadcast.a[last] == 0 { 1 } else { y.len() }];
        let b = &b[j..][..if broadcast.b[last] == 0 { 1 } else { y.len() }];
        apply(cpu.isa, f, a, b, y);
    });
}

/// `a = f(a, b)`; the result must have the shape of `a`.
pub fn binary_in_place(cpu: &Cpu, f: Binary, broadcast: &Broadcast, a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), broadcast.len(), "result of {broadcast:?}");
    assert_eq!(
        a.len(),
        broadcast.extent(&broadcast.a),
        "the result has another shape than the first operand"
    );
    assert!(b.len() >= broadcast.extent(&broadcast.b));
    let last = broadcast.axes - 1;
    broadcast.rows(cpu, a, |a, _, j| {
        let b = &b[j..][..if broadcast.b[last] == 0 { 1 } else { a.len() }];
        apply_in_place(cpu.isa, f, a, b);
    });
}

/// One loop for each function.
macro_rules! dispatch {
    ($f:expr, $each:ident) => {
        match $f {
            Binary::Add => $each!(|x, y| x + y),
            Binary::Sub => $each!(|x, y| x - y),
            Binary::Mul => $each!(|x, y| x * y),
            Binary::Div => $each!(|x, y| x / y),
            Binary::Max => $each!(|x, y| if x > y || x.is_nan() { x } else { y }),
            Binary::Min => $each!(|x, y| if x < y || x.is_nan() { x } else { y }),
            Binary::Pow => $each!(|x, y| f32::powf(x, y)),
            Binary::PRelu => $each!(|x, y| if x < 0.0 { x * y } else { x }),
        }
    };
}

vectorised! {
    fn apply<'a>(s; f: Binary, a: &'a [f32], b: &'a [f32], out: &'a mut [f32]) {
        macro_rules! each {
            (|$x:ident, $y:ident| $e:expr) => {
                if a.len() == 1 {
                    let $x = a[0];
                    if b.len() == 1 {
                        let $y = b[0];
                        out.fill($e);
                    } else {
                        for (o, $y) in out.iter_mut().zip(b.iter().copied()) {
                            *o = $e;
                        }
                    }
                } else if b.len() == 1 {
                    let $y = b[0];
                    for (o, $x) in out.iter_mut().zip(a.iter().copied()) {
                        *o = $e;
                    }
                } else {
                    for ((o, $x), $y) in out.iter_mut().zip(a.iter().copied()).zip(b.iter().copied()) {
                        *o = $e;
                    }
                }
            };
        }
        dispatch!(f, each)
    }
}

vectorised! {
    fn apply_in_place<'a>(s; f: Binary, a: &'a mut [f32], b: &'a [f32]) {
        macro_rules! each {
            (|$x:ident, $y:ident| $e:expr) => {
                if b.len() == 1 {
                    let $y = b[0];
                    for o in a.iter_mut() {
                        let $x = *o;
                        *o = $e;
                    }
                } else {
                    for (o, $y) in a.iter_mut().zip(b.iter().copied()) {
                        let $x = *o;
                        *o = $e;
                    }
                }
            };
        }
        dispatch!(f, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, cpus};

    fn oracle(f: Binary, x: f32, y: f32) -> f32 {
        match f {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            Binary::Max => x.max(y),
            Binary::Min => x.min(y),
            Binary::Pow => x.powf(y),
            Binary::PRelu if x < 0.0 => x * y,
            Binary::PRelu => x,
        }
    }

    #[test]
    fn broadcasts_match_index_arithmetic() {
        let numbers = &mut Numbers::new(1);
        let shapes: [(&[usize], &[usize]); 9] = [
            (&[7, 33], &[7, 33]),
            (&[2, 3, 17], &[17]),
            (&[2, 3, 17], &[]),
            (&[1], &[2, 3]),
            (&[2, 3, 4, 5], &[3, 1, 1]),
            (&[2, 1, 4], &[1, 3, 1]),
            (&[5, 1], &[1, 40]),
            (&[3, 0, 2], &[2]),
            (&[2, 1, 2, 1, 2], &[1, 3, 1, 3, 1]),
        ];
        for (a_shape, b_shape) in shapes {
            let broadcast = Broadcast::new(a_shape, b_shape).unwrap();
            let rank = a_shape.len().max(b_shape.len());
            let dim = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
            let out: Vec<usize> = (0..rank)
                .map(|i| if dim(a_shape, i) == 1 { dim(b_shape, i) } else { dim(a_shape, i) })
                .collect();
            let a = numbers.take(a_shape.iter().product());
            let b = numbers.take(b_shape.iter().product());
            let at = |s: &[usize], mut k: usize| {
                let (mut index, mut step) = (0, 1);
                for i in (0..rank).rev() {
                    let d = dim(s, i);
                    index += if d == 1 { 0 } else { k % out[i] * step };
                    k /= out[i];
                    step *= d;
                }
                index
            };
            use Binary::*;
            for f in [Add, Sub, Mul, Div, Max, Min, PRelu] {
                let len: usize = out.iter().product();
                let want: Vec<f32> =
                    (0..len).map(|k| oracle(f, a[at(a_shape, k)], b[at(b_shape, k)])).collect();
                for cpu in cpus().iter().flatten() {
                    let mut y = vec![f32::NAN; len];
                    binary(cpu, f, &broadcast, &a, &b, &mut y);
                    assert_eq!(y, want, "{f:?} {a_shape:?} {b_shape:?}");
                    if a.len() == len {
                        let mut y = a.clone();
                        binary_in_place(cpu, f, &broadcast, &mut y, &b);
                        assert_eq!(y, want, "in place {f:?} {a_shape:?} {b_shape:?}");
                    }
                }
            }
        }
        assert_eq!(Broadcast::new(&[2, 3], &[2]), None);
    }

    #[test]
    fn max_and_min_keep_nan() {
        for cpu in cpus().iter().flatten() {
            for f in [Binary::Max, Binary::Min] {
                let mut y = [0.0; 2];
                binary(cpu, f, &Broadcast::same(2), &[f32::NAN, 1.0], &[1.0, f32::NAN], &mut y);
                assert!(y.iter().all(|y| y.is_nan()));
            }
        }
    }
}
