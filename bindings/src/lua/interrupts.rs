//! SIGINT on a terminal.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

use super::ffi::{self, lua_State};

/// The state that SIGINT interrupts.
static INTERRUPTED: AtomicPtr<lua_State> = AtomicPtr::new(ptr::null_mut());

/// Says which state is interrupted from now on.
pub(super) fn of(l: *mut lua_State) {
    INTERRUPTED.store(l, SeqCst);
}

/// Until it has happened once, SIGINT raises the error "interrupted!" in what runs; then it ends the program.
pub(super) fn catch_interrupts() {
    extern "C" fn interrupt(signal: c_int) {
        // SAFETY: resetting a handler and setting a hook are allowed in a signal handler; Lua says so of the latter.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            let l = INTERRUPTED.load(SeqCst);
            let always = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
            ffi::lua_sethook(l, Some(raise), always, 1);
        }
    }
    unsafe extern "C-unwind" fn raise(l: *mut lua_State, _: *mut ffi::lua_Debug) {
        // SAFETY: hooks may raise errors.
        unsafe {
            ffi::lua_sethook(l, None, 0, 0);
            ffi::luaL_error(l, c"interrupted!".as_ptr());
        }
    }
    let handler: extern "C" fn(c_int) = interrupt;
    // SAFETY: the handler does only what handlers may do.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}
