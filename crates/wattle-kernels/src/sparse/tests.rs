//! Sparse products against sums in f64: every instruction set, 1, 2 and 7 threads, uniform and skewed masks.

use super::*;
use crate::conv::ConvShape;
use crate::elementwise::Unary;
use crate::gemm::Epilogue;
use crate::testing::{Numbers, assert_close, cpus};
use crate::{Activation, Cpu};

/// A matrix with about this share of non-zeros. A skewed one has full rows, empty rows and empty columns.
fn matrix(
    numbers: &mut Numbers,
    rows: usize,
    columns: usize,
    density: f64,
    height: usize,
    skew: bool,
) -> Vec<f32> {
    let mut w = numbers.take(rows * columns);
    let mut keep = vec![false; rows.div_ceil(height) * columns];
    keep.iter_mut().for_each(|k| *k = (numbers.next() % 10_000) as f64 <= density * 10_000.0 - 1.0);
    for (i, w) in w.iter_mut().enumerate() {
        let (row, column) = (i / columns, i % columns);
        let kept = keep[row / height * columns + column];
        let kept = match skew {
            true => (kept || row % 11 == 3) && row % 5 != 1 && column % 3 != 2,
            false => kept,
        };
        *w = if kept { *w + 2.0 } else { 0.0 };
    }
    w
}

fn activated(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Clip { low, high } => x.clamp(low as f64, high as f64),
        Activation::Unary(Unary::Tanh) => x.tanh(),
        _ => x,
    }
}

/// Runs on every instruction set and thread count, and checks closeness and equal bits.
fn agree(want: &[f64], what: &str, run: impl Fn(&Cpu) -> Vec<f32>) {
    for group in cpus() {
        let mut first: Option<Vec<f32>> = None;
        for cpu in &group {
            let y = run(cpu);
            assert_close(&y, want, 1e-5, &format!("{what} {}", cpu.isa.name()));
            match &first {
                None => first = Some(y),
                Some(f) => assert_eq!(f, &y, "bits depend on the number of threads: {what}"),
            }
        }
    }
}

#[test]
fn products_match_the_oracle_in_every_arrangement() {
    let numbers = &mut Numbers::new(11);
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::Clip { low: -0.5, high: 0.5 },
        Activation::Unary(Unary::Tanh),
    ];
    for i in 0..48 {
        let rows = numbers.pick(&[1, 3, 16, 17, 64, 70]);
        let columns = numbers.pick(&[1, 5, 33, 100, 130]);
        let (images, positions) = numbers.pick(&[(1, 1), (1, 15), (1, 64), (2, 49), (1, 130), (3, 16)]);
        let density = numbers.pick(&[0.0, 0.05, 0.1, 0.5, 1.0]);
        let height = if i % 3 == 0 { HEIGHT } else { 1 };
        let (x_as, y_as) = numbers.pick(&[
            (Activations::Rows, Activations::Rows),
            (Activations::Rows, Activations::Columns),
            (Activations::Columns, Activations::Rows),
            (Activations::Columns, Activations::Columns),
        ]);
        let w = matrix(numbers, rows, columns, density, height, i % 2 == 1);
        let (x, bias) = (numbers.take(images * columns * positions), numbers.take(rows));
        let residual = numbers.take(images * rows * positions);
        let e = Epilogue {
            bias: (i % 4 != 1).then_some(&*bias),
            residual: (i % 4 > 1).then_some(&*residual),
            activation: activations[i % 7 % 4],
            ..Default::default()
        };
        let at = |a: Activations, image: usize, feature: usize, position: usize, features: usize| match a {
            Activations::Rows => (image * positions + position) * features + feature,
            Activations::Columns => (image * features + feature) * positions + position,
        };
        let mut want = vec![0.0; images * rows * positions];
        for image in 0..images {
            for p in 0..positions {
                for r in 0..rows {
                    let out = at(y_as, image, r, p, rows);
                    let sum: f64 = (0..columns)
                        .map(|c| w[r * columns + c] as f64 * x[at(x_as, image, c, p, columns)] as f64)
                        .sum();
                    let sum = sum + e.bias.map_or(0.0, |b| b[r] as f64);
                    want[out] = activated(sum + e.residual.map_or(0.0, |x| x[out] as f64), e.activation);
                }
            }
        }
        let shape = Product { images, positions, x: x_as, y: y_as };
        let what = format!("{rows}x{columns} density {density} height {height} {shape:?} {:?}", e.activation);
        agree(&want, &what, |cpu| {
            // Few columns a block, so that rows span several.
            let cut = Cut { height, columns: 32, parts: cpu.threads.count(), pattern: None };
            let sparse = SparseWeights::new(rows, columns, false, &w, cut);
            assert_eq!(sparse.kept(), w.iter().filter(|&&w| w != 0.0).count());
            let mut scratch = vec![f32::NAN; product_scratch_len(cpu, &sparse)];
            let mut y = vec![f32::NAN; want.len()];
            product(cpu, &sparse, &shape, &x, e, &mut y, &mut scratch);
            y
        });
    }
}

#[test]
fn n_of_m_weights_match_the_oracle_and_single_elements() {
    let numbers = &mut Numbers::new(21);
    for (n, m, rows, columns, positions) in
        [(2, 4, 33, 64, 130), (1, 4, 5, 132, 64), (4, 8, 17, 48, 7), (1, 2, 1, 2, 65), (2, 16, 40, 160, 192)]
    {
        let pattern = NOfM::new(n, m).unwrap();
        let mut w = numbers.take(rows * columns);
        for group in w.chunks_exact_mut(m as usize) {
            let first = numbers.next() as usize;
            for i in n as usize..m as usize {
                group[(first + i) % m as usize] = 0.0;
            }
        }
        // One group keeps fewer than it may.
        w[..m as usize].fill(0.0);
        assert_eq!(
            w.iter().filter(|w| **w != 0.0).count(),
            rows * columns / m as usize * n as usize - n as usize
        );
        let (x, bias) = (numbers.take(columns * positions), numbers.take(rows));
        for (x_as, y_as) in
            [(Activations::Columns, Activations::Columns), (Activations::Rows, Activations::Rows)]
        {
            let shape = Product { images: 1, positions, x: x_as, y: y_as };
            let x_at = |c: usize, p: usize| {
                if x_as == Activations::Rows { p * columns + c } else { c * positions + p }
            };
            let want: Vec<f64> = (0..rows * positions)
                .map(|i| {
                    let (r, p) = match y_as {
                        Activations::Rows => (i % rows, i / rows),
                        Activations::Columns => (i / positions, i % positions),
                    };
                    let sum: f64 =
                        (0..columns).map(|c| w[r * columns + c] as f64 * x[x_at(c, p)] as f64).sum();
                    (sum + bias[r] as f64).max(0.0)
                })
                .collect();
            let run = |cpu: &Cpu, cut: Cut| {
                let sparse = SparseWeights::new(rows, columns, false, &w, cut);
                assert_eq!(sparse.kept(), w.iter().filter(|&&w| w != 0.0).count());
                let mut scratch = vec![f32::NAN; product_scratch_len(cpu, &sparse)];
                let mut y = vec![f32::NAN; want.len()];
                let e = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Default::default() };
                product(cpu, &sparse, &shape, &x, e, &mut y, &mut scratch);
                y
            };
            agree(&want, &format!("{pattern} {rows}x{columns}"), |cpu| {
                run(cpu, Cut { columns: 40, ..Cut::n_of_m(pattern, cpu.threads.count()) })
            });
        }
    }
}

#[test]
fn a_transposed_matrix_is_read_as_such() {
    let numbers = &mut Numbers::new(12);
    let w = matrix(numbers, 20, 30, 0.2, 1, false);
    let turned: Vec<f32> = (0..600).map(|i| w[i % 20 * 30 + i / 20]).collect();
    let cut = Cut::unstructured(2);
    assert_eq!(SparseWeights::new(20, 30, false, &w, cut), SparseWeights::new(20, 30, true, &turned, cut));
    assert_eq!(SparseRows::new(20, 30, false, &w), SparseRows::new(20, 30, true, &turned));
    let (w, turned) = (&w[..15 * 40], (0..600).map(|i| w[i % 15 * 40 + i / 15]).collect::<Vec<f32>>());
    assert_eq!(SparseLookup::new(15, 40, false, w), SparseLookup::new(15, 40, true, &turned));
}

#[test]
fn convolutions_match_the_oracle() {
    let numbers = &mut Numbers::new(13);
    for i in 0..24 {
        let kernel = numbers.pick(&[[1, 1], [3, 3], [3, 1], [5, 5], [2, 3]]);
        let shape = ConvShape {
            batch: numbers.pick(&[1, 2]),
            height: numbers.pick(&[5, 7, 12]),
            width: numbers.pick(&[5, 9, 20]),
            channels: numbers.pick(&[1, 5, 17, 32]),
            filters: numbers.pick(&[1, 6, 20]),
            kernel,
            stride: numbers.pick(&[[1, 1], [2, 2], [3, 2]]),
            dilation: numbers.pick(&[[1, 1], [1, 1], [2, 1]]),
            pads: numbers.pick(&[[0; 4], [1; 4], [2, 0, 1, 3]]),
            groups: 1,
        };
        let [out_height, out_width] = shape.output();
        if out_height * out_width == 0 {
            continue;
        }
        let taps = kernel[0] * kernel[1];
        let density = numbers.pick(&[0.0, 0.1, 0.3, 1.0]);
        let w = matrix(numbers, shape.filters, shape.channels * taps, density, 1, i % 2 == 0);
        let (x, bias) = (numbers.take(shape.input_len()), numbers.take(shape.filters));
        let residual = numbers.take(shape.output_len());
        let mut want = vec![0.0; shape.output_len()];
        for (o, want) in want.iter_mut().enumerate() {
            let (filter, pixel) = (o % shape.filters, o / shape.filters);
            let (ox, oy) = (pixel % out_width, pixel / out_width % out_height);
            let image = pixel / out_width / out_height;
            let mut sum = bias[filter] as f64 + residual[o] as f64;
            for k in 0..shape.channels * taps {
                let (c, ky, kx) = (k / taps, k % taps / kernel[1], k % kernel[1]);
                let y = (oy * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                let x_at = (ox * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
                if y < shape.height && x_at < shape.width {
                    let at = ((image * shape.height + y) * shape.width + x_at) * shape.channels + c;
                    sum += x[at] as f64 * w[filter * shape.channels * taps + k] as f64;
                }
            }
            *want = sum.max(0.0);
        }
        agree(&want, &format!("{shape:?} density {density}"), |cpu| {
            let conv = SparseConv::new(shape, &w, Cut::unstructured(cpu.threads.count())).expect("one group");
            let mut scratch = vec![f32::NAN; conv.scratch_len(cpu)];
            let mut y = vec![f32::NAN; want.len()];
            let e = Epilogue {
                bias: Some(&bias),
                residual: Some(&residual),
                activation: Activation::Relu,
                ..Default::default()
            };
            conv.forward(cpu, &x, e, &mut y, &mut scratch);
            y
        });
    }
}

#[test]
fn gradients_of_convolutions_match_the_oracle() {
    let numbers = &mut Numbers::new(16);
    for i in 0..32 {
        let kernel = numbers.pick(&[[1, 1], [3, 3], [3, 1], [5, 5], [2, 3]]);
        let shape = ConvShape {
            batch: numbers.pick(&[1, 3]),
            height: numbers.pick(&[5, 7, 12]),
            width: numbers.pick(&[5, 9, 20]),
            channels: numbers.pick(&[1, 5, 17]),
            filters: numbers.pick(&[1, 6, 20]),
            kernel,
            stride: numbers.pick(&[[1, 1], [2, 2], [3, 2], [1, 2]]),
            dilation: numbers.pick(&[[1, 1], [1, 1], [2, 1]]),
            pads: numbers.pick(&[[0; 4], [1; 4], [2, 0, 1, 3]]),
            groups: 1,
        };
        let [out_height, out_width] = shape.output();
        if out_height * out_width == 0 {
            continue;
        }
        let taps = kernel[0] * kernel[1];
        let w = matrix(numbers, shape.filters, shape.channels * taps, numbers_density(i), 1, i % 2 == 0);
        let (x, dy) = (numbers.take(shape.input_len()), numbers.take(shape.output_len()));
        let (mut dx_want, mut dw_want) = (vec![0.0f64; x.len()], vec![0.0f64; w.len()]);
        for (o, d) in dy.iter().enumerate() {
            let (filter, pixel) = (o % shape.filters, o / shape.filters);
            let (ox, oy) = (pixel % out_width, pixel / out_width % out_height);
            let image = pixel / out_width / out_height;
            for k in 0..shape.channels * taps {
                let (c, ky, kx) = (k / taps, k % taps / kernel[1], k % kernel[1]);
                let y = (oy * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                let x_at = (ox * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
                if y < shape.height && x_at < shape.width {
                    let at = ((image * shape.height + y) * shape.width + x_at) * shape.channels + c;
                    let weight = filter * shape.channels * taps + k;
                    dx_want[at] += f64::from(*d) * f64::from(w[weight]);
                    if w[weight] != 0.0 {
                        dw_want[weight] += f64::from(*d) * f64::from(x[at]);
                    }
                }
            }
        }
        let stored = |cpu: &Cpu| {
            let cut = Cut { columns: 16, ..Cut::unstructured(cpu.threads.count()) };
            (SparseWeights::new(shape.filters, shape.channels * taps, false, &w, cut), cut)
        };
        agree(&dw_want, &format!("weight's gradient {shape:?}"), |cpu| {
            let conv = SparseConv::of(shape, stored(cpu).0).expect("one group");
            let mut scratch = vec![f32::NAN; conv.weight_gradient_scratch_len(cpu)];
            let mut dw = vec![f32::NAN; conv.weights().values().len()];
            conv.weight_gradient(cpu, &x, &dy, &mut dw, &mut scratch);
            let mut out = vec![0.0; w.len()];
            dw.iter().zip(conv.weights().positions()).for_each(|(d, &p)| out[p as usize] = *d);
            out
        });
        agree(&dx_want, &format!("input's gradient {shape:?}"), |cpu| {
            let (mut weights, cut) = stored(cpu);
            let Some(mut gradient) = SparseConvInputGradient::new(shape, &weights, cut) else {
                return dx_want.iter().map(|x| *x as f32).collect();
            };
            // The gradient follows the values as they change.
            weights.values_mut().iter_mut().for_each(|v| *v *= 2.0);
            gradient.update(cpu, weights.values());
            let mut scratch = vec![f32::NAN; gradient.scratch_len(cpu)];
            let mut dx = vec![f32::NAN; x.len()];
            gradient.run(cpu, &dy, &mut dx, &mut scratch);
            dx.iter().map(|d| d / 2.0).collect()
        });
    }
}

#[test]
fn vectors_match_the_oracle() {
    let numbers = &mut Numbers::new(14);
    for (rows, columns, batch, density) in
        [(1, 1, 1, 1.0), (10, 300, 1, 0.1), (33, 100, 3, 0.05), (70, 40, 2, 0.0), (300, 784, 1, 1.0)]
    {
        let activation = Activation::Unary(Unary::Tanh);
        // Multiples of 1/64 up to 1: products are multiples of 1/4096 and sums of 784 below 1024, so that f32 adds them
        // exactly in any order. Finer numbers round: 784 of them to 2e-5 here and to 1e-4 in a plain loop, of which tanh
        // shows 1.2e-5 and 1.6e-5 where a sum is small.
        let coarse = |x: Vec<f32>| x.iter().map(|x| (x * 64.0).round() / 64.0).collect::<Vec<f32>>();
        let w = coarse(matrix(numbers, rows, columns, density, 1, density < 0.1));
        let (x, bias) = (coarse(numbers.take(batch * columns)), coarse(numbers.take(rows)));
        let residual = coarse(numbers.take(batch * rows));
        let want: Vec<f64> = (0..batch * rows)
            .map(|i| {
                let (b, r) = (i / rows, i % rows);
                let sum: f64 =
                    (0..columns).map(|c| w[r * columns + c] as f64 * x[b * columns + c] as f64).sum();
                activated(sum + bias[r] as f64 + residual[i] as f64, activation)
            })
            .collect();
        let e = Epilogue { bias: Some(&bias), residual: Some(&residual), activation, ..Default::default() };
        let sparse = SparseRows::new(rows, columns, false, &w).expect("few columns");
        agree(&want, &format!("{rows}x{columns} batch {batch}"), |cpu| {
            let mut y = vec![f32::NAN; want.len()];
            sparse.product(cpu, &x, e, &mut y);
            y
        });
        let Some(sparse) = SparseLookup::new(rows, columns, false, &w) else {
            assert!(columns < 32);
            continue;
        };
        assert_eq!(sparse.kept(), w.iter().filter(|&&w| w != 0.0).count());
        agree(&want, &format!("{rows}x{columns} batch {batch} by lookups"), |cpu| {
            let mut y = vec![f32::NAN; want.len()];
            sparse.product(cpu, &x, e, &mut y);
            y
        });
    }
}

#[test]
fn nan_survives_relu_and_zero_weights_hide_nothing_they_touch() {
    let cut = Cut::unstructured(1);
    let sparse = SparseWeights::new(1, 2, false, &[1.0, 0.0], cut);
    for cpu in cpus().iter().map(|group| &group[0]) {
        let shape = Product { images: 1, positions: 1, x: Activations::Rows, y: Activations::Rows };
        let mut scratch = vec![0.0; product_scratch_len(cpu, &sparse)];
        let mut y = [0.0];
        let e = Epilogue { activation: Activation::Relu, ..Default::default() };
        product(cpu, &sparse, &shape, &[f32::NAN, 1.0], e, &mut y, &mut scratch);
        assert!(y[0].is_nan());
    }
}

#[test]
fn gradients_match_the_oracle() {
    let numbers = &mut Numbers::new(15);
    for i in 0..16 {
        let (rows, columns) = (numbers.pick(&[1, 7, 33, 70]), numbers.pick(&[1, 20, 100]));
        let (images, positions) = numbers.pick(&[(1, 1), (1, 64), (2, 49), (1, 130)]);
        let height = if i % 3 == 0 { HEIGHT } else { 1 };
        let w = matrix(numbers, rows, columns, numbers_density(i), 1, i % 2 == 0);
        let (x, dy) = (numbers.take(images * columns * positions), numbers.take(images * rows * positions));
        let arrangement = if i % 4 < 2 { Activations::Rows } else { Activations::Columns };
        let at = |image: usize, feature: usize, p: usize, features: usize| match arrangement {
            Activations::Rows => (image * positions + p) * features + feature,
            Activations::Columns => (image * features + feature) * positions + p,
        };
        let (mut dw_want, mut dx_want) = (vec![0.0f64; rows * columns], vec![0.0f64; x.len()]);
        for image in 0..images {
            for p in 0..positions {
                for r in 0..rows {
                    for c in 0..columns {
                        let d = dy[at(image, r, p, rows)] as f64;
                        dw_want[r * columns + c] += d * x[at(image, c, p, columns)] as f64;
                        dx_want[at(image, c, p, columns)] += d * w[r * columns + c] as f64;
                    }
                }
            }
        }
        let shape = Product { images, positions, x: arrangement, y: arrangement };
        let cut = |cpu: &Cpu| Cut { height, columns: 16, parts: cpu.threads.count(), pattern: None };
        let what = format!("{rows}x{columns} height {height} {shape:?}");
        let kept: Vec<f64> = dw_want.iter().zip(&w).map(|(d, &w)| if w != 0.0 { *d } else { 0.0 }).collect();
        agree(&kept, &format!("weights' gradient {what}"), |cpu| {
            let sparse = SparseWeights::new(rows, columns, false, &w, cut(cpu));
            let mut scratch = vec![f32::NAN; sampled_product_scratch_len(cpu, &sparse, &shape)];
            let mut dw = vec![f32::NAN; sparse.values().len()];
            sampled_product(cpu, &sparse, &shape, &x, &dy, false, &mut dw, &mut scratch);
            let mut out = vec![0.0; rows * columns];
            for (d, &position) in dw.iter().zip(sparse.positions()) {
                if position != u32::MAX && w[position as usize] != 0.0 {
                    out[position as usize] = *d;
                }
            }
            out
        });
        agree(&dx_want, &format!("input's gradient {what}"), |cpu| {
            let mut sparse = SparseWeights::new(rows, columns, false, &w, cut(cpu));
            let mut transposed = Transposed::new(&sparse, cut(cpu));
            // The transpose follows the values as they change.
            sparse.values_mut().iter_mut().for_each(|v| *v *= 2.0);
            transposed.update(cpu, sparse.values());
            let mut scratch = vec![f32::NAN; product_scratch_len(cpu, transposed.weights())];
            let mut dx = vec![f32::NAN; x.len()];
            product(cpu, transposed.weights(), &shape, &dy, Epilogue::default(), &mut dx, &mut scratch);
            dx.iter().map(|d| d / 2.0).collect()
        });
    }
}

fn numbers_density(i: usize) -> f64 {
    [0.0, 0.1, 0.4, 1.0][i / 2 % 4]
}
