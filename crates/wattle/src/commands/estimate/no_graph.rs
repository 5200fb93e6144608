//! A wattle without networks estimates from operations, device-hours, or parameters and tokens.

use wattle_jobs::estimate::Estimated;

/// No graph can be given.
#[derive(clap::Args, Debug)]
pub struct GraphArgs {}

impl GraphArgs {
    /// Never.
    pub fn is_given(&self) -> bool {
        false
    }
}

/// No graph was timed.
pub fn table(_: &Estimated) -> String {
    String::new()
}
