//! Which design a processor is, by the numbers that remain when a hypervisor masks its name.
//!
//! Families and models are those of the vendors' CPUID documentation as collected in Linux
//! (`arch/x86/include/asm/intel-family.h`; AMD processor programming references).

use crate::Machine;

/// What kind of machine a processor is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Market {
    Server,
    Client,
}

/// A processor design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Microarchitecture {
    /// Such as `Zen 3 (Milan)`.
    pub(crate) name: &'static str,
    pub(crate) market: Market,
}

const fn server(name: &'static str) -> Microarchitecture {
    Microarchitecture { name, market: Market::Server }
}

const fn client(name: &'static str) -> Microarchitecture {
    Microarchitecture { name, market: Market::Client }
}

/// A range of AMD models.
type Models = (u32, std::ops::RangeInclusive<u32>, Microarchitecture);

const INTEL: [(&[u32], Microarchitecture); 26] = [
    (&[0x2D], server("Sandy Bridge-EP")),
    (&[0x3E], server("Ivy Bridge-EP")),
    (&[0x3F], server("Haswell-EP")),
    (&[0x4F, 0x56], server("Broadwell-EP/D")),
    (&[0x55], server("Skylake-SP, Cascade Lake or Cooper Lake")),
    (&[0x6A, 0x6C], server("Ice Lake-SP/D")),
    (&[0x8F], server("Sapphire Rapids")),
    (&[0xCF], server("Emerald Rapids")),
    (&[0xAD, 0xAE], server("Granite Rapids")),
    (&[0xAF], server("Sierra Forest")),
    (&[0x2A], client("Sandy Bridge")),
    (&[0x3A], client("Ivy Bridge")),
    (&[0x3C, 0x45, 0x46], client("Haswell")),
    (&[0x3D, 0x47], client("Broadwell")),
    (&[0x4E, 0x5E], client("Skylake")),
    (&[0x8E, 0x9E], client("Kaby Lake or Coffee Lake")),
    (&[0xA5, 0xA6], client("Comet Lake")),
    (&[0x7D, 0x7E], client("Ice Lake")),
    (&[0x8C, 0x8D], client("Tiger Lake")),
    (&[0xA7], client("Rocket Lake")),
    (&[0x97, 0x9A], client("Alder Lake")),
    (&[0xB7, 0xBA, 0xBF], client("Raptor Lake")),
    (&[0xAA, 0xAC], client("Meteor Lake")),
    (&[0xB5, 0xC5, 0xC6], client("Arrow Lake")),
    (&[0xBD], client("Lunar Lake")),
    (&[0xBE], client("Alder Lake-N")),
];

const AMD: [Models; 12] = [
    (0x17, 0x01..=0x01, server("Zen (Naples or Summit Ridge)")),
    (0x17, 0x30..=0x3F, server("Zen 2 (Rome)")),
    (0x17, 0x08..=0x2F, client("Zen or Zen+")),
    (0x17, 0x60..=0xAF, client("Zen 2")),
    (0x19, 0x00..=0x0F, server("Zen 3 (Milan)")),
    (0x19, 0x10..=0x1F, server("Zen 4 (Genoa)")),
    (0x19, 0xA0..=0xAF, server("Zen 4c (Bergamo or Siena)")),
    (0x19, 0x20..=0x5F, client("Zen 3 or Zen 3+")),
    (0x19, 0x60..=0x7F, client("Zen 4")),
    (0x1A, 0x00..=0x1F, server("Zen 5 (Turin)")),
    (0x1A, 0x20..=0x7F, client("Zen 5")),
    (0x18, 0x00..=0x0F, server("Zen (Dhyana)")),
];

/// The design by vendor, family and model. Numbers contradicted by the instruction set are a hypervisor's
/// invention and identify nothing but what the instructions prove.
pub(crate) fn identify(machine: &Machine) -> Option<Microarchitecture> {
    let (vendor, numbers) = machine.cpu_id.as_deref()?.split_once(' ')?;
    let mut numbers = numbers.split('/').map_while(|n| n.parse::<u32>().ok());
    let (family, model) = (numbers.next()?, numbers.next()?);
    let found = match vendor {
        "GenuineIntel" if family == 6 => {
            INTEL.iter().find(|(models, _)| models.contains(&model)).map(|i| i.1)
        }
        "AuthenticAMD" | "HygonGenuine" => {
            AMD.iter().find(|(f, models, _)| *f == family && models.contains(&model)).map(|a| a.2)
        }
        _ => None,
    };
    // No client processor has matrix tiles (AMX); Sapphire Rapids was the first to have them.
    let tiles = machine.isa.iter().any(|i| i.starts_with("amx"));
    if tiles && found.is_none_or(|f| f.market == Market::Client) {
        return Some(server("Sapphire Rapids or later (it has AMX)"));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn machine(id: &str, isa: &[&str]) -> Machine {
        let isa = isa.iter().map(|i| (*i).to_owned()).collect();
        Machine {
            cpu_id: Some(id.to_owned()),
            isa,
            ..Machine::identify_from(Path::new("/nonexistent"), Path::new("/nonexistent"))
        }
    }

    #[test]
    fn a_masked_epyc_is_milan_by_its_numbers() {
        assert_eq!(identify(&machine("AuthenticAMD 25/1/1", &[])).unwrap().name, "Zen 3 (Milan)");
        assert_eq!(identify(&machine("AuthenticAMD 25/33/0", &[])).unwrap().market, Market::Client);
    }

    #[test]
    fn a_model_number_that_the_instructions_contradict_is_not_believed() {
        let honest = identify(&machine("GenuineIntel 6/167/1", &["avx2"])).unwrap();
        assert_eq!(honest.name, "Rocket Lake");
        let masked = identify(&machine("GenuineIntel 6/167/1", &["avx2", "amx_int8"])).unwrap();
        assert_eq!(masked.market, Market::Server);
    }

    #[test]
    fn strangers_stay_unknown() {
        for id in ["GenuineIntel 6/1/1", "AuthenticAMD 99/1/1", "Nobody 6/143/1", "GenuineIntel ?/?/?"] {
            assert_eq!(identify(&machine(id, &[])), None, "{id}");
        }
    }
}
