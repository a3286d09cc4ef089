//! Memory for weights, scratch and results.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a huge page: weights that are read once per token spend a tenth of the time on page walks without them.
const HUGE: usize = 2 << 20;
const CACHE_LINE: usize = 64;

/// A fixed run of values, aligned to cache lines, and to huge pages where it is large. Starts as zeros.
pub(super) struct Buffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
}

/// Numbers for which all bits zero is a value.
pub(super) trait Plain: Copy + Send + Sync + 'static {}
impl Plain for f32 {}
impl Plain for u16 {}
impl Plain for u8 {}

impl<T: Plain> Buffer<T> {
    #[expect(unsafe_code, reason = "aligned memory comes from the allocator's raw interface")]
    pub(super) fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(memory.cast::<T>()) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE {
            // SAFETY: the range is this allocation's. The call is a hint; where it is refused pages stay small.
            unsafe { libc::madvise(memory.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: `layout` is of `len` values, for which zero bits are a value. Written after the hint above, since
        // a page's size is settled when it is first touched.
        unsafe { memory.write_bytes(0, layout.size()) };
        Self { start, len }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len * size_of::<T>();
        let align = if bytes >= 2 * HUGE { HUGE } else { CACHE_LINE };
        // The length is that of tensors that exist, so the size does not overflow.
        Layout::from_size_align(bytes, align).unwrap_or_else(|_| handle_alloc_error(Layout::new::<T>()))
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    #[expect(unsafe_code, reason = "the slice over the allocation")]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is valid for `len` values, zeroed at least, and owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    #[expect(unsafe_code, reason = "the slice over the allocation")]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    #[expect(unsafe_code, reason = "gives back what `zeros` took")]
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeros` with the same layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

#[expect(unsafe_code, reason = "a buffer owns its memory")]
// SAFETY: as for a Vec of plain numbers.
unsafe impl<T: Plain> Send for Buffer<T> {}
#[expect(unsafe_code, reason = "a buffer owns its memory")]
// SAFETY: as for a Vec of plain numbers.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}

/// Where the tasks of a parallel region write their parts of one result.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "tasks on several threads write into one result")]
// SAFETY: writing through it is unsafe, and asks for parts that do not overlap.
unsafe impl Send for Target<'_> {}
#[expect(unsafe_code, reason = "tasks on several threads write into one result")]
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    pub(super) fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), borrow: PhantomData }
    }

    /// The address of value `at`, for code that writes tiles.
    pub(super) fn address(self, at: usize) -> *mut f32 {
        debug_assert!(at < self.len, "value {at} of {}", self.len);
        self.start.wrapping_add(at)
    }

    /// Values `from..from + count`.
    ///
    /// # Safety
    /// No other part in use overlaps it.
    #[expect(unsafe_code, reason = "the caller keeps parts apart")]
    pub(super) unsafe fn part(self, from: usize, count: usize) -> &'a mut [f32] {
        assert!(from + count <= self.len, "part {from}+{count} of {}", self.len);
        // SAFETY: within the borrowed slice, and by this function's contract nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), count) }
    }
}

/// A result of `len` values that `fill` writes, all of them, before it returns.
///
/// # Safety
/// `fill` writes every value and reads none before it wrote it. Zeroing first would cost as much as many of the operations themselves.
#[expect(unsafe_code, reason = "results are written once, not zeroed first")]
pub(super) unsafe fn filled(len: usize, fill: impl FnOnce(Target<'_>)) -> Vec<f32> {
    let mut values = Vec::<f32>::with_capacity(len);
    fill(Target { start: values.as_mut_ptr(), len, borrow: PhantomData });
    // SAFETY: the capacity is there, and `fill` wrote every value.
    unsafe { values.set_len(len) };
    values
}
