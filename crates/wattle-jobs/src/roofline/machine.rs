//! What the machine can do at most, measured: arithmetic in registers, and copying by how much is copied.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use wattle_kernels::{Cpu, peak};
use wattle_meter::timing::{Turns, repeated};

/// Bytes that each thread reads and writes over and over: within first, second and third level, and beyond.
const FOOTPRINTS: [usize; 7] = [16 << 10, 128 << 10, 512 << 10, 2 << 20, 8 << 20, 32 << 20, 128 << 20];
/// How long copying is tried for each footprint; the fastest pass counts.
const TRIED: Duration = Duration::from_millis(25);

/// The ceilings of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Floating-point operations a second of all threads together, two for each fused multiply-add.
    pub flops_per_second: f64,
    /// Bytes read and written a second by all threads, for growing footprints.
    pub bandwidth: Vec<Bandwidth>,
    /// Threads that worked at once.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// How this is known.
    pub source: &'static str,
}

/// Copying speed for one footprint.
#[derive(Clone, Debug, Serialize)]
pub struct Bandwidth {
    /// Bytes in use, of all threads.
    pub footprint_bytes: f64,
    /// Bytes read plus bytes written a second.
    pub bytes_per_second: f64,
}

impl Machine {
    /// Measures, for about a third of a second.
    pub fn measure(cpu: &Cpu) -> Machine {
        let threads = cpu.threads.count();
        let bandwidth = FOOTPRINTS.map(|footprint| Bandwidth {
            footprint_bytes: (footprint * threads) as f64,
            bytes_per_second: copying(cpu, footprint),
        });
        Machine {
            flops_per_second: peak::flops_per_second(cpu.isa) * threads as f64,
            bandwidth: bandwidth.into(),
            threads,
            isa: cpu.isa.name(),
            source: "measured:fused multiply-adds in registers; copies, read plus written",
        }
    }

    /// Bytes a second for work that touches `bytes`: of the smallest footprint measured that holds them. A node whose
    /// operands come from an outer cache is slower; so this is a ceiling.
    pub fn bytes_per_second(&self, bytes: f64) -> f64 {
        let holds = self.bandwidth.iter().find(|b| b.footprint_bytes >= bytes).or(self.bandwidth.last());
        holds.map_or(f64::NAN, |b| b.bytes_per_second)
    }

    /// Bytes a second beyond all caches.
    pub fn memory_bytes_per_second(&self) -> f64 {
        self.bytes_per_second(f64::MAX)
    }

    /// Seconds that this much work takes at least, and whether arithmetic is what limits it.
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> (f64, bool) {
        let (arithmetic, traffic) = (flops / self.flops_per_second, bytes / self.bytes_per_second(bytes));
        (arithmetic.max(traffic), arithmetic >= traffic)
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let mut text = format!("measured peaks, {} threads, {}: ", self.threads, self.isa);
        let _ = write!(text, "{:.1} GFLOP/s (fused multiply-adds); copying ", self.flops_per_second / 1e9);
        for (index, b) in self.bandwidth.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let size = wattle_report::number::si(b.footprint_bytes, "B");
            let _ = write!(text, "{comma}{:.1} GB/s within {size}", b.bytes_per_second / 1e9);
        }
        text
    }
}

/// Bytes a second, read plus written, while every thread copies half of its own `footprint` to the other half.
fn copying(cpu: &Cpu, footprint: usize) -> f64 {
    let (threads, elements) = (cpu.threads.count(), footprint / 8);
    let x: Vec<Vec<f32>> = (0..threads).map(|_| vec![1.0; elements]).collect();
    let mut y = vec![0.0f32; threads * elements];
    // Enough passes that starting the threads does not count.
    let passes = ((8 << 20) / footprint).max(1);
    // The first pass meets pages that nobody touched yet.
    let Ok(times) = repeated(&Turns::within(TRIED, usize::MAX), || {
        cpu.threads.for_each_piece(&mut y, elements, |i, y| {
            for _ in 0..passes {
                std::hint::black_box(&mut *y).copy_from_slice(std::hint::black_box(&x[i]));
            }
        });
        Ok::<(), Infallible>(())
    });
    (threads * elements * 8 * passes) as f64 / times.least()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let bandwidth = [(1e3, 100e9), (1e6, 10e9)]
            .map(|(footprint_bytes, bytes_per_second)| Bandwidth { footprint_bytes, bytes_per_second });
        let bandwidth = bandwidth.into();
        Machine { flops_per_second: 50e9, bandwidth, threads: 1, isa: "scalar", source: "made up" }
    }

    #[test]
    fn whichever_takes_longer_limits() {
        let machine = machine();
        assert_eq!(machine.least_seconds(50e9, 1e6), (1.0, true));
        assert_eq!(machine.least_seconds(1.0, 1e6), (1e-4, false));
        assert_eq!(machine.bytes_per_second(500.0), 100e9);
        assert_eq!(machine.memory_bytes_per_second(), 10e9);
    }

    #[test]
    fn a_machine_has_peaks() {
        let cpu = Cpu::new(2).unwrap();
        let machine = Machine::measure(&cpu);
        assert!(machine.flops_per_second > 1e8 && machine.bandwidth.iter().all(|b| b.bytes_per_second > 1e7));
    }
}
