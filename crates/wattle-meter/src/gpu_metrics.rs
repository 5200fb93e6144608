//! AMD's energy counter of a card: the binary table `gpu_metrics` beside it in sysfs, which is also what AMD's own
//! libraries (ROCm SMI, AMD SMI) read.
//!
//! Layouts are those of Linux, `drivers/gpu/drm/amd/include/kgd_pp_interface.h`, unpacked, little endian: two bytes of
//! size, one of format, one of content, then fields that differ by version. The driver fills what a card does not know
//! with ones. The counter is in 2^-16 J: the header says so for 1.4 to 1.8 (MI300), the firmware's interface
//! (`EnergyAcc64bitLow`, "15.259uJ resolution") for the MI200. A Radeon's table of version 1.3 has the same field, with 32
//! bits in no documented unit, and nothing in it with recent firmware: it is not used.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::number_file::read_at;

/// Counts in a joule.
pub(crate) const PER_JOULE: u64 = 1 << 16;

/// The largest version is below 4 KiB, and sysfs shows no more at once.
const LONGEST: usize = 4096;

/// The graphics processors of the MI200 series (`CHIP_ALDEBARAN` in `amdgpu_drv.c`).
const MI200: [&str; 4] = ["0x7408", "0x740c", "0x740f", "0x7410"];

/// What a table says about energy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Energy {
    /// Counts so far.
    Counts(u64),
    /// The graphics are part of a processor, whose power sensor is that of the whole package.
    InProcessor,
    /// No counter that can be trusted.
    Unknown,
}

/// The table of one card, kept open and read over and over.
#[derive(Debug)]
pub(crate) struct GpuMetrics {
    path: PathBuf,
    open: Option<File>,
    mi200: bool,
}

impl GpuMetrics {
    /// The table of the card whose device folder this is.
    pub(crate) fn of(device: &Path) -> GpuMetrics {
        let id = fs::read_to_string(device.join("device")).unwrap_or_default();
        let mi200 = MI200.contains(&id.trim().to_ascii_lowercase().as_str());
        GpuMetrics { path: device.join("gpu_metrics"), open: None, mi200 }
    }

    /// What the table says now.
    pub(crate) fn read(&mut self) -> io::Result<Energy> {
        let energy = self.try_read();
        if energy.is_err() {
            self.open = None;
        }
        energy
    }

    /// The counter now.
    pub(crate) fn counts(&mut self) -> io::Result<u64> {
        match self.read()? {
            Energy::Counts(counts) => Ok(counts),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "the table has lost its counter")),
        }
    }

    fn try_read(&mut self) -> io::Result<Energy> {
        let file = match &self.open {
            Some(file) => file,
            None => self.open.insert(File::open(&self.path)?),
        };
        let mut bytes = [0; LONGEST];
        let length = read_at(file, &mut bytes, 0)?;
        Ok(energy(&bytes[..length], self.mi200))
    }
}

fn energy(table: &[u8], mi200: bool) -> Energy {
    let &[a, b, format, content, ..] = table else { return Energy::Unknown };
    let size = usize::from(u16::from_le_bytes([a, b]));
    if size != table.len() {
        return Energy::Unknown;
    }
    let offset = match (format, content, size) {
        (1, 1..=3, _) if mi200 => 24,
        // The temperatures, the power, the load: 16 bytes with the header. Then the load of each video engine (4, 2 bytes
        // each), in 1.5 also of each of 32 JPEG engines; in 1.6 neither; from 1.7 on the memory's bandwidth.
        (1, 4, 288) => 24,
        (1, 5, 360) => 88,
        (1, 6, 1664) => 16,
        (1, 7 | 8, _) => 24,
        (2 | 3, ..) => return Energy::InProcessor,
        _ => return Energy::Unknown,
    };
    let field = table.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok());
    match field.map(u64::from_le_bytes) {
        // All ones: not filled in. None: the second die of a card, whose first counts for both.
        None | Some(0 | u64::MAX) => Energy::Unknown,
        Some(counts) if counts == u64::from(u32::MAX) => Energy::Unknown,
        Some(counts) => Energy::Counts(counts),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table of some version with its counter at an offset; everything else as the driver leaves it.
    pub(crate) fn table(format: u8, content: u8, size: u16, offset: usize, counts: u64) -> Vec<u8> {
        let mut bytes = vec![0xFF; usize::from(size)];
        bytes[..2].copy_from_slice(&size.to_le_bytes());
        bytes[2..4].copy_from_slice(&[format, content]);
        bytes[offset..offset + 8].copy_from_slice(&counts.to_le_bytes());
        bytes
    }

    #[test]
    fn the_counter_is_found_in_every_version_that_has_one() {
        for (content, size, offset) in
            [(4, 288, 24), (5, 360, 88), (6, 1664, 16), (7, 2200, 24), (8, 3360, 24)]
        {
            let read = energy(&table(1, content, size, offset, 7 << 40), false);
            assert_eq!(read, Energy::Counts(7 << 40), "1.{content}");
        }
        assert_eq!(energy(&table(1, 3, 120, 24, 9), true), Energy::Counts(9));
    }

    #[test]
    fn what_is_no_documented_counter_is_not_taken_for_one() {
        assert_eq!(energy(&table(1, 3, 120, 24, 9), false), Energy::Unknown, "a Radeon");
        assert_eq!(energy(&table(1, 3, 120, 24, u64::MAX), true), Energy::Unknown, "not filled in");
        assert_eq!(energy(&table(1, 3, 120, 24, u64::from(u32::MAX)), true), Energy::Unknown);
        assert_eq!(energy(&table(1, 3, 120, 24, 0), true), Energy::Unknown, "the second die");
        assert_eq!(energy(&table(1, 6, 384, 88, 9), false), Energy::Unknown, "a draft of 1.6");
        assert_eq!(energy(&table(1, 9, 400, 24, 9), false), Energy::Unknown, "attributes, not fields");
        assert_eq!(energy(&table(1, 4, 288, 24, 9)[..200], false), Energy::Unknown, "cut short");
        assert_eq!(energy(&[], false), Energy::Unknown);
    }

    #[test]
    fn graphics_inside_a_processor_are_told_apart() {
        assert_eq!(energy(&table(2, 2, 128, 24, 9), false), Energy::InProcessor);
        assert_eq!(energy(&table(3, 0, 264, 24, 9), false), Energy::InProcessor);
    }
}
