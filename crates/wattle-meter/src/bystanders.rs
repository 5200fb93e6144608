//! Who else used the processor while something was timed, from the kernel's counters (`proc(5)`).

use std::fs::read_to_string;
use std::time::{Duration, Instant};

/// Shares of all processor time above which a comparison is said to be disturbed.
const DISTURBING: f64 = 0.05;
/// The same of time that the hypervisor gave to others.
const STOLEN: f64 = 0.02;

/// The counters when timing began.
pub struct Watch {
    begun: Option<Ticks>,
    since: Instant,
    processes: Vec<u32>,
}

/// Clock ticks since the machine started.
#[derive(Clone, Copy)]
struct Ticks {
    all: f64,
    busy: f64,
    stolen: f64,
    /// Of the processes that belong to the measurement.
    own: f64,
}

impl Watch {
    /// Begins to watch; this process and `children` belong to the measurement.
    pub fn begin(children: &[u32]) -> Watch {
        let mut processes = vec![std::process::id()];
        processes.extend(children);
        Watch { begun: Ticks::now(&processes), since: Instant::now(), processes }
    }

    /// A warning where others took a noticeable share since the beginning; `None` also where nobody counts.
    pub fn warning(&self) -> Option<String> {
        let (begun, ended) = (self.begun?, Ticks::now(&self.processes)?);
        let all = ended.all - begun.all;
        // The kernel counts in steps of 10 ms.
        if self.since.elapsed() < Duration::from_millis(500) || all < 1.0 {
            return None;
        }
        let others = ((ended.busy - begun.busy) - (ended.own - begun.own)) / all;
        let stolen = (ended.stolen - begun.stolen) / all;
        let mut found = vec![];
        if others > DISTURBING {
            found.push(format!("other processes used {:.0} % of the processor", 100.0 * others));
        }
        if stolen > STOLEN {
            found.push(format!("the hypervisor gave {:.0} % of it to other machines", 100.0 * stolen));
        }
        (!found.is_empty())
            .then(|| format!("the machine was busy: {}; run again on an idle one", found.join(", ")))
    }
}

impl Ticks {
    fn now(processes: &[u32]) -> Option<Ticks> {
        let text = read_to_string("/proc/stat").ok()?;
        let fields: Vec<f64> =
            text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are part of user.
        let &[user, nice, system, idle, wait, irq, soft, stolen, ..] = &fields[..] else { return None };
        let busy = user + nice + system + irq + soft;
        let own = processes.iter().map(|id| of_process(*id)).sum::<Option<f64>>()?;
        Some(Ticks { all: busy + idle + wait + stolen, busy, stolen, own })
    }
}

/// User and system time of a process, its threads and the children it waited for.
fn of_process(id: u32) -> Option<f64> {
    let text = read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may contain blanks; utime is the 14th field, the 12th after the name.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|n| n.parse::<f64>().ok()).sum()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_no_bystander() {
        let before = of_process(std::process::id()).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::black_box(start);
        }
        assert!(of_process(std::process::id()).unwrap() > before);
        assert!(Ticks::now(&[std::process::id()]).unwrap().all > 0.0);
    }
}
