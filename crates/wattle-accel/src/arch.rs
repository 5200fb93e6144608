//! Architectures as TOML or YAML: buffers one behind the other, a spatial array with its networks, a processing
//! element, an energy table.

use serde::Deserialize;

use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::layer::{Dim, Operand};
use crate::syntax::Syntax;

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

/// Buffers between external memory and the array, at most.
pub const MAX_BUFFERS: usize = 4;

/// A buffer between external memory and the array.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// Its name in mappings, in constraints and in the energy table.
    pub name: String,
    /// Bytes for all tensors together; then the three below are not given.
    pub shared_bytes: Option<f64>,
    /// Bytes for activations.
    #[serde(default)]
    pub iact_bytes: f64,
    /// Bytes for weights; 0 lets them pass by.
    #[serde(default)]
    pub weight_bytes: f64,
    /// Bytes for partial sums.
    #[serde(default)]
    pub psum_bytes: f64,
    /// Sums on their last visit go outwards without passing the buffer.
    #[serde(default)]
    pub outputs_bypass: bool,
    /// Tensors that never rest in the buffer, by name: they move between the places on both sides of it.
    #[serde(default)]
    pub bypass: Vec<String>,
    /// Bits a cycle that it reads, for all tensors together; absent means that only the ports limit it.
    pub read_bits_per_cycle: Option<f64>,
    /// The same for writing.
    pub write_bits_per_cycle: Option<f64>,
}

impl Buffer {
    /// Bytes, of all tensors.
    pub fn bytes(&self) -> f64 {
        self.shared_bytes.unwrap_or(self.iact_bytes + self.weight_bytes + self.psum_bytes)
    }

    /// Makes it this many times as large, for every tensor.
    pub(crate) fn scale_bytes(&mut self, factor: f64) {
        self.shared_bytes = self.shared_bytes.map(|bytes| factor * bytes);
        for bytes in [&mut self.iact_bytes, &mut self.weight_bytes, &mut self.psum_bytes] {
            *bytes *= factor;
        }
    }

    /// Whether a tensor rests in the buffer on its way; weights do not where they have no bytes of their own.
    pub fn keeps(&self, operand: Operand) -> bool {
        let room = match operand {
            Operand::Weight => self.shared_bytes.is_some() || self.weight_bytes > 0.0,
            Operand::Iact | Operand::Psum => true,
        };
        room && !self.bypass.iter().any(|name| name == operand.name())
    }
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
    /// All ports together by which external memory fills the outermost buffer; without it those for activations.
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
    /// Tensors without a pad, by name: each value comes over the network when it is used.
    #[serde(default)]
    pub bypass: Vec<String>,
}

impl Pe {
    /// Whether the PE has a pad for a tensor.
    pub fn keeps(&self, operand: Operand) -> bool {
        !self.bypass.iter().any(|name| name == operand.name())
    }
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
    /// One read serves all positions that need the same value; otherwise each position costs a read.
    #[serde(default = "yes")]
    pub multicast: bool,
    /// Partial sums of the positions are added on the way; otherwise each goes to the buffer.
    #[serde(default = "yes")]
    pub reduction: bool,
}

fn yes() -> bool {
    true
}

impl Axis {
    /// Whether a loop may be spread over the axis.
    pub fn allows(&self, dim: Dim) -> bool {
        self.dims.contains(dim.letter())
    }

    /// Whether positions that share a value of the tensor cost one access together.
    pub fn shares(&self, operand: Operand) -> bool {
        if operand == Operand::Psum { self.reduction } else { self.multicast }
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
    /// Technology node that the energy table must be for, such as `65 nm`; absent where any will do.
    pub technology: Option<String>,
    /// A table given from outside, in place of the one by name.
    #[serde(skip)]
    pub given: Option<EnergyTable>,
    /// Widths.
    pub bits: Bits,
    /// Buffers, from the outermost in.
    #[serde(rename = "buffer")]
    pub buffers: Vec<Buffer>,
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

/// The file of a shipped architecture, to start one's own from.
pub fn architecture_text(name: &str) -> Result<&'static str, AccelError> {
    let wanted = Architecture::named(name)?;
    let text = SHIPPED.iter().copied().find(|text| Architecture::parse(text).is_ok_and(|a| a == wanted));
    Ok(text.expect("the architecture was parsed from one of these"))
}

impl Architecture {
    /// An architecture from TOML, checked.
    pub fn parse(text: &str) -> Result<Architecture, AccelError> {
        Architecture::parse_as(Syntax::Toml, text)
    }

    /// An architecture from either syntax, checked.
    pub fn parse_as(syntax: Syntax, text: &str) -> Result<Architecture, AccelError> {
        let arch: Architecture = syntax.read("architecture", text)?;
        arch.check()?;
        Ok(arch)
    }

    /// The same architecture with another energy table. A calibration belongs to the table it was made with, so it
    /// goes; a table for another technology than the architecture's is refused.
    pub fn with_energy(mut self, table: EnergyTable) -> Result<Architecture, AccelError> {
        (self.energy, self.calibration) = (table.id.clone(), None);
        self.given = Some(table);
        self.check()?;
        Ok(self)
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
        self.given.clone().map_or_else(|| EnergyTable::named(&self.energy), Ok)
    }

    /// Names of its buffers, from the outermost in.
    pub fn buffer_names(&self) -> Vec<String> {
        self.buffers.iter().map(|b| b.name.clone()).collect()
    }

    /// PEs.
    pub fn pes(&self) -> usize {
        self.axes.iter().map(|a| a.size).product()
    }

    /// Cycles in which external memory moves these bits; 0 where its bandwidth has no limit.
    pub fn external_cycles(&self, bits: f64) -> f64 {
        self.dram_bytes_per_cycle.map_or(0.0, |bytes| bits / (8.0 * bytes))
    }

    /// Multipliers.
    pub fn multipliers(&self) -> usize {
        self.pes() * self.pe.lanes
    }

    /// Separate ports of a tensor on the whole chip.
    pub fn port_count(&self, operand: Operand) -> f64 {
        self.axes.iter().filter(|a| a.has_port(operand)).map(|a| a.size as f64).product()
    }

    /// Bits a cycle by which external memory fills the outermost buffer.
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
        if let Some(name) = self.pe.bypass.iter().find(|n| !is_operand(n)) {
            return wrong("pe.bypass", format!("found `{name}`, expected iact, weight, psum"));
        }
        self.check_buffers()?;
        if !self.pe.keeps(Operand::Psum) || !self.pe.keeps(Operand::Weight) {
            return wrong("pe.bypass", "only activations can do without a pad".to_string());
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
            if let Some(port) = axis.ports.iter().find(|p| !is_operand(p)) {
                return wrong(
                    "axis",
                    format!("`{}` has a port `{port}`, expected iact, weight, psum", axis.name),
                );
            }
        }
        if self.calibration.as_ref().is_some_and(|c| c.points.len() > 2) {
            return wrong("calibration", "more than two published values".to_string());
        }
        let table = self.table()?;
        if let Some(node) = self.technology.as_ref().filter(|node| **node != table.technology) {
            let reason = format!("is for {node}, the energy table `{}` for {}", table.id, table.technology);
            return wrong("technology", format!("{reason}; they are not mixed"));
        }
        self.check_energies(&table)
    }

    fn check_buffers(&self) -> Result<(), AccelError> {
        let wrong = |name: &str, field: &str, reason: String| {
            Err(AccelError::invalid(format!("architecture `{}`, buffer `{name}`{field}", self.name), reason))
        };
        if self.buffers.is_empty() || self.buffers.len() > MAX_BUFFERS {
            let reason = format!("found {} buffers, expected 1 to {MAX_BUFFERS}", self.buffers.len());
            return Err(AccelError::invalid(format!("architecture `{}`, buffer", self.name), reason));
        }
        for (at, buffer) in self.buffers.iter().enumerate() {
            // Names stand beside these in files of mappings and constraints.
            if ["", "dram", "pe", "axes", "layer", "layers", "compressed"].contains(&buffer.name.as_str()) {
                return wrong(&buffer.name, "", "the name is taken, expected another".to_string());
            }
            if self.buffers[..at].iter().any(|b| b.name == buffer.name) {
                return wrong(&buffer.name, "", "two buffers have this name".to_string());
            }
            let positive = [
                (".shared_bytes", buffer.shared_bytes),
                (".read_bits_per_cycle", buffer.read_bits_per_cycle),
                (".write_bits_per_cycle", buffer.write_bits_per_cycle),
            ];
            for (field, value) in positive {
                if let Some(value) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                    return wrong(&buffer.name, field, format!("found {value}, expected a positive number"));
                }
            }
            let bytes = [
                (".iact_bytes", buffer.iact_bytes),
                (".weight_bytes", buffer.weight_bytes),
                (".psum_bytes", buffer.psum_bytes),
            ];
            for (field, value) in bytes {
                if !(value >= 0.0 && value.is_finite()) {
                    let reason = format!("found {value}, expected a number of bytes, 0 or more");
                    return wrong(&buffer.name, field, reason);
                }
            }
            if let Some(name) = buffer.bypass.iter().find(|n| !is_operand(n)) {
                let reason = format!("found `{name}`, expected iact, weight, psum");
                return wrong(&buffer.name, ".bypass", reason);
            }
        }
        Ok(())
    }

    /// Refuses tables without a row for each buffer, and those under which a sum that goes out and comes back costs
    /// less than one that stays: the mapper's bounds rest on it.
    fn check_energies(&self, table: &EnergyTable) -> Result<(), AccelError> {
        let rows = table.rows(&self.buffers)?;
        let scale = self.calibration.as_ref().map_or(1.0, |c| c.chip);
        let (mut outer, mut moving) = ("dram", table.dram.reading(1.0) + table.dram.writing(1.0));
        for (buffer, row) in self.buffers.iter().zip(rows).filter(|(b, _)| b.keeps(Operand::Psum)) {
            // What comes from outside is not read here.
            let saved = scale * row.reading(1.0);
            if moving < saved {
                let place = format!("architecture `{}`, energy table `{}`", self.name, table.id);
                let reason = format!(
                    "found {moving} pJ to write and read a bit at `{outer}`, expected no less than the {saved} pJ \
                     to read it from `{}` inside it",
                    buffer.name
                );
                return Err(AccelError::invalid(place, reason));
            }
            (outer, moving) = (&buffer.name, scale * (row.reading(1.0) + row.writing(1.0)));
        }
        Ok(())
    }
}

fn is_operand(name: &str) -> bool {
    Operand::ALL.iter().any(|o| o.name() == name)
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
        assert_eq!(v2.buffers[0].weight_bytes, 0.0);
    }

    #[test]
    fn a_table_for_another_technology_is_refused_and_another_table_of_the_same_drops_the_calibration() {
        let v2 = || Architecture::named("eyeriss-v2").unwrap();
        let error = v2().with_energy(EnergyTable::named("horowitz-45nm").unwrap()).unwrap_err().to_string();
        assert!(error.contains("65 nm") && error.contains("45 nm") && error.contains("not mixed"), "{error}");
        let same = v2().with_energy(EnergyTable::named("timeloop-eyeriss-like-65nm").unwrap()).unwrap();
        assert_eq!(same.calibration, None);
        assert!(same.sources().unwrap()[1].contains("timeloop-eyeriss-like-65nm"));
        let text = include_str!("../data/arch/eyeriss-v2.toml");
        let mixed = text.replace("energy = \"eyeriss-65nm-chip\"", "energy = \"horowitz-45nm\"");
        assert!(Architecture::parse(&mixed).unwrap_err().to_string().contains("not mixed"));
    }

    #[test]
    fn yaml_says_what_toml_does() {
        let toml = Architecture::parse(include_str!("../data/arch/systolic-256x256.toml")).unwrap();
        let value: toml::Value = toml::from_str(include_str!("../data/arch/systolic-256x256.toml")).unwrap();
        let yaml = serde_yaml_ng::to_string(&value).unwrap();
        assert_eq!(Architecture::parse_as(Syntax::Yaml, &yaml).unwrap(), toml);
    }

    #[test]
    fn the_examples_can_be_used() {
        let tpu = Architecture::parse(include_str!("../../../examples/accel/tpu-like.toml")).unwrap();
        assert!(
            !tpu.buffers[0].keeps(Operand::Weight)
                && tpu.buffers[0].keeps(Operand::Psum)
                && !tpu.pe.keeps(Operand::Iact)
        );
        let deep = Architecture::parse(include_str!("../../../examples/accel/two-level.toml")).unwrap();
        assert_eq!(deep.buffer_names(), ["l2", "l1"]);
        assert!(deep.buffers[0].keeps(Operand::Weight) && !deep.buffers[1].keeps(Operand::Weight));
        let text = include_str!("../../../examples/accel/small.yaml");
        let small = Architecture::parse_as(Syntax::Yaml, text).unwrap();
        assert_eq!((small.axes[0].multicast, small.axes[0].reduction, small.pes()), (false, true, 16));
        assert!(small.axes[0].shares(Operand::Psum) && !small.axes[0].shares(Operand::Iact));
    }

    proptest::proptest! {
        /// Damaged files are refused or read; nothing panics, in either syntax.
        #[test]
        fn damaged_files_never_panic(at in 0usize..4000, byte in proptest::prelude::any::<u8>(), cut in 0usize..4000) {
            let files = [
                (Syntax::Toml, include_str!("../data/arch/eyeriss-v2.toml")),
                (Syntax::Yaml, include_str!("../../../examples/accel/small.yaml")),
            ];
            for (syntax, text) in files {
                let mut bytes = text.as_bytes().to_vec();
                let len = bytes.len();
                bytes[at % len] = byte;
                bytes.truncate(len - cut % len.min(40));
                let _ = Architecture::parse_as(syntax, &String::from_utf8_lossy(&bytes));
                let _ = crate::EnergyFile::parse(syntax, &String::from_utf8_lossy(&bytes));
                let _ = crate::Constraints::parse(syntax, &String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn mistakes_in_a_file_are_named() {
        let text = include_str!("../data/arch/eyeriss-v2.toml");
        for (from, to, word) in [
            ("dims = \"CRMPGN\"", "dims = \"CRX\"", "`X`"),
            ("lanes = 2", "lanes = 0", "pe.lanes"),
            ("energy = \"eyeriss-65nm-chip\"", "energy = \"x\"", "`x`"),
            ("halo = \"reuse\"", "halo = \"reuse\"\nhola = 1", "hola"),
            ("outputs_bypass = true", "outputs_bypass = true, bypass = [\"x\"]", "buffer `glb`.bypass"),
            ("pipeline = 7", "pipeline = 7\nbypass = [\"psum\"]", "only activations"),
            ("iact_bytes = 73728", "iact_bytes = -1", "buffer `glb`.iact_bytes"),
            ("name = \"glb\"", "name = \"l1\"", "no buffer `l1`"),
            ("name = \"glb\"", "name = \"dram\"", "the name is taken"),
        ] {
            let error = Architecture::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
