//! The networks of the suite that no training knows by name: MobileNetV1 and a Transformer encoder, with random weights
//! of which a random share is kept.

use wattle_data::random::{Purpose, Stream};
use wattle_graph::layers::{Drawing, Fresh, Layers};
use wattle_graph::networks::{self, Heads};
use wattle_graph::{DType, GraphError, Model, Shape, Tensor};

/// MobileNetV1 for images of 224 x 224. Depthwise layers and the first stay whole.
pub fn mobilenet_v1(batch: usize, density: f64) -> Result<Model, GraphError> {
    let mut layers = Layers::new("mobilenet-v1", Fresh::new(|drawing| drawn(drawing, density)));
    let x = layers.graph.input("x", DType::F32, Shape::known(&[batch, 3, 224, 224]));
    let y = networks::mobilenet_v1(&mut layers, x, 1000)?;
    let (graph, source) = layers.finish("y", y);
    Ok(Model::new(graph, source.parameters))
}

/// Six encoder layers of width 512, 8 heads and 2048 hidden units on sequences of 128 tokens that are already embedded.
/// All products with weights are pruned.
pub fn encoder(batch: usize, density: f64) -> Result<Model, GraphError> {
    let mut layers = Layers::new("encoder", Fresh::new(|drawing| drawn(drawing, density)));
    let mut x = layers.graph.input("x", DType::F32, Shape::known(&[batch, 128, 512]));
    for layer in 0..6 {
        let name = format!("layers.{layer}");
        x = networks::encoder_layer(&mut layers, &name, x, Heads { count: 8, width: 64 }, 2048)?;
    }
    let y = layers.layer_norm("norm", x)?;
    let (graph, source) = layers.finish("y", y);
    Ok(Model::new(graph, source.parameters))
}

/// Weights whose products keep the size of their inputs: variance 2 over what is left of the fan-in. Filters of more than
/// one tap stay whole.
fn drawn(drawing: Drawing<'_>, density: f64) -> Vec<f32> {
    let taps: usize = drawing.extents[2..].iter().product();
    let density = if taps == 1 { density } else { 1.0 };
    let mut stream = Stream::new(1, Purpose::Init, &[drawing.place as u64]);
    let deviation = (2.0 / (drawing.fan_in as f64 * density.max(1e-3))).sqrt();
    let mut draw = || if stream.chance(density) { (stream.normal() * deviation) as f32 } else { 0.0 };
    (0..drawing.extents.iter().product()).map(|_| draw()).collect()
}

/// Keeps a random share of the weights of every trained matrix and filter bank; the first, which sees the samples, and
/// vectors stay whole unless the network has one hidden layer only.
pub fn prune(model: &mut Model, density: f64) {
    let names: Vec<String> = model.parameters.iter().map(|(name, _)| name.to_string()).collect();
    for (index, name) in names.iter().enumerate() {
        let Some(tensor) = model.parameters.get(name) else { continue };
        let shape = tensor.shape().to_vec();
        // A stem of three channels is a sliver of the work, and its loss would cost the most.
        if shape.len() < 2 || shape[1] <= 3 {
            continue;
        }
        let mut stream = Stream::new(2, Purpose::Init, &[index as u64]);
        let values = tensor.as_f32().unwrap_or(&[]);
        let values = values.iter().map(|&w| if stream.chance(density) { w } else { 0.0 }).collect();
        model.parameters.insert(name.clone(), Tensor::f32(shape, values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_graph::{costs, totals};

    fn sums(model: &Model) -> wattle_graph::Totals {
        totals(&costs(&model.graph, &model.parameters).unwrap())
    }

    #[test]
    fn mobilenet_has_the_published_size() {
        let sums = sums(&mobilenet_v1(1, 0.1).unwrap());
        // Howard et al. 2017, table 8: 569 million multiply-adds, 4.2 million parameters.
        assert_eq!(sums.macs / 1_000_000, 568);
        assert!((4_200_000..4_250_000).contains(&sums.parameters), "{}", sums.parameters);
        let kept = sums.effective_macs as f64 / sums.macs as f64;
        assert!((0.1..0.2).contains(&kept), "{kept}: dense stems and depthwise layers, a tenth of the rest");
    }

    #[test]
    fn the_encoder_keeps_what_is_asked_for() {
        let sums = sums(&encoder(1, 0.1).unwrap());
        let kept = sums.nonzero_parameters as f64 / sums.parameters as f64;
        assert!((0.095..0.105).contains(&kept), "{kept}");
    }
}
