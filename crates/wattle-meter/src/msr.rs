//! RAPL energy registers read directly (`/dev/cpu/N/msr`), for machines whose kernel has the `msr` device but no
//! powercap driver. Needs root (CAP_SYS_RAWIO).
//!
//! Register numbers and the place of the energy unit (bits 12:8, joules = counts / 2^unit) are those of Linux,
//! `arch/x86/include/asm/msr-index.h`. Counted are packages and, on Intel's servers, their memory, whose unit is 2^-16 J
//! on some generations whatever the unit register says (`arch/x86/events/rapl.c`). Cores (0x639) and graphics (0x641)
//! are inside the package, the platform (0x64D) is around it: none of them is added.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading, Roots};
use crate::counter::Counter;
use crate::number_file::read_at;
use crate::{Boundary, Machine, Source, WarningKind};

/// The counter is the register's lower 32 bits.
const RANGE: u64 = u32::MAX as u64;
/// Registers are refreshed about every millisecond.
const SHORTEST: Duration = Duration::from_millis(100);

/// Where a vendor keeps unit and package energy.
#[derive(Debug, Clone, Copy)]
struct Registers {
    unit: u64,
    package: u64,
    /// Memory and its counts in a joule, 2 to this power; `None` for that of the unit register.
    memory: Option<(u64, Option<u64>)>,
}

const INTEL: Registers = Registers { unit: 0x606, package: 0x611, memory: None };
const AMD: Registers = Registers { unit: 0xC001_0299, package: 0xC001_029B, memory: None };
const INTEL_MEMORY: u64 = 0x619;
/// Servers of Intel's family 6 whose memory counts in 2^-16 J: Haswell, Broadwell (two), Skylake and Cascade Lake, Ice
/// Lake (two), Knights Landing and Mill.
const FIXED_UNIT: [&str; 8] = ["63", "79", "86", "85", "106", "108", "87", "133"];
/// Those whose memory counts as their packages do: Sandy Bridge, Ivy Bridge, Sapphire Rapids, Emerald Rapids.
const COMMON_UNIT: [&str; 4] = ["45", "62", "143", "207"];

impl Registers {
    /// By vendor, family and model, such as `GenuineIntel 6/85/7`.
    fn of(cpu_id: &str) -> Option<Registers> {
        let (vendor, numbers) = cpu_id.split_once(' ')?;
        let mut numbers = numbers.split('/');
        let model = numbers.next().filter(|family| *family == "6").and(numbers.next()).unwrap_or("");
        let memory = match model {
            model if FIXED_UNIT.contains(&model) => Some((INTEL_MEMORY, Some(16))),
            model if COMMON_UNIT.contains(&model) => Some((INTEL_MEMORY, None)),
            _ => None,
        };
        match vendor {
            "GenuineIntel" => Some(Registers { memory, ..INTEL }),
            "AuthenticAMD" | "HygonGenuine" => Some(AMD),
            _ => None,
        }
    }
}

/// The opened registers, one a package and one for its memory.
#[derive(Debug)]
pub(crate) struct Msr {
    /// The device of a processor, and the register read there.
    registers: Vec<(File, u64)>,
    counters: Vec<Counter>,
    domains: Vec<Domain>,
    readings: Vec<Reading>,
}

impl Msr {
    /// Opens the package counters; `None` if any package's cannot be read.
    pub(crate) fn open(roots: &Roots, machine: &Machine) -> Option<Msr> {
        let registers = Registers::of(machine.cpu_id.as_deref()?)?;
        let mut opened = Msr { registers: vec![], counters: vec![], domains: vec![], readings: vec![] };
        for (package, cpu) in packages(&roots.sys) {
            let file = || File::open(roots.dev.join(format!("cpu/{cpu}/msr"))).ok();
            let unit = register(&file()?, registers.unit)? >> 8 & 0x1F;
            let name = format!("package-{package}");
            opened.add(file()?, registers.package, 1 << unit, Part::Processor, name.clone())?;
            if let Some((memory, own_unit)) = registers.memory {
                let unit = own_unit.unwrap_or(unit);
                // A server without the register has no memory to count.
                let _ = opened.add(file()?, memory, 1 << unit, Part::Memory, format!("{name}/dram"));
            }
        }
        (!opened.registers.is_empty()).then_some(opened)
    }

    fn add(&mut self, file: File, number: u64, per_joule: u64, part: Part, name: String) -> Option<()> {
        let first = register(&file, number)? & RANGE;
        self.registers.push((file, number));
        self.counters.push(Counter::with_unit(first, Some(RANGE), per_joule));
        self.readings.push(Reading::default());
        let source = Source::measured(format!("rapl-msr:{name}"));
        self.domains.push(Domain { name, part, source, resolution: 0 });
        Some(())
    }
}

/// The first online processor of each package.
fn packages(sys: &Path) -> BTreeMap<u32, u32> {
    let mut first = BTreeMap::new();
    for entry in fs::read_dir(sys.join("devices/system/cpu")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(cpu) = name.to_str().and_then(|n| n.strip_prefix("cpu")?.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(entry.path().join("topology/physical_package_id")) else {
            continue;
        };
        let Ok(package) = text.trim().parse::<u32>() else { continue };
        let least = first.entry(package).or_insert(cpu);
        *least = cpu.min(*least);
    }
    first
}

fn register(file: &File, number: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (read_at(file, &mut bytes, number).ok()? == 8).then(|| u64::from_le_bytes(bytes))
}

impl Backend for Msr {
    fn name(&self) -> &'static str {
        "rapl-msr"
    }

    fn boundary(&self) -> Boundary {
        Boundary::WholePackages
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        let registers = self.registers.iter().zip(&mut self.counters).zip(&mut self.readings);
        for (((file, number), counter), reading) in registers {
            counter.advance(register(file, *number).map(|r| r & RANGE), now.elapsed);
            *reading = counter.total();
        }
        &self.readings
    }

    fn covered(&self) -> Duration {
        self.counters.iter().map(Counter::covered).min().unwrap_or_default()
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let named = self.domains.iter().zip(&self.counters);
        named.flat_map(|(domain, counter)| counter.warnings(&domain.name)).collect()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Two packages of two processors each.
    fn machine(vendor: &str, model: u32, registers: Registers, first: u64) -> (tempfile::TempDir, Roots) {
        let folder = tempfile::tempdir().unwrap();
        let root = |name: &str| folder.path().join(name);
        let roots = Roots { proc: root("proc"), sys: root("sys"), dev: root("dev") };
        fs::create_dir(&roots.proc).unwrap();
        let cpuinfo = format!("vendor_id : {vendor}\ncpu family : 6\nmodel : {model}\nstepping : 7\n");
        fs::write(roots.proc.join("cpuinfo"), cpuinfo).unwrap();
        for cpu in 0..4 {
            let topology = roots.sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("physical_package_id"), format!("{}\n", cpu / 2)).unwrap();
            fs::create_dir_all(roots.dev.join(format!("cpu/{cpu}"))).unwrap();
            set(&roots, cpu, registers.unit, 0xA_0E03);
            set(&roots, cpu, registers.package, first);
        }
        (folder, roots)
    }

    fn set(roots: &Roots, cpu: u32, number: u64, value: u64) {
        let path = roots.dev.join(format!("cpu/{cpu}/msr"));
        let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
        file.write_at(&value.to_le_bytes(), number).unwrap();
    }

    #[test]
    fn each_package_is_counted_once_in_its_own_unit_through_a_wrap() {
        for (vendor, registers) in [("GenuineIntel", INTEL), ("AuthenticAMD", AMD)] {
            // The upper half of the register is not part of the counter.
            let (_folder, roots) = machine(vendor, 142, registers, 0xABCD_0000_FFFF_FFFF);
            let mut msr = Msr::open(&roots, &roots.machine()).unwrap();
            assert_eq!(
                msr.domains.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(),
                ["package-0", "package-1"]
            );
            set(&roots, 0, registers.package, (1 << 14) * 2 - 1);
            set(&roots, 1, registers.package, 77_777);
            set(&roots, 2, registers.package, (1 << 14) - 1);
            let now = Moment { elapsed: Duration::from_secs(1), ..Moment::default() };
            let joules: Vec<u64> = msr.read(now).iter().map(|r| r.value).collect();
            assert_eq!(joules, [2_000_000, 1_000_000], "{vendor}");
            assert_eq!(msr.warnings(), []);
        }
    }

    #[test]
    fn a_servers_memory_is_counted_beside_its_package_in_its_own_unit() {
        // Skylake: 2^-16 J. Sapphire Rapids: as the register says, 2^-14 J.
        for (model, memory) in [(85, 1_000_000), (143, 4_000_000)] {
            let (_folder, roots) = machine("GenuineIntel", model, INTEL, 0);
            let all = [INTEL_MEMORY, 0x639, 0x641, 0x64D];
            let everywhere = |numbers: &[u64], value: u64| {
                for (cpu, number) in (0..4).flat_map(|cpu| numbers.iter().map(move |n| (cpu, *n))) {
                    set(&roots, cpu, number, value);
                }
            };
            everywhere(&all, u64::from(u32::MAX));
            let mut msr = Msr::open(&roots, &roots.machine()).unwrap();
            let names: Vec<&str> = msr.domains.iter().map(|d| d.name.as_str()).collect();
            assert_eq!(names, ["package-0", "package-0/dram", "package-1", "package-1/dram"]);
            everywhere(&all, (1 << 16) - 1);
            everywhere(&[INTEL.package], 1 << 14);
            let now = Moment { elapsed: Duration::from_secs(1), ..Moment::default() };
            let joules: Vec<u64> = msr.read(now).iter().map(|r| r.value).collect();
            assert_eq!(joules, [1_000_000, memory, 1_000_000, memory], "model {model}");
        }
    }

    #[test]
    fn no_device_no_registers() {
        let (_folder, roots) = machine("GenuineIntel", 142, INTEL, 0);
        fs::remove_file(roots.dev.join("cpu/2/msr")).unwrap();
        assert!(Msr::open(&roots, &roots.machine()).is_none(), "a machine is not measured in part");
        let unknown = Roots { proc: "/nonexistent".into(), ..roots };
        assert!(Msr::open(&unknown, &unknown.machine()).is_none());
    }
}
