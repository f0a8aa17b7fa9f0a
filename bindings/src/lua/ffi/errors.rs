//! Errors, in the words of each version's `lua`.
#![allow(unsafe_code)]
// Not every version needs all of it, and the C interface is a namespace of its own.
#![allow(dead_code, unused_imports, clippy::wildcard_imports)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::*;

/// Whether a value is an error's text, for `coroutine.wrap`.
pub(in crate::lua) unsafe fn is_message(l: *mut lua_State, at: c_int) -> bool {
    // SAFETY: a look at the stack.
    unsafe { if NUMBER >= 503 { lua_type(l, at) == LUA_TSTRING } else { lua_isstring(l, at) != 0 } }
}

/// What `lua` does with an error before the stack is unwound; the error is at 1, and what becomes of it on top.
#[cfg(feature = "lua51")]
pub(in crate::lua) unsafe fn describe(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        if lua_isstring(l, 1) == 0 {
            return;
        }
        // The global tables may be anything by now.
        if lua_getglobal(l, c"debug".as_ptr()) == LUA_TTABLE
            && lua_getfield(l, -1, c"traceback".as_ptr()) == LUA_TFUNCTION
        {
            lua_pushvalue(l, 1);
            lua_pushinteger(l, 2);
            lua_call(l, 2, 1);
        } else {
            lua_pushvalue(l, 1);
        }
    }
}

/// What `lua` does with an error before the stack is unwound; the error is at 1, and what becomes of it on top.
#[cfg(any(feature = "lua52", feature = "luajit"))]
pub(in crate::lua) unsafe fn describe(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        let mut message = lua_tostring(l, 1);
        if message.is_null() {
            if lua_isnoneornil(l, 1) != 0 {
                return;
            }
            let described = luaL_callmeta(l, 1, c"__tostring".as_ptr()) != 0;
            if cfg!(feature = "lua52") {
                if !described {
                    lua_pushstring(l, c"(no error message)".as_ptr());
                }
                return;
            }
            if !described || lua_isstring(l, -1) == 0 {
                lua_pushvalue(l, 1);
                return;
            }
            message = lua_tostring(l, -1);
        }
        luaL_traceback(l, l, message, 1);
    }
}

/// What `lua` does with an error before the stack is unwound; the error is at 1, and what becomes of it on top.
#[cfg(any(feature = "lua53", feature = "lua54", feature = "lua55"))]
pub(in crate::lua) unsafe fn describe(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        let mut message = lua_tostring(l, 1);
        if message.is_null() {
            if luaL_callmeta(l, 1, c"__tostring".as_ptr()) != 0 && lua_type(l, -1) == LUA_TSTRING {
                return;
            }
            let kind = lua_typename(l, lua_type(l, 1));
            message = lua_pushfstring(l, c"(error object is a %s value)".as_ptr(), kind);
        }
        luaL_traceback(l, l, message, 1);
    }
}

/// What is printed of an error that is no text; nothing in versions that are silent about nil.
pub(in crate::lua) unsafe fn without_text(l: *mut lua_State, at: c_int) -> &'static CStr {
    // SAFETY: a look at the stack.
    let is_nil = unsafe { lua_isnoneornil(l, at) != 0 };
    if cfg!(any(feature = "lua51", feature = "lua52", feature = "luajit")) {
        if is_nil { c"" } else { c"(error object is not a string)" }
    } else if cfg!(feature = "lua53") {
        c"(null)"
    } else {
        c"(error message not a string)"
    }
}
