//! Prints this machine's arithmetic peak and what fraction of it each kernel reaches:
//! `cargo run --release -p wattle-kernels --example roofline -- [isa] [threads] [part of a name]`.
#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::time::Duration;
use wattle_kernels::conv::{self, ConvPlan, ConvShape};
use wattle_kernels::elementwise::{self, Unary};
use wattle_kernels::gemm::{Epilogue, Gemm, gemm, gemm_packed};
use wattle_kernels::pack::PackedWeights;
use wattle_kernels::{Activation, Cpu, Isa, norm, peak};
use wattle_meter::timing::{Turns, repeated};

/// The shortest of enough runs to fill about 60 ms, in seconds.
fn seconds(mut f: impl FnMut()) -> f64 {
    let Ok(times) = repeated(&Turns::within(Duration::from_millis(60), 1000), || {
        f();
        Ok::<(), Infallible>(())
    });
    times.least()
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 2048) as f32 / 1024.0 - 1.0).collect()
}

struct Table {
    cpu: Cpu,
    peak: f64,
    filter: String,
}

impl Table {
    fn row(&self, name: &str, macs: usize, seconds: f64) {
        let rate = 2.0 * macs as f64 / seconds;
        println!(
            "{name:46} {:9.1} us {:7.1} GFLOP/s {:4.0} %",
            seconds * 1e6,
            rate / 1e9,
            100.0 * rate / self.peak
        );
    }

    fn bandwidth(&self, name: &str, bytes: usize, seconds: f64) {
        println!("{name:46} {:9.1} us {:7.1} GB/s", seconds * 1e6, bytes as f64 / seconds / 1e9);
    }

    fn batch_norm(&self, rows: usize, channels: usize) {
        let len = rows * channels;
        let (x, dy, scale) = (numbers(len), numbers(len), numbers(channels));
        let (mut y, mut dx) = (numbers(len), numbers(len));
        let (mut mean, mut variance, mut ds, mut db) =
            (scale.clone(), scale.clone(), scale.clone(), scale.clone());
        let mut scratch = vec![0.0; norm::batch_norm_scratch_len(channels)];
        let shape = norm::BatchNorm { channels, epsilon: 1e-5, relu: true };
        let time = seconds(|| {
            let statistics = norm::Statistics { mean: &mut mean, variance: &mut variance };
            norm::batch_norm_train(
                &self.cpu,
                shape,
                &x,
                &scale,
                &scale,
                None,
                statistics,
                &mut y,
                &mut scratch,
            );
        });
        self.bandwidth(&format!("batch norm + relu {rows}x{channels} (r r w)"), 12 * len, time);
        let saved =
            norm::BatchNormSaved { x: &x, y: Some(&y), scale: &scale, mean: &mean, variance: &variance };
        let time = seconds(|| {
            norm::batch_norm_gradient(
                &self.cpu,
                shape,
                saved,
                &dy,
                &mut dx,
                &mut ds,
                &mut db,
                None,
                &mut scratch,
            );
        });
        self.bandwidth(&format!("batch norm gradient {rows}x{channels} (6r w)"), 28 * len, time);
    }

    fn gemm(&self, m: usize, n: usize, k: usize, transpose_a: bool, transpose_b: bool) {
        let shape = Gemm { m, n, k, transpose_a, transpose_b };
        if !"gemm".contains(&self.filter) {
            return;
        }
        let (a, b, mut c) = (numbers(m * k), numbers(k * n), numbers(m * n));
        let mut scratch = vec![0.0; shape.scratch_len(&self.cpu)];
        let letter = |t: bool| if t { 'T' } else { 'N' };
        let name = format!("gemm {}{} {m}x{n}x{k}", letter(transpose_a), letter(transpose_b));
        let time = seconds(|| gemm(&self.cpu, &shape, &a, &b, Epilogue::default(), &mut c, &mut scratch));
        self.row(&name, m * n * k, time);
    }

    fn gemm_packed(&self, m: usize, n: usize, k: usize) {
        if !"gemm".contains(&self.filter) {
            return;
        }
        let (a, b, mut c) = (numbers(m * k), numbers(k * n), numbers(m * n));
        let packed = PackedWeights::matrix(self.cpu.isa, k, n, false, &b);
        let bias = numbers(n);
        let e = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Default::default() };
        let time = seconds(|| gemm_packed(&self.cpu, m, &a, packed.view(), e, &mut c));
        self.row(&format!("gemm packed {m}x{n}x{k}, bias, relu"), m * n * k, time);
    }

    fn conv(&self, name: &str, shape: ConvShape) {
        if !name.contains(&self.filter) {
            return;
        }
        let plan = ConvPlan::new(shape);
        let cpu = &self.cpu;
        let (x, w, dy) =
            (numbers(shape.input_len()), numbers(shape.weights_len()), numbers(shape.output_len()));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let e = Epilogue::default();
        if shape.is_depthwise() {
            let mut packed = w.clone();
            conv::pack_depthwise(&shape, &w, &mut packed);
            let mut scratch = vec![0.0; conv::depthwise_weight_gradient_scratch_len(&plan)];
            let time = seconds(|| conv::depthwise_forward(cpu, &plan, &x, &packed, e, &mut y));
            self.row(&format!("{name} forward"), shape.macs(), time);
            let time = seconds(|| conv::depthwise_input_gradient(cpu, &plan, &dy, &packed, e, &mut dx));
            self.row(&format!("{name} input gradient"), shape.macs(), time);
            let time = seconds(|| {
                conv::depthwise_weight_gradient(cpu, &plan, &x, &dy, false, &mut dw, &mut scratch)
            });
            self.row(&format!("{name} weight gradient"), shape.macs(), time);
            return;
        }
        let mut packed = vec![0.0; plan.forward_weights_len(cpu.isa)];
        let mut scratch = vec![0.0; plan.forward_scratch_len(cpu)];
        let time = seconds(|| {
            plan.pack_forward(cpu, &w, &mut packed);
            conv::forward(cpu, &plan, &x, &packed, e, &mut y, &mut scratch)
        });
        self.row(&format!("{name} forward"), shape.macs(), time);
        let mut packed = vec![0.0; plan.input_gradient_weights_len(cpu.isa)];
        let mut scratch = vec![0.0; plan.input_gradient_scratch_len(cpu)];
        let time = seconds(|| {
            plan.pack_input_gradient(cpu, &w, &mut packed);
            conv::input_gradient(cpu, &plan, &dy, &packed, e, &mut dx, &mut scratch)
        });
        self.row(&format!("{name} input gradient"), shape.macs(), time);
        let mut scratch = vec![0.0; conv::weight_gradient_scratch_len(cpu, &plan)];
        let time = seconds(|| conv::weight_gradient(cpu, &plan, &x, &dy, false, &mut dw, &mut scratch));
        self.row(&format!("{name} weight gradient"), shape.macs(), time);
    }
}

fn square(
    batch: usize,
    size: usize,
    channels: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
) -> ConvShape {
    ConvShape {
        batch,
        height: size,
        width: size,
        channels,
        filters,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1, 1],
        pads: [kernel / 2; 4],
        groups: 1,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let isa = arguments
        .first()
        .and_then(|name| Isa::available().find(|isa| isa.name() == name))
        .unwrap_or_else(Isa::detect);
    let threads = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    for isa in Isa::available() {
        println!("peak {:10} {:7.1} GFLOP/s, one thread", isa.name(), peak::flops_per_second(isa) / 1e9);
    }
    let cpu = Cpu::with_isa(isa, threads).expect("threads start");
    println!("{} with {threads} threads", isa.name());
    let filter = arguments.get(2).cloned().unwrap_or_default();
    let table = Table { cpu, peak: peak::flops_per_second(isa) * threads as f64, filter };
    for (m, n, k) in [(60, 300, 784), (60, 100, 300), (60, 10, 100), (512, 512, 512), (1024, 1024, 1024)] {
        table.gemm(m, n, k, false, false);
        table.gemm(m, n, k, false, true);
        table.gemm_packed(m, n, k);
    }
    for (m, n, k) in [(2048, 256, 256), (2048, 1024, 256), (2048, 256, 1024)] {
        table.gemm(m, n, k, false, false);
        table.gemm(m, n, k, false, true);
        table.gemm(k, n, m, true, false);
    }
    table.gemm_packed(128, 512, 512);
    // The 1 x 1 layers and the last of MobileNetV1.
    for (pixels, filters, channels) in [
        (12544, 64, 32),
        (3136, 128, 64),
        (3136, 128, 128),
        (784, 256, 128),
        (784, 256, 256),
        (196, 512, 256),
        (196, 512, 512),
        (49, 1024, 512),
        (49, 1024, 1024),
        (1, 1000, 1024),
    ] {
        table.gemm_packed(pixels, filters, channels);
    }
    table.gemm(784, 300, 60, true, false);
    table.gemm(300, 784, 60, true, false);
    table.gemm(300, 100, 60, true, false);
    table.gemm(512, 512, 512, true, false);
    table.conv("conv 3->16 32x32 b128", square(128, 32, 3, 16, 3, 1));
    table.conv("conv 16->16 32x32 b1", square(1, 32, 16, 16, 3, 1));
    table.conv("conv 16->16 32x32 b128", square(128, 32, 16, 16, 3, 1));
    table.conv("conv 16->32 32x32 s2 b128", square(128, 32, 16, 32, 3, 2));
    table.conv("conv 32->32 16x16 b128", square(128, 16, 32, 32, 3, 1));
    table.conv("conv 64->16 32x32 b1", square(1, 32, 64, 16, 3, 1));
    table.conv("conv 64->64 8x8 b128", square(128, 8, 64, 64, 3, 1));
    table.conv("conv 1x1 16->32 32x32 s2 b128", square(128, 32, 16, 32, 1, 2));
    table.conv("conv 1x1 64->64 40x40", square(1, 40, 64, 64, 1, 1));
    table.conv("conv 1x1 128->256 20x20", square(1, 20, 128, 256, 1, 1));
    table.conv("conv 1x1 512->512 20x20", square(1, 20, 512, 512, 1, 1));
    table.conv("stem 3->32 224x224 s2", square(1, 224, 3, 32, 3, 2));
    table.conv("stem 7x7 3->64 224x224 s2", square(1, 224, 3, 64, 7, 2));
    table.conv("conv 64->64 56x56", square(1, 56, 64, 64, 3, 1));
    table.conv("conv 64->64 28x28 b8", square(8, 28, 64, 64, 3, 1));
    table.conv("conv 128->128 14x14 b8", square(8, 14, 128, 128, 3, 1));
    table.conv("conv 256->256 7x7 b8", square(8, 7, 256, 256, 3, 1));
    table.conv("conv 512->512 4x4 b8", square(8, 4, 512, 512, 3, 1));
    table.conv("conv 128->128 28x28", square(1, 28, 128, 128, 3, 1));
    table.conv("conv 256->256 14x14", square(1, 14, 256, 256, 3, 1));
    table.conv("conv 512->512 7x7", square(1, 7, 512, 512, 3, 1));
    table.conv("depthwise 3x3 32 112x112", ConvShape { groups: 32, ..square(1, 112, 32, 32, 3, 1) });
    table.conv("depthwise 3x3 64 112x112 s2", ConvShape { groups: 64, ..square(1, 112, 64, 64, 3, 2) });
    table.conv("depthwise 3x3 128 56x56 s2", ConvShape { groups: 128, ..square(1, 56, 128, 128, 3, 2) });
    table.conv("depthwise 3x3 256 28x28", ConvShape { groups: 256, ..square(1, 28, 256, 256, 3, 1) });
    table.conv("depthwise 3x3 1024 7x7", ConvShape { groups: 1024, ..square(1, 7, 1024, 1024, 3, 1) });
    table.conv("depthwise 3x3 128 56x56", ConvShape { groups: 128, ..square(1, 56, 128, 128, 3, 1) });
    table.conv("depthwise 3x3 512 14x14", ConvShape { groups: 512, ..square(1, 14, 512, 512, 3, 1) });
    table.conv("depthwise 3x3 64 80x80", ConvShape { groups: 64, ..square(1, 80, 64, 64, 3, 1) });
    table.conv("depthwise 5x5 256 20x20", ConvShape { groups: 256, ..square(1, 20, 256, 256, 5, 1) });
    table.batch_norm(128 * 1024, 16);
    table.batch_norm(128 * 64, 64);
    let x = numbers(1 << 21);
    let mut y = x.clone();
    for f in [Unary::Relu, Unary::Exp, Unary::Tanh, Unary::Gelu] {
        let time = seconds(|| elementwise::unary(&table.cpu, f, &x, &mut y));
        table.bandwidth(&format!("{f:?} of 2 M elements"), 8 * x.len(), time);
    }
}
