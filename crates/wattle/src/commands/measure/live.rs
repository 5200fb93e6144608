//! The live line: watts, joules, grams, and the forecast of the total.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use wattle_jobs::observer::{Observer, Standing};
use wattle_report::measured::{forecast, line};

/// How often the line is renewed on a terminal, and in a file.
const RENEW: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// The running line, if it is wanted.
pub struct Live {
    follow: bool,
    terminal: bool,
    printed: Instant,
}

impl Live {
    /// Prints only if asked to.
    pub fn new(follow: bool) -> Live {
        Live { follow, terminal: std::io::stderr().is_terminal(), printed: Instant::now() }
    }
}

impl Observer for Live {
    fn follows_meter(&self) -> bool {
        self.follow
    }

    fn standing(&mut self, standing: &Standing<'_>) {
        if standing.ended {
            if let Some(found) = &standing.forecast {
                print(&format!("{}\n", forecast(found)), false);
            }
        } else if self.printed.elapsed() >= if self.terminal { RENEW[0] } else { RENEW[1] } {
            self.printed = Instant::now();
            print(&line(&standing.now, standing.factors, standing.forecast.as_ref()), self.terminal);
        }
    }
}

#[allow(clippy::print_stderr, reason = "stdout belongs to the measured command")]
fn print(line: &str, terminal: bool) {
    if terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{}", line.trim_end()) }
}
