//! The memory that a script may have (`--memory-limit`). The program's allocator counts what the thread of a script that runs
//! takes and gives back, and Rhai asks after each operation whether it is too much. One operation could take any amount:
//! those whose result may be far larger than what they are given ask before ([`want`]).
//!
//! Values within values are dropped, copied and compared by functions that call themselves. A script that is limited runs on
//! a stack of its own, and an array or a map counts more than its bytes, so that there is stack for all that it can nest.
//!
//! Nothing is counted without the option.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use corosensei::stack::DefaultStack;

use super::error::{Failed, ended};

/// What a script is told that wants too much.
pub(super) const TOO_MUCH: &str = "the script wants more memory than it may have (--memory-limit)";

/// What an array or a map counts besides its elements: the stack that it may take where it lies in others.
const CONTAINER: isize = if cfg!(debug_assertions) { 8 << 10 } else { 1 << 10 };
/// The stack of a script that nests nothing; and for each byte that it may have.
const STACK: usize = 8 << 20;
const STACK_PER_BYTE: usize = 4;

/// Whether anything is counted in this process.
static COUNTS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What the script of this thread has taken and not given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// What it may have; less than nothing once it has wanted more.
    static LIMIT: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// The allocator of the program: the system's, which counts while a script runs that is limited.
#[derive(Debug)]
pub struct Allocator;

impl Allocator {
    fn count(bytes: isize) {
        HELD.set(HELD.get().wrapping_add(bytes));
    }
}

/// What a block counts.
fn weight(layout: &Layout) -> isize {
    // An array or a map is a block that leads to its elements.
    let container = Layout::new::<rhai::Array>();
    let is_container = layout.size() == container.size() && layout.align() == container.align();
    layout.size() as isize + if is_container { CONTAINER } else { 0 }
}

// SAFETY: all is done by the system's allocator, with the same arguments; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            Self::count(weight(&layout));
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            Self::count(weight(&layout));
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if COUNTS.load(Relaxed) {
            Self::count(-weight(&layout));
        }
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            // SAFETY: the caller's promise: the size, rounded up to the alignment, is no overflow.
            let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            Self::count(weight(&new) - weight(&layout));
        }
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The limit of an engine's scripts.
pub(super) struct Limit {
    bytes: isize,
    stack: DefaultStack,
}

impl Limit {
    /// Scripts may have so many bytes.
    ///
    /// # Errors
    /// When there is no address space for their stack.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        let stack = DefaultStack::new(STACK.saturating_add((bytes as usize).saturating_mul(STACK_PER_BYTE)))?;
        COUNTS.store(true, Relaxed);
        Ok(Self { bytes, stack })
    }

    /// Runs a script, which is limited meanwhile.
    pub(super) fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        HELD.set(0);
        LIMIT.set(self.bytes);
        let result = corosensei::on_stack(&mut self.stack, f);
        LIMIT.set(isize::MAX);
        result
    }
}

/// Whether the script of this thread has more than it may have.
pub(super) fn is_exceeded() -> bool {
    HELD.get() > LIMIT.get()
}

/// The bytes that the script of this thread may still take.
pub(super) fn room() -> usize {
    usize::try_from(LIMIT.get().saturating_sub(HELD.get())).unwrap_or(0)
}

/// The script is about to take so many bytes.
///
/// # Errors
/// When it may not have them. A script cannot catch this error.
pub(super) fn want(bytes: usize) -> Result<(), Failed> {
    if bytes <= room() {
        return Ok(());
    }
    // It may catch the error of a function that it calls by another one: its next operation is its last in any case.
    LIMIT.set(isize::MIN);
    Err(ended(TOO_MUCH))
}
