//! Two processes and one run directory. The test starts itself again as the other process.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use wattle_data::ErrorKind;
use wattle_train::run_directory::{Config, RunDirectory};

/// Names the run directory that the other process is to hold.
const HOLD: &str = "WATTLE_TEST_HOLD";

fn open(path: &Path, beat: Duration) -> wattle_data::Result<RunDirectory> {
    let options = serde_json::json!({ "epochs": 3 });
    RunDirectory::open_with_beat(path, &Config::new("train", &options, &options)?, beat)
}

/// The other process: says whether it has the directory, holds it until its input ends, and says whether it still does.
#[allow(clippy::print_stdout, reason = "its parent reads it")]
fn hold(path: &Path) {
    let held = open(path, Duration::from_millis(100));
    println!("\nheld {}", held.is_ok());
    let _ = std::io::stdin().read_to_end(&mut vec![]);
    println!("\nheld {}", held.is_ok_and(|run| run.check_held().is_ok()));
}

struct Other {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Other {
    /// Starts it in the test of this name, and waits until it has taken the directory or was refused.
    fn start(test: &str, path: &Path) -> (Other, bool) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(HOLD, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut other = Other { child, input, output };
        let held = other.heard();
        (other, held)
    }

    fn heard(&mut self) -> bool {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process said nothing");
            if let Some(answer) = line.trim().strip_prefix("held ") {
                return answer == "true";
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory to hold, in the process that was started to do so.
fn asked() -> Option<PathBuf> {
    std::env::var_os(HOLD).map(PathBuf::from)
}

#[test]
fn a_directory_that_another_process_works_in_is_busy_until_that_ends() {
    if let Some(path) = asked() {
        return hold(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let test = "a_directory_that_another_process_works_in_is_busy_until_that_ends";
    let (mut other, held) = Other::start(test, &path);
    assert!(held);
    let error = open(&path, Duration::from_secs(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&format!("process {} on ", other.child.id())), "{error}");
    drop(other.input.take());
    assert!(other.heard(), "nobody took it over");
    other.child.wait().unwrap();
    let here = open(&path, Duration::from_secs(10)).unwrap();
    let (_other, held) = Other::start(test, &path);
    assert!(!held && here.check_held().is_ok());
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_holder_is_not_waited_for() {
    if let Some(path) = asked() {
        return hold(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for reaped in [false, true] {
        let (mut other, held) = Other::start("a_killed_holder_is_not_waited_for", &path);
        assert!(held);
        other.child.kill().unwrap();
        if reaped {
            other.child.wait().unwrap();
        }
        // The signal is on its way; after it the process is dead, whether its parent has asked or not.
        let beat = Duration::from_secs(10);
        let start = Instant::now();
        let run = loop {
            match open(&path, beat) {
                Ok(run) => break run,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy),
            }
        };
        assert!(start.elapsed() < beat, "{:?}", start.elapsed());
        run.check_held().unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_holder_that_was_stopped_for_long_notices_that_it_lost_the_directory() {
    if let Some(path) = asked() {
        return hold(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let test = "a_holder_that_was_stopped_for_long_notices_that_it_lost_the_directory";
    let (mut other, held) = Other::start(test, &path);
    assert!(held);
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &other.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    // To another machine the holder is a name and a number that does not move.
    let lease = path.join("lease");
    let text = std::fs::read_to_string(&lease).unwrap();
    let place = text.split("\"place\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(!place.is_empty());
    std::fs::write(&lease, text.replace(place, "elsewhere")).unwrap();
    let start = Instant::now();
    let beat = Duration::from_millis(100);
    let run = open(&path, beat).unwrap();
    assert!(start.elapsed() >= 3 * beat);
    signal("-CONT");
    drop(other.input.take());
    assert!(!other.heard(), "the former holder still takes the directory for its own");
    run.check_held().unwrap();
}
