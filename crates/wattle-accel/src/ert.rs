//! Energy tables from Accelergy's energy reference tables (`ERT.yaml`).
//!
//! An ERT has energies of actions by component, in pJ. It says neither how many bits an access moves, nor the
//! technology, nor which component plays which part here; a small file beside it does ([`Binding`]).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::energy::{AccessEnergy, EnergyTable, MacEnergy};
use crate::error::AccelError;
use crate::syntax::Syntax;

/// What an ERT leaves open.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Name of the table.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// Node, such as `45 nm`.
    pub technology: String,
    /// Where the ERT comes from.
    pub source: String,
    /// The ERT's file, relative to this one.
    pub ert: String,
    /// Multiplier.
    pub mac: Part,
    /// Activation pad.
    pub iact_spad: Part,
    /// Weight pad.
    pub weight_spad: Part,
    /// Partial-sum pad.
    pub psum_spad: Part,
    /// Network; absent means that it costs nothing.
    pub array: Option<Part>,
    /// Buffers, by their name in architectures.
    #[serde(rename = "buffer")]
    pub buffers: BTreeMap<String, Part>,
    /// External memory.
    pub dram: Part,
    /// W that flow whatever the array does.
    #[serde(default)]
    pub static_watts: f64,
}

/// A component of an ERT and the actions that count.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name: whole, or the last part of a path (`chip.PE.mac`).
    pub component: String,
    /// Bits of one access; for a multiplier, of an operand.
    pub bits: f64,
    /// Action of a read, or of a multiply-accumulate; `read` or `compute` unless given.
    pub read: Option<String>,
    /// Action of a write; `write` unless given.
    pub write: Option<String>,
    /// Action of a multiplier whose clock is gated; nothing unless given.
    pub gated: Option<String>,
}

/// What a file of energies may be.
#[derive(Clone, Debug, PartialEq)]
pub enum EnergyFile {
    /// A whole table.
    Table(Box<EnergyTable>),
    /// A binding; its ERT is in another file.
    Binding(Box<Binding>),
}

impl EnergyFile {
    /// Tells the two apart by the key `ert`. A bare ERT is refused with what it lacks.
    pub fn parse(syntax: Syntax, text: &str) -> Result<EnergyFile, AccelError> {
        let has = |key: &str| {
            let after = |line: &str| line.strip_prefix(key).map(|rest| rest.trim_start().to_string());
            text.lines().filter_map(after).any(|rest| rest.starts_with([':', '=']))
        };
        if has("ERT") {
            let reason = "an ERT names neither the bits of an access nor the technology; give a binding file, \
                          which names both and this file as `ert` (see examples/accel/ert-binding.toml)";
            return Err(AccelError::invalid("energy table", reason));
        }
        if has("ert") {
            return Ok(EnergyFile::Binding(Box::new(Binding::parse(syntax, text)?)));
        }
        Ok(EnergyFile::Table(Box::new(EnergyTable::parse_as(syntax, text)?)))
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "ERT")]
    ert: Ert,
}

#[derive(Deserialize)]
struct Ert {
    tables: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    actions: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    name: String,
    energy: f64,
}

impl Binding {
    /// A binding from a file's text.
    pub fn parse(syntax: Syntax, text: &str) -> Result<Binding, AccelError> {
        syntax.read("binding of an ERT", text)
    }

    /// The table that the ERT gives.
    pub fn table(&self, ert: &str) -> Result<EnergyTable, AccelError> {
        let file: File = Syntax::Yaml.read(&self.ert, ert)?;
        let tables = &file.ert.tables;
        let energy = |part: &Part, action: &str| -> Result<f64, AccelError> {
            let component = self.component(tables, part)?;
            // An action may stand once for each set of arguments; the worst counts.
            let worst =
                component.actions.iter().filter(|a| a.name == action).map(|a| a.energy).reduce(f64::max);
            worst.ok_or_else(|| {
                let known: Vec<&str> = component.actions.iter().map(|a| a.name.as_str()).collect();
                let reason = format!("has no action `{action}`; its actions are: {}", known.join(", "));
                AccelError::invalid(format!("{}, component `{}`", self.ert, component.name), reason)
            })
        };
        let access = |part: &Part| -> Result<AccessEnergy, AccelError> {
            Ok(AccessEnergy {
                read: energy(part, part.read.as_deref().unwrap_or("read"))?,
                write: energy(part, part.write.as_deref().unwrap_or("write"))?,
                bits: part.bits,
            })
        };
        let array = match &self.array {
            // Delivery is one action.
            Some(part) => {
                let read = energy(part, part.read.as_deref().unwrap_or("read"))?;
                AccessEnergy { read, write: 0.0, bits: part.bits }
            }
            None => AccessEnergy { read: 0.0, write: 0.0, bits: 1.0 },
        };
        let gated = self.mac.gated.as_deref().map_or(Ok(0.0), |action| energy(&self.mac, action))?;
        let table = EnergyTable {
            id: self.id.clone(),
            version: self.version,
            technology: self.technology.clone(),
            source: format!("{}, imported from {}", self.source, self.ert),
            recalled: vec![],
            unit_pj: 1.0,
            mac: MacEnergy {
                pj: energy(&self.mac, self.mac.read.as_deref().unwrap_or("compute"))?,
                bits: self.mac.bits,
                fixed: false,
            },
            mac_gated_pj: gated,
            iact_spad: access(&self.iact_spad)?,
            weight_spad: access(&self.weight_spad)?,
            psum_spad: access(&self.psum_spad)?,
            array,
            buffers: self
                .buffers
                .iter()
                .map(|(name, part)| Ok((name.clone(), access(part)?)))
                .collect::<Result<_, AccelError>>()?,
            dram: access(&self.dram)?,
            static_watts: self.static_watts,
        };
        table.check()?;
        Ok(table)
    }

    fn component<'a>(&self, tables: &'a [Component], part: &Part) -> Result<&'a Component, AccelError> {
        let named: Vec<&Component> = tables
            .iter()
            .filter(|t| t.name == part.component || last(&t.name) == part.component.as_str())
            .collect();
        match named.as_slice() {
            [one] => Ok(one),
            found => {
                let known: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
                let reason = format!(
                    "{} components are called `{}`, expected one; there are: {}",
                    found.len(),
                    part.component,
                    known.join(", ")
                );
                Err(AccelError::invalid(&self.ert, reason))
            }
        }
    }
}

/// The last part of a path of components, without a range of instances: `chip.PE[0..11].mac[1..1]` is `mac`.
fn last(name: &str) -> &str {
    let without_range = match name.rfind('[') {
        Some(at) if name.ends_with(']') => &name[..at],
        _ => name,
    };
    without_range.rsplit('.').next().unwrap_or(without_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shortened table in Accelergy's format, with made-up energies.
    const ERT: &str = "
ERT:
  version: '0.4'
  tables:
  - name: system.DRAM[1..1]
    actions:
    - {name: read, arguments: {}, energy: 512.0}
    - {name: write, arguments: {}, energy: 513.0}
    - {name: leak, arguments: {global_cycle_seconds: 1.0e-09}, energy: 0.0}
  - name: system.chip.glb
    actions:
    - {name: read, arguments: {data_delta: 0}, energy: 9.0}
    - {name: read, arguments: {data_delta: 1}, energy: 18.0}
    - {name: write, energy: 14.0}
  - name: system.chip.PE[0..167].spad
    actions: [{name: read, energy: 0.5}, {name: write, energy: 0.75}]
  - name: system.chip.PE[0..167].mac
    actions: [{name: compute, energy: 0.25}, {name: gated, energy: 0.125}]
";

    fn binding(glb: &str) -> Result<EnergyTable, AccelError> {
        let spad = "{ component = \"spad\", bits = 16 }";
        let text = format!(
            "id = \"t\"\nversion = 1\ntechnology = \"45 nm\"\nsource = \"a test\"\nert = \"ERT.yaml\"\n\
             mac = {{ component = \"mac\", bits = 8, gated = \"gated\" }}\niact_spad = {spad}\n\
             weight_spad = {spad}\npsum_spad = {spad}\nbuffer.glb = {glb}\ndram = {{ component = \"DRAM\", bits = 64 }}\n"
        );
        Binding::parse(Syntax::Toml, &text)?.table(ERT)
    }

    #[test]
    fn components_are_found_by_path_or_last_name_and_the_worst_arguments_count() {
        let table = binding("{ component = \"system.chip.glb\", bits = 64 }").unwrap();
        let glb = &table.buffers["glb"];
        assert_eq!((glb.read, glb.write), (18.0, 14.0));
        assert_eq!((table.mac.of(8.0, 8.0), table.mac_gated_pj), (0.25, 0.125));
        assert_eq!(table.dram.writing(8.0), 513.0 / 8.0);
        assert!(table.citation().contains("ERT.yaml") && table.citation().contains("45 nm"));
    }

    #[test]
    fn a_bare_ert_is_told_what_it_lacks() {
        let error = EnergyFile::parse(Syntax::Yaml, ERT).unwrap_err().to_string();
        assert!(error.contains("binding") && error.contains("technology"), "{error}");
        let table = include_str!("../data/energy/horowitz-45nm.toml");
        assert!(matches!(EnergyFile::parse(Syntax::Toml, table), Ok(EnergyFile::Table(_))));
    }

    #[test]
    fn what_an_ert_does_not_have_is_named_with_what_it_has() {
        for (glb, words) in [
            ("{ component = \"buffer\", bits = 64 }", ["`buffer`", "system.chip.glb"]),
            ("{ component = \"glb\", bits = 64, read = \"fetch\" }", ["`fetch`", "read, read, write"]),
            ("{ component = \"glb\", bits = 0 }", ["glb", "bits"]),
        ] {
            let error = binding(glb).unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        }
    }
}
