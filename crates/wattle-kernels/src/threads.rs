//! Fork-join over disjoint tasks. One thread runs inline and touches no other.
//!
//! Every thread begins with a share of neighbouring tasks, the same one in every call, so that in a network it finds in
//! its own cache what it wrote a layer ago; whoever has none left takes from the end of another's. Which thread runs which
//! task is thus decided while running, and kernels give every task its own output: results are the same bits for any
//! number of threads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::crew::Crew;

/// The threads that kernels may use.
pub struct Threads {
    crew: Option<Crew>,
}

/// The operating system refused to start the threads.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {count} threads: {source}; ask for fewer: option `threads`")]
pub struct ThreadsError {
    count: usize,
    source: std::io::Error,
}

impl Threads {
    /// The calling thread and `count - 1` more; 0 and 1 both mean the calling thread alone.
    pub fn new(count: usize) -> Result<Self, ThreadsError> {
        if count <= 1 {
            return Ok(Self::single());
        }
        let crew = Crew::new(count - 1).map_err(|source| ThreadsError { count, source })?;
        Ok(Threads { crew: Some(crew) })
    }

    /// The calling thread alone.
    pub fn single() -> Self {
        Threads { crew: None }
    }

    /// How many threads there are, at least 1.
    pub fn count(&self) -> usize {
        1 + self.crew.as_ref().map_or(0, Crew::len)
    }

    /// Calls `f(i)` for each i in 0..tasks, each once, in no set order.
    pub fn for_each(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        self.for_each_slot(tasks, |_, i| f(i));
    }

    /// Calls `f(slot, i)` for each i in 0..tasks. Two calls that run at the same time have different slots, and slots
    /// are below [`Threads::count`]: they index scratch memory.
    pub fn for_each_slot(&self, tasks: usize, f: impl Fn(usize, usize) + Sync) {
        match &self.crew {
            Some(crew) if tasks > 1 => {
                let slots = (crew.len() + 1).min(tasks);
                let shares = Shares::of(tasks, slots);
                crew.run(slots, &|slot| {
                    while let Some(i) = shares.take(slot) {
                        f(slot, i);
                    }
                });
            }
            _ => (0..tasks).for_each(|i| f(0, i)),
        }
    }

    /// Splits `data` into pieces of `piece` elements (the last may be shorter) and calls `f(index, piece)` on each.
    pub fn for_each_piece<T: Send>(&self, data: &mut [T], piece: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        self.pieces(data, piece, |i, _| i, f);
    }

    /// The same from the last piece to the first: what was just read or written from the front is then still in the
    /// caches at its end, and what this leaves there is the front, where the next reader begins.
    pub fn for_each_piece_backwards<T: Send>(
        &self,
        data: &mut [T],
        piece: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        self.pieces(data, piece, |i, pieces| pieces - 1 - i, f);
    }

    fn pieces<T: Send>(
        &self,
        data: &mut [T],
        piece: usize,
        order: impl Fn(usize, usize) -> usize + Sync,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        assert!(piece > 0, "pieces must have at least one element");
        let len = data.len();
        let pieces = len.div_ceil(piece);
        let shared = Shared::new(data);
        self.for_each(pieces, |i| {
            let i = order(i, pieces);
            let start = i * piece;
            // SAFETY: piece i is [start, start + piece), disjoint from every other piece, and each is visited once.
            let part = unsafe { shared.slice(start, piece.min(len - start)) };
            f(i, part);
        });
    }
}

/// Shares of tasks at most; further threads have none of their own.
const SHARES: usize = 32;

/// The tasks that are left, cut into one run for each thread.
struct Shares {
    /// The first task of each share in the lower half, the end in the upper.
    left: [Line; SHARES],
    count: usize,
}

/// On a cache line of its own.
#[repr(align(64))]
struct Line(AtomicU64);

impl Shares {
    fn of(tasks: usize, slots: usize) -> Shares {
        let tasks = u32::try_from(tasks).expect("fewer than 2^32 tasks");
        let count = slots.min(SHARES);
        let bound = |share: usize| u64::from(tasks) * share as u64 / count as u64;
        let left = std::array::from_fn(|share| {
            Line(AtomicU64::new(if share < count { bound(share + 1) << 32 | bound(share) } else { 0 }))
        });
        Shares { left, count }
    }

    /// The next task for a thread: from the front of its own share, then from the back of others'.
    fn take(&self, slot: usize) -> Option<usize> {
        let own = slot % self.count;
        let from = |share: usize, front: bool| {
            let taken = self.left[share].0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                let (first, end) = (left & u64::from(u32::MAX), left >> 32);
                (first < end).then(|| if front { left + 1 } else { left - (1 << 32) })
            });
            taken.ok().map(|left| if front { left as u32 as usize } else { (left >> 32) as usize - 1 })
        };
        from(own, true).or_else(|| (1..self.count).find_map(|other| from((own + other) % self.count, false)))
    }
}

/// A mutable slice that several tasks write to in disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `slice`, whose contract demands disjoint parts; T itself may be sent.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Shared { start: data.as_mut_ptr(), len: data.len(), lifetime: std::marker::PhantomData }
    }

    /// A pointer to element `start`, of which `len` elements from there are in the slice.
    pub(crate) fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of {} elements", self.len);
        self.start.wrapping_add(start)
    }

    /// # Safety
    /// No two live slices may overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of {} elements", self.len);
        // SAFETY: in bounds by the assertion; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn shares_are_runs_that_others_take_from_the_end() {
        let shares = Shares::of(7, 2);
        assert_eq!([0, 1, 0, 1].map(|slot| shares.take(slot)), [Some(0), Some(3), Some(1), Some(4)]);
        assert_eq!([0, 0, 0, 1, 0].map(|slot| shares.take(slot)), [Some(2), Some(6), Some(5), None, None]);
    }

    #[test]
    fn every_task_runs_once_whatever_the_thread_count() {
        for count in [1, 2, 7, SHARES + 2] {
            let threads = Threads::new(count).unwrap();
            for tasks in [0, 1, 2, 3, 100] {
                let hits: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.for_each_slot(tasks, |slot, i| {
                    assert!(slot < count);
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn pieces_cover_the_slice_without_overlap() {
        let threads = Threads::new(2).unwrap();
        let mut data = vec![0u32; 103];
        threads.for_each_piece(&mut data, 10, |i, part| part.iter_mut().for_each(|x| *x += i as u32 + 1));
        assert!(data.iter().enumerate().all(|(i, &x)| x == i as u32 / 10 + 1));
        threads
            .for_each_piece_backwards(&mut data, 10, |i, part| part.iter_mut().for_each(|x| *x -= i as u32));
        assert!(data.iter().all(|&x| x == 1));
    }
}
