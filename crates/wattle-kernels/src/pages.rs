//! Vectors in huge pages: weights are read once a run, and with pages of 4 KiB their way through the page table costs more
//! than fetching them.
//!
//! A huge page has 2 MiB, more than most layers' weights, so vectors share chunks of memory, in the order in which they
//! are made.

use bytemuck::Pod;
use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Arenas, spans of them and vectors are aligned to this many bytes (a cache line, an AVX-512 vector).
pub const ALIGNMENT: usize = 64;

/// Bytes of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a chunk; longer vectors have one of their own.
const CHUNK: usize = 2 * HUGE_PAGE;

/// Asks for huge pages. A system without them or unwilling leaves memory as it is: only speed is lost.
#[cfg(target_os = "linux")]
pub(crate) fn advise_huge_pages(start: NonNull<u8>, bytes: usize) {
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, bytes: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    // SAFETY: callers own the range, and it is page-aligned; this advice changes no contents.
    unsafe { madvise(start.as_ptr().cast(), bytes, MADV_HUGEPAGE) };
}

/// Asks for huge pages, which only Linux gives on request.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise_huge_pages(_start: NonNull<u8>, _bytes: usize) {}

/// Memory that vectors share; the last of them gives it back.
struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk only owns its memory; what is in it belongs to the vectors that have taken parts of it.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(bytes: usize) -> Arc<Chunk> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE).max(CHUNK);
        let layout =
            Layout::from_size_align(bytes, HUGE_PAGE).expect("a vector smaller than the address space");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        advise_huge_pages(start, bytes);
        Arc::new(Chunk { start, layout })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The chunk from which the next vector takes its memory, while any vector keeps it, and how much of it is taken.
static CURRENT: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

/// So many bytes, aligned to [`ALIGNMENT`], that nobody else has.
fn take(bytes: usize) -> (NonNull<u8>, Arc<Chunk>) {
    let bytes = bytes.next_multiple_of(ALIGNMENT);
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let room = current.0.upgrade().filter(|chunk| bytes <= chunk.layout.size() - current.1);
    let (chunk, used) = match room {
        Some(chunk) => (chunk, current.1),
        None => (Chunk::new(bytes), 0),
    };
    // SAFETY: used + bytes <= the chunk's size.
    let start = unsafe { chunk.start.add(used) };
    *current = (Arc::downgrade(&chunk), used + bytes);
    (start, chunk)
}

/// A vector of fixed length in huge pages, where the system gives them, aligned to [`ALIGNMENT`].
pub struct HugeVec<T: Pod> {
    start: NonNull<T>,
    len: usize,
    /// What it lies in; an empty vector lies nowhere.
    _chunk: Option<Arc<Chunk>>,
}

// SAFETY: the vector owns its part of the chunk alone.
unsafe impl<T: Pod + Send> Send for HugeVec<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Sync> Sync for HugeVec<T> {}

impl<T: Pod> HugeVec<T> {
    /// `len` zeros. Aborts, as `Vec` does, when memory is exhausted.
    pub fn zeroed(len: usize) -> Self {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        if len * size_of::<T>() == 0 {
            return HugeVec { start: NonNull::dangling(), len, _chunk: None };
        }
        let bytes = Layout::array::<T>(len).expect("a vector smaller than the address space").size();
        let (start, chunk) = take(bytes);
        // SAFETY: the bytes are this vector's alone, and all zero they are a T, as of every Pod type.
        unsafe { start.write_bytes(0, bytes) };
        HugeVec { start: start.cast(), len, _chunk: Some(chunk) }
    }
}

impl<T: Pod> Deref for HugeVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements from `start` on are initialised and this vector's.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for HugeVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> From<&[T]> for HugeVec<T> {
    fn from(from: &[T]) -> Self {
        let mut out = HugeVec::zeroed(from.len());
        out.copy_from_slice(from);
        out
    }
}

impl<T: Pod> Clone for HugeVec<T> {
    fn clone(&self) -> Self {
        HugeVec::from(&**self)
    }
}

impl<T: Pod> Default for HugeVec<T> {
    fn default() -> Self {
        HugeVec::zeroed(0)
    }
}

impl<T: Pod + PartialEq> PartialEq for HugeVec<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for HugeVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_zero_aligned_and_apart_whatever_was_in_the_chunk() {
        for round in 1..4 {
            let mut vectors: Vec<HugeVec<f32>> =
                [0, 1, 17, 300_000, 700_000, 1 << 21, 5].map(HugeVec::zeroed).into();
            for (i, v) in vectors.iter_mut().enumerate() {
                assert!(v.iter().all(|&x| x == 0.0));
                assert!(v.is_empty() || (v.as_ptr() as usize).is_multiple_of(ALIGNMENT));
                v.fill((round * 10 + i) as f32);
            }
            for (i, v) in vectors.iter().enumerate() {
                assert!(v.iter().all(|&x| x == (round * 10 + i) as f32));
            }
        }
    }

    #[test]
    fn a_clone_is_equal_and_independent() {
        let mut first = HugeVec::from([1u16, 2, 3].as_slice());
        let second = first.clone();
        assert_eq!(first, second);
        first[1] = 7;
        assert_eq!((&*first, &*second), ([1, 7, 3].as_slice(), [1, 2, 3].as_slice()));
        assert_eq!(format!("{:?}", HugeVec::<u8>::default()), "[]");
    }
}
