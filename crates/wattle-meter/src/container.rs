//! How much of the machine a container or job may use: the memory and processor limits of its control group, of the first
//! (v1) and the second kind (v2), own and inherited.

use std::fs;
use std::path::{Path, PathBuf};

/// The limits; `None` where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    /// Whole processors, a part counting as one.
    pub(crate) processors: Option<usize>,
}

/// The limits of this process, from `proc/self/cgroup` and the control groups under `sys/fs/cgroup`.
pub(crate) fn limits(proc: &Path, sys: &Path) -> Limits {
    let text = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let root = sys.join("fs/cgroup");
    let mut limits = Limits::default();
    for line in text.lines() {
        // `hierarchy:controllers:path`; the second kind has no controllers here.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            limits.add(&groups(&root, path), memory_max, cpu_max);
        }
        for controller in controllers.split(',') {
            let groups = || groups(&root.join(controller), path);
            match controller {
                "memory" => limits.add(&groups(), memory_limit, |_| None),
                "cpu" => limits.add(&groups(), |_| None, cpu_quota),
                _ => {}
            }
        }
    }
    limits
}

impl Limits {
    /// The tightest of a group and those around it.
    fn add(
        &mut self,
        groups: &[PathBuf],
        memory: fn(&Path) -> Option<u64>,
        processors: fn(&Path) -> Option<f64>,
    ) {
        self.memory_bytes = groups.iter().filter_map(|g| memory(g)).chain(self.memory_bytes).min();
        let whole = groups.iter().filter_map(|g| processors(g)).map(|p| p.ceil().max(1.0) as usize);
        self.processors = whole.chain(self.processors).min();
    }
}

/// The group and those around it. A container sees its own group as the root, whatever path it is told.
fn groups(mount: &Path, path: &str) -> Vec<PathBuf> {
    let mut all = vec![mount.to_owned()];
    let mut group = mount.to_owned();
    for part in Path::new(path).components() {
        if let std::path::Component::Normal(name) = part {
            group.push(name);
            all.push(group.clone());
        }
    }
    all
}

fn number(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn memory_max(group: &Path) -> Option<u64> {
    number(group.join("memory.max"))
}

/// Without a limit the first kind shows the largest multiple of a page.
fn memory_limit(group: &Path) -> Option<u64> {
    number(group.join("memory.limit_in_bytes")).filter(|&bytes| bytes < 1 << 60)
}

fn cpu_max(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota.parse().ok()?, period.parse().ok()?)
}

fn cpu_quota(group: &Path) -> Option<f64> {
    // No quota is -1, which is no u64.
    share(number(group.join("cpu.cfs_quota_us"))?, number(group.join("cpu.cfs_period_us"))?)
}

fn share(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(cgroup: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let all = files.iter().map(|(name, text)| (format!("sys/fs/cgroup/{name}"), *text));
        for (name, text) in all.chain([("proc/self/cgroup".to_owned(), cgroup)]) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn of(folder: &tempfile::TempDir) -> Limits {
        limits(&folder.path().join("proc"), &folder.path().join("sys"))
    }

    #[test]
    fn limits_of_the_second_kind_are_the_tightest_of_the_group_and_those_around_it() {
        let folder = tree(
            "0::/job/step\n",
            &[
                ("job/memory.max", "2000000000\n"),
                ("job/step/memory.max", "max\n"),
                ("job/cpu.max", "max 100000\n"),
                ("job/step/cpu.max", "150000 100000\n"),
            ],
        );
        assert_eq!(of(&folder), Limits { memory_bytes: Some(2_000_000_000), processors: Some(2) });
    }

    #[test]
    fn limits_of_the_first_kind_lie_by_controller_and_no_limit_is_none() {
        let line = "11:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n";
        let folder = tree(
            line,
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/docker/ab/memory.limit_in_bytes", "1073741824\n"),
                ("cpu/docker/ab/cpu.cfs_quota_us", "400000\n"),
                ("cpu/docker/ab/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(of(&folder), Limits { memory_bytes: Some(1 << 30), processors: Some(4) });
        let free = tree(
            line,
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(of(&free), Limits::default());
    }

    #[test]
    fn a_container_that_sees_its_group_as_the_root_knows_its_limits() {
        // The host's path does not exist inside.
        let folder = tree("0::/\n", &[("memory.max", "536870912\n"), ("cpu.max", "50000 100000\n")]);
        assert_eq!(of(&folder), Limits { memory_bytes: Some(1 << 29), processors: Some(1) });
        assert_eq!(limits(Path::new("/nonexistent"), Path::new("/nonexistent")), Limits::default());
    }
}
