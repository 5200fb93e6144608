//! Mappings as a JSON file: written by the mapper, read back unchanged, evaluated as given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Architecture;
use crate::constraints::order;
use crate::cost::Format;
use crate::error::AccelError;
use crate::layer::{Dim, Layer};
use crate::mapping::{LevelLoops, Mapping};

/// Version of the file's fields.
pub const MAPPING_SCHEMA: u32 = 1;

/// Mappings of layers on one architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingFile {
    /// [`MAPPING_SCHEMA`].
    pub schema: u32,
    /// Name of the architecture they were made for.
    pub architecture: String,
    /// One a layer.
    pub layers: Vec<LayerMapping>,
}

/// The mapping of one layer. Factors are by letter; those that are 1 may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerMapping {
    /// Name of the layer.
    pub layer: String,
    /// Which tensors are compressed.
    pub compressed: Compressed,
    /// Loops at external memory, over tiles of the outermost buffer.
    pub dram: Loops,
    /// For each buffer, by its name and from the outermost in, its loops over tiles of the next level.
    #[serde(flatten, with = "in_order")]
    pub buffers: Vec<(String, Loops)>,
    /// Loops over the axes of the array, in its order.
    pub axes: Vec<AxisLoops>,
    /// Loops inside a PE.
    pub pe: BTreeMap<String, usize>,
}

/// Which tensors rest and travel as run-data pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compressed {
    /// Activations.
    pub iact: bool,
    /// Weights.
    pub weight: bool,
}

/// Temporal loops of a level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// Groups from the outermost in: `positions`, `reduction`, `filters`.
    pub order: Vec<String>,
    /// Factors.
    pub factors: BTreeMap<String, usize>,
}

/// Spatial loops of an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisLoops {
    /// Name of the axis.
    pub axis: String,
    /// Factors.
    pub factors: BTreeMap<String, usize>,
}

/// Fields of a map in the order in which they stand.
mod in_order {
    use std::fmt;

    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde::ser::Serializer;

    use super::Loops;

    pub fn serialize<S: Serializer>(list: &[(String, Loops)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(list.iter().map(|(name, loops)| (name, loops)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Loops)>, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, Loops)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("loops by name of buffer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = vec![];
                while let Some(field) = map.next_entry()? {
                    list.push(field);
                }
                Ok(list)
            }
        }

        from.deserialize_map(Fields)
    }
}

impl MappingFile {
    /// A file of mappings, each with its layer's name and format.
    pub fn new<'a>(
        arch: &Architecture,
        layers: impl IntoIterator<Item = (&'a str, Format, &'a Mapping)>,
    ) -> MappingFile {
        MappingFile {
            schema: MAPPING_SCHEMA,
            architecture: arch.name.clone(),
            layers: layers.into_iter().map(|(name, f, m)| LayerMapping::new(arch, name, f, m)).collect(),
        }
    }

    /// A file from its text. Text that [`MappingFile::text`] wrote comes back byte for byte.
    pub fn parse(text: &str) -> Result<MappingFile, AccelError> {
        let file: MappingFile =
            serde_json::from_str(text).map_err(|e| AccelError::invalid("mapping file", e))?;
        if file.schema != MAPPING_SCHEMA {
            let reason = format!("found schema {}, expected {MAPPING_SCHEMA}", file.schema);
            return Err(AccelError::invalid("mapping file", reason));
        }
        for (at, layer) in file.layers.iter().enumerate() {
            if file.layers[..at].iter().any(|l| l.layer == layer.layer) {
                let reason = format!("the layer `{}` stands there twice", layer.layer);
                return Err(AccelError::invalid("mapping file", reason));
            }
        }
        Ok(file)
    }

    /// The text of the file.
    pub fn text(&self) -> Result<String, AccelError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| AccelError::invalid("mapping file", e))?;
        Ok(text + "\n")
    }

    /// The mapping and format of a layer on the architecture that the file is for.
    pub fn mapping(&self, arch: &Architecture, layer: &Layer) -> Result<(Mapping, Format), AccelError> {
        if self.architecture != arch.name {
            let reason = format!("is for `{}`, not for `{}`", self.architecture, arch.name);
            return Err(AccelError::invalid("mapping file", reason));
        }
        match self.layers.iter().find(|l| l.layer == layer.name) {
            Some(found) => found.mapping(arch),
            None => {
                let known: Vec<&str> = self.layers.iter().map(|l| l.layer.as_str()).collect();
                let reason = format!("has no layer `{}`; it has: {}", layer.name, known.join(", "));
                Err(AccelError::invalid("mapping file", reason))
            }
        }
    }
}

impl LayerMapping {
    /// What a file says of a mapping.
    pub fn new(arch: &Architecture, layer: &str, format: Format, mapping: &Mapping) -> LayerMapping {
        let above_one = |loops: &mut dyn Iterator<Item = (Dim, usize)>| -> BTreeMap<String, usize> {
            loops.filter(|(_, n)| *n > 1).map(|(d, n)| (d.letter().to_string(), n)).collect()
        };
        let of = |bounds: &[usize; 8]| above_one(&mut Dim::ALL.into_iter().map(|d| (d, bounds[d as usize])));
        let level = |LevelLoops { bounds, order }: &LevelLoops| Loops {
            order: order.iter().rev().map(|g| g.name().to_string()).collect(),
            factors: of(bounds),
        };
        LayerMapping {
            layer: layer.to_string(),
            compressed: Compressed { iact: format.iact, weight: format.weight },
            dram: level(&mapping.levels[0]),
            buffers: arch
                .buffers
                .iter()
                .zip(&mapping.levels[1..])
                .map(|(buffer, loops)| (buffer.name.clone(), level(loops)))
                .collect(),
            axes: arch
                .axes
                .iter()
                .zip(&mapping.spatial)
                .map(|(axis, loops)| AxisLoops {
                    axis: axis.name.clone(),
                    factors: above_one(&mut loops.iter().copied()),
                })
                .collect(),
            pe: of(&mapping.pe),
        }
    }

    fn mapping(&self, arch: &Architecture) -> Result<(Mapping, Format), AccelError> {
        let wrong = |field: &str, reason: String| {
            AccelError::invalid(format!("mapping file, layer `{}`, {field}", self.layer), reason)
        };
        let loops = |field: &str, factors: &BTreeMap<String, usize>| {
            let of = |(letter, &n): (&String, &usize)| {
                let dim = Dim::from_letter(letter).ok_or_else(|| {
                    wrong(field, format!("found the loop `{letter}`, expected one of N G M C P Q R S"))
                })?;
                if n == 0 || n > 1 << 24 {
                    return Err(wrong(field, format!("found {letter} = {n}, expected 1 to {}", 1 << 24)));
                }
                Ok((dim, n))
            };
            let mut list = factors.iter().map(of).collect::<Result<Vec<_>, AccelError>>()?;
            list.sort_by_key(|(dim, _)| *dim);
            Ok::<_, AccelError>(list)
        };
        let bounds = |field: &str, factors: &BTreeMap<String, usize>| {
            let mut bounds = [1; 8];
            for (dim, n) in loops(field, factors)? {
                bounds[dim as usize] = n;
            }
            Ok::<_, AccelError>(bounds)
        };
        let ordered = |field: &str, names: &[String]| {
            order(names).ok_or_else(|| {
                let found = names.join(", ");
                let expected = "positions, reduction and filters, each once, from the outermost in";
                wrong(field, format!("found {found}, expected {expected}"))
            })
        };
        let level = |name: &str, given: &Loops| {
            Ok::<_, AccelError>(LevelLoops {
                bounds: bounds(&format!("{name}.factors"), &given.factors)?,
                order: ordered(&format!("{name}.order"), &given.order)?,
            })
        };
        let names: Vec<&str> = self.buffers.iter().map(|(name, _)| name.as_str()).collect();
        if names != arch.buffer_names() {
            let expected = arch.buffer_names().join(", ");
            return Err(wrong("buffers", format!("found {}, expected {expected}", names.join(", "))));
        }
        let mut levels = vec![level("dram", &self.dram)?];
        for (name, loops) in &self.buffers {
            levels.push(level(name, loops)?);
        }
        let names: Vec<&str> = self.axes.iter().map(|a| a.axis.as_str()).collect();
        let expected: Vec<&str> = arch.axes.iter().map(|a| a.name.as_str()).collect();
        if names != expected {
            let reason = format!("found {}, expected {}", names.join(", "), expected.join(", "));
            return Err(wrong("axes", reason));
        }
        let spatial = self.axes.iter().map(|a| loops(&a.axis, &a.factors)).collect::<Result<_, _>>()?;
        let mapping = Mapping { spatial, pe: bounds("pe", &self.pe)?, levels };
        Ok((mapping, Format { iact: self.compressed.iact, weight: self.compressed.weight }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mapper::{Effort, Objective, evaluate, map_best_format};

    fn written() -> (Architecture, Layer, String) {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let layer = Layer::conv("conv", 1, 13, 24, 14, 3, 1);
        let table = arch.table().unwrap();
        let found = map_best_format(&arch, &layer, &table, Objective::Edp, Effort::default()).unwrap();
        let file = MappingFile::new(&arch, [("conv", found.format, &found.mapping)]);
        let (mapping, format) = file.mapping(&arch, &layer).unwrap();
        assert_eq!(evaluate(&arch, &layer, &table, format, &mapping).unwrap(), found.cost);
        let text = file.text().unwrap();
        (arch, layer, text)
    }

    #[test]
    fn a_file_comes_back_byte_for_byte_and_its_mapping_costs_what_it_did() {
        let (_, _, text) = written();
        assert_eq!(MappingFile::parse(&text).unwrap().text().unwrap(), text);
    }

    #[test]
    fn a_file_that_cannot_be_used_says_where_and_what_was_expected() {
        let (arch, layer, text) = written();
        for (from, to, words) in [
            ("\"schema\": 1", "\"schema\": 2", ["schema 2", "expected 1"]),
            ("\"layer\": \"conv\"", "\"layer\": \"fc\"", ["`conv`", "it has: fc"]),
            ("\"PE row\"", "\"PE rows\"", ["axes", "PE rows"]),
            ("\"positions\"", "\"position\"", ["order", "position"]),
            ("\"glb\": {", "\"l1\": {", ["found l1", "expected glb"]),
            ("\"schema\": 1,", "\"schema\": 1, \"more\": 1,", ["more", "unknown"]),
            ("\"architecture\": \"eyeriss-v2\"", "\"architecture\": \"x\"", ["`x`", "`eyeriss-v2`"]),
            ("\"pe\": {", "\"pe\": { \"X\": 2,", ["pe", "`X`"]),
            ("\"pe\": {", "\"pe\": { \"N\": 0,", ["pe", "N = 0"]),
        ] {
            let text = text.replacen(from, to, 1);
            let error =
                MappingFile::parse(&text).and_then(|f| f.mapping(&arch, &layer)).unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        }
    }

    proptest! {
        /// Damaged files are refused or read, and what they then say is checked: nothing panics.
        #[test]
        fn damaged_files_never_panic(at in 0usize..2000, byte in any::<u8>(), n in 0usize..1 << 30) {
            static WRITTEN: std::sync::OnceLock<(Architecture, Layer, String)> = std::sync::OnceLock::new();
            let (arch, layer, text) = WRITTEN.get_or_init(written);
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let damaged = [String::from_utf8_lossy(&bytes).into_owned(), text.replace(": 8", &format!(": {n}"))];
            for text in damaged {
                if let Ok((mapping, format)) = MappingFile::parse(&text).and_then(|f| f.mapping(arch, layer)) {
                    let _ = evaluate(arch, layer, &arch.table().unwrap(), format, &mapping);
                }
            }
        }
    }
}
