//! Threads that help each other: who runs out of work becomes a helper of those who still have some.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of threads, of which some are idle.
#[derive(Debug)]
pub struct Crew {
    size: usize,
    idle: AtomicUsize,
}

impl Crew {
    /// One thread that works and others that wait to help it.
    pub fn of(threads: usize) -> Crew {
        let size = threads.max(1);
        Crew { size, idle: AtomicUsize::new(size - 1) }
    }

    /// All threads, idle or not.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Takes up to `most` of the idle threads, and says how many.
    fn call(&self, most: usize) -> usize {
        let rest = |idle: usize| Some(idle - idle.min(most));
        let before = self.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        before.unwrap_or_else(|idle| idle).min(most)
    }

    /// As many threads are idle again.
    fn dismiss(&self, threads: usize) {
        self.idle.fetch_add(threads, Ordering::Relaxed);
    }

    /// The results of `count` pieces of work, in order. This thread works with the first state, an idle one with each
    /// of the others; what a piece yields must not depend on the state that it meets.
    pub(crate) fn each<S: Send, T: Send>(
        &self,
        states: &mut [S],
        count: usize,
        work: impl Fn(&mut S, usize) -> T + Sync,
    ) -> Vec<T> {
        let Some((own, others)) = states.split_first_mut() else { return vec![] };
        let helpers = self.call(others.len().min(count.saturating_sub(1)));
        if helpers == 0 {
            return (0..count).map(|at| work(own, at)).collect();
        }
        let pieces = Pieces::new(count);
        std::thread::scope(|scope| {
            for state in &mut others[..helpers] {
                scope.spawn(|| {
                    pieces.take(|at| work(state, at));
                    self.dismiss(1);
                });
            }
            pieces.take(|at| work(own, at));
        });
        pieces.results()
    }

    /// The same for pieces that call helpers of their own: this thread is one of them as soon as it has none.
    pub(crate) fn side_by_side<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let helpers = self.call(count.saturating_sub(1));
        let pieces = Pieces::new(count);
        std::thread::scope(|scope| {
            for _ in 0..=helpers {
                scope.spawn(|| {
                    pieces.take(&work);
                    self.dismiss(1);
                });
            }
        });
        self.call(1);
        pieces.results()
    }
}

/// Pieces of work that several threads take, one after the other.
struct Pieces<T> {
    next: AtomicUsize,
    results: Mutex<Vec<Option<T>>>,
    count: usize,
}

impl<T> Pieces<T> {
    fn new(count: usize) -> Pieces<T> {
        let results = Mutex::new((0..count).map(|_| None).collect());
        Pieces { next: AtomicUsize::new(0), results, count }
    }

    fn take(&self, mut work: impl FnMut(usize) -> T) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= self.count {
                return;
            }
            let result = work(at);
            self.results.lock().unwrap_or_else(|e| e.into_inner())[at] = Some(result);
        }
    }

    fn results(self) -> Vec<T> {
        self.results.into_inner().unwrap_or_else(|e| e.into_inner()).into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_all_threads_are_idle_again() {
        for threads in [1, 2, 5] {
            let crew = Crew::of(threads);
            let inner = |n: usize| {
                let mut states = vec![0; crew.size()];
                crew.each(&mut states, n, |state, at| {
                    *state += 1;
                    at * at
                })
            };
            let found = crew.side_by_side(6, |n| inner(n).into_iter().sum::<usize>());
            assert_eq!(found, [0, 0, 1, 5, 14, 30]);
            assert_eq!(crew.idle.load(Ordering::Relaxed), threads - 1);
        }
    }
}
