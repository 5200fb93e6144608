//! Models from files, with their inputs bound and filled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_graph::onnx::{Limits, OnnxError, encode_model, read_model};
use wattle_graph::{DType, Dim, Example, Model, Shape, Tensor};

use crate::error::{JobError, Result};
use crate::npy;

/// What an input is given: a shape (`x=1x3x224x224`) or a file (`x=image.npy`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputText {
    /// Extents, in order.
    Shape(Vec<usize>),
    /// An `.npy` file.
    File(PathBuf),
}

/// Parses `name=1x3x224x224` or `name=file.npy`.
pub fn parse_input(text: &str) -> std::result::Result<(String, InputText), String> {
    let wanted = "expected name=1x3x224x224 or name=file.npy";
    let (name, value) = text.rsplit_once('=').ok_or_else(|| format!("`{text}`: {wanted}"))?;
    let extents: Option<Vec<usize>> = value.split('x').map(|n| n.parse().ok()).collect();
    match extents {
        Some(extents) => Ok((name.to_string(), InputText::Shape(extents))),
        None if value.ends_with(".npy") => Ok((name.to_string(), InputText::File(value.into()))),
        None => Err(format!("`{text}`: {wanted}")),
    }
}

/// Reads a model.
pub fn load(path: &Path) -> Result<Model> {
    read_model(path, &Limits::default()).map_err(|e| match e {
        // Names its file itself.
        OnnxError::Io { .. } => JobError::from(e),
        _ => JobError::from(e).context(path.display()),
    })
}

/// Names a model by its graph and weights, so that a file that changed starts another run.
pub fn fingerprint(model: &Model) -> Result<String> {
    Ok(blake3::hash(&encode_model(model)?).to_hex()[..16].to_string())
}

/// Reads the files among the inputs.
pub fn read_feeds(inputs: &[(String, InputText)]) -> Result<BTreeMap<String, Tensor>> {
    let mut feeds = BTreeMap::new();
    for (name, text) in inputs {
        if let InputText::File(path) = text {
            feeds.insert(name.clone(), npy::read(path)?);
        }
    }
    Ok(feeds)
}

/// Binds the model's inputs to the shapes given; an axis whose extent nobody gave becomes 1 when it is the first
/// (the batch), and is an error otherwise.
pub fn bind(
    model: &Model,
    inputs: &[(String, InputText)],
    feeds: &BTreeMap<String, Tensor>,
) -> Result<Model> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![];
    for (name, text) in inputs {
        shapes.push(match text {
            InputText::Shape(extents) => (name.clone(), extents.clone()),
            InputText::File(_) => (name.clone(), feeds[name].shape().to_vec()),
        });
    }
    for &id in model.graph.inputs() {
        let name = model.graph.label(id);
        if shapes.iter().any(|(n, _)| *n == name) {
            continue;
        }
        let shape = &model.graph.value(id).ty.shape;
        let ask = || {
            JobError::option(
                "input",
                format!("`{name}` has the shape {shape}; give it: option `input={name}={}`", likely(shape)),
            )
        };
        let dims = shape.dims().ok_or_else(ask)?;
        let extents: Option<Vec<usize>> =
            dims.iter().enumerate().map(|(axis, d)| d.known().or((axis == 0).then_some(1))).collect();
        shapes.push((name.clone(), extents.ok_or_else(ask)?));
    }
    let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    Ok(model.bind(&shapes)?)
}

/// A shape that would do, as it is typed: what is known as it is, one sample, and for sides of images their usual size.
fn likely(shape: &Shape) -> String {
    let Some(dims) = shape.dims() else { return "1x3x224x224".into() };
    let side = if dims.len() >= 4 { 224 } else { 16 };
    let known =
        |(axis, dim): (usize, &Dim)| dim.known().unwrap_or(if axis == 0 { 1 } else { side }).to_string();
    dims.iter().enumerate().map(known).collect::<Vec<_>>().join("x")
}

/// Something to feed each input that no file was given for: noise for floats, small numbers for integers.
pub fn made_up(model: &Model, feeds: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    for (seed, &id) in model.graph.inputs().iter().enumerate() {
        let (name, ty) = (model.graph.label(id), &model.graph.value(id).ty);
        if let Some(tensor) = feeds.get(&name) {
            let found = tensor.dtype();
            let tensor = npy::fitted(tensor.clone(), ty.dtype).ok_or_else(|| {
                JobError::input(format!("input `{name}`: found elements of {found}, expected {}", ty.dtype))
            })?;
            all.insert(name, tensor);
            continue;
        }
        let extents = model.graph.extents(id)?;
        let noise = Example::noise(&extents, seed as u32 + 1);
        let tensor = if ty.dtype.is_float() {
            noise.cast(ty.dtype)
        } else if ty.dtype == DType::Bool {
            Tensor::from_f64(DType::Bool, extents, noise.to_f64().iter().map(|x| x.max(0.0)).collect())
        } else {
            Tensor::from_f64(
                ty.dtype,
                extents,
                noise.to_f64().iter().map(|x| (x.abs() * 100.0).floor()).collect(),
            )
        };
        all.insert(name, tensor);
    }
    if let Some(name) = feeds.keys().find(|name| !all.contains_key(*name)) {
        let names: Vec<_> = all.keys().cloned().collect();
        return Err(JobError::input(format!(
            "there is no input `{name}`; the inputs are: {}",
            names.join(", ")
        )));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_shapes_or_files() {
        assert_eq!(parse_input("x=1x3x8"), Ok(("x".into(), InputText::Shape(vec![1, 3, 8]))));
        assert_eq!(parse_input("a=b=5"), Ok(("a=b".into(), InputText::Shape(vec![5]))));
        assert!(matches!(parse_input("x=box.npy"), Ok((_, InputText::File(_)))));
        assert!(parse_input("x").is_err() && parse_input("x=photo.png").is_err());
    }
}
