//! Work on several threads that counts what it has done, watched from the thread that asked for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::error::{JobError, Result};
use crate::observer::Observer;

/// How often the observer is told.
const LOOK: Duration = Duration::from_millis(100);

/// Does the work, which adds one to the counter for each of `total` units, and tells the observer how far it is.
pub(super) fn counted<T: Send>(
    what: &str,
    total: usize,
    observer: &mut dyn Observer,
    work: impl FnOnce(&AtomicU64) -> T + Send,
) -> Result<T> {
    let total = total as u64;
    let done = &AtomicU64::new(0);
    observer.progress(what, 0, total);
    let result = std::thread::scope(|scope| {
        let (finished, end) = channel::<()>();
        let working = scope.spawn(move || {
            let result = work(done);
            drop(finished);
            result
        });
        while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            observer.progress(what, done.load(Ordering::Relaxed), total);
        }
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    observer.progress(what, total, total);
    if observer.cancelled() { Err(JobError::cancelled()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers the last call.
    #[derive(Default)]
    struct Last(Option<(String, u64, u64)>, bool);

    impl Observer for Last {
        fn progress(&mut self, what: &str, done: u64, total: u64) {
            self.0 = Some((what.to_owned(), done, total));
        }
        fn cancelled(&mut self) -> bool {
            self.1
        }
    }

    #[test]
    fn the_observer_hears_of_the_end_and_may_have_asked_for_it() {
        let count = |done: &AtomicU64| (0..7).map(|_| done.fetch_add(1, Ordering::Relaxed)).sum::<u64>();
        let mut last = Last::default();
        assert_eq!(counted("counting", 7, &mut last, count), Ok(21));
        assert_eq!(last.0, Some(("counting".to_owned(), 7, 7)));
        let refused = counted("counting", 7, &mut Last(None, true), count);
        assert_eq!(refused, Err(JobError::cancelled()));
    }
}
