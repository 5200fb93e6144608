//! `wattle meter serve`: this machine's energy as OpenMetrics.

use std::net::SocketAddr;
use std::path::PathBuf;

use wattle_jobs::Observer;
use wattle_jobs::serve::{ServeOptions, serve};
use wattle_report::visible_lines;

use crate::context::Context;
use crate::failure::Failure;

/// What the meter can be asked.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Serves this machine's energy at /metrics until it is stopped.
    #[command(after_help = "Example: wattle meter serve --listen 127.0.0.1:9877")]
    Serve {
        /// Address and port; only this machine can reach the default.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9877")]
        listen: SocketAddr,
        /// Root of the energy counters, where a container has the host's `/sys` elsewhere.
        #[arg(long, value_name = "DIR", default_value = "/sys")]
        sysfs: PathBuf,
    },
}

/// Prints where the page is.
struct Notes;

impl Observer for Notes {
    #[allow(clippy::print_stderr, reason = "tells where the page is")]
    fn note(&mut self, text: &str) {
        eprintln!("{}", visible_lines(text));
    }
}

/// Runs the command.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    let Command::Serve { listen, sysfs } = command;
    Ok(serve(&ServeOptions { listen, sysfs }, context, &mut Notes)?)
}
