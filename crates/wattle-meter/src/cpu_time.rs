//! Processor time of this process from `/proc/self/stat`.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The unit of `/proc/*/stat`: `USER_HZ`, 100 a second on every Linux architecture in use.
const TICK: Duration = Duration::from_millis(10);

/// How far a difference of two readings may be off: user and system time are each cut to whole ticks.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(20);

/// User and system time of this process and of the children it has waited for, over all threads, in whole ticks;
/// `None` where there is no such file.
pub(crate) fn cpu_time(proc: &Path) -> Option<Duration> {
    parse(&fs::read_to_string(proc.join("self/stat")).ok()?)
}

/// Fields 14 to 17 (utime, stime, cutime, cstime; proc(5)). The name in field 2 may hold spaces and brackets.
fn parse(stat: &str) -> Option<Duration> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let times: Vec<u64> = after_name
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [user, system, child_user, child_system] = times[..] else { return None };
    let ticks = user.checked_add(system)?.checked_add(child_user)?.checked_add(child_system)?;
    Some(Duration::from_millis(ticks.checked_mul(TICK.as_millis() as u64)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat = "7 (a) R 1 (b) S 1 1 1 0 -1 4194304 900 0 0 0 150 50 7 3 20 0 4 0 100";
        assert_eq!(parse(stat), Some(Duration::from_millis(2100)));
    }

    #[test]
    fn anything_else_is_unknown() {
        for text in ["", ")", "7 (a) R 1 2 3", "7 (a) S 1 1 1 0 -1 4194304 900 0 0 0 x 50 7 3 20"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(cpu_time(Path::new("/nonexistent")), None);
    }
}
