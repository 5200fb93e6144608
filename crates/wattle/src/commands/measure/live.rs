//! The live line: watts, joules, grams, and the forecast of the total.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use wattle_meter::{Factors, Forecast, Meter, Snapshot};
use wattle_report::number;

use super::epochs::Epochs;

/// How often epochs are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How often the line is renewed on a terminal, and in a file.
const RENEW: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// The running line.
pub struct Live<'scope> {
    stop: Sender<()>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Live<'scope> {
    /// Watches epochs, and prints if asked to; costs nothing if there is neither to do.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        meter: &'env Meter,
        epochs: &'env Epochs,
        factors: &'env Factors,
        follow: bool,
    ) -> Live<'scope> {
        let (stop, stopped) = channel();
        let watches = follow || epochs.is_wanted();
        let thread = watches.then(|| {
            scope.spawn(move || {
                let terminal = std::io::stderr().is_terminal();
                let renew = if terminal { RENEW[0] } else { RENEW[1] };
                let mut printed = Instant::now();
                while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    let due = follow && printed.elapsed() >= renew;
                    if due || epochs.is_wanted() {
                        let now = meter.snapshot();
                        epochs.look(&now);
                        if due {
                            printed = Instant::now();
                            print(&line(&now, factors, epochs.forecast().as_ref()), terminal);
                        }
                    }
                }
                epochs.look(&meter.snapshot());
                if let Some(forecast) = epochs.forecast().filter(|_| follow) {
                    print(&format!("{}\n", forecast_text(&forecast)), false);
                }
            })
        });
        Live { stop, thread }
    }

    /// Ends the line.
    pub fn stop(self) {
        drop(self.stop);
        if let Some(thread) = self.thread {
            // It does not panic; if it did, the receipt matters more than the line.
            let _ = thread.join();
        }
    }
}

#[allow(clippy::print_stderr, reason = "stdout belongs to the measured command")]
fn print(line: &str, terminal: bool) {
    if terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{}", line.trim_end()) }
}

fn line(now: &Snapshot, factors: &Factors, forecast: Option<&Forecast>) -> String {
    let mut parts = vec![number::seconds(now.elapsed.as_secs_f64())];
    parts.extend(now.power.map(|watts| number::si(watts, "W")));
    if let Some(energy) = &now.energy {
        parts.push(format!("{} {}", number::value_of(energy), energy.source().kind()));
        parts.extend(factors.carbon(energy).ok().map(|grams| number::value_of(&grams)));
    }
    parts.extend(forecast.map(forecast_text));
    parts.join("  ")
}

fn forecast_text(forecast: &Forecast) -> String {
    let (duration, energy) = (number::quantity(&forecast.duration), number::quantity(&forecast.energy));
    format!("forecast after {} epochs: {energy} in {duration}", forecast.after)
}
