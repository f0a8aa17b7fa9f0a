//! The library functions that ours replace, and call.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_int;

use super::ffi::lua_CFunction;
use super::ffi::lua_State;

/// Library functions that ours call.
#[derive(Clone, Copy, Default)]
pub(super) struct Originals {
    pub(super) setmetatable: Option<lua_CFunction>,
    pub(super) debug_setmetatable: Option<lua_CFunction>,
    pub(super) getregistry: Option<lua_CFunction>,
    pub(super) collectgarbage: Option<lua_CFunction>,
    pub(super) random: Option<lua_CFunction>,
    pub(super) randomseed: Option<lua_CFunction>,
    pub(super) newproxy: Option<lua_CFunction>,
    pub(super) module: Option<lua_CFunction>,
    pub(super) setlocale: Option<lua_CFunction>,
    pub(super) pcall: Option<lua_CFunction>,
    pub(super) xpcall: Option<lua_CFunction>,
    pub(super) resume: Option<lua_CFunction>,
    pub(super) require: Option<lua_CFunction>,
    pub(super) io_flush: Option<lua_CFunction>,
    pub(super) file_flush: Option<lua_CFunction>,
    pub(super) file_setvbuf: Option<lua_CFunction>,
    pub(super) io_write: Option<lua_CFunction>,
    pub(super) io_read: Option<lua_CFunction>,
    pub(super) open: Option<lua_CFunction>,
    pub(super) input: Option<lua_CFunction>,
    pub(super) output: Option<lua_CFunction>,
    pub(super) lines: Option<lua_CFunction>,
    pub(super) tmpfile: Option<lua_CFunction>,
    pub(super) file_write: Option<lua_CFunction>,
    pub(super) file_read: Option<lua_CFunction>,
    #[cfg(feature = "luajit")]
    pub(super) luajit: super::luajit::Functions,
}

thread_local! {
    static ORIGINALS: Cell<Originals> = Cell::default();
}

/// Remembers them for this thread's interpreter.
pub(super) fn set(originals: Originals) {
    ORIGINALS.set(originals);
}

/// Calls a library function in the frame of the one that replaces it.
pub(super) unsafe fn original(l: *mut lua_State, which: impl FnOnce(Originals) -> Option<lua_CFunction>) -> c_int {
    match which(ORIGINALS.get()) {
        // SAFETY: it is a C function of Lua, and finds the stack that it expects.
        Some(function) => unsafe { function(l) },
        None => 0,
    }
}
