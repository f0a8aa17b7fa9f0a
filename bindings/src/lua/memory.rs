//! The allocator of a state: Lua's own, with a limit, and an ear for userdata.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use super::ffi::{self, lua_State};

use super::context;
use super::ends::ODD_SIZE;
use super::modules;

/// What the allocator of one state knows.
pub(super) struct Memory {
    allocator: ffi::lua_Alloc,
    data: *mut c_void,
    used: Cell<usize>,
    limit: Cell<usize>,
    /// The limit has been met.
    out: Cell<bool>,
}

impl Memory {
    /// Takes the place of a state's allocator, for which it must stay where it is.
    ///
    /// # Safety
    /// `l` is a Lua state of this thread; what is returned lives until it has been closed.
    #[allow(clippy::unnecessary_box_returns)]
    pub(super) unsafe fn install(l: *mut lua_State) -> Box<Self> {
        let mut data = ptr::null_mut();
        // SAFETY: the caller's promise.
        unsafe {
            let allocator = ffi::lua_getallocf(l, &raw mut data);
            let count = |what: c_int| usize::try_from(ffi::gc(l, what)).unwrap_or(0);
            let used = count(ffi::LUA_GCCOUNT) * 1024 + count(ffi::LUA_GCCOUNTB);
            let memory = Box::new(Self {
                allocator,
                data,
                used: Cell::new(used),
                limit: Cell::new(usize::MAX),
                out: Cell::new(false),
            });
            ffi::lua_setallocf(l, allocate, ptr::from_ref(&*memory).cast_mut().cast());
            memory
        }
    }

    /// Gives the state its own allocator back: it may want to free all at once.
    ///
    /// # Safety
    /// `l` is the state that this was installed in.
    pub(super) unsafe fn uninstall(&self, l: *mut lua_State) {
        // SAFETY: the caller's promise.
        unsafe { ffi::lua_setallocf(l, self.allocator, self.data) };
    }

    /// Sets how many bytes the state may use; beyond them, what wants more fails with "not enough memory". Gives whether the
    /// limit before has been met.
    pub(super) fn set_limit(&self, limit: Option<usize>) -> bool {
        self.limit.set(limit.unwrap_or(usize::MAX));
        self.out.replace(false)
    }
}

unsafe extern "C" fn allocate(memory: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: this is what `install` gave; the state is used by one thread.
    let memory = unsafe { &*memory.cast::<Memory>() };
    // Without a block, Lua says what the new one is for, where its size would be.
    let before = if block.is_null() { 0 } else { old };
    if block.is_null() && is_userdata(old, new) {
        let fails = context::with(|c| c.no_memory.replace(c.no_memory.get().saturating_sub(1)));
        if fails > 0 {
            return ptr::null_mut();
        }
        // Of Lua's own userdata only files matter, which are noted as they are opened; the others are buffers. Those of C
        // modules must be collected when the request ends.
        if ffi::ALLOCATIONS_HAVE_TYPES && modules::any_native() {
            context::with(|c| c.traces.userdata.set(true));
        }
    }
    let used = memory.used.get().wrapping_sub(before).wrapping_add(new);
    if new > before && used > memory.limit.get() {
        memory.out.set(true);
        return ptr::null_mut();
    }
    // SAFETY: the arguments are passed on as Lua gave them.
    let result = unsafe { (memory.allocator)(memory.data, block, old, new) };
    if new == 0 || !result.is_null() {
        memory.used.set(used);
    }
    result
}

/// Whether a new block is for userdata; where Lua does not tell, only that which `ends` makes is known.
fn is_userdata(kind: usize, size: usize) -> bool {
    if ffi::ALLOCATIONS_HAVE_TYPES {
        kind == ffi::LUA_TUSERDATA as usize
    } else {
        (ODD_SIZE..ODD_SIZE + 64).contains(&size)
    }
}
