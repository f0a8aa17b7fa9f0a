//! The collector, and what its versions start with.
#![allow(unsafe_code)]
// Not every version needs all of it, and the C interface is a namespace of its own.
#![allow(dead_code, unused_imports, clippy::wildcard_imports)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::*;

/// Does something with the collector that needs no argument.
pub(in crate::lua) unsafe fn gc(l: *mut lua_State, what: c_int) -> c_int {
    // SAFETY: as `lua_gc`.
    unsafe {
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        return lua_gc(l, what);
        #[cfg(not(any(feature = "lua54", feature = "lua55")))]
        return lua_gc(l, what, 0);
    }
}

/// Collects all garbage. Errors of finalizers are for nobody to hear, as at the end of the program `lua`: Lua 5.4 and later warn
/// of them, versions before stop at each and go on when they are called again.
pub(in crate::lua) unsafe fn collect(l: *mut lua_State) {
    unsafe extern "C-unwind" fn collect(l: *mut lua_State) -> c_int {
        // SAFETY: as `lua_gc`.
        unsafe { gc(l, LUA_GCCOLLECT) };
        0
    }
    const ATTEMPTS: usize = 100_000;
    for _ in 0..ATTEMPTS {
        // SAFETY: a C function without arguments, in protected mode.
        unsafe {
            lua_pushcfunction(l, collect);
            if lua_pcall(l, 0, 0, 0) == LUA_OK {
                return;
            }
            lua_pop(l, 1);
        }
    }
}

/// Sets the collector as the program `lua` does when it starts.
pub(in crate::lua) unsafe fn gc_start(l: *mut lua_State) {
    // SAFETY: as `lua_gc`.
    unsafe {
        gc(l, LUA_GCRESTART);
        #[cfg(feature = "lua54")]
        lua_gc(l, LUA_GCGEN, 0 as c_int, 0 as c_int);
        #[cfg(feature = "lua55")]
        lua_gc(l, LUA_GCGEN);
    }
}

/// The collector's parameters, for a later `gc_reset`.
#[cfg(feature = "lua55")]
pub(in crate::lua) type GcParameters = [c_int; 6];
#[cfg(not(feature = "lua55"))]
pub(in crate::lua) type GcParameters = ();

/// Asks for the collector's parameters.
pub(in crate::lua) unsafe fn gc_parameters(l: *mut lua_State) -> GcParameters {
    #[cfg(feature = "lua55")]
    // SAFETY: as `lua_gc`; a negative value asks.
    return std::array::from_fn(|at| unsafe { lua_gc(l, LUA_GCPARAM, at as c_int, -1 as c_int) });
    #[cfg(not(feature = "lua55"))]
    let _ = l;
}

/// Sets the collector as it was when the program had started.
#[cfg_attr(not(feature = "lua55"), allow(unused_variables, clippy::trivially_copy_pass_by_ref))]
pub(in crate::lua) unsafe fn gc_reset(l: *mut lua_State, parameters: &GcParameters) {
    // SAFETY: as `lua_gc`; the numbers are those that Lua starts with.
    unsafe {
        gc(l, LUA_GCRESTART);
        #[cfg(feature = "lua54")]
        {
            lua_gc(l, LUA_GCINC, 200 as c_int, 100 as c_int, 13 as c_int);
            lua_gc(l, LUA_GCGEN, 20 as c_int, 100 as c_int);
        }
        #[cfg(feature = "lua55")]
        {
            lua_gc(l, LUA_GCGEN);
            for (at, value) in parameters.iter().enumerate() {
                lua_gc(l, LUA_GCPARAM, at as c_int, *value);
            }
        }
        #[cfg(not(any(feature = "lua54", feature = "lua55")))]
        {
            lua_gc(l, LUA_GCSETPAUSE, 200);
            lua_gc(l, LUA_GCSETSTEPMUL, 200);
        }
    }
}
