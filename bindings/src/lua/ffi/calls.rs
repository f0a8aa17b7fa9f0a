//! Functions, coroutines, values, warnings.
#![allow(unsafe_code, non_snake_case)]
// Not every version needs all of it, and the C interface is a namespace of its own.
#![allow(dead_code, unused_imports, clippy::wildcard_imports)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::*;

/// Pushes `package.preload`.
pub(in crate::lua) unsafe fn push_preload(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        {
            lua_getfield(l, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
            lua_getfield(l, -1, c"package".as_ptr());
            lua_getfield(l, -1, c"preload".as_ptr());
            lua_replace(l, -3);
            lua_pop(l, 1);
        }
        #[cfg(any(feature = "lua52", feature = "lua53"))]
        lua_getfield(l, LUA_REGISTRYINDEX, c"_PRELOAD".as_ptr());
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        lua_getfield(l, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    }
}

/// Gives the function on top of the stack the environment of the one below it, in versions that have environments: library
/// functions find their own things there.
pub(in crate::lua) unsafe fn share_environment(l: *mut lua_State) {
    #[cfg(any(feature = "lua51", feature = "luajit"))]
    // SAFETY: two functions are on top of the stack.
    unsafe {
        lua_getfenv(l, -2);
        lua_setfenv(l, -2);
    }
    #[cfg(not(any(feature = "lua51", feature = "luajit")))]
    let _ = l;
}

/// Loads a file; null is standard input.
pub(in crate::lua) unsafe fn load_file(l: *mut lua_State, name: *const c_char) -> c_int {
    // SAFETY: as `luaL_loadfile`.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        return luaL_loadfile(l, name);
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        return luaL_loadfilex(l, name, ptr::null());
    }
}

/// Makes the globals of the function at 1 those of the state, whatever a script has made of them.
pub(in crate::lua) unsafe fn make_globals_fresh(l: *mut lua_State) {
    #[cfg(any(feature = "lua51", feature = "luajit"))]
    // SAFETY: the function is at 1.
    unsafe {
        lua_pushglobaltable(l);
        lua_setfenv(l, 1);
    }
    #[cfg(not(any(feature = "lua51", feature = "luajit")))]
    // SAFETY: the function is at 1, and a script has one upvalue, if it has any.
    unsafe {
        lua_rawgeti(l, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
        if !lua_getupvalue(l, 1, 1).is_null() {
            let same = lua_rawequal(l, -1, -2) != 0;
            lua_pop(l, 1);
            if !same {
                // Not by setting it: functions that were kept by modules share the old one.
                if luaL_loadstring(l, c"return _ENV".as_ptr()) == LUA_OK {
                    lua_upvaluejoin(l, 1, 1, -1, 1);
                }
                lua_pop(l, 1);
            }
        }
        lua_pop(l, 1);
    }
}

/// Makes a coroutine that has failed give its error, which is on its stack, to the one that resumed it.
pub(in crate::lua) unsafe fn close_coroutine(thread: *mut lua_State, l: *mut lua_State) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: as `lua_closethread`; the error that it leaves takes the place of the one on the stack.
    unsafe {
        lua_closethread(thread, l);
        lua_xmove(thread, l, 1);
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = (thread, l);
}

/// Why a coroutine cannot be resumed, in versions whose `lua_resume` does not say so.
pub(in crate::lua) unsafe fn why_not_resume(l: *mut lua_State, thread: *mut lua_State) -> Option<&'static CStr> {
    #[cfg(any(feature = "lua54", feature = "lua55", feature = "luajit"))]
    let why = {
        let _ = (l, thread);
        None
    };
    #[cfg(any(feature = "lua52", feature = "lua53"))]
    // SAFETY: a look at the coroutine.
    let why = unsafe {
        let _ = l;
        (lua_status(thread) == LUA_OK && lua_gettop(thread) == 0).then_some(c"cannot resume dead coroutine")
    };
    #[cfg(feature = "lua51")]
    // SAFETY: a look at the coroutine.
    let why = unsafe {
        let mut frame: lua_Debug = std::mem::zeroed();
        match lua_status(thread) {
            LUA_YIELD => None,
            _ if l == thread => Some(c"cannot resume running coroutine"),
            LUA_OK if lua_getstack(thread, 0, &raw mut frame) > 0 => Some(c"cannot resume normal coroutine"),
            LUA_OK if lua_gettop(thread) > 0 => None,
            _ => Some(c"cannot resume dead coroutine"),
        }
    };
    why
}

/// Hears warnings.
pub(in crate::lua) type WarnFunction = unsafe extern "C-unwind" fn(*mut c_void, *const c_char, c_int);

/// Sets what hears warnings, in versions that have them.
pub(in crate::lua) unsafe fn set_warnings(l: *mut lua_State, warn: WarnFunction) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: as `lua_setwarnf`.
    unsafe {
        lua_setwarnf(l, Some(warn), ptr::null_mut());
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = (l, warn);
}

/// Warns, in versions that can.
pub(in crate::lua) unsafe fn warning(l: *mut lua_State, message: &CStr) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: as `lua_warning`.
    unsafe {
        lua_warning(l, message.as_ptr(), 0);
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = (l, message);
}

/// A userdata of `size` bytes.
pub(in crate::lua) unsafe fn new_userdata(l: *mut lua_State, size: usize) -> *mut c_void {
    // SAFETY: as `lua_newuserdata`.
    unsafe { lua_newuserdata(l, size) }
}

// LuaJIT's own, which shows what it alone knows of a frame; the one of the binding is made for Lua 5.1.
#[cfg(feature = "luajit")]
unsafe extern "C-unwind" {
    pub(in crate::lua) fn luaL_traceback(l: *mut lua_State, of: *mut lua_State, message: *const c_char, level: c_int);
}

/// `luaL_testudata`.
#[cfg(any(feature = "lua51", feature = "luajit"))]
pub(in crate::lua) unsafe fn luaL_testudata(l: *mut lua_State, at: c_int, name: *const c_char) -> *mut c_void {
    // SAFETY: plain stack operations.
    unsafe {
        let userdata = lua_touserdata(l, at);
        if userdata.is_null() || lua_getmetatable(l, at) == 0 {
            return ptr::null_mut();
        }
        lua_getfield(l, LUA_REGISTRYINDEX, name);
        let same = lua_rawequal(l, -1, -2) != 0;
        lua_pop(l, 2);
        if same { userdata } else { ptr::null_mut() }
    }
}

/// `luaL_fileresult`.
#[cfg(any(feature = "lua51", feature = "luajit"))]
pub(in crate::lua) unsafe fn luaL_fileresult(l: *mut lua_State, succeeded: c_int, name: *const c_char) -> c_int {
    // SAFETY: plain stack operations; the C library's text is copied at once.
    unsafe {
        let number = *libc::__errno_location();
        if succeeded != 0 {
            lua_pushboolean(l, 1);
            return 1;
        }
        lua_pushnil(l);
        let text = libc::strerror(number);
        if name.is_null() {
            lua_pushstring(l, text);
        } else {
            lua_pushfstring(l, c"%s: %s".as_ptr(), name, text);
        }
        lua_pushnumber(l, f64::from(number));
        3
    }
}

/// Pushes what `print` prints of an argument.
pub(in crate::lua) unsafe fn printed(l: *mut lua_State, at: c_int, len: *mut usize) -> *const c_char {
    // SAFETY: errors are raised while nothing needs dropping.
    unsafe {
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        return luaL_tolstring(l, at, len);
        #[cfg(not(any(feature = "lua54", feature = "lua55")))]
        {
            // The global of this name, whatever it is: a text is given to it, too.
            lua_getglobal(l, c"tostring".as_ptr());
            lua_pushvalue(l, at);
            lua_call(l, 1, 1);
            let text = lua_tolstring(l, -1, len);
            if text.is_null() {
                luaL_error(l, TOSTRING_ERROR.as_ptr());
            }
            text
        }
    }
}

#[cfg(not(any(feature = "lua54", feature = "lua55")))]
const TOSTRING_ERROR: &CStr = c"'tostring' must return a string to 'print'";
