//! One aligned buffer for all tensors of a plan, with a run-time borrow checker over its spans.
//!
//! The engine gives each tensor a [`Span`] at plan time; tensors whose lifetimes do not meet may share bytes. While a
//! node runs, [`Arena::views`] hands out several slices at once and refuses a write that overlaps anything already out.

use bytemuck::Pod;
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;

pub use crate::pages::ALIGNMENT;
use crate::pages::{HUGE_PAGE, advise_huge_pages};

/// Slices that one [`Views`] can hand out.
const CAPACITY: usize = 64;

/// A range of arena bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte; a multiple of [`ALIGNMENT`] keeps vector loads within cache lines (required: of the element size).
    pub offset: usize,
    /// Number of bytes.
    pub bytes: usize,
}

impl Span {
    /// The span of `len` elements of type `T` that starts at byte `offset`.
    pub fn of<T>(offset: usize, len: usize) -> Self {
        Span { offset, bytes: len * size_of::<T>() }
    }

    /// One past the last byte.
    pub fn end(self) -> usize {
        self.offset + self.bytes
    }

    fn meets(self, other: Span) -> bool {
        self.bytes > 0 && other.bytes > 0 && self.offset < other.end() && other.offset < self.end()
    }
}

/// Why a slice of the arena was refused; each is a mistake in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The span ends beyond the arena.
    #[error("span {span:?} ends beyond the arena of {arena} bytes; the plan's arena size is too small")]
    OutOfBounds {
        /// The span asked for.
        span: Span,
        /// The size of the arena in bytes.
        arena: usize,
    },
    /// Offset or length does not fit the element type.
    #[error("span {span:?} is not a whole number of aligned elements of {size} bytes")]
    Misaligned {
        /// The span asked for.
        span: Span,
        /// The size of the element type in bytes.
        size: usize,
    },
    /// A write meets a slice already handed out, or a read meets a write.
    #[error("span {span:?} overlaps {other:?}, which is in use and one of the two is written")]
    Overlap {
        /// The span asked for.
        span: Span,
        /// The span in use.
        other: Span,
    },
    /// More than the fixed number of slices were asked for at once.
    #[error("more than {CAPACITY} slices of the arena at once")]
    TooMany,
}

/// One buffer of bytes, zero at first, aligned to [`ALIGNMENT`].
pub struct Arena {
    start: NonNull<u8>,
    layout: Layout,
    bytes: usize,
}

// SAFETY: the arena owns its bytes, and they are only reached through `views`, which borrows it mutably.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared arena gives no access to its bytes.
unsafe impl Sync for Arena {}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl Arena {
    /// An arena of `bytes` bytes, all zero. Aborts, as `Vec` does, when memory is exhausted.
    pub fn new(bytes: usize) -> Self {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let layout =
            Layout::from_size_align(bytes.max(1), align).expect("an arena smaller than the address space");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        // Walks of the page table cost large tensors dearly.
        if bytes >= HUGE_PAGE {
            advise_huge_pages(start, bytes);
        }
        Arena { start, layout, bytes }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A fresh set of views; all earlier ones are gone, since this borrows the arena mutably.
    pub fn views(&mut self) -> Views<'_> {
        Views { arena: self, taken: std::array::from_fn(|_| Cell::new(None)), count: Cell::new(0) }
    }

    /// Reads one span.
    pub fn read<T: Pod>(&mut self, span: Span) -> Result<&[T], ViewError> {
        self.views().read(span)
    }

    /// Writes one span.
    pub fn write<T: Pod>(&mut self, span: Span) -> Result<&mut [T], ViewError> {
        self.views().write(span)
    }
}

/// Hands out slices of one arena and remembers them, so that a written slice meets no other.
pub struct Views<'a> {
    arena: &'a Arena,
    taken: [Cell<Option<(Span, bool)>>; CAPACITY],
    count: Cell<usize>,
}

impl<'a> Views<'a> {
    /// The elements of `span`, to read.
    pub fn read<T: Pod>(&self, span: Span) -> Result<&'a [T], ViewError> {
        let start = self.take::<T>(span, false)?;
        // SAFETY: `take` checked bounds, alignment and that no written slice overlaps; T is Pod, so any bytes are valid;
        // the arena is borrowed for 'a.
        Ok(unsafe { std::slice::from_raw_parts(start, span.bytes / size_of::<T>()) })
    }

    /// The elements of `span`, to write.
    pub fn write<T: Pod>(&self, span: Span) -> Result<&'a mut [T], ViewError> {
        let start = self.take::<T>(span, true)?;
        // SAFETY: as in `read`, and `take` checked that no slice at all overlaps.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, span.bytes / size_of::<T>()) })
    }

    fn take<T: Pod>(&self, span: Span, write: bool) -> Result<*mut T, ViewError> {
        let size = size_of::<T>();
        if size == 0 || !span.bytes.is_multiple_of(size) || !span.offset.is_multiple_of(align_of::<T>()) {
            return Err(ViewError::Misaligned { span, size });
        }
        let arena = self.arena.bytes;
        if span.offset > arena || span.bytes > arena - span.offset {
            return Err(ViewError::OutOfBounds { span, arena });
        }
        let count = self.count.get();
        for other in self.taken[..count].iter().filter_map(Cell::get) {
            if (write || other.1) && span.meets(other.0) {
                return Err(ViewError::Overlap { span, other: other.0 });
            }
        }
        let slot = self.taken.get(count).ok_or(ViewError::TooMany)?;
        slot.set(Some((span, write)));
        self.count.set(count + 1);
        Ok(self.arena.start.as_ptr().wrapping_add(span.offset).cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_seen_by_later_reads() {
        let mut arena = Arena::new(1024);
        arena.write::<f32>(Span::of::<f32>(64, 3)).unwrap().copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(arena.read::<f32>(Span::of::<f32>(64, 3)).unwrap(), &[1.0, 2.0, 3.0]);
        assert_eq!(arena.read::<f32>(Span::of::<f32>(0, 4)).unwrap(), &[0.0; 4]);
    }

    #[test]
    fn overlapping_write_is_refused_and_shared_reads_are_not() {
        let mut arena = Arena::new(256);
        let views = arena.views();
        let a = Span::of::<f32>(0, 16);
        let b = Span::of::<f32>(32, 16);
        views.read::<f32>(a).unwrap();
        views.read::<f32>(b).unwrap();
        assert_eq!(views.write::<f32>(b), Err(ViewError::Overlap { span: b, other: a }));
        let c = Span::of::<f32>(128, 8);
        views.write::<f32>(c).unwrap();
        assert!(matches!(views.read::<u8>(Span { offset: 130, bytes: 1 }), Err(ViewError::Overlap { .. })));
        views.write::<f32>(Span { offset: 128, bytes: 0 }).unwrap();
    }

    #[test]
    fn spans_outside_or_askew_are_refused() {
        let mut arena = Arena::new(100);
        let views = arena.views();
        assert!(matches!(
            views.read::<f32>(Span { offset: 64, bytes: 40 }),
            Err(ViewError::OutOfBounds { .. })
        ));
        assert!(matches!(
            views.read::<f32>(Span { offset: usize::MAX - 3, bytes: 4 }),
            Err(ViewError::OutOfBounds { .. })
        ));
        assert!(matches!(views.read::<f32>(Span { offset: 2, bytes: 4 }), Err(ViewError::Misaligned { .. })));
        assert!(matches!(views.read::<f32>(Span { offset: 0, bytes: 6 }), Err(ViewError::Misaligned { .. })));
        for _ in 0..CAPACITY {
            views.read::<u8>(Span { offset: 0, bytes: 1 }).unwrap();
        }
        assert_eq!(views.read::<u8>(Span { offset: 0, bytes: 1 }), Err(ViewError::TooMany));
    }
}
