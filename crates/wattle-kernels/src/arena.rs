//! One aligned buffer for all tensors of a plan, and those that lie outside it, with a run-time borrow checker.
//!
//! The engine gives each tensor a [`Span`] at plan time; tensors whose lifetimes do not meet may share bytes. Parameters
//! that several plans share lie in buffers of their own: a span names its home. While a node runs, [`Views`] hands out
//! several slices at once and refuses a write that overlaps anything already out.

use bytemuck::Pod;
use std::alloc::Layout;
use std::cell::RefCell;
use std::ptr::NonNull;

pub use crate::pages::ALIGNMENT;
use crate::pages::{HUGE_PAGE, advise_huge_pages};

/// Where the bytes of a span are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Home {
    /// In the arena of the plan.
    #[default]
    Arena,
    /// In the buffer of this number of those [`Outside`] the arena.
    Store(u32),
}

/// A range of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The buffer that it is a range of.
    pub home: Home,
    /// First byte; a multiple of [`ALIGNMENT`] keeps vector loads within cache lines (required: of the element size).
    pub offset: usize,
    /// Number of bytes.
    pub bytes: usize,
}

impl Span {
    /// `bytes` bytes of the arena, from `offset` on.
    pub fn in_arena(offset: usize, bytes: usize) -> Self {
        Span { home: Home::Arena, offset, bytes }
    }

    /// The span of `len` elements of type `T` that starts at byte `offset` of the arena.
    pub fn of<T>(offset: usize, len: usize) -> Self {
        Span::in_arena(offset, len * size_of::<T>())
    }

    /// One past the last byte.
    pub fn end(self) -> usize {
        self.offset + self.bytes
    }
}

/// Why a slice of memory was refused; each is a mistake in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The span ends beyond its buffer, or there is no such buffer.
    #[error("span {span:?} ends beyond its buffer of {buffer} bytes; the plan's sizes are too small")]
    OutOfBounds {
        /// The span asked for.
        span: Span,
        /// The size of the buffer in bytes; 0 where there is none.
        buffer: usize,
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
    #[error("span {span:?} overlaps one that is in use, and one of the two is written")]
    Overlap {
        /// The span asked for.
        span: Span,
    },
    /// A write to a buffer that others may be reading.
    #[error("span {span:?} is written by a plan that declares no writes")]
    ReadOnly {
        /// The span asked for.
        span: Span,
    },
}

/// The system did not give the memory asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system does not give {bytes} bytes of memory")]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub bytes: usize,
    layout: Layout,
}

/// One buffer of bytes, zero at first, aligned to [`ALIGNMENT`].
pub struct Arena {
    start: NonNull<u8>,
    layout: Layout,
    bytes: usize,
    taken: Taken,
}

// SAFETY: the arena owns its bytes; they are read through a shared borrow and written through an exclusive one.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared arena can only be read.
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
        Arena::try_new(bytes).unwrap_or_else(|failed| std::alloc::handle_alloc_error(failed.layout))
    }

    /// The same, for sizes that come from elsewhere.
    ///
    /// # Errors
    /// When the system does not give so much.
    pub fn try_new(bytes: usize) -> Result<Self, OutOfMemory> {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let layout = Layout::from_size_align(bytes.max(1), align)
            .map_err(|_| OutOfMemory { bytes, layout: Layout::new::<u8>() })?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(OutOfMemory { bytes, layout })?;
        // Walks of the page table cost large tensors dearly.
        if bytes >= HUGE_PAGE {
            advise_huge_pages(start, bytes);
        }
        Ok(Arena { start, layout, bytes, taken: Taken::default() })
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room to remember so many slices at once; beyond it, the first [`Views`] that hands out more allocates.
    pub fn reserve(&mut self, slices: usize) {
        self.taken.reserve(slices);
    }

    /// A fresh set of views; all earlier ones are gone, since this borrows the arena mutably.
    pub fn views(&mut self) -> Views<'_> {
        self.views_with(Outside::nothing())
    }

    /// A fresh set of views of this arena and of buffers outside it.
    pub fn views_with<'a>(&'a mut self, outside: Outside<'a>) -> Views<'a> {
        let arena = Buffer { start: self.start.as_ptr(), bytes: self.bytes };
        self.taken.read.clear();
        self.taken.written.clear();
        Views { arena, outside, taken: RefCell::new(&mut self.taken) }
    }

    /// Reads one span.
    pub fn read<T: Pod>(&self, span: Span) -> Result<&[T], ViewError> {
        let start = Buffer { start: self.start.as_ptr(), bytes: self.bytes }.checked::<T>(span)?;
        // SAFETY: bounds and alignment are checked; T is Pod, so any bytes are valid; while the arena is borrowed, nobody
        // can write to it.
        Ok(unsafe { std::slice::from_raw_parts(start, span.bytes / size_of::<T>()) })
    }

    /// Writes one span.
    pub fn write<T: Pod>(&mut self, span: Span) -> Result<&mut [T], ViewError> {
        self.views().write(span)
    }
}

/// Buffers beside the arena that spans may name, by their place in a list.
pub struct Outside<'a> {
    /// Written to only where they were borrowed mutably.
    buffers: &'a [Arena],
    /// The buffer of each home.
    homes: &'a [u32],
    writable: bool,
}

impl<'a> Outside<'a> {
    /// No buffers.
    pub fn nothing() -> Outside<'a> {
        Outside::shared(&[], &[])
    }

    /// `Home::Store(i)` is `buffers[homes[i]]`, to be read.
    pub fn shared(buffers: &'a [Arena], homes: &'a [u32]) -> Outside<'a> {
        Outside { buffers, homes, writable: false }
    }

    /// `Home::Store(i)` is `buffers[homes[i]]`, to be read and written.
    pub fn exclusive(buffers: &'a mut [Arena], homes: &'a [u32]) -> Outside<'a> {
        Outside { buffers, homes, writable: true }
    }

    /// The same buffers for a shorter time, during which these cannot be used.
    pub fn reborrow(&mut self) -> Outside<'_> {
        Outside { ..*self }
    }

    fn buffer(&self, home: u32) -> Option<Buffer> {
        let arena = self.buffers.get(*self.homes.get(home as usize)? as usize)?;
        Some(Buffer { start: arena.start.as_ptr(), bytes: arena.bytes })
    }
}

/// Where a buffer starts and how long it is.
#[derive(Clone, Copy)]
struct Buffer {
    start: *mut u8,
    bytes: usize,
}

impl Buffer {
    /// The first element of a span, which lies within the buffer and fits the element type.
    fn checked<T: Pod>(self, span: Span) -> Result<*mut T, ViewError> {
        let size = size_of::<T>();
        if size == 0 || !span.bytes.is_multiple_of(size) || !span.offset.is_multiple_of(align_of::<T>()) {
            return Err(ViewError::Misaligned { span, size });
        }
        if span.offset > self.bytes || span.bytes > self.bytes - span.offset {
            return Err(ViewError::OutOfBounds { span, buffer: self.bytes });
        }
        Ok(self.start.wrapping_add(span.offset).cast())
    }
}

/// Addresses that are in use: first byte and one past the last. Kept from one set of views to the next, so that handing out
/// slices allocates nothing.
#[derive(Default)]
pub struct Taken {
    read: Vec<(usize, usize)>,
    written: Vec<(usize, usize)>,
}

impl Taken {
    /// Makes room to remember so many slices at once.
    pub fn reserve(&mut self, slices: usize) {
        self.read.reserve(slices);
        self.written.reserve(slices);
    }

    fn meets(list: &[(usize, usize)], (start, end): (usize, usize)) -> bool {
        list.iter().any(|&(first, last)| start < last && first < end)
    }
}

/// Hands out slices of an arena and of what is outside it, and remembers them, so that a written slice meets no other.
pub struct Views<'a> {
    arena: Buffer,
    outside: Outside<'a>,
    taken: RefCell<&'a mut Taken>,
}

impl<'a> Views<'a> {
    /// Views of borrowed memory as of an arena, for a plan that runs inside another's scratch memory. Its start must be
    /// aligned to [`ALIGNMENT`] for vector loads to stay within cache lines.
    pub fn within(memory: &'a mut [u8], taken: &'a mut Taken, outside: Outside<'a>) -> Views<'a> {
        let arena = Buffer { start: memory.as_mut_ptr(), bytes: memory.len() };
        taken.read.clear();
        taken.written.clear();
        Views { arena, outside, taken: RefCell::new(taken) }
    }

    /// The elements of `span`, to read.
    pub fn read<T: Pod>(&self, span: Span) -> Result<&'a [T], ViewError> {
        let start = self.take::<T>(span, false)?;
        // SAFETY: `take` checked bounds, alignment and that no written slice overlaps; T is Pod, so any bytes are valid;
        // the arena is borrowed mutably, and what is outside it at least shared, for 'a.
        Ok(unsafe { std::slice::from_raw_parts(start, span.bytes / size_of::<T>()) })
    }

    /// The elements of `span`, to write.
    pub fn write<T: Pod>(&self, span: Span) -> Result<&'a mut [T], ViewError> {
        let start = self.take::<T>(span, true)?;
        // SAFETY: as in `read`; `take` checked that no slice at all overlaps, by address, and that the buffer is borrowed
        // mutably for 'a.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, span.bytes / size_of::<T>()) })
    }

    fn take<T: Pod>(&self, span: Span, write: bool) -> Result<*mut T, ViewError> {
        let buffer = match span.home {
            Home::Arena => self.arena,
            Home::Store(_) if write && !self.outside.writable => return Err(ViewError::ReadOnly { span }),
            Home::Store(home) => {
                self.outside.buffer(home).ok_or(ViewError::OutOfBounds { span, buffer: 0 })?
            }
        };
        let start = buffer.checked::<T>(span)?;
        if span.bytes == 0 {
            return Ok(start);
        }
        let range = (start.addr(), start.addr() + span.bytes);
        let mut taken = self.taken.borrow_mut();
        if Taken::meets(&taken.written, range) || write && Taken::meets(&taken.read, range) {
            return Err(ViewError::Overlap { span });
        }
        if write {
            taken.written.push(range)
        } else {
            taken.read.push(range)
        }
        Ok(start)
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
        assert_eq!(views.write::<f32>(b), Err(ViewError::Overlap { span: b }));
        let c = Span::of::<f32>(128, 8);
        views.write::<f32>(c).unwrap();
        assert!(matches!(views.read::<u8>(Span::in_arena(130, 1)), Err(ViewError::Overlap { .. })));
        views.write::<f32>(Span::in_arena(128, 0)).unwrap();
    }

    #[test]
    fn spans_outside_or_askew_are_refused() {
        let mut arena = Arena::new(100);
        let views = arena.views();
        let out = |span| matches!(views.read::<f32>(span), Err(ViewError::OutOfBounds { .. }));
        assert!(out(Span::in_arena(64, 40)));
        assert!(out(Span::in_arena(usize::MAX - 3, 4)));
        assert!(out(Span { home: Home::Store(0), ..Span::of::<f32>(0, 1) }));
        assert!(matches!(views.read::<f32>(Span::in_arena(2, 4)), Err(ViewError::Misaligned { .. })));
        assert!(matches!(views.read::<f32>(Span::in_arena(0, 6)), Err(ViewError::Misaligned { .. })));
    }

    #[test]
    fn memory_of_another_arena_is_an_arena() {
        let (mut arena, mut taken, constants) = (Arena::new(256), Taken::default(), [Arena::new(8)]);
        let memory = arena.write::<u8>(Span::in_arena(128, 64)).unwrap();
        {
            let views = Views::within(memory, &mut taken, Outside::shared(&constants, &[0]));
            views.write::<f32>(Span::of::<f32>(0, 2)).unwrap().fill(3.0);
            assert!(views.read::<f32>(Span::of::<f32>(0, 1)).is_err());
            assert!(views.read::<f32>(Span::of::<f32>(64, 1)).is_err());
            let constant = Span { home: Home::Store(0), ..Span::of::<f32>(0, 2) };
            assert_eq!(views.read::<f32>(constant).unwrap(), [0.0; 2]);
            assert!(views.write::<f32>(constant).is_err());
        }
        let views = Views::within(memory, &mut taken, Outside::nothing());
        assert_eq!(views.read::<f32>(Span::of::<f32>(0, 3)).unwrap(), [3.0, 3.0, 0.0]);
        assert_eq!(arena.read::<f32>(Span::of::<f32>(128, 2)).unwrap(), [3.0; 2]);
    }

    #[test]
    fn memory_that_no_machine_has_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize / 2] {
            assert_eq!(Arena::try_new(bytes).map(drop).map_err(|e| e.bytes), Err(bytes));
        }
    }

    #[test]
    fn any_number_of_slices_can_be_out_at_once() {
        let mut arena = Arena::new(64 * 1000);
        let views = arena.views();
        for i in 0..999 {
            views.read::<u8>(Span::in_arena(64 * i, 64)).unwrap();
        }
        views.write::<u8>(Span::in_arena(64 * 999, 64)).unwrap();
        assert!(views.write::<u8>(Span::in_arena(64 * 998, 64)).is_err());
    }

    #[test]
    fn buffers_outside_are_found_by_their_home_and_written_only_when_borrowed_for_it() {
        let (mut arena, mut buffers) = (Arena::new(64), [Arena::new(8), Arena::new(16)]);
        let stored = |home, bytes| Span { home: Home::Store(home), offset: 0, bytes };
        {
            let views = arena.views_with(Outside::exclusive(&mut buffers, &[1, 0, 1]));
            views.write::<f32>(stored(0, 16)).unwrap().fill(2.0);
            assert!(views.read::<f32>(stored(1, 16)).is_err(), "longer than its buffer");
            views.write::<f32>(stored(1, 8)).unwrap().fill(3.0);
            // Two homes of one buffer are the same memory.
            assert_eq!(views.read::<f32>(stored(2, 4)), Err(ViewError::Overlap { span: stored(2, 4) }));
            assert!(views.read::<f32>(stored(3, 4)).is_err());
        }
        assert_eq!(buffers[1].read::<f32>(Span::of::<f32>(0, 4)).unwrap(), &[2.0; 4]);
        let views = arena.views_with(Outside::shared(&buffers, &[0]));
        assert_eq!(views.read::<f32>(stored(0, 8)).unwrap(), &[3.0; 2]);
        assert_eq!(views.write::<f32>(stored(0, 8)), Err(ViewError::ReadOnly { span: stored(0, 8) }));
    }
}
