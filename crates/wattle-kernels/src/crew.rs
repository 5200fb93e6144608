//! Threads that wait for work awake for a moment, since a network's layers follow each other within microseconds and
//! waking a sleeping thread takes longer than many of them.

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a thread without work stays awake: longer than the steps between two that are shared, shorter than anyone
/// would notice.
const AWAKE: Duration = Duration::from_micros(100);
/// Pauses between two looks at the clock.
const PAUSES: u32 = 32;

// What a worker is doing. The caller moves IDLE or ASLEEP to CALLED, and takes a call back that nobody has answered
// yet (CALLED to IDLE); the worker moves CALLED to BUSY, BUSY to IDLE, and IDLE to ASLEEP.
const IDLE: u32 = 0;
const ASLEEP: u32 = 1;
const CALLED: u32 = 2;
const BUSY: u32 = 3;
const STOP: u32 = 4;

type Work<'a> = dyn Fn(usize) + Sync + 'a;
type Panic = Box<dyn std::any::Any + Send>;

/// What one worker and its callers share; on cache lines of its own.
#[repr(align(128))]
struct Post {
    state: AtomicU32,
    /// Written by the caller before CALLED, read by the worker after BUSY.
    work: UnsafeCell<Option<*const Work<'static>>>,
    panic: Mutex<Option<Panic>>,
}

// SAFETY: `work` is written only while the worker is IDLE or ASLEEP, by the one caller who holds the crew's turn, and
// read only by the worker between BUSY and IDLE; the state's acquire and release order the two. What it points to is
// Sync.
unsafe impl Sync for Post {}
// SAFETY: as above.
unsafe impl Send for Post {}

/// Threads that run the same function as the one that calls them.
pub(crate) struct Crew {
    workers: Vec<(Arc<Post>, JoinHandle<()>)>,
    /// One caller at a time.
    turn: Mutex<()>,
}

thread_local! {
    /// Whether this thread runs a crew's work now; work within work is done by the thread that asks for it.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

impl Crew {
    /// Starts `count` threads.
    pub fn new(count: usize) -> std::io::Result<Crew> {
        let mut crew = Crew { workers: vec![], turn: Mutex::new(()) };
        for slot in 1..=count {
            let post = Arc::new(Post {
                state: AtomicU32::new(IDLE),
                work: UnsafeCell::new(None),
                panic: Mutex::new(None),
            });
            let own = post.clone();
            let handle =
                thread::Builder::new().name(format!("wattle-{slot}")).spawn(move || serve(slot, &own))?;
            crew.workers.push((post, handle));
        }
        Ok(crew)
    }

    /// The threads beside the caller.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Calls `work(slot)` for slot 0 on this thread, and for slots up to `count` on others as far as they arrive before
    /// this thread's own call returns: `work(0)` alone must complete all there is to do. Panics in any call are passed
    /// on once all have ended.
    pub fn run(&self, count: usize, work: &Work<'_>) {
        if WORKING.get() {
            return work(0);
        }
        let turn = lock(&self.turn);
        let called = &self.workers[..(count - 1).min(self.workers.len())];
        // SAFETY: only the lifetime changes. `gather` waits, also when `work(0)` panics, until no worker uses it.
        let lasting = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        for (post, thread) in called {
            // SAFETY: this caller has the turn, and the worker is IDLE or ASLEEP: the last caller waited for that.
            unsafe { *post.work.get() = Some(lasting) };
            if post.state.swap(CALLED, Ordering::AcqRel) == ASLEEP {
                thread.thread().unpark();
            }
        }
        let own = working(|| work(0));
        gather(called);
        let theirs = called.iter().filter_map(|(post, _)| lock(&post.panic).take()).next();
        drop(turn);
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for (post, thread) in &self.workers {
            post.state.store(STOP, Ordering::Release);
            thread.thread().unpark();
        }
        for (_, thread) in self.workers.drain(..) {
            // A worker's panics were passed on to its callers.
            let _ = thread.join();
        }
    }
}

/// Takes back the calls that nobody answered and waits for the other workers to end.
fn gather(called: &[(Arc<Post>, JoinHandle<()>)]) {
    for (post, _) in called {
        if post.state.compare_exchange(CALLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            continue;
        }
        let mut pauses = 0;
        while post.state.load(Ordering::Acquire) == BUSY {
            pauses += 1;
            // A worker that takes long may be waiting for this very core.
            if pauses % 1024 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f`, so that work it asks for is done by this thread.
fn working(f: impl FnOnce()) -> Result<(), Panic> {
    WORKING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    WORKING.set(false);
    result
}

/// A worker's life.
fn serve(slot: usize, post: &Post) {
    loop {
        match wait(post) {
            CALLED => {
                // The caller may take its call back at the same moment.
                if post.state.compare_exchange(CALLED, BUSY, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    continue;
                }
                // SAFETY: BUSY: the caller has written it, and waits until this worker is IDLE.
                let work = unsafe { (*post.work.get()).map(|work| &*work) };
                if let Some(work) = work
                    && let Err(panic) = working(|| work(slot))
                {
                    *lock(&post.panic) = Some(panic);
                }
                post.state.store(IDLE, Ordering::Release);
            }
            _ => return,
        }
    }
}

/// Waits, awake and then asleep, for CALLED or STOP.
fn wait(post: &Post) -> u32 {
    let mut start = Instant::now();
    let mut pauses = 0;
    loop {
        let state = post.state.load(Ordering::Acquire);
        match state {
            CALLED | STOP => return state,
            IDLE => {
                pauses += 1;
                std::hint::spin_loop();
                if pauses % PAUSES == 0 && start.elapsed() > AWAKE {
                    // Failing means being called.
                    let _ = post.state.compare_exchange(IDLE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
                }
            }
            _ => {
                thread::park();
                // A call that was taken back meanwhile is followed by others.
                start = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Takes numbers up to `tasks` from a counter until none is left.
    fn count_up(crew: &Crew, tasks: usize, f: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        crew.run(crew.len() + 1, &|_| {
            while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < tasks) {
                f(i);
            }
        });
    }

    #[test]
    fn work_is_done_once_whether_workers_are_awake_or_asleep() {
        let crew = Crew::new(3).unwrap();
        for round in 0..200 {
            if round % 50 == 49 {
                thread::sleep(3 * AWAKE);
            }
            let sum = AtomicUsize::new(0);
            count_up(&crew, 100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn several_callers_share_a_crew() {
        let crew = Crew::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        count_up(&crew, 10, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 100 * 45);
    }

    #[test]
    fn work_within_work_is_done_by_the_thread_that_asks() {
        let crew = Crew::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        count_up(&crew, 4, |_| {
            count_up(&crew, 5, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 40);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_crew_usable() {
        let crew = Crew::new(2).unwrap();
        for wanted in 0..3 {
            let ready = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                crew.run(3, &|slot| {
                    ready.fetch_add(1, Ordering::SeqCst);
                    while ready.load(Ordering::SeqCst) < 3 {
                        thread::yield_now();
                    }
                    assert!(slot != wanted, "slot {slot}");
                });
            }));
            assert!(result.is_err());
        }
        let sum = AtomicUsize::new(0);
        count_up(&crew, 10, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
