//! All three directions against a direct sum in f64, on every instruction set, with 1, 2 and 7 threads.

use super::*;
use crate::Activation;
use crate::gemm::Epilogue;
use crate::testing::{Numbers, assert_close, cpus};

/// Calls `f(output element, input element, weight element)` for each product of the convolution.
fn each_product(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let [out_height, out_width] = s.output();
    let (channels, filters) = (s.group_channels(), s.group_filters());
    for n in 0..s.batch {
        for oy in 0..out_height {
            for ox in 0..out_width {
                for filter in 0..s.filters {
                    for c in 0..channels {
                        for ky in 0..s.kernel[0] {
                            for kx in 0..s.kernel[1] {
                                let y = (oy * s.stride[0] + ky * s.dilation[0]).wrapping_sub(s.pads[0]);
                                let x = (ox * s.stride[1] + kx * s.dilation[1]).wrapping_sub(s.pads[1]);
                                if y < s.height && x < s.width {
                                    let channel = filter / filters * channels + c;
                                    f(
                                        ((n * out_height + oy) * out_width + ox) * s.filters + filter,
                                        ((n * s.height + y) * s.width + x) * s.channels + channel,
                                        ((filter * channels + c) * s.kernel[0] + ky) * s.kernel[1] + kx,
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn check(shape: ConvShape, seed: u64) {
    let numbers = &mut Numbers::new(seed);
    let x = numbers.take(shape.input_len());
    let w = numbers.take(shape.weights_len());
    let dy = numbers.take(shape.output_len());
    let bias = numbers.take(shape.filters);
    let residual = numbers.take(shape.output_len());
    let mut y_want: Vec<f64> =
        residual.iter().enumerate().map(|(i, r)| *r as f64 + bias[i % shape.filters] as f64).collect();
    let mut dx_want = vec![0.0f64; x.len()];
    let mut dw_want = vec![0.0f64; w.len()];
    each_product(&shape, |o, i, k| {
        y_want[o] += x[i] as f64 * w[k] as f64;
        dx_want[i] += dy[o] as f64 * w[k] as f64;
        dw_want[k] += x[i] as f64 * dy[o] as f64;
    });
    y_want.iter_mut().for_each(|y| *y = y.max(0.0));
    let plan = ConvPlan::new(shape);
    for group in cpus() {
        let mut first = None;
        for cpu in &group {
            let what = format!("{shape:?} {}", cpu.isa.name());
            let (y, dx, dw) = run(cpu, &plan, &x, &w, &dy, &bias, &residual);
            assert_close(&y, &y_want, 1e-5, &format!("forward {what}"));
            assert_close(&dx, &dx_want, 1e-5, &format!("input gradient {what}"));
            assert_close(&dw, &dw_want, 1e-5, &format!("weight gradient {what}"));
            match &first {
                None => first = Some((y, dx, dw)),
                Some(f) => assert!(*f == (y, dx, dw), "bits depend on the number of threads: {what}"),
            }
        }
    }
}

type Results = (Vec<f32>, Vec<f32>, Vec<f32>);

fn run(
    cpu: &Cpu,
    plan: &ConvPlan,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    bias: &[f32],
    residual: &[f32],
) -> Results {
    let shape = plan.shape();
    let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
    let mut dw = vec![f32::NAN; w.len()];
    let e = Epilogue {
        bias: Some(bias),
        residual: Some(residual),
        activation: Activation::Relu,
        ..Default::default()
    };
    if shape.is_depthwise() {
        let mut packed = vec![f32::NAN; w.len()];
        pack_depthwise(shape, w, &mut packed);
        depthwise_forward(cpu, plan, x, &packed, e, &mut y);
        depthwise_input_gradient(cpu, plan, dy, &packed, Epilogue::default(), &mut dx);
        let mut scratch = vec![f32::NAN; depthwise_weight_gradient_scratch_len(plan)];
        depthwise_weight_gradient(cpu, plan, x, dy, false, &mut dw, &mut scratch);
        return (y, dx, dw);
    }
    let mut packed = vec![f32::NAN; plan.forward_weights_len(cpu.isa)];
    plan.pack_forward(cpu, w, &mut packed);
    let mut scratch = vec![f32::NAN; plan.forward_scratch_len(cpu)];
    forward(cpu, plan, x, &packed, e, &mut y, &mut scratch);
    let mut packed = vec![f32::NAN; plan.input_gradient_weights_len(cpu.isa)];
    plan.pack_input_gradient(cpu, w, &mut packed);
    let mut scratch = vec![f32::NAN; plan.input_gradient_scratch_len(cpu)];
    input_gradient(cpu, plan, dy, &packed, Epilogue::default(), &mut dx, &mut scratch);
    let mut scratch = vec![f32::NAN; weight_gradient_scratch_len(cpu, plan)];
    weight_gradient(cpu, plan, x, dy, false, &mut dw, &mut scratch);
    (y, dx, dw)
}

fn shape(batch: usize, size: [usize; 2], channels: usize, filters: usize, kernel: usize) -> ConvShape {
    ConvShape {
        batch,
        height: size[0],
        width: size[1],
        channels,
        filters,
        kernel: [kernel; 2],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [kernel / 2; 4],
        groups: 1,
    }
}

#[test]
fn residual_network_layers_match_the_oracle() {
    check(shape(2, [9, 8], 3, 16, 3), 1);
    check(shape(2, [8, 8], 16, 16, 3), 2);
    check(ConvShape { stride: [2, 2], ..shape(2, [8, 8], 16, 32, 3) }, 3);
    check(ConvShape { stride: [2, 2], pads: [0; 4], ..shape(3, [8, 8], 16, 32, 1) }, 4);
    check(shape(1, [5, 5], 64, 64, 1), 5);
    check(shape(3, [4, 4], 48, 70, 3), 6);
}

#[test]
fn odd_kernels_strides_pads_dilations_and_groups_match_the_oracle() {
    check(ConvShape { kernel: [3, 1], pads: [1, 0, 0, 0], ..shape(2, [7, 5], 5, 9, 3) }, 7);
    check(ConvShape { kernel: [1, 7], stride: [1, 3], pads: [0, 4, 0, 2], ..shape(1, [2, 30], 2, 17, 1) }, 8);
    check(ConvShape { dilation: [2, 3], pads: [1, 4, 3, 2], ..shape(1, [11, 13], 7, 33, 3) }, 9);
    check(ConvShape { dilation: [2, 1], stride: [2, 3], ..shape(2, [12, 10], 1, 5, 3) }, 10);
    check(ConvShape { groups: 3, ..shape(2, [6, 7], 12, 51, 3) }, 11);
    check(ConvShape { groups: 2, stride: [2, 1], ..shape(2, [6, 7], 4, 2, 5) }, 12);
    check(ConvShape { stride: [3, 3], pads: [0; 4], ..shape(1, [7, 7], 6, 6, 2) }, 13);
}

#[test]
fn transformed_tiles_match_the_oracle() {
    let transformed = |shape: ConvShape, seed| {
        assert!(shape.is_transformed() && WeightGradient::new(&shape).is_some(), "{shape:?}");
        check(shape, seed);
    };
    // Several blocks of tiles, half tiles on both edges, channels that are no whole vectors.
    transformed(shape(3, [13, 15], 33, 19, 3), 40);
    // More columns than a strip; for the weights' gradient several strips and blocks of a chunk.
    transformed(shape(4, [7, 7], 150, 300, 3), 41);
    transformed(ConvShape { pads: [0; 4], ..shape(8, [8, 6], 16, 32, 3) }, 42);
    transformed(ConvShape { pads: [2, 0, 1, 2], ..shape(4, [5, 9], 32, 16, 3) }, 43);
}

#[test]
fn layers_of_few_channels_match_the_oracle_and_read_planes_to_the_bit() {
    let numbers = &mut Numbers::new(11);
    for seed in 0..30 {
        let shape = ConvShape {
            kernel: [numbers.pick(&[1, 2, 3, 7]), numbers.pick(&[2, 3, 5])],
            stride: [numbers.pick(&[1, 2, 3]), numbers.pick(&[1, 2, 3])],
            dilation: [numbers.pick(&[1, 2]), 1],
            pads: [
                numbers.pick(&[0, 1, 3]),
                numbers.pick(&[0, 1, 9]),
                numbers.pick(&[0, 1, 3]),
                numbers.pick(&[0, 1, 9]),
            ],
            ..shape(
                numbers.pick(&[1, 3]),
                [numbers.pick(&[1, 7, 14]), numbers.pick(&[2, 9, 31])],
                numbers.pick(&[2, 3, 4]),
                numbers.pick(&[1, 8, 16, 23, 32, 70]),
                1,
            )
        };
        if shape.output().contains(&0) {
            continue;
        }
        check(shape, 300 + seed);
        let [x, w] = [shape.input_len(), shape.weights_len()].map(|len| numbers.take(len));
        let image = shape.height * shape.width;
        let mut planes = x.clone();
        for (i, value) in x.iter().enumerate() {
            let (pixel, channel) = (i / shape.channels, i % shape.channels);
            planes[(pixel / image * shape.channels + channel) * image + pixel % image] = *value;
        }
        let pixels = ConvPlan::new(shape);
        let mut reading_planes = ConvPlan::new(shape);
        assert!(reading_planes.read_planes());
        for cpu in cpus().iter().flatten() {
            let results = [(&pixels, &x), (&reading_planes, &planes)].map(|(plan, x)| {
                let mut packed = vec![f32::NAN; plan.forward_weights_len(cpu.isa)];
                plan.pack_forward(cpu, &w, &mut packed);
                let mut scratch = vec![f32::NAN; plan.forward_scratch_len(cpu)];
                let mut y = vec![f32::NAN; shape.output_len()];
                forward(cpu, plan, x, &packed, Epilogue::default(), &mut y, &mut scratch);
                y
            });
            assert_eq!(results[0], results[1], "{shape:?}");
        }
    }
}

#[test]
fn depthwise_layers_match_the_oracle() {
    for (i, channels) in [3, 8, 16, 37, 70].into_iter().enumerate() {
        check(ConvShape { groups: channels, ..shape(2, [7, 9], channels, channels, 3) }, 20 + i as u64);
    }
    check(ConvShape { groups: 19, stride: [2, 2], ..shape(2, [9, 8], 19, 19, 5) }, 30);
    check(ConvShape { groups: 20, stride: [2, 2], pads: [0, 1, 2, 0], ..shape(2, [9, 11], 20, 20, 3) }, 32);
    check(ConvShape { groups: 33, dilation: [2, 2], stride: [1, 2], ..shape(1, [9, 8], 33, 33, 3) }, 31);
}

#[test]
fn depthwise_3x3_layers_of_any_size_and_padding_match_the_oracle() {
    let numbers = &mut Numbers::new(7);
    for seed in 0..40 {
        let channels = numbers.pick(&[1, 5, 8, 16, 33, 48, 70]);
        let shape = ConvShape {
            groups: channels,
            stride: [numbers.pick(&[1, 2]); 2],
            pads: [
                numbers.pick(&[0, 1, 2]),
                numbers.pick(&[0, 1, 2]),
                numbers.pick(&[0, 1, 3]),
                numbers.pick(&[0, 1, 2]),
            ],
            ..shape(
                numbers.pick(&[1, 2]),
                [numbers.pick(&[1, 2, 5, 8]), numbers.pick(&[1, 2, 3, 4, 7])],
                channels,
                channels,
                3,
            )
        };
        if !shape.output().contains(&0) {
            check(shape, 200 + seed);
        }
    }
}

#[test]
fn random_shapes_match_the_oracle() {
    let numbers = &mut Numbers::new(99);
    for seed in 0..25 {
        let kernel = [numbers.pick(&[1, 2, 3, 4]), numbers.pick(&[1, 2, 3, 5])];
        let groups = numbers.pick(&[1, 1, 1, 2, 3]);
        let shape = ConvShape {
            batch: numbers.pick(&[1, 2, 5]),
            height: numbers.pick(&[6, 9, 14]),
            width: numbers.pick(&[8, 11, 17]),
            channels: groups * numbers.pick(&[1, 3, 4, 8, 17]),
            filters: groups * numbers.pick(&[1, 4, 15, 16, 33]),
            kernel,
            stride: [numbers.pick(&[1, 2, 3]), numbers.pick(&[1, 1, 2])],
            dilation: [numbers.pick(&[1, 1, 2]), numbers.pick(&[1, 1, 2])],
            pads: [
                numbers.pick(&[0, 1, 2]),
                numbers.pick(&[0, 1]),
                numbers.pick(&[0, 1, 2]),
                numbers.pick(&[0, 2]),
            ],
            groups,
        };
        if !shape.output().contains(&0) {
            check(shape, 100 + seed);
        }
    }
}

#[test]
fn patches_times_weights_are_the_convolution() {
    let shape = ConvShape { groups: 2, stride: [2, 1], pads: [1, 0, 2, 1], ..shape(2, [6, 7], 4, 2, 3) };
    let numbers = &mut Numbers::new(77);
    let (x, w) = (numbers.take(shape.input_len()), numbers.take(shape.weights_len()));
    let mut want = vec![0.0f32; shape.output_len()];
    each_product(&shape, |o, i, k| want[o] += x[i] * w[k]);
    for cpu in cpus().iter().flatten() {
        for group in 0..2 {
            let pixels = shape.output_len() / 2;
            let mut out = vec![f32::NAN; pixels * 18];
            patches(cpu, &shape, group, &x, 0.0, &mut out);
            for (pixel, patch) in out.chunks(18).enumerate() {
                let dot: f32 = (0..18).map(|i| patch[i] * w[group * 18 + i % 2 * 9 + i / 2]).sum();
                assert!((dot - want[pixel * 2 + group]).abs() < 1e-5);
            }
        }
    }
}
