//! Who works in a folder: a file that names its holder, renewed while the holder lives.
//!
//! Locks of the operating system are missing on some network file systems and hold on one machine only on others, so the
//! lease is an ordinary file, created only if it does not exist. Its holder writes a higher number into it every beat. Who
//! wants the folder and finds the lease taken decides:
//!
//! - by a process of this machine: from the process itself, at once. It lives, and the folder is busy, or it does not.
//! - otherwise by watching: a number that moves within three beats belongs to a live holder; one that does not, to a
//!   dead one. Nobody's clock is compared with another's.
//!
//! A dead holder's lease is replaced in one instant. A holder that was only slow (suspended, cut off) finds another name in
//! the file at its next beat or its next [`Lease::check`], and stops.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::atomic_file::partial_name;
use crate::output_file;
use wattle_data::error::{Error, Result};

/// Time between two signs of life, unless a caller asks for another.
pub const BEAT: Duration = Duration::from_secs(10);
/// Beats without a sign of life after which a holder is taken for dead.
const MISSED: u32 = 3;
/// Name of the file.
pub(crate) const LEASE: &str = "lease";
/// Most bytes of it that are looked at.
const LONGEST: u64 = 4096;

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Name of the machine, for people.
    host: String,
    /// Start of the machine and namespace of its processes: where `process` means this process. Empty if not known.
    place: String,
    process: u32,
    /// When the process started, as the machine counts; with `process` it names a process for good.
    started: u64,
    /// When the lease was taken, in seconds since 1970 by the holder's clock; for people.
    since: u64,
    /// Drawn for this lease alone.
    token: String,
}

impl Holder {
    fn new() -> Holder {
        let text = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let boot = text("/proc/sys/kernel/random/boot_id");
        let namespace = fs::read_link("/proc/self/ns/pid").map(|p| p.to_string_lossy().into_owned());
        let place = match namespace {
            Ok(namespace) if !boot.is_empty() => format!("{boot} {namespace}"),
            _ => String::new(),
        };
        let host = text("/proc/sys/kernel/hostname");
        let process = std::process::id();
        // Seeded by the system for each call.
        let token = format!("{:016x}", RandomState::new().hash_one(process));
        let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs());
        Holder { host, place, process, started: start_of(process).unwrap_or(0), since, token }
    }

    /// What the file holds after some beats; always of one length, so that it can be written over.
    fn text(&self, beats: u64) -> Result<Vec<u8>> {
        let holder = serde_json::to_string(self).map_err(|e| Error::machine("the lease", e))?;
        Ok(format!("{holder}\n{beats:020}\n").into_bytes())
    }

    fn parse(bytes: &[u8]) -> Option<Holder> {
        serde_json::from_slice(bytes.split(|&b| b == b'\n').next()?).ok()
    }

    /// Whether the process lives; `None` if that cannot be seen from the place `here`.
    fn lives(&self, here: &Holder) -> Option<bool> {
        let visible = !here.place.is_empty() && here.place == self.place;
        visible.then(|| start_of(self.process) == Some(self.started))
    }
}

/// When a process of this machine started, in ticks since the machine did; `None` if it has ended.
fn start_of(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it is in brackets and may hold anything (proc_pid_stat(5): state is field 3, start time 22).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// The right to work in a folder, for as long as this value lives and [`Lease::check`] finds nothing wrong.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    token: String,
    shared: Arc<Shared>,
    beating: Option<JoinHandle<()>>,
}

/// What the heart shares with its lease.
#[derive(Debug, Default)]
struct Shared {
    lost: AtomicBool,
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Lease {
    /// Takes the lease of a folder, with a sign of life every `beat`. Where the holder's death can only be guessed from
    /// its silence, this takes three beats.
    ///
    /// # Errors
    /// When a live process holds it, or the file cannot be written or is no file.
    pub fn take(folder: &Path, beat: Duration) -> Result<Lease> {
        let path = folder.join(LEASE);
        let own = Holder::new();
        let mut watched: Option<(Vec<u8>, Instant)> = None;
        loop {
            if let Some(mut file) = output_file::create_new(&path)? {
                file.write_all(&own.text(0)?).map_err(|e| {
                    // Nobody holds what has no holder's name in it.
                    let _ = fs::remove_file(&path);
                    Error::writing(&path, &e)
                })?;
                return Lease::keep(path, file, own, beat);
            }
            let Some(found) = read(&path)? else { continue };
            let holder = Holder::parse(&found);
            let (first, since) = watched.get_or_insert_with(|| (found.clone(), Instant::now()));
            let lives = holder.as_ref().and_then(|holder| holder.lives(&own));
            if lives == Some(true) || *first != found {
                return Err(busy(folder, holder.as_ref()));
            }
            if lives == Some(false) || since.elapsed() >= MISSED * beat {
                return match steal(&path, &found, &own, beat)? {
                    Some(file) => Lease::keep(path, file, own, beat),
                    None => Err(busy(folder, None)),
                };
            }
            thread::sleep(beat / 8);
        }
    }

    /// Whether the lease was found to be another's at a beat: cheap enough to ask at every step.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Looks whether the lease is still this process's: to ask before anything is written.
    ///
    /// # Errors
    /// When another process has taken it over, or it is gone.
    pub fn check(&self) -> Result<()> {
        let found = read(&self.path)?.and_then(|bytes| Holder::parse(&bytes));
        match found {
            Some(holder) if holder.token == self.token => Ok(()),
            Some(holder) => Err(Error::busy(
                self.path.display(),
                format_args!("{} has taken this run over, taking this process for dead", name(&holder)),
            )
            .remedy("let that process end; then the same command reads its result")),
            None => Err(Error::busy(self.path.display(), "the lease of this run is gone")
                .remedy("run the same command again: it goes on from the last checkpoint")),
        }
    }

    fn keep(path: PathBuf, file: File, own: Holder, beat: Duration) -> Result<Lease> {
        let shared = Arc::new(Shared::default());
        let token = own.token.clone();
        let heart = {
            let (path, shared) = (path.clone(), shared.clone());
            thread::Builder::new()
                .name("lease".into())
                .spawn(move || beat_on(&path, file, &own, beat, &shared))
        };
        let beating = Some(heart.map_err(|e| Error::machine("the lease", e))?);
        Ok(Lease { path, token, shared, beating })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(heart) = self.beating.take() {
            let _ = heart.join();
        }
        if self.check().is_ok() {
            // One that stays behind is found to be a dead process's.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a higher number every beat, until the lease ends or is found to be lost.
fn beat_on(path: &Path, mut file: File, own: &Holder, beat: Duration, shared: &Shared) {
    let (mut beats, mut missed) = (0, 0);
    loop {
        let ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = shared.wake.wait_timeout_while(ended, beat, |ended| !*ended);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        let holder = read(path).ok().flatten().and_then(|bytes| Holder::parse(&bytes));
        if holder.is_some_and(|holder| holder.token != own.token) {
            shared.lost.store(true, Ordering::Relaxed);
            return;
        }
        beats += 1;
        // Into our own file, whatever bears its name by now: a thief's is not written over.
        let written = own
            .text(beats)
            .is_ok_and(|text| file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&text)).is_ok());
        missed = if written { 0 } else { missed + 1 };
        if missed >= MISSED {
            shared.lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// Puts our lease in the place of a dead holder's, which was `found`; `None` if another process was faster.
fn steal(path: &Path, found: &[u8], own: &Holder, beat: Duration) -> Result<Option<File>> {
    let temporary = partial_name(path);
    let Some(mut file) = output_file::create_new(&temporary)? else { return Ok(None) };
    let replaced = replace(path, found, &temporary, &mut file, own);
    if !matches!(replaced, Ok(true)) {
        let _ = fs::remove_file(&temporary);
        return replaced.map(|_| None);
    }
    // Another who found the same dead holder may put its own over ours in the same moment.
    thread::sleep(beat / 50);
    let holder = read(path)?.and_then(|bytes| Holder::parse(&bytes));
    Ok(holder.is_some_and(|holder| holder.token == own.token).then_some(file))
}

/// Writes our lease to `file`, which is `temporary`, and gives it the lease's name if that still holds what was `found`.
fn replace(path: &Path, found: &[u8], temporary: &Path, file: &mut File, own: &Holder) -> Result<bool> {
    let writing = |error| Error::writing(path, &error);
    file.write_all(&own.text(0)?).map_err(writing)?;
    if read(path)?.as_deref() != Some(found) {
        return Ok(false);
    }
    fs::rename(temporary, path).map_err(writing)?;
    Ok(true)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(file) = output_file::open(path)? else { return Ok(None) };
    let mut bytes = vec![];
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| Error::reading(path, &error))?;
    Ok(Some(bytes))
}

fn busy(folder: &Path, holder: Option<&Holder>) -> Error {
    let holder = holder.map_or_else(|| "another process".to_owned(), name);
    Error::busy(folder.display(), format_args!("{holder} is working in this run"))
        .remedy("wait for it, end it, or choose another output directory")
}

fn name(holder: &Holder) -> String {
    format!("process {} on {}", holder.process, holder.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(200);

    fn plant(folder: &Path, change: impl FnOnce(&mut Holder)) -> Holder {
        let mut holder = Holder::new();
        change(&mut holder);
        fs::write(folder.join(LEASE), holder.text(7).unwrap()).unwrap();
        holder
    }

    #[test]
    fn a_lease_is_held_once_and_goes_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lease::take(folder.path(), BEAT).unwrap();
        let error = Lease::take(folder.path(), BEAT).unwrap_err();
        assert_eq!(error.kind(), wattle_data::ErrorKind::Busy);
        assert!(error.to_string().contains(&format!("process {} on ", std::process::id())), "{error}");
        held.check().unwrap();
        drop(held);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        Lease::take(folder.path(), BEAT).unwrap();
    }

    #[test]
    fn a_silent_holder_elsewhere_is_dead_after_three_beats_whatever_its_clock_says() {
        for since in [0, u64::MAX] {
            let folder = tempfile::tempdir().unwrap();
            plant(folder.path(), |holder| (holder.place, holder.since) = ("another machine".into(), since));
            let start = Instant::now();
            let held = Lease::take(folder.path(), QUICK).unwrap();
            assert!(start.elapsed() >= MISSED * QUICK);
            held.check().unwrap();
        }
    }

    #[test]
    fn a_holder_elsewhere_that_shows_life_keeps_its_lease() {
        let folder = tempfile::tempdir().unwrap();
        let holder = plant(folder.path(), |holder| holder.place = "another machine".into());
        let path = folder.path().join(LEASE);
        let other = thread::spawn(move || {
            thread::sleep(QUICK);
            fs::write(path, holder.text(8).unwrap()).unwrap();
        });
        let error = Lease::take(folder.path(), QUICK).unwrap_err();
        assert_eq!(error.kind(), wattle_data::ErrorKind::Busy);
        other.join().unwrap();
    }

    #[test]
    fn a_number_given_to_a_new_process_is_not_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        // This process's number, from before it started.
        plant(folder.path(), |holder| holder.started -= 1);
        let start = Instant::now();
        Lease::take(folder.path(), BEAT).unwrap();
        assert!(start.elapsed() < BEAT, "a dead process of this machine is not waited for");
    }

    #[test]
    fn a_torn_lease_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LEASE), b"{\"host\":\"a").unwrap();
        Lease::take(folder.path(), QUICK).unwrap().check().unwrap();
    }

    #[test]
    fn a_holder_that_was_only_slow_notices_that_its_lease_was_stolen() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lease::take(folder.path(), QUICK).unwrap();
        let path = folder.path().join(LEASE);
        let found = fs::read(&path).unwrap();
        let thief = Holder { process: 4321, ..Holder::new() };
        let kept = steal(&path, &found, &thief, QUICK).unwrap();
        assert!(kept.is_some());
        let error = held.check().unwrap_err();
        assert!(error.to_string().contains("process 4321 on "), "{error}");
        let start = Instant::now();
        while !held.is_lost() {
            assert!(start.elapsed() < 50 * QUICK, "the loss is noticed at a beat");
            thread::sleep(QUICK / 4);
        }
        drop(held);
        assert_eq!(Holder::parse(&fs::read(&path).unwrap()), Some(thief), "the thief's lease stays");
    }

    #[test]
    fn of_two_who_find_a_dead_holder_one_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            plant(folder.path(), |holder| holder.started -= 1);
            let taken: Vec<Result<Lease>> = thread::scope(|scope| {
                let takers: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| Lease::take(folder.path(), BEAT))).collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).collect()
            });
            let held: Vec<_> = taken.iter().flatten().filter(|lease| lease.check().is_ok()).collect();
            assert_eq!(held.len(), 1);
        }
    }

    #[test]
    fn a_lost_lease_file_is_no_longer_held() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lease::take(folder.path(), BEAT).unwrap();
        fs::remove_file(folder.path().join(LEASE)).unwrap();
        assert!(held.check().unwrap_err().to_string().contains("gone"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_planted_as_the_lease_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(LEASE)).unwrap();
        let error = Lease::take(folder.path(), QUICK).unwrap_err();
        assert!(error.to_string().contains("a symbolic link"), "{error}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        // No file can be made there, by root neither.
        let error = Lease::take(Path::new("/proc/self"), QUICK).unwrap_err();
        assert!(error.to_string().contains("/proc/self/lease: it could not be written"), "{error}");
    }
}
