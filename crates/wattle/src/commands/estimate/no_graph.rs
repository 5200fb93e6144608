//! A wattle without networks estimates from operations, device-hours, or parameters and tokens.

use wattle_meter::Derivation;
use wattle_meter::device::Device;

use super::GraphTime;
use crate::context::Context;
use crate::failure::Failure;

/// No graph can be given.
#[derive(clap::Args, Debug)]
pub struct GraphArgs {}

impl GraphArgs {
    /// Never.
    pub fn is_given(&self) -> bool {
        false
    }
}

/// No graph was given.
pub fn timed(
    _: &super::Args,
    _: Option<&Device>,
    _: &mut Derivation,
    _: &mut [String],
    _: &Context,
) -> Result<Option<GraphTime>, Failure> {
    Ok(None)
}
