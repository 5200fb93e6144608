//! Models that know what their inputs are to be normalised with, and models that do it themselves.

use wattle_data::error::{Error, Result};
use wattle_data::{ModelNotes, Normalisation};
use wattle_graph::rewrite::normalise_input;
use wattle_graph::{Model, Tensor};

/// What an input of a model is to be normalised with; `None` if its file does not say.
///
/// # Errors
/// When its metadata are damaged.
pub fn normalisation_of(model: &Model, input: &str) -> Result<Option<Normalisation>> {
    Ok(ModelNotes::read(&model.metadata)?.normalisation.remove(input))
}

/// The model with notes on what its input is to be normalised with and on its classes (none, if there are none).
///
/// # Errors
/// When its metadata are damaged.
pub fn noted(model: Model, input: &str, normalisation: &Normalisation, classes: &[String]) -> Result<Model> {
    let mut notes = ModelNotes::read(&model.metadata)?;
    notes.normalisation.insert(input.to_owned(), normalisation.clone());
    notes.classes = classes.to_vec();
    let mut model = model;
    notes.write(&mut model.metadata);
    Ok(model)
}

/// A model that normalises its input itself: it takes the numbers as the data store them (bytes as 0 to 255) and, to
/// rounding, gives what `model` gives for normalised ones. `full_scale` is what numbers are divided by where the
/// normalisation does not say.
///
/// # Errors
/// When there is no such input, or it is no row or image with so many channels.
pub fn with_normalisation(
    model: &Model,
    input: &str,
    normalisation: &Normalisation,
    full_scale: f32,
) -> Result<Model> {
    let place = "the model";
    let graph = &model.graph;
    let rank = graph.find(input).and_then(|id| graph.value(id).ty.shape.dims()).map(<[_]>::len);
    let Some(rank) = rank else {
        return Err(Error::input(place, format_args!("nothing is known of the shape of input `{input}`"))
            .expected("an input with a batch axis"));
    };
    let channels = normalisation.mean.len();
    // As `Normalisation` counts channels: without the batch, the first axis of three or more, or the only one.
    let shape = match rank.saturating_sub(1) {
        1 => vec![channels],
        axes @ 3.. => [vec![channels], vec![1; axes - 1]].concat(),
        _ => vec![],
    };
    let divisor = f64::from(normalisation.divisor.unwrap_or(full_scale));
    let constant = |numbers: &[f32]| {
        let scaled: Vec<f32> = numbers.iter().map(|&x| (f64::from(x) * divisor) as f32).collect();
        Tensor::new(shape.clone(), wattle_graph::Data::F32(scaled))
    };
    let (Some(shift), Some(scale)) = (constant(&normalisation.mean), constant(&normalisation.std)) else {
        return Err(Error::input(place, format_args!("{channels} channels for input `{input}`"))
            .expected("one, or as many as the input has"));
    };
    let graph = normalise_input(graph, input, &shift, &scale).map_err(|error| Error::input(place, error))?;
    let raw = Normalisation { divisor: Some(1.0), ..Normalisation::identity(channels) };
    let mut notes = ModelNotes::read(&model.metadata)?;
    notes.normalisation.insert(input.to_owned(), raw);
    let mut model = Model { graph, ..model.clone() };
    notes.write(&mut model.metadata);
    Ok(model)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wattle_data::SampleShape;
    use wattle_graph::{Example, interpret};

    use super::*;
    use crate::network::{Init, build};

    fn outputs(model: &Model, x: Tensor) -> Vec<f64> {
        let name = model.graph.label(model.graph.inputs()[0]);
        let bound = model.bind(&[(&name, x.shape())]).unwrap();
        let feeds = BTreeMap::from([(name, x.clone())]);
        let found = interpret(&bound.graph, &mut bound.parameters.clone(), &feeds).unwrap();
        found[0].to_f64().to_vec()
    }

    #[test]
    fn a_model_that_normalises_itself_gives_the_same_for_what_the_data_store() {
        let image = SampleShape::Image { channels: 3, height: 8, width: 8 };
        let normalisation =
            Normalisation { mean: vec![0.5, 0.25, 0.1], std: vec![0.2, 0.3, 0.5], divisor: Some(255.0) };
        let model = build("small-conv", &image, 10, Init::KaimingNormal, 1).unwrap();
        let input = model.graph.label(model.graph.inputs()[0]);
        let model = noted(model, &input, &normalisation, &["a".into()]).unwrap();
        assert_eq!(normalisation_of(&model, &input).unwrap(), Some(normalisation.clone()));
        let stored: Vec<f32> = Example::noise(&[2, 3, 8, 8], 1)
            .to_f64()
            .iter()
            .map(|x| (127.5 * (x + 1.0)).floor().clamp(0.0, 255.0) as f32)
            .collect();
        let prepared = stored.iter().enumerate().map(|(i, x)| {
            let channel = i / 64 % 3;
            (x / 255.0 - normalisation.mean[channel]) / normalisation.std[channel]
        });
        let expected = outputs(&model, Tensor::f32([2, 3, 8, 8], prepared.collect()));
        let itself = with_normalisation(&model, &input, &normalisation, 16.0).unwrap();
        let found = outputs(&itself, Tensor::f32([2, 3, 8, 8], stored));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
        let raw = normalisation_of(&itself, &input).unwrap().unwrap();
        assert_eq!(raw, Normalisation { divisor: Some(1.0), ..Normalisation::identity(3) });
        let classes = ModelNotes::read(&itself.metadata).unwrap().classes;
        assert_eq!(classes, ["a"], "what else was noted stays");
    }

    #[test]
    fn rows_are_normalised_number_by_number_and_other_counts_are_refused() {
        let row = SampleShape::Features(2);
        let model = build("lenet-300-100", &row, 2, Init::KaimingNormal, 1).unwrap();
        let input = model.graph.label(model.graph.inputs()[0]);
        let of = |channels: usize| Normalisation {
            mean: vec![2.0; channels],
            std: (1..=channels).map(|c| c as f32).collect(),
            divisor: None,
        };
        let itself = with_normalisation(&model, &input, &of(2), 1.0).unwrap();
        let expected = outputs(&model, Tensor::f32([1, 2], vec![1.0, 0.5]));
        assert_eq!(outputs(&itself, Tensor::f32([1, 2], vec![3.0, 3.0])), expected);
        assert!(with_normalisation(&model, &input, &of(3), 1.0).is_err());
        assert!(with_normalisation(&model, "no input", &of(2), 1.0).is_err());
    }
}
