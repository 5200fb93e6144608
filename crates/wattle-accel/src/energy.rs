//! Energy tables: named, versioned, cited; a table holds one technology, so two are never mixed.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::arch::Buffer;
use crate::error::AccelError;
use crate::syntax::Syntax;

/// Energy of a multiply-accumulate.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacEnergy {
    /// pJ for operands of `bits`.
    pub pj: f64,
    /// Width of both operands; other widths scale with the product of the widths (Timeloop `pat.cpp`).
    pub bits: f64,
    /// The cited value already is for the architecture's width: do not scale.
    #[serde(default)]
    pub fixed: bool,
}

/// Energy of a storage or wire, which scales with the bits moved.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessEnergy {
    /// pJ to read `bits`.
    pub read: f64,
    /// pJ to write `bits`.
    pub write: f64,
    /// Width of the access.
    pub bits: f64,
}

/// A table for one technology, with its source.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyTable {
    /// Name by which architectures refer to it.
    pub id: String,
    /// Version; a changed value is a new version.
    pub version: u32,
    /// Node.
    pub technology: String,
    /// Where the values were read.
    pub source: String,
    /// Components whose values are recalled, not read in a source.
    pub recalled: Vec<String>,
    /// What one unit of a relative table is worth, pJ.
    pub unit_pj: f64,
    /// Multiply-accumulate.
    pub mac: MacEnergy,
    /// A clock-gated multiply-accumulate, pJ.
    pub mac_gated_pj: f64,
    /// Activation scratch pad of a PE.
    pub iact_spad: AccessEnergy,
    /// Weight scratch pad.
    pub weight_spad: AccessEnergy,
    /// Partial-sum scratch pad.
    pub psum_spad: AccessEnergy,
    /// Delivery over the array's network to one PE.
    pub array: AccessEnergy,
    /// Buffers, by name.
    #[serde(rename = "buffer")]
    pub buffers: BTreeMap<String, AccessEnergy>,
    /// External memory.
    pub dram: AccessEnergy,
    /// Power that flows whatever the array does, W.
    pub static_watts: f64,
}

impl MacEnergy {
    /// pJ of a product of operands of these widths.
    pub fn of(&self, iact_bits: f64, weight_bits: f64) -> f64 {
        if self.fixed { self.pj } else { self.pj * (iact_bits / self.bits) * (weight_bits / self.bits) }
    }
}

impl AccessEnergy {
    /// pJ to read this many bits.
    pub fn reading(&self, bits: f64) -> f64 {
        self.read * bits / self.bits
    }

    /// pJ to write this many bits.
    pub fn writing(&self, bits: f64) -> f64 {
        self.write * bits / self.bits
    }
}

const SHIPPED: [&str; 6] = [
    include_str!("../data/energy/eyeriss-65nm-16b-relative.toml"),
    include_str!("../data/energy/eyeriss-65nm-chip.toml"),
    include_str!("../data/energy/timeloop-eyeriss-like-65nm.toml"),
    include_str!("../data/energy/sparseloop-v2-pe-45nm.toml"),
    include_str!("../data/energy/horowitz-45nm.toml"),
    include_str!("../data/energy/zigzag-tpu-like.toml"),
];

/// The tables that come with wattle.
pub fn tables() -> Vec<EnergyTable> {
    SHIPPED.iter().map(|text| EnergyTable::parse(text).expect("a test parses every shipped table")).collect()
}

impl EnergyTable {
    /// A table from TOML, checked.
    pub fn parse(text: &str) -> Result<EnergyTable, AccelError> {
        EnergyTable::parse_as(Syntax::Toml, text)
    }

    /// A table from either syntax, checked.
    pub fn parse_as(syntax: Syntax, text: &str) -> Result<EnergyTable, AccelError> {
        let table: EnergyTable = syntax.read("energy table", text)?;
        table.check()?;
        Ok(table)
    }

    /// Refuses energies below zero and widths that are not positive.
    pub(crate) fn check(&self) -> Result<(), AccelError> {
        let accesses = [
            ("iact_spad", &self.iact_spad),
            ("weight_spad", &self.weight_spad),
            ("psum_spad", &self.psum_spad),
            ("array", &self.array),
            ("dram", &self.dram),
        ];
        let buffers = self.buffers.iter().map(|(name, access)| (name.as_str(), access));
        let accesses: Vec<(&str, &AccessEnergy)> = accesses.into_iter().chain(buffers).collect();
        let costs = accesses.iter().flat_map(|(name, a)| [(*name, a.read), (*name, a.write)]);
        let alone =
            [("mac", self.mac.pj), ("mac_gated_pj", self.mac_gated_pj), ("static_watts", self.static_watts)];
        let place = |name: &str| format!("energy table `{}`, {name}", self.id);
        for (name, energy) in costs.chain(alone) {
            if !(energy >= 0.0 && energy.is_finite()) {
                return Err(AccelError::invalid(place(name), format!("found {energy}, expected 0 or more")));
            }
        }
        let widths = accesses.iter().map(|(name, a)| (*name, a.bits)).chain([("mac", self.mac.bits)]);
        for (name, bits) in widths {
            if !(bits > 0.0 && bits.is_finite()) {
                let reason = format!("found bits = {bits}, expected a positive number");
                return Err(AccelError::invalid(place(name), reason));
            }
        }
        Ok(())
    }

    /// The rows of these buffers, in their order.
    pub(crate) fn rows(&self, buffers: &[Buffer]) -> Result<Vec<&AccessEnergy>, AccelError> {
        let row = |buffer: &Buffer| {
            self.buffers.get(&buffer.name).ok_or_else(|| {
                let known: Vec<&str> = self.buffers.keys().map(String::as_str).collect();
                let reason = format!("has no buffer `{}`; it has: {}", buffer.name, known.join(", "));
                AccelError::invalid(format!("energy table `{}`", self.id), reason)
            })
        };
        buffers.iter().map(row).collect()
    }

    /// A shipped table.
    pub fn named(id: &str) -> Result<EnergyTable, AccelError> {
        tables().into_iter().find(|t| t.id == id).ok_or_else(|| AccelError::Unknown {
            what: "energy table",
            name: id.to_string(),
            known: tables().into_iter().map(|t| t.id).collect::<Vec<_>>().join(", "),
        })
    }

    /// `id v1 (65 nm): source`, with what is only recalled.
    pub fn citation(&self) -> String {
        let recalled = match self.recalled.as_slice() {
            [] => String::new(),
            list => format!("; not verified: {}", list.join(", ")),
        };
        format!("energy table {} v{} ({}): {}{recalled}", self.id, self.version, self.technology, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_table_parses_and_cites() {
        let tables = tables();
        assert_eq!(tables.len(), SHIPPED.len());
        for table in tables {
            assert!(table.source.len() > 20 && !table.technology.is_empty(), "{}", table.id);
            let glb = &table.buffers["glb"];
            assert!(table.dram.read / table.dram.bits > glb.read / glb.bits, "{}", table.id);
        }
    }

    #[test]
    fn multipliers_scale_with_both_widths_and_memories_with_bits() {
        let table = EnergyTable::named("eyeriss-65nm-chip").unwrap();
        assert_eq!(table.mac.of(8.0, 8.0), 0.5);
        assert_eq!(table.buffers["glb"].reading(8.0), 7.5);
        assert!(EnergyTable::named("7nm").unwrap_err().to_string().contains("eyeriss-65nm-chip"));
    }
}
