//! What a network is, as a short text: equal for equal networks, whatever file they came from.

use wattle_graph::{Graph, Model, Parameters, Tensor};

/// A hash of a model: operators, attributes, shapes, names, constants, and every parameter with its mask.
pub fn of_model(model: &Model) -> String {
    let mut hasher = blake3::Hasher::new();
    graph(&mut hasher, &model.graph);
    parameters(&mut hasher, &model.parameters);
    hasher.finalize().to_hex()[..16].to_owned()
}

/// A hash of a graph: operators, attributes, shapes, names and constants.
pub fn of_graph(network: &Graph) -> String {
    let mut hasher = blake3::Hasher::new();
    graph(&mut hasher, network);
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The listing has everything but the elements of constants.
fn graph(hasher: &mut blake3::Hasher, graph: &Graph) {
    text(hasher, &graph.to_string());
    for constant in graph.value_ids().filter_map(|id| graph.constant_of(id)) {
        tensor(hasher, constant);
    }
}

fn parameters(hasher: &mut blake3::Hasher, parameters: &Parameters) {
    for (name, value) in parameters.iter() {
        text(hasher, name);
        tensor(hasher, value);
    }
    for (name, mask) in parameters.masks() {
        text(hasher, name);
        hasher.update(&mask.to_bytes());
    }
}

fn tensor(hasher: &mut blake3::Hasher, tensor: &Tensor) {
    text(hasher, &format!("{} {:?}", tensor.dtype(), tensor.shape()));
    hasher.update(&tensor.to_le_bytes());
}

/// With its length, so that two texts are not one.
fn text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Init, build};
    use wattle_data::SampleShape;
    use wattle_graph::Mask;

    #[test]
    fn a_weight_and_a_mask_each_make_another_model() {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let model = build("small-conv", &sample, 10, Init::KaimingNormal, 1).unwrap();
        let mut masked = model.clone();
        let len = model.parameters.get("fc.weight").unwrap().len();
        masked.parameters.set_mask("fc.weight", Mask::full(len));
        let mut moved = model.clone();
        moved.parameters.insert("fc.bias", Tensor::f32([10], vec![1e-30; 10]));
        let prints = [&model, &masked, &moved].map(of_model);
        assert_eq!(prints[0], of_model(&model.clone()));
        assert!(prints[0] != prints[1] && prints[0] != prints[2] && prints[1] != prints[2], "{prints:?}");
    }
}
