//! What machine and software a receipt was written on.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::container;

/// The machine, as far as it can be identified without privileges. No host name, user or address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name; virtual machines often mask it ("AMD EPYC").
    pub cpu_model: Option<String>,
    /// Vendor, family, model and stepping, such as `AuthenticAMD 25/1/1`: what remains when the name is masked.
    pub cpu_id: Option<String>,
    /// Logical processors that this process may use (affinity and cgroup quota respected).
    pub cores: usize,
    /// Vector instruction sets of interest that the processor has, such as `avx2`.
    pub isa: Vec<String>,
    /// Memory that this process may use, in bytes: the machine's, or less in a container or job with a limit.
    pub memory_bytes: Option<u64>,
    /// Operating system and kernel release.
    pub os: String,
    /// Whether a hypervisor announces itself; `None` if unknown.
    pub virtualised: Option<bool>,
}

/// The program that wrote the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// wattle's version.
    pub wattle: String,
    /// Target architecture and operating system, such as `x86_64-linux`.
    pub target: String,
    /// `release` or `debug`; timings of a debug build mean little.
    pub profile: String,
}

/// Flags of /proc/cpuinfo (x86 and Arm names) worth keeping.
const ISA_FLAGS: [&str; 14] = [
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "neon",
    "asimd",
    "asimddp",
    "sve",
];

impl Machine {
    /// Reads the machine from `/proc`; elsewhere than on Linux most fields are unknown.
    pub fn identify() -> Self {
        Machine::identify_from(Path::new("/proc"), Path::new("/sys"))
    }

    /// Like [`identify`](Self::identify), from other roots than `/proc` and `/sys`.
    pub fn identify_from(proc: &Path, sys: &Path) -> Self {
        let cpuinfo = first_processor(&proc.join("cpuinfo"));
        let field = |key: &str| field(&cpuinfo, key);
        let flags: Vec<&str> =
            field("flags").or_else(|| field("Features")).unwrap_or("").split_whitespace().collect();
        let release = fs::read_to_string(proc.join("sys/kernel/osrelease")).unwrap_or_default();
        let memory = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
        let limits = container::limits(proc, sys);
        // The standard library knows affinity, and limits of the process's own; not those of another tree.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            cpu_model: field("model name").map(str::to_owned),
            cpu_id: field("vendor_id").map(|vendor| {
                let number = |key| field(key).unwrap_or("?");
                format!("{vendor} {}/{}/{}", number("cpu family"), number("model"), number("stepping"))
            }),
            cores: limits.processors.map_or(cores, |limit| cores.min(limit)),
            isa: ISA_FLAGS.iter().filter(|f| flags.contains(f)).map(|f| (*f).to_owned()).collect(),
            memory_bytes: memory_bytes(&memory).into_iter().chain(limits.memory_bytes).min(),
            os: format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned(),
            virtualised: (!flags.is_empty()).then(|| flags.contains(&"hypervisor")),
        }
    }
}

/// What `/proc/cpuinfo` says of the first processor. The others say the same again, and on a large machine asking each of
/// them for its clock takes milliseconds.
fn first_processor(file: &Path) -> String {
    let mut text = Vec::new();
    let Ok(mut file) = fs::File::open(file) else { return String::new() };
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = file.read(&mut chunk) {
        text.extend_from_slice(&chunk[..read]);
        if let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            text.truncate(end);
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The first `key : value` line of /proc/cpuinfo, that is, the first processor's.
fn field<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (k, v) = line.split_once(':')?;
        (k.trim() == key && !v.trim().is_empty()).then_some(v.trim())
    })
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kibibytes = field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kibibytes.checked_mul(1024)
}

impl Software {
    /// This build.
    pub fn this() -> Self {
        Software {
            wattle: env!("CARGO_PKG_VERSION").to_owned(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_virtual_processor_is_still_identified_by_its_numbers() {
        let proc = tempfile::tempdir().unwrap();
        fs::write(
            proc.path().join("cpuinfo"),
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n\
             model name\t: AMD EPYC\nstepping\t: 1\nflags\t\t: fpu avx avx2 fma hypervisor\n\n\
             processor\t: 1\nmodel name\t: other\n",
        )
        .unwrap();
        fs::write(proc.path().join("meminfo"), "MemTotal:        2048 kB\nMemFree: 1 kB\n").unwrap();
        let m = Machine::identify_from(proc.path(), Path::new("/nonexistent"));
        assert_eq!(m.cpu_model.as_deref(), Some("AMD EPYC"));
        assert_eq!(m.cpu_id.as_deref(), Some("AuthenticAMD 25/1/1"));
        assert_eq!(m.isa, ["avx", "fma", "avx2"]);
        assert_eq!(m.memory_bytes, Some(2048 * 1024));
        assert_eq!(m.virtualised, Some(true));
    }

    #[test]
    fn a_container_has_the_memory_and_processors_of_its_limits() {
        let root = tempfile::tempdir().unwrap();
        let [proc, group] = ["proc/self", "sys/fs/cgroup/job"].map(|name| root.path().join(name));
        fs::create_dir_all(&proc).unwrap();
        fs::create_dir_all(&group).unwrap();
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 1000000000 kB\n").unwrap();
        fs::write(proc.join("cgroup"), "0::/job\n").unwrap();
        fs::write(group.join("memory.max"), "8589934592\n").unwrap();
        fs::write(group.join("cpu.max"), "100000 100000\n").unwrap();
        let m = Machine::identify_from(&root.path().join("proc"), &root.path().join("sys"));
        assert_eq!((m.memory_bytes, m.cores), (Some(8 << 30), 1));
    }

    #[test]
    fn an_unreadable_proc_leaves_fields_unknown_rather_than_zero() {
        let nowhere = Path::new("/nonexistent");
        let m = Machine::identify_from(nowhere, nowhere);
        assert_eq!((m.cpu_model, m.cpu_id, m.memory_bytes, m.virtualised), (None, None, None, None));
        assert!(m.cores >= 1);
    }
}
