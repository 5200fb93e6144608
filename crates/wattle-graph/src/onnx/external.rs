//! Tensors that a model keeps in other files: in or below its folder, whole, and no byte of them many times over.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::error::OnnxError;
use super::proto::{EXTERNAL, GraphProto, TensorProto};
use super::tensor_proto::stored_size;

/// How often the bytes of a file may be read by different tensors: a few share them, hostile ones by the thousand.
const MOST_SHARED: u64 = 4;

/// Refuses a graph whose tensors read the bytes of other files many times over: a small file must not fill the memory.
pub(super) fn check(graph: &GraphProto, folder: Option<&Path>) -> Result<(), OnnxError> {
    let mut claimed = BTreeMap::new();
    claims(graph, &mut claimed);
    for (location, claimed) in claimed {
        // What cannot be found is told where the tensor is read.
        let Some(size) = folder.and_then(|folder| folder.join(&location).metadata().ok()).map(|m| m.len())
        else {
            continue;
        };
        let limit = size.saturating_mul(MOST_SHARED);
        if claimed > limit {
            let what = "bytes that tensors take of one file of external data";
            return Err(OnnxError::TooLarge { what, found: claimed, limit });
        }
    }
    Ok(())
}

/// Adds up what tensors take of each file.
fn claims(graph: &GraphProto, claimed: &mut BTreeMap<String, u64>) {
    let of_attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let tensors = graph.initializer.iter().chain(of_attributes.clone().filter_map(|a| a.t.as_ref()));
    for tensor in tensors.filter(|tensor| tensor.data_location == EXTERNAL) {
        let elements = tensor.dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?));
        let size = stored_size(tensor.data_type).unwrap_or(1) as u64;
        let bytes = elements.and_then(|n| n.checked_mul(size)).unwrap_or(u64::MAX);
        let sum = claimed.entry(entry(tensor, "location").unwrap_or_default().to_owned()).or_default();
        *sum = sum.saturating_add(bytes);
    }
    of_attributes.filter_map(|a| a.g.as_ref()).for_each(|nested| claims(nested, claimed));
}

fn entry<'a>(proto: &'a TensorProto, key: &str) -> Option<&'a str> {
    proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str())
}

/// The bytes of a tensor kept in another file, which must lie in or below `folder`.
pub(super) fn read(proto: &TensorProto, count: usize, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    let location = entry(proto, "location").ok_or("external data without a location")?;
    let number = |key: &str| match entry(proto, key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("external data with {key} `{text}`")),
    };
    let folder =
        folder.ok_or_else(|| format!("external data in `{location}`, but the model is not a file"))?;
    let relative = Path::new(location);
    let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let escape = || format!("external data in `{location}`, outside the model's folder; it is not read");
    if !inside {
        return Err(escape());
    }
    let failed = |e: std::io::Error| format!("external data in `{location}`: {e}");
    let path = folder.join(relative).canonicalize().map_err(failed)?;
    if !path.starts_with(folder.canonicalize().map_err(failed)?) {
        return Err(escape());
    }
    let size = stored_size(proto.data_type)?;
    let wanted = count as u64 * size as u64;
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(format!("external data in `{location}`: a folder, a pipe or a device, expected a file"));
    }
    let mut file = std::fs::File::open(&path).map_err(failed)?;
    let (total, offset) = (file.metadata().map_err(failed)?.len(), number("offset")?.unwrap_or(0));
    let length = number("length")?.unwrap_or(wanted);
    if length != wanted || offset.checked_add(length).is_none_or(|end| end > total) {
        return Err(format!(
            "external data in `{location}`: bytes {offset}+{length} of a file of {total}, expected {wanted} bytes"
        ));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::proto::StringStringEntryProto;
    use super::*;

    fn tensor(location: &str, elements: i64) -> TensorProto {
        let entry = StringStringEntryProto { key: "location".into(), value: location.into() };
        TensorProto {
            dims: vec![elements],
            data_type: 1,
            data_location: EXTERNAL,
            external_data: vec![entry],
            ..TensorProto::default()
        }
    }

    #[test]
    fn a_file_that_few_tensors_share_is_read_and_one_that_many_do_is_refused() {
        let folder = std::env::temp_dir().join(format!("wattle-external-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("w.bin"), [0; 400]).unwrap();
        let graph =
            |count| GraphProto { initializer: vec![tensor("w.bin", 100); count], ..GraphProto::default() };
        assert!(check(&graph(MOST_SHARED as usize), Some(&folder)).is_ok());
        let error = check(&graph(MOST_SHARED as usize + 1), Some(&folder)).unwrap_err();
        assert!(error.to_string().contains("external data: 2000, more than the limit of 1600"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
