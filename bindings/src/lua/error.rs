//! Errors of scripts, in the words of `lua`.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_int};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use super::ffi::{self, lua_State};

use super::context;

/// What `lua` does with an error: a text gets a traceback, another value its `__tostring`.
pub(super) unsafe extern "C-unwind" fn describe_error(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        if context::with(|c| c.exit.get().is_some()) {
            return 1;
        }
        ffi::describe(l);
        1
    }
}

/// Leaves on top of the stack what is to be printed of an error that is there: a text, which is empty when it is nothing.
pub(super) unsafe fn as_text(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        if ffi::lua_tostring(l, -1).is_null() {
            ffi::lua_pushstring(l, ffi::without_text(l, -1).as_ptr());
        }
    }
}

/// Takes what `call_script` left: nothing, or a message, which ends at its first zero byte as all that C prints.
pub(super) unsafe fn take_message(l: *mut lua_State) -> Option<Vec<u8>> {
    // SAFETY: one value is on the stack.
    unsafe {
        let text = ffi::lua_tostring(l, -1);
        let message = (!text.is_null()).then(|| CStr::from_ptr(text).to_bytes().to_vec());
        ffi::lua_settop(l, 0);
        message
    }
}

/// Prints the message of an error, which is on the stack, with the program's name before it outside of the prompt. Whether
/// all is well.
///
/// # Safety
/// `l` is a Lua state of this thread; with an error status its message is on top.
pub(super) unsafe fn report(l: *mut lua_State, status: c_int, program: Option<&OsStr>) -> bool {
    if status == ffi::LUA_OK {
        return true;
    }
    // SAFETY: the text stays on the stack while it is printed.
    unsafe {
        let text = ffi::lua_tostring(l, -1);
        let text = if text.is_null() { ffi::without_text(l, -1) } else { CStr::from_ptr(text) }.to_bytes();
        if !text.is_empty() || ffi::lua_isnil(l, -1) == 0 {
            let program = program.map(|p| [p.as_bytes(), b": "].concat()).unwrap_or_default();
            let _ = std::io::stderr().write_all(&[&program[..], text, b"\n"].concat());
        }
        ffi::lua_pop(l, 1);
    }
    false
}
