//! Networks by name: the ones that lottery-ticket papers train, and a small one for digits.

use wattle_graph::layers::{Drawing, Fresh, Layers};
use wattle_graph::{DType, Dim, Model, networks};

use wattle_data::SampleShape;
use wattle_data::error::{Error, Result};
use wattle_data::random::{Purpose, Stream};

/// Names and what they stand for.
pub const NETWORKS: &[(&str, &str)] = &[
    ("lenet-300-100", "two hidden layers of 300 and 100 (LeCun et al. 1998)"),
    (
        "lenet-5",
        "two convolutions of 6 and 16, three dense layers (LeCun et al. 1998), with ReLU and max pooling",
    ),
    ("resnet-20", "20 layers of 16, 32 and 64 channels (He et al. 2016, section 4.2)"),
    ("resnet-18", "18 layers of 64 to 512 channels for large images (He et al. 2016, table 1)"),
    ("small-conv", "two convolutions of 16 and 32, one dense layer"),
];

/// How weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Normal with variance `2 / (fan_in + fan_out)` (Glorot & Bengio 2010, equation 12).
    GlorotNormal,
    /// Normal with variance `2 / fan_in` (He et al. 2015, equation 10).
    KaimingNormal,
}

/// The named network for samples of this shape and this many outputs, freshly initialised by `seed`.
pub fn build(name: &str, sample: &SampleShape, outputs: usize, init: Init, seed: u64) -> Result<Model> {
    if !NETWORKS.iter().any(|(known, _)| *known == name) {
        let names: Vec<_> = NETWORKS.iter().map(|(n, _)| *n).collect();
        let found = format!("`{name}` is neither a file nor a network");
        return Err(Error::input("option `model`", found)
            .expected(format_args!("an .onnx file or one of: {}", names.join(", "))));
    }
    let dims = sample.dims();
    if name != "lenet-300-100" && dims.len() != 3 {
        let found = format!("{name} takes images; the samples are rows of {} numbers", sample.elements());
        return Err(Error::input("option `model`", found).remedy("use lenet-300-100 for rows"));
    }
    let mut layers = Layers::new(name, Fresh::new(|drawing| drawn(drawing, init, seed)));
    let shape: Vec<Dim> =
        std::iter::once(Dim::symbol("N")).chain(dims.iter().map(|&n| Dim::Known(n))).collect();
    let x = layers.graph.input("x", DType::F32, shape);
    let logits = match name {
        "lenet-5" => networks::lenet_5(&mut layers, x, outputs),
        "resnet-20" => networks::resnet_20(&mut layers, x, outputs),
        "resnet-18" => networks::resnet_18(&mut layers, x, outputs),
        "small-conv" => networks::small_conv(&mut layers, x, outputs),
        _ => networks::lenet_300_100(&mut layers, x, outputs),
    };
    let logits =
        logits.map_err(|e| Error::input(format_args!("network {name} on samples of {dims:?}"), e))?;
    let (graph, source) = layers.finish("logits", logits);
    Ok(Model::new(graph, source.parameters))
}

/// Weights of one layer: a stream of random numbers of its own for each place in the network.
fn drawn(drawing: Drawing<'_>, init: Init, seed: u64) -> Vec<f32> {
    let (fan_in, fan_out) = (drawing.fan_in as f64, drawing.fan_out as f64);
    let variance = match init {
        Init::GlorotNormal => 2.0 / (fan_in + fan_out),
        Init::KaimingNormal => 2.0 / fan_in,
    };
    let mut stream = Stream::new(seed, Purpose::Init, &[drawing.place as u64]);
    let count = drawing.extents.iter().product();
    (0..count).map(|_| (stream.normal() * variance.sqrt()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_parameter_counts_are_met() {
        let image = |c, h, w| SampleShape::Image { channels: c, height: h, width: w };
        let count = |name: &str, sample: &SampleShape| -> usize {
            let model = build(name, sample, 10, Init::KaimingNormal, 0).unwrap();
            let trainable = |p: &wattle_graph::ValueId| {
                model.graph.parameter_of(*p).is_some_and(|p| p.role == wattle_graph::Role::Trainable)
            };
            model
                .graph
                .parameters()
                .filter(trainable)
                .map(|p| model.graph.extents(p).unwrap().iter().product::<usize>())
                .sum()
        };
        // 784*300+300 + 300*100+100 + 100*10+10 (Frankle & Carbin 2019, figure 2: 266 K).
        assert_eq!(count("lenet-300-100", &image(1, 28, 28)), 266_610);
        // 0.27 M in He et al. 2016, table 6, with parameter-free shortcuts; ours add two 1x1 convolutions.
        // 11.69 M with 1000 classes (torchvision's model card), of which 513 000 are the last layer's.
        assert_eq!(count("resnet-18", &image(3, 64, 64)), 11_689_512 - 513_000 + 5_130);
        assert_eq!(count("resnet-20", &image(3, 32, 32)), 269_722 + 16 * 32 + 64 + 32 * 64 + 128);
    }

    #[test]
    fn the_seed_decides_the_weights() {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let weights = |seed| build("small-conv", &sample, 10, Init::KaimingNormal, seed).unwrap().parameters;
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}
