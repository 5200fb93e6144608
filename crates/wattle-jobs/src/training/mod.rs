//! What training, evaluating, pruning and searching share: data, a model, how it learns, and who follows.

pub mod curves;
pub mod data;
pub mod epochs;
pub mod facts;
pub mod follow;
pub mod integers;
pub mod learning;
pub mod material;
pub mod normalised;
pub mod preparation;
pub mod sample;

use std::path::Path;
use std::sync::Arc;

use wattle_graph::{Model, Parameters, Source};
use wattle_train::network;

/// Whether this names a file, and no network.
fn is_file(name: &str) -> bool {
    let is_name = network::NETWORKS.iter().any(|(n, _)| *n == name);
    !is_name && (name.ends_with(".onnx") || Path::new(name).exists())
}

/// What the validation part is, for keys: it chooses.
pub fn fingerprint_of(validation: &Option<Arc<dyn wattle_data::Source>>) -> Option<String> {
    validation.as_ref().map(|source| source.fingerprint())
}

/// The parameters that the model itself has, without optimiser state.
pub fn own_parameters(model: &Model, trained: &Parameters) -> Parameters {
    let mut own = Parameters::new();
    for id in model.graph.value_ids() {
        let Source::Parameter(parameter) = &model.graph.value(id).source else { continue };
        if let Some(tensor) = trained.get(&parameter.tensor) {
            own.insert(parameter.tensor.clone(), tensor.clone());
            if let Some(mask) = trained.mask(&parameter.tensor) {
                own.set_mask(&parameter.tensor, mask.clone());
            }
        }
    }
    own
}
