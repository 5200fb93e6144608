//! The epochs of a measured run, seen in what it prints or logs, and the forecast that follows from them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use wattle_meter::{Forecast, Meter, Progress, Snapshot};

use super::EpochOptions;

/// How a run's epochs are recognised, and those that ended so far.
pub struct Epochs {
    options: EpochOptions,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Ends of epochs that lines have announced and no reading has been put to yet.
    announced: usize,
    ends: Vec<Progress>,
    last_epoch: Option<serde_json::Value>,
    /// How far the log has been read, and the start of a line whose end was not written yet.
    read_to: u64,
    unfinished: Vec<u8>,
}

impl Epochs {
    /// None has ended yet.
    pub fn new(options: EpochOptions) -> Epochs {
        let mut seen = Seen::default();
        // A log of an earlier run is not this run's progress.
        if let Some(length) = options.log.as_ref().and_then(|log| log.metadata().ok()).map(|m| m.len()) {
            seen.read_to = length;
        }
        Epochs { options, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Whether the command's standard output must pass through us.
    pub fn reads_output(&self) -> bool {
        self.options.log.is_none() && self.options.pattern.is_some()
    }

    /// Copies the command's output to ours, untouched, watching its lines. The receiver hears of the end.
    pub fn copy(&self, mut output: impl Read + Send + 'static, meter: &Meter) -> Receiver<()> {
        let (done, end) = channel();
        let (seen, pattern, gauge) = (Arc::clone(&self.seen), self.options.pattern.clone(), meter.gauge());
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            // A reader of ours that went away ends the copy, and with it the pipe of the command.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let mut stdout = std::io::stdout().lock();
                if stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush()).is_err() {
                    break;
                }
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.take(&buffer[..length], pattern.as_deref());
                seen.mark(&gauge.snapshot());
            }
            let _ = done.send(());
        });
        end
    }

    /// Reads what the log has gained; notes the epochs that ended. Gives the expected total, once one has.
    pub fn look(&self, now: &Snapshot) -> Option<Forecast> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &self.options.log {
            seen.read_log(log, self.options.pattern.as_deref());
        }
        seen.mark(now);
        Forecast::of(&seen.ends, self.options.total)
    }
}

impl Seen {
    fn read_log(&mut self, log: &PathBuf, pattern: Option<&str>) {
        let mut bytes = Vec::new();
        // Whatever has taken the log's name: a pipe would have us wait, and nobody would pass signals on.
        if !log.metadata().is_ok_and(|found| found.is_file()) {
            return;
        }
        let read = File::open(log).and_then(|mut file| {
            // A log that was started anew is read from its start.
            if file.metadata()?.len() < self.read_to {
                self.read_to = 0;
            }
            file.seek(SeekFrom::Start(self.read_to))?;
            file.read_to_end(&mut bytes)
        });
        if let Ok(length) = read {
            self.read_to += length as u64;
            self.take(&bytes, pattern);
        }
    }

    /// Takes bytes of the log, in pieces of any size.
    fn take(&mut self, bytes: &[u8], pattern: Option<&str>) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.unfinished);
                if self.ends_epoch(&String::from_utf8_lossy(&line), pattern) {
                    self.announced += 1;
                }
            } else if self.unfinished.len() < 1 << 16 {
                self.unfinished.push(byte);
            }
        }
    }

    fn ends_epoch(&mut self, line: &str, pattern: Option<&str>) -> bool {
        if let Some(pattern) = pattern {
            return line.contains(pattern);
        }
        let epoch =
            serde_json::from_str::<serde_json::Value>(line).ok().and_then(|json| json.get("epoch").cloned());
        let new = epoch.is_some() && epoch != self.last_epoch;
        self.last_epoch = epoch.or(self.last_epoch.take());
        new
    }

    fn mark(&mut self, now: &Snapshot) {
        let joules = now.energy.as_ref().map_or(0.0, wattle_meter::Quantity::value);
        let announced = std::mem::take(&mut self.announced);
        self.ends.extend((0..announced).map(|_| Progress { elapsed: now.elapsed, joules }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pattern: Option<&str>, pieces: &[&str]) -> usize {
        let mut seen = Seen::default();
        pieces.iter().for_each(|piece| seen.take(piece.as_bytes(), pattern));
        seen.announced
    }

    #[test]
    fn lines_in_pieces_are_lines() {
        assert_eq!(count(Some("epoch"), &["an ep", "och\nanother line\nepo", "ch 2\rnot yet: epoch"]), 2);
    }

    #[test]
    fn a_new_epoch_in_json_lines_is_counted_once() {
        let lines =
            "{\"epoch\":0,\"step\":1}\n{\"epoch\":0,\"step\":2}\n{\"epoch\":1}\nnoise\n{\"epoch\":1}\n";
        assert_eq!(count(None, &[lines]), 2);
    }

    #[test]
    fn what_a_log_held_before_is_not_this_run() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("metrics.jsonl");
        std::fs::write(&log, "{\"epoch\":0}\n{\"epoch\":1}\n").unwrap();
        let epochs = Epochs::new(EpochOptions { total: 4, pattern: None, log: Some(log.clone()) });
        let now = Snapshot { elapsed: std::time::Duration::from_secs(1), energy: None, power: None };
        assert_eq!(epochs.look(&now), None);
        std::fs::write(&log, "{\"epoch\":0}\n{\"epoch\":1}\n{\"epoch\":2}\n").unwrap();
        assert_eq!(epochs.look(&now).unwrap().after, 1);
    }
}
