//! Architectures as TOML: a global buffer, a spatial array with its ports, a processing element, an energy table.

use serde::Deserialize;

use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::layer::{Dim, Operand};

/// Widths of values, bits.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bits {
    /// Activations.
    pub iact: f64,
    /// Weights.
    pub weight: f64,
    /// Partial sums.
    pub psum: f64,
    /// Finished outputs.
    pub output: f64,
}

/// The buffer between external memory and the array.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Glb {
    /// Bytes for all tensors together; then the three below are not given.
    pub shared_bytes: Option<f64>,
    /// Bytes for activations.
    #[serde(default)]
    pub iact_bytes: f64,
    /// Bytes for weights; 0 sends them from external memory straight to the PEs.
    #[serde(default)]
    pub weight_bytes: f64,
    /// Bytes for partial sums.
    #[serde(default)]
    pub psum_bytes: f64,
    /// Finished outputs go off the chip without passing the buffer.
    pub outputs_bypass: bool,
}

/// Widths of the network's ports, bits a cycle. Each axis says which ports its positions have of their own.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// A port that brings activations.
    pub iact_bits: f64,
    /// A port that brings weights.
    pub weight_bits: f64,
    /// A port that takes partial sums away; the way back is separate and as wide.
    pub psum_bits: f64,
    /// All ports together by which external memory fills the buffer; without it those for activations.
    #[serde(default)]
    pub fill_bits: Option<f64>,
}

/// What a PE does about zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeKind {
    /// Nothing.
    Dense,
    /// A zero activation gates the clock: it saves energy, not cycles.
    Gated,
    /// Zero activations and weights take no cycle; operands travel compressed.
    Sparse,
}

/// A processing element.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pe {
    /// What it does about zeros.
    pub kind: PeKind,
    /// Multipliers, which work on as many filters at once.
    pub lanes: usize,
    /// Activations it holds.
    pub iact_words: usize,
    /// Weights it holds, as raw values or run-data pairs.
    pub weight_words: usize,
    /// Partial sums it holds.
    pub psum_words: usize,
    /// Stages of its pipeline, filled once for each set of weights.
    pub pipeline: usize,
    /// Its last stages, which must be empty before sums that have one copy can leave.
    #[serde(default)]
    pub update: usize,
    /// Partial sums leave between two windows, not during the next.
    pub serial_psums: bool,
    /// Weights that fill more than half of the pad are fetched between two sets, not during the last.
    pub serial_weights: bool,
    /// An activation is read once for all filters of the PE, not once a product.
    pub iact_register: bool,
}

/// One axis of the spatial array.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// For messages.
    pub name: String,
    /// Positions.
    pub size: usize,
    /// Loops that may be spread over it, by letter. C, R and S need adders along the axis.
    pub dims: String,
    /// Tensors for which each position has a port of its own; otherwise all positions share one.
    pub ports: Vec<String>,
}

impl Axis {
    /// Whether a loop may be spread over the axis.
    pub fn allows(&self, dim: Dim) -> bool {
        self.dims.contains(dim.letter())
    }

    /// Whether each position has its own port for the tensor.
    pub fn has_port(&self, operand: Operand) -> bool {
        self.ports.iter().any(|p| p == operand.name())
    }
}

/// How overlapping windows are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Halo {
    /// Every tile and every PE fetches its whole window.
    Refetch,
    /// A sliding window fetches what is new; PEs that share rows are served by one read.
    Reuse,
}

/// Published values that fix the scale of the energy; at most two, and the same for every network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor of all energy on the chip.
    pub chip: f64,
    /// The values used.
    pub points: Vec<String>,
}

/// An accelerator.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Name.
    pub name: String,
    /// One line.
    pub description: String,
    /// Where its numbers were read or recalled.
    pub source: String,
    /// Clock, Hz.
    pub clock_hz: f64,
    /// Name of its energy table.
    pub energy: String,
    /// Widths.
    pub bits: Bits,
    /// Buffer.
    pub glb: Glb,
    /// Bytes a cycle of external memory; absent means that only the ports limit it.
    pub dram_bytes_per_cycle: Option<f64>,
    /// Network.
    pub ports: Ports,
    /// Overlaps.
    pub halo: Halo,
    /// Scale of the energy, where published values fix it.
    pub calibration: Option<Calibration>,
    /// Element.
    pub pe: Pe,
    /// Array, from the outermost axis in.
    #[serde(rename = "axis")]
    pub axes: Vec<Axis>,
}

const SHIPPED: [&str; 5] = [
    include_str!("../data/arch/eyeriss-v1.toml"),
    include_str!("../data/arch/eyeriss-v1.5.toml"),
    include_str!("../data/arch/eyeriss-v2.toml"),
    include_str!("../data/arch/systolic-256x256.toml"),
    include_str!("../data/arch/eyeriss-like-45nm.toml"),
];

/// The architectures that come with wattle.
pub fn architectures() -> Vec<Architecture> {
    SHIPPED.iter().map(|text| Architecture::parse(text).expect("a test parses every shipped file")).collect()
}

impl Architecture {
    /// An architecture from TOML, checked.
    pub fn parse(text: &str) -> Result<Architecture, AccelError> {
        let arch: Architecture = toml::from_str(text).map_err(|e| AccelError::invalid("architecture", e))?;
        arch.check()?;
        Ok(arch)
    }

    /// A shipped architecture.
    pub fn named(name: &str) -> Result<Architecture, AccelError> {
        architectures().into_iter().find(|a| a.name == name).ok_or_else(|| AccelError::Unknown {
            what: "architecture",
            name: name.to_string(),
            known: architectures().into_iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Its energy table.
    pub fn table(&self) -> Result<EnergyTable, AccelError> {
        EnergyTable::named(&self.energy)
    }

    /// PEs.
    pub fn pes(&self) -> usize {
        self.axes.iter().map(|a| a.size).product()
    }

    /// Multipliers.
    pub fn multipliers(&self) -> usize {
        self.pes() * self.pe.lanes
    }

    /// Separate ports of a tensor on the whole chip.
    pub fn port_count(&self, operand: Operand) -> f64 {
        self.axes.iter().filter(|a| a.has_port(operand)).map(|a| a.size as f64).product()
    }

    /// Bits a cycle by which external memory fills the buffer.
    pub fn fill_bits(&self) -> f64 {
        self.ports.fill_bits.unwrap_or_else(|| self.port_count(Operand::Iact) * self.ports.iact_bits)
    }

    /// Sources of its numbers: its own, its energy table, its calibration.
    pub fn sources(&self) -> Result<Vec<String>, AccelError> {
        let mut sources =
            vec![format!("architecture {}: {}", self.name, self.source), self.table()?.citation()];
        if let Some(c) = &self.calibration {
            sources.push(format!("energy on the chip x {} to meet: {}", c.chip, c.points.join("; ")));
        }
        Ok(sources)
    }

    fn check(&self) -> Result<(), AccelError> {
        let wrong = |field: &str, reason: String| {
            Err(AccelError::invalid(format!("architecture `{}`, {field}", self.name), reason))
        };
        let positive = [
            ("clock_hz", self.clock_hz),
            ("bits.iact", self.bits.iact),
            ("bits.weight", self.bits.weight),
            ("bits.psum", self.bits.psum),
            ("bits.output", self.bits.output),
            ("ports.iact_bits", self.ports.iact_bits),
            ("ports.weight_bits", self.ports.weight_bits),
            ("ports.psum_bits", self.ports.psum_bits),
            ("ports.fill_bits", self.fill_bits()),
            ("dram_bytes_per_cycle", self.dram_bytes_per_cycle.unwrap_or(1.0)),
            ("pe.lanes", self.pe.lanes as f64),
            ("pe.iact_words", self.pe.iact_words as f64),
            ("pe.weight_words", self.pe.weight_words as f64),
            ("pe.psum_words", self.pe.psum_words as f64),
        ];
        for (field, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return wrong(field, format!("found {value}, expected a positive number"));
            }
        }
        if self.axes.is_empty() || self.axes.len() > 8 {
            return wrong("axis", format!("found {} axes, expected 1 to 8", self.axes.len()));
        }
        for axis in &self.axes {
            if axis.size == 0 || axis.size > 1 << 16 {
                return wrong("axis", format!("`{}` has size {}, expected 1 to 65536", axis.name, axis.size));
            }
            if let Some(letter) = axis.dims.chars().find(|c| Dim::from_letter(&c.to_string()).is_none()) {
                return wrong(
                    "axis",
                    format!("`{}` has the loop `{letter}`, expected some of NGMCPQRS", axis.name),
                );
            }
            if let Some(port) = axis.ports.iter().find(|p| Operand::ALL.iter().all(|o| o.name() != *p)) {
                return wrong(
                    "axis",
                    format!("`{}` has a port `{port}`, expected iact, weight, psum", axis.name),
                );
            }
        }
        if self.calibration.as_ref().is_some_and(|c| c.points.len() > 2) {
            return wrong("calibration", "more than two published values".to_string());
        }
        self.table().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_architectures_have_the_sizes_they_are_known_for() {
        let of = |name| Architecture::named(name).unwrap();
        assert_eq!((of("eyeriss-v2").pes(), of("eyeriss-v2").multipliers()), (192, 384));
        assert_eq!((of("eyeriss-v1.5").multipliers(), of("eyeriss-v1").multipliers()), (192, 192));
        assert_eq!(of("systolic-256x256").pes(), 65536);
        assert_eq!(architectures().len(), SHIPPED.len());
    }

    /// 48 routers of 24 b deliver 144 raw activations or weights a cycle, 64 of 40 b take 128 psums.
    #[test]
    fn the_ports_of_v2_deliver_what_its_mesh_does() {
        let v2 = Architecture::named("eyeriss-v2").unwrap();
        let words = |o, bits, width| v2.port_count(o) * bits / width;
        assert_eq!(words(Operand::Iact, v2.ports.iact_bits, 8.0), 144.0);
        assert_eq!(words(Operand::Weight, v2.ports.weight_bits, 8.0), 144.0);
        assert_eq!(words(Operand::Psum, v2.ports.psum_bits, 20.0), 128.0);
        assert_eq!(v2.glb.weight_bytes, 0.0);
    }

    #[test]
    fn mistakes_in_a_file_are_named() {
        let text = include_str!("../data/arch/eyeriss-v2.toml");
        for (from, to, word) in [
            ("dims = \"CRMPGN\"", "dims = \"CRX\"", "`X`"),
            ("lanes = 2", "lanes = 0", "pe.lanes"),
            ("energy = \"eyeriss-65nm-chip\"", "energy = \"x\"", "`x`"),
            ("halo = \"reuse\"", "halo = \"reuse\"\nhola = 1", "hola"),
        ] {
            let error = Architecture::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
