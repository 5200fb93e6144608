//! Weights from another file: by name, with a list of what did not match.

use std::fmt;

use wattle_data::error::{Error, Result};
use wattle_graph::{Model, Parameters};

/// What came of putting given tensors into a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Names that both have, with one shape and element type: these were put in.
    pub taken: Vec<String>,
    /// The model's parameters that were not given: they stay as they were.
    pub missing: Vec<String>,
    /// Given tensors that the model does not have.
    pub unused: Vec<String>,
    /// Names that both have with different types: these stay as they were. The model's type, then the given one.
    pub misfits: Vec<(String, String, String)>,
}

impl Matched {
    /// Whether everything matched, both ways.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misfits.is_empty()
    }
}

/// Puts the tensors of `given` into `model`, by name; masks come with their tensors.
///
/// # Errors
/// When nothing matches: the file is of another model.
pub fn initialise(model: &mut Model, given: &Parameters) -> Result<Matched> {
    let own: Vec<String> = model
        .graph
        .parameters()
        .filter_map(|id| model.graph.parameter_of(id))
        .map(|parameter| parameter.tensor.clone())
        .collect();
    let mut matched = Matched::default();
    for name in &own {
        let Some(tensor) = given.get(name) else {
            matched.missing.push(name.clone());
            continue;
        };
        let Some(ours) = model.parameters.get(name) else { continue };
        if (ours.shape(), ours.dtype()) != (tensor.shape(), tensor.dtype()) {
            let [ours, theirs] = [ours, tensor].map(|t| format!("{}{:?}", t.dtype(), t.shape()));
            matched.misfits.push((name.clone(), ours, theirs));
            continue;
        }
        if let Some(at) = tensor.to_f64().iter().position(|x| !x.is_finite()) {
            let found = format!("element {at} of `{name}` is {}", tensor.to_f64()[at]);
            return Err(Error::input("the given weights", found).expected("finite numbers"));
        }
        model.parameters.insert(name.clone(), tensor.clone());
        if let Some(mask) = given.mask(name) {
            model.parameters.set_mask(name, mask.clone());
        }
        matched.taken.push(name.clone());
    }
    matched.unused =
        given.iter().map(|(name, _)| name.to_string()).filter(|name| !own.contains(name)).collect();
    if matched.taken.is_empty() {
        return Err(Error::input("the given weights", &matched)
            .expected("at least one tensor of the model's names and shapes"));
    }
    Ok(matched)
}

impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors taken", self.taken.len())?;
        let mut part = |what: &str, names: &[String]| -> fmt::Result {
            if names.is_empty() { Ok(()) } else { write!(f, "; {what}: {}", names.join(", ")) }
        };
        part("not given", &self.missing)?;
        part("not in the model", &self.unused)?;
        let misfits: Vec<String> =
            self.misfits.iter().map(|(name, ours, theirs)| format!("{name} ({theirs} for {ours})")).collect();
        part("of another shape", &misfits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Init, build};
    use wattle_data::SampleShape;
    use wattle_graph::{Mask, Tensor};

    #[test]
    fn what_did_not_match_is_listed_both_ways() {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let mut model = build("small-conv", &sample, 10, Init::KaimingNormal, 1).unwrap();
        let before = model.parameters.clone();
        let mut given = Parameters::new();
        given.insert("fc.bias", Tensor::f32([10], vec![1.0; 10]));
        given.set_mask("fc.bias", Mask::from_bools((0..10).map(|i| i > 0)));
        given.insert("fc.weight", Tensor::f32([5, 64], vec![0.0; 320]));
        given.insert("head.weight", Tensor::f32([1], vec![0.0]));
        let matched = initialise(&mut model, &given).unwrap();
        assert_eq!(matched.taken, ["fc.bias"]);
        assert_eq!(matched.unused, ["head.weight"]);
        assert_eq!(matched.missing.len(), 6, "{matched}");
        let misfit = ("fc.weight".to_string(), "f32[10, 64]".to_string(), "f32[5, 64]".to_string());
        assert_eq!(matched.misfits, [misfit]);
        assert!(!matched.is_complete());
        assert_eq!(model.parameters.get("fc.bias").unwrap().to_f64()[..2], [0.0, 1.0]);
        assert_eq!(model.parameters.get("fc.weight"), before.get("fc.weight"));
        assert!(initialise(&mut model, &before).unwrap().is_complete());
        let text = matched.to_string();
        assert!(text.contains("head.weight") && text.contains("f32[5, 64] for f32[10, 64]"), "{text}");
    }

    #[test]
    fn weights_of_another_model_are_refused() {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let mut model = build("small-conv", &sample, 10, Init::KaimingNormal, 1).unwrap();
        let mut given = Parameters::new();
        given.insert("encoder.weight", Tensor::f32([1], vec![0.0]));
        let error = initialise(&mut model, &given).unwrap_err().to_string();
        assert!(error.contains("not in the model: encoder.weight"), "{error}");
    }
}
