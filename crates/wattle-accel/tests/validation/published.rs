//! Published facts, each with its source and whether it was read there or only recalled.

use std::collections::BTreeMap;

use serde::Deserialize;
use wattle_accel::{Layer, Operand, Sparsity};

/// Counts of one 1x1 layer.
#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the file's names")]
pub struct Counts {
    pub C: usize,
    pub M: usize,
    pub E: usize,
    pub F: usize,
    pub nnz_iact: Vec<u64>,
    pub nnz_weight: Vec<u64>,
    pub cycles: u64,
}

/// The five layers of sparse MobileNet-0.5-128 whose counts are known.
pub fn channel_counts() -> BTreeMap<String, Counts> {
    serde_json::from_str(include_str!("../data/sparse_mobilenet_channel_counts.json"))
        .expect("a committed file")
}

/// Cycles of one lane, Sparseloop's ground truth (its artifact, Fig. 12), and its uniform model's.
pub const LANE_CYCLES: [(usize, u64, Option<u64>); 25] = [
    (1, 1769472, Some(1769472)),
    (2, 544768, Some(542639)),
    (3, 461302, Some(461036)),
    (4, 278528, Some(277218)),
    (5, 873643, Some(873365)),
    (6, 513024, Some(513147)),
    (7, 1702140, Some(1592158)),
    (8, 145920, Some(145982)),
    (9, 1499682, Some(1478912)),
    (10, 270848, Some(271320)),
    (11, 2491491, Some(2488901)),
    (12, 73728, Some(73728)),
    (13, 1144158, Some(1114008)),
    (14, 147456, None),
    (15, 2238663, Some(2220046)),
    (16, 147456, None),
    (17, 2173758, Some(2184395)),
    (18, 124096, Some(123864)),
    (20, 147456, None),
    (21, 1677684, Some(1610614)),
    (22, 147456, None),
    (24, 36864, None),
    (26, 73728, None),
    (27, 775316, Some(729810)),
    (28, 95443, Some(94976)),
];

/// MobileNet-0.5-128, dense: 28 layers, 49,160,192 MACs.
pub fn mobilenet() -> Vec<Layer> {
    mobilenet_of(2, 4)
}

/// MobileNet-1.0-224, dense: 28 layers, 568.7M MACs.
pub fn mobilenet_224() -> Vec<Layer> {
    mobilenet_of(1, 7)
}

/// MobileNet of full width over `narrow`, whose last maps are `map` wide.
fn mobilenet_of(narrow: usize, map: usize) -> Vec<Layer> {
    let mut layers = vec![same(Layer::conv("L01", 1, 3, 32 / narrow, 16 * map, 3, 2))];
    let blocks = [
        (32, 64, 16, 1),
        (64, 128, 8, 2),
        (128, 128, 8, 1),
        (128, 256, 4, 2),
        (256, 256, 4, 1),
        (256, 512, 2, 2),
        (512, 512, 2, 1),
        (512, 512, 2, 1),
        (512, 512, 2, 1),
        (512, 512, 2, 1),
        (512, 512, 2, 1),
        (512, 1024, 1, 2),
        (1024, 1024, 1, 1),
    ];
    for (block, (from, to, maps, stride)) in blocks.into_iter().enumerate() {
        let name = |n: usize| format!("L{:02}", 2 * block + n);
        let (from, to) = (from / narrow, to / narrow);
        layers.push(same(Layer::conv(&name(2), from, from, from, maps * map, 3, stride)));
        layers.push(Layer::conv(&name(3), 1, from, to, maps * map, 1, 1));
    }
    layers.push(Layer::gemm("L28", 1, 1024 / narrow, 1000));
    layers
}

/// GoogLeNet (Szegedy et al., CVPR 2015, Table 1) without the classifiers that only training uses: 58 layers,
/// 1582.7M MACs.
pub fn googlenet() -> Vec<Layer> {
    let conv =
        |name: &str, from, to, map, taps, stride| same(Layer::conv(name, 1, from, to, map, taps, stride));
    let mut layers = vec![
        conv("conv1", 3, 64, 112, 7, 2),
        conv("conv2 reduce", 64, 64, 56, 1, 1),
        conv("conv2", 64, 192, 56, 3, 1),
    ];
    // Inputs, map; filters of 1x1, before 3x3, 3x3, before 5x5, 5x5, behind the pool.
    let blocks = [
        ("3a", 192, 28, [64, 96, 128, 16, 32, 32]),
        ("3b", 256, 28, [128, 128, 192, 32, 96, 64]),
        ("4a", 480, 14, [192, 96, 208, 16, 48, 64]),
        ("4b", 512, 14, [160, 112, 224, 24, 64, 64]),
        ("4c", 512, 14, [128, 128, 256, 24, 64, 64]),
        ("4d", 512, 14, [112, 144, 288, 32, 64, 64]),
        ("4e", 528, 14, [256, 160, 320, 32, 128, 128]),
        ("5a", 832, 7, [256, 160, 320, 32, 128, 128]),
        ("5b", 832, 7, [384, 192, 384, 48, 128, 128]),
    ];
    for (block, from, map, [one, before_three, three, before_five, five, pooled]) in blocks {
        let parts = [
            ("1x1", from, one, 1),
            ("3x3 reduce", from, before_three, 1),
            ("3x3", before_three, three, 3),
            ("5x5 reduce", from, before_five, 1),
            ("5x5", before_five, five, 5),
            ("pool", from, pooled, 1),
        ];
        layers.extend(
            parts.map(|(part, from, to, taps)| conv(&format!("{block} {part}"), from, to, map, taps, 1)),
        );
    }
    layers.push(Layer::gemm("fc", 1, 1024, 1000));
    layers
}

/// A layer with the padding that keeps the map's size.
fn same(mut layer: Layer) -> Layer {
    layer.pad = [(layer.bounds[6] - 1) / 2; 2];
    layer.input = [layer.bounds[4] * layer.stride[0], layer.bounds[5] * layer.stride[1]];
    layer
}

/// AlexNet with its grouped convolutions, 724.4M MACs.
pub fn alexnet(batch: usize) -> Vec<Layer> {
    let mut layers = vec![
        Layer::conv("conv1", 1, 3, 96, 55, 11, 4),
        padded(Layer::conv("conv2", 2, 96, 256, 27, 5, 1), 2),
        padded(Layer::conv("conv3", 1, 256, 384, 13, 3, 1), 1),
        padded(Layer::conv("conv4", 2, 384, 384, 13, 3, 1), 1),
        padded(Layer::conv("conv5", 2, 384, 256, 13, 3, 1), 1),
    ];
    for (name, inner, outputs) in [("fc1", 9216, 4096), ("fc2", 4096, 4096), ("fc3", 4096, 1000)] {
        layers.push(Layer::gemm(name, batch, inner, outputs));
    }
    for layer in &mut layers[..5] {
        layer.bounds[0] = batch;
    }
    layers
}

/// Densities of AlexNet, layer by layer: inputs of the dense network, weights of the pruned one, inputs of the pruned
/// one. Inputs of the convolutions are one minus the zeros that the Eyeriss chip met (JSSC 2017, Table V); the rest
/// is Han et al., NIPS 2015, Table 4. All are recalled [M], none was read in its source, and none was chosen by what
/// the model makes of it. The network that the paper ran was pruned by another method (Yang et al., CVPR 2017).
pub const ALEXNET_DENSITIES: [(f64, f64, f64); 8] = [
    (1.0, 0.84, 1.0),
    (0.613, 0.38, 0.613),
    (0.275, 0.35, 0.275),
    (0.207, 0.37, 0.207),
    (0.224, 0.37, 0.224),
    (0.34, 0.09, 0.34),
    (0.36, 0.09, 0.36),
    (0.40, 0.25, 0.40),
];

/// AlexNet with the zeros of its activations, which a dense network has too.
pub fn alexnet_as_run(batch: usize) -> Vec<Layer> {
    let with = |(layer, (iact, _, _)): (Layer, (f64, f64, f64))| {
        layer.with_sparsity(Sparsity::uniform(iact), Sparsity::dense())
    };
    alexnet(batch).into_iter().zip(ALEXNET_DENSITIES).map(with).collect()
}

/// AlexNet, pruned.
pub fn sparse_alexnet() -> Vec<Layer> {
    let with = |(layer, (_, weight, iact)): (Layer, (f64, f64, f64))| {
        layer.with_sparsity(Sparsity::uniform(iact), Sparsity::uniform(weight))
    };
    alexnet(1).into_iter().zip(ALEXNET_DENSITIES).map(with).collect()
}

/// What is recalled [M] of AlexNet as the paper's authors prune it (Yang et al., CVPR 2017, Table 1): non-zero weights
/// and products of two non-zero values. No layer's density is known.
pub const PRUNED_BY_ENERGY: [f64; 2] = [5.73e6, 0.56e8];

/// AlexNet with these totals: the densities above, those of the convolutions and those of the others scaled alike.
pub fn alexnet_pruned_by_energy() -> Vec<Layer> {
    let layers = sparse_alexnet();
    let sums = |range: std::ops::Range<usize>| {
        let list = &layers[range];
        let weights: f64 = list.iter().map(|l| l.elements(Operand::Weight) * l.weight.density).sum();
        (weights, list.iter().map(Layer::effective_macs).sum::<f64>())
    };
    let (convolutions, others) = (sums(0..5), sums(5..8));
    let [weights, products] = PRUNED_BY_ENERGY;
    // Two equations, linear in the two factors.
    let determinant = convolutions.0 * others.1 - convolutions.1 * others.0;
    let conv = (weights * others.1 - products * others.0) / determinant;
    let other = (convolutions.0 * products - convolutions.1 * weights) / determinant;
    let with = |(number, layer): (usize, &Layer)| {
        let density = layer.weight.density * if number < 5 { conv } else { other };
        layer.clone().with_sparsity(layer.iact.clone(), Sparsity::uniform(density))
    };
    layers.iter().enumerate().map(with).collect()
}

fn padded(mut layer: Layer, pad: usize) -> Layer {
    layer.pad = [pad; 2];
    layer.input = [layer.bounds[4], layer.bounds[5]];
    layer
}

/// A layer with the densities of counts.
pub fn with_counts(layer: Layer, counts: &Counts) -> Layer {
    let of = |list: &[u64], size: usize| {
        Sparsity::per_channel(list.iter().map(|&n| n as f64 / size as f64).collect())
    };
    let (iact, weight) = (of(&counts.nnz_iact, counts.E * counts.F), of(&counts.nnz_weight, counts.M));
    layer.with_sparsity(iact, weight)
}

/// A published value beside the model's.
#[derive(Debug)]
pub struct Row {
    pub what: String,
    pub published: f64,
    pub modelled: f64,
    pub judged: Judged,
}

/// How far off a value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Judged {
    /// By this share of the published value.
    Relative(f64),
    /// By this much.
    Absolute(f64),
    /// Above, by any amount.
    AtLeast,
    /// Below, by any amount.
    AtMost,
    /// The published value's conditions are not known well enough to judge.
    Shown,
}

impl Row {
    pub fn exact(what: &str, published: f64, modelled: f64) -> Row {
        Row::within(what, published, modelled, 0.0)
    }

    pub fn within(what: &str, published: f64, modelled: f64, tolerance: f64) -> Row {
        Row { what: what.to_string(), published, modelled, judged: Judged::Relative(tolerance) }
    }

    pub fn absolute(what: &str, published: f64, modelled: f64, tolerance: f64) -> Row {
        Row { judged: Judged::Absolute(tolerance), ..Row::exact(what, published, modelled) }
    }

    pub fn at_least(what: &str, published: f64, modelled: f64) -> Row {
        Row { judged: Judged::AtLeast, ..Row::exact(what, published, modelled) }
    }

    pub fn at_most(what: &str, published: f64, modelled: f64) -> Row {
        Row { judged: Judged::AtMost, ..Row::exact(what, published, modelled) }
    }

    pub fn shown(what: &str, published: f64, modelled: f64) -> Row {
        Row { judged: Judged::Shown, ..Row::exact(what, published, modelled) }
    }

    /// Difference to the published value, as a share of it unless judged absolutely.
    pub fn error(&self) -> f64 {
        match self.judged {
            Judged::Absolute(_) => self.modelled - self.published,
            _ => self.modelled / self.published - 1.0,
        }
    }

    pub fn met(&self) -> bool {
        // Rounding of f64 sums only.
        match self.judged {
            Judged::Relative(most) | Judged::Absolute(most) => self.error().abs() <= most + 1e-9,
            Judged::AtLeast => self.modelled >= self.published,
            Judged::AtMost => self.modelled <= self.published,
            Judged::Shown => true,
        }
    }
}

/// Sparse MobileNet-0.5-128: counts of channels where they are published; for the other layers the share of
/// products from the lane cycles, split evenly between activations and weights; for L19, L23, L25, whose cycles
/// are not published, the mean share of their point-wise neighbours.
pub fn sparse_mobilenet() -> Vec<Layer> {
    let counts = channel_counts();
    let layers = mobilenet();
    let share = |number: usize| {
        let known = LANE_CYCLES.iter().find(|l| l.0 == number)?;
        Some(known.1 as f64 / layers[number - 1].macs())
    };
    let fill = |number: usize| {
        share(number).unwrap_or_else(|| {
            let near: Vec<f64> = [number - 2, number + 2].into_iter().filter_map(share).collect();
            near.iter().sum::<f64>() / near.len() as f64
        })
    };
    let with = |(index, layer): (usize, &Layer)| match counts.get(&layer.name) {
        Some(counts) => with_counts(layer.clone(), counts),
        None => {
            let each = fill(index + 1).sqrt();
            layer.clone().with_sparsity(Sparsity::uniform(each), Sparsity::uniform(each))
        }
    };
    layers.iter().enumerate().map(with).collect()
}
