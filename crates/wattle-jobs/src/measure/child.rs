//! The measured command as a child: its streams, signals and exit code pass through as if wattle were not there.
//!
//! Orphans of the command are adopted and waited for, so that the kernel adds their processor time to ours. A signal
//! from the terminal reaches the command by itself, since it shares wattle's process group; passing it on again would
//! make it two.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use wattle_meter::Meter;

use super::epochs::Epochs;
use crate::error::{JobError, Result};

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Exited(u8),
    /// By a signal, which only Unix has.
    Killed(u8),
    /// It could not be started.
    NotStarted {
        /// Whether there is such a program.
        found: bool,
        /// What is wrong, naming the program.
        reason: String,
    },
}

impl Ending {
    /// The exit code that tells a shell the same.
    pub fn code(&self) -> u8 {
        match self {
            Ending::Exited(code) => *code,
            Ending::Killed(signal) => 128u8.saturating_add(*signal),
            Ending::NotStarted { found: true, .. } => 126,
            Ending::NotStarted { found: false, .. } => 127,
        }
    }
}

/// After the command, its last lines may still be in a pipe; what holds the pipe longer is a background process.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The command running, or what a shell answers to one that cannot be started.
fn start(line: &[OsString], epochs: Option<&Epochs>) -> Result<std::result::Result<Child, Ending>> {
    let [program, arguments @ ..] = line else {
        return Err(JobError::option("command", "there is nothing to run"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if epochs.is_some_and(Epochs::reads_output) {
        command.stdout(Stdio::piped());
    }
    Ok(command.spawn().map_err(|error| Ending::NotStarted {
        found: error.kind() != std::io::ErrorKind::NotFound,
        reason: format!("{}: {error}", program.display()),
    }))
}

/// Copies the output of the command to ours, if epochs are read from it.
fn copy(child: &mut Child, epochs: Option<&Epochs>, meter: &Meter) -> Option<Receiver<()>> {
    epochs.zip(child.stdout.take()).map(|(epochs, stdout)| epochs.copy(stdout, meter))
}

fn finish(copied: Option<Receiver<()>>) {
    if let Some(copied) = copied {
        // Time-out and end of the copy are equally good reasons to go on.
        let _ = copied.recv_timeout(LAST_LINES);
    }
}

#[cfg(unix)]
pub use self::unix::{Signals, adopt_orphans, left_running, run, stop, watch};

#[cfg(unix)]
mod unix {
    use rustix::process::{Pid, Signal, WaitOptions, getpgrp, kill_process, test_kill_process, wait};
    use rustix::termios::tcgetpgrp;
    use signal_hook::consts::{
        SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
    };

    use super::*;

    const PASSED_ON: [(i32, Signal); 9] = [
        (SIGHUP, Signal::HUP),
        (SIGINT, Signal::INT),
        (SIGQUIT, Signal::QUIT),
        (SIGUSR1, Signal::USR1),
        (SIGUSR2, Signal::USR2),
        (SIGALRM, Signal::ALARM),
        (SIGTERM, Signal::TERM),
        (SIGCONT, Signal::CONT),
        (SIGWINCH, Signal::WINCH),
    ];

    /// Signals on their way to wattle.
    pub struct Signals(signal_hook::iterator::Signals);

    impl Signals {
        /// From now on, signals wait here instead of ending wattle.
        pub fn catch() -> Result<Signals> {
            let all = PASSED_ON.iter().map(|(number, _)| *number).chain([SIGCHLD]);
            let caught = signal_hook::iterator::Signals::new(all);
            caught.map(Signals).map_err(|e| JobError::run(format_args!("signals cannot be caught: {e}")))
        }
    }

    /// Makes this process the parent of orphaned descendants. Where that is not possible, their time is counted as
    /// last seen.
    pub fn adopt_orphans() {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }

    /// Asks for an end, as a signal from outside would.
    pub fn stop() {
        // It can only fail for a signal that does not exist.
        let _ = signal_hook::low_level::raise(SIGTERM);
    }

    /// Runs the command to its end.
    pub fn run(
        line: &[OsString],
        mut signals: Signals,
        epochs: Option<&Epochs>,
        meter: &Meter,
    ) -> Result<Ending> {
        let mut child = match start(line, epochs)? {
            Ok(child) => child,
            Err(ending) => return Ok(ending),
        };
        let pid = Pid::from_raw(child.id() as i32);
        let copied = copy(&mut child, epochs, meter);
        let mut ending = None;
        for signal in signals.0.forever() {
            if signal == SIGCHLD {
                ending = collect(pid)?;
                if ending.is_some() {
                    break;
                }
            } else if !sent_by_terminal(signal)
                && let (Some(pid), Some((_, signal))) = (pid, PASSED_ON.iter().find(|(n, _)| *n == signal))
            {
                // It may have ended just now; then its end is the next signal.
                let _ = kill_process(pid, *signal);
            }
        }
        finish(copied);
        ending.ok_or_else(|| JobError::run("the command was lost from sight"))
    }

    /// Waits for every child that has ended; tells how `main` did, if it is among them.
    fn collect(main: Option<Pid>) -> Result<Option<Ending>> {
        let mut ending = None;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == main => {
                    let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
                    ending = ending
                        .or(status.exit_status().map(|code| Ending::Exited(byte(code))))
                        .or(status.terminating_signal().map(|signal| Ending::Killed(byte(signal))));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ending),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(JobError::run(format_args!("waiting for the command: {e}"))),
            }
        }
    }

    /// Whether a signal is one that keys of a terminal send to its whole foreground group, and we are in that group.
    fn sent_by_terminal(signal: i32) -> bool {
        let from_keys = matches!(signal, SIGINT | SIGQUIT | SIGWINCH);
        from_keys
            && std::fs::File::open("/dev/tty")
                .is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
    }

    /// State and parent of a process (proc_pid_stat(5): they follow the name, which is in brackets and may hold anything).
    fn state_of(pid: &str) -> Option<(char, u32)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    }

    /// Whether a process has ended and only waits for its parent to ask how.
    fn has_ended(pid: i32) -> bool {
        matches!(state_of(&pid.to_string()), Some(('Z' | 'X', _)))
    }

    /// Processes that the command left behind: those that run and are ours now. None where there is no `/proc`.
    pub fn left_running() -> Vec<u32> {
        let us = std::process::id();
        let mut left = vec![];
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
                continue;
            };
            if state_of(name).is_some_and(|(state, parent)| parent == us && !matches!(state, 'Z' | 'X')) {
                left.extend(name.parse::<u32>());
            }
        }
        left
    }

    /// Watches a process that is not ours until it ends or we are told to stop.
    pub fn watch(pid: u32, mut signals: Signals) -> Result<Ending> {
        let gone = || JobError::option("attach", format_args!("no running process has the number {pid}"));
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let alive = || {
            !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)) && !has_ended(pid.as_raw_pid())
        };
        if !alive() {
            return Err(gone());
        }
        while alive() {
            if signals.0.pending().any(|signal| matches!(signal, SIGINT | SIGTERM | SIGHUP | SIGQUIT)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Ending::Exited(0))
    }
}

#[cfg(not(unix))]
pub use self::elsewhere::{Signals, adopt_orphans, left_running, run, stop, watch};

#[cfg(not(unix))]
mod elsewhere {
    use super::*;

    /// Nothing to catch: console events reach the command by themselves.
    pub struct Signals;

    impl Signals {
        /// Nothing to do.
        pub fn catch() -> Result<Signals> {
            Ok(Signals)
        }
    }

    /// There are no orphans to adopt.
    pub fn adopt_orphans() {}

    /// Nothing can be asked of a command here.
    pub fn stop() {}

    /// Who the command left behind cannot be known here.
    pub fn left_running() -> Vec<u32> {
        Vec::new()
    }

    /// Runs the command to its end.
    pub fn run(line: &[OsString], _: Signals, epochs: Option<&Epochs>, meter: &Meter) -> Result<Ending> {
        let mut child = match start(line, epochs)? {
            Ok(child) => child,
            Err(ending) => return Ok(ending),
        };
        let copied = copy(&mut child, epochs, meter);
        let status = child.wait().map_err(|e| JobError::run(format_args!("waiting for the command: {e}")))?;
        finish(copied);
        Ok(Ending::Exited(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }

    /// Not available here.
    pub fn watch(_: u32, _: Signals) -> Result<Ending> {
        Err(JobError::option("attach", "it needs /proc, which this system does not have"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Ending::Exited(3).code(), 3);
        assert_eq!(Ending::Killed(15).code(), 143);
        assert_eq!(Ending::NotStarted { found: false, reason: String::new() }.code(), 127);
    }
}
