//! A wish to end from outside: SIGINT (Ctrl-C) and SIGTERM, for jobs that keep what they have done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::Result;

/// The signal that came, 0 before.
static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on, the first SIGINT or SIGTERM does not end this process but is told by [`signal`]. The second one ends it, as
/// the first would have. Nothing changes where there are no such signals.
///
/// # Errors
/// If the system refuses.
#[cfg(unix)]
pub fn listen() -> Result<()> {
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;

    use crate::error::JobError;

    if CAME.get().is_some() {
        return Ok(());
    }
    let came = CAME.get_or_init(Arc::default);
    let again = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        // Called in this order: the flag that the first signal raises is seen by the second.
        flag::register_conditional_default(number, again.clone())
            .and_then(|_| flag::register(number, again.clone()))
            .and_then(|_| flag::register_usize(number, came.clone(), number.unsigned_abs() as usize))
            .map_err(|e| JobError::run(format_args!("signals cannot be caught: {e}")))?;
    }
    Ok(())
}

/// Nothing changes where there are no such signals.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn listen() -> Result<()> {
    Ok(())
}

/// The number of the signal that asked for an end: 2 or 15. `None` until one came.
pub fn signal() -> Option<u8> {
    let came = CAME.get()?.load(Ordering::Relaxed);
    u8::try_from(came).ok().filter(|&number| number > 0)
}
