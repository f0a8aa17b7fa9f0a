//! What is put back after a request, where versions keep it in different places.
#![allow(unsafe_code)]
// Not every version needs all of it, and the C interface is a namespace of its own.
#![allow(dead_code, unused_imports, clippy::wildcard_imports)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::*;

/// Takes the table on top of the stack off it, and makes it the globals, in versions where a script can replace them.
pub(in crate::lua) unsafe fn restore_globals(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        lua_replace(l, LUA_GLOBALSINDEX);
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        lua_pop(l, 1);
    }
}

/// Takes a file off the stack, and makes it the default `input` or `output`. Below it is the table of `io`.
pub(in crate::lua) unsafe fn set_default_file(l: *mut lua_State, which: &CStr) {
    // SAFETY: plain stack operations; the function takes a file.
    unsafe {
        if HAS_ENVIRONMENTS {
            lua_getfield(l, -2, which.as_ptr());
            lua_insert(l, -2);
            lua_call(l, 1, 0);
        } else {
            let name = if which == c"input" { c"_IO_input" } else { c"_IO_output" };
            lua_setfield(l, LUA_REGISTRYINDEX, name.as_ptr());
        }
    }
}

/// How random numbers begin.
pub(in crate::lua) struct Random {
    /// LuaJIT: where the generator's state is, and what it is at first.
    #[cfg(feature = "luajit")]
    state: (*mut u8, Vec<u8>),
}

impl Random {
    /// How they begin in a state that no script has run in.
    pub(in crate::lua) unsafe fn of(l: *mut lua_State) -> Self {
        #[cfg(feature = "luajit")]
        // SAFETY: the generator's state is the upvalue of `math.random`, a userdata, which the function keeps alive.
        unsafe {
            lua_getglobal(l, c"math".as_ptr());
            lua_getfield(l, -1, c"random".as_ptr());
            let is_there = !lua_getupvalue(l, -1, 1).is_null();
            let state: *mut u8 = if is_there { lua_touserdata(l, -1).cast() } else { ptr::null_mut() };
            let len = if state.is_null() { 0 } else { lua_rawlen(l, -1) };
            let bytes = if len == 0 { Vec::new() } else { std::slice::from_raw_parts(state, len).to_vec() };
            lua_pop(l, if is_there { 3 } else { 2 });
            Self { state: (state, bytes) }
        }
        #[cfg(not(feature = "luajit"))]
        {
            let _ = l;
            Self {}
        }
    }

    /// Begins anew as a process does; `touched` says whether a script has used or seeded the generator.
    #[cfg_attr(feature = "luajit", allow(unused_variables))]
    #[cfg_attr(not(feature = "luajit"), allow(clippy::unused_self))]
    pub(in crate::lua) unsafe fn restore(&self, l: *mut lua_State, touched: bool) {
        #[cfg(feature = "luajit")]
        // SAFETY: the state is where it was.
        unsafe {
            ptr::copy_nonoverlapping(self.state.1.as_ptr(), self.state.0, self.state.1.len());
        }
        #[cfg(any(feature = "lua51", feature = "lua52", feature = "lua53"))]
        {
            let _ = l;
            reset_random(touched);
        }
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        if touched {
            // SAFETY: the library tables have been put back.
            unsafe {
                lua_getglobal(l, c"math".as_ptr());
                lua_getfield(l, -1, c"randomseed".as_ptr());
                lua_call(l, 0, 0);
                lua_pop(l, 1);
            }
        }
    }
}

/// Lets random numbers begin elsewhere, in versions where a state begins by chance.
pub(in crate::lua) unsafe fn seed(l: *mut lua_State) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: the library tables are as they were opened.
    unsafe {
        lua_getglobal(l, c"math".as_ptr());
        lua_getfield(l, -1, c"randomseed".as_ptr());
        lua_call(l, 0, 0);
        lua_pop(l, 1);
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = l;
}

/// LuaJIT: sets the compiler as it is at first.
pub(in crate::lua) unsafe fn compiler_reset(l: *mut lua_State) {
    #[cfg(feature = "luajit")]
    // SAFETY: the library tables have been put back; these functions take no argument.
    unsafe {
        lua_getglobal(l, c"jit".as_ptr());
        lua_getfield(l, -1, c"opt".as_ptr());
        lua_getfield(l, -1, c"start".as_ptr());
        crate::lua::luajit::reset_parameters(l);
        lua_call(l, 0, 0);
        lua_getfield(l, -2, if COMPILES.get() { c"on" } else { c"off" }.as_ptr());
        lua_call(l, 0, 0);
        lua_pop(l, 2);
    }
    #[cfg(not(feature = "luajit"))]
    let _ = l;
}

#[cfg(feature = "luajit")]
thread_local! {
    static COMPILES: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

/// LuaJIT: compiled code asks for no hooks, so where a hook is to end a script nothing is compiled.
pub(in crate::lua) unsafe fn heed_hooks(l: *mut lua_State) {
    #[cfg(feature = "luajit")]
    {
        COMPILES.set(false);
        // SAFETY: the library tables are as they were opened.
        unsafe { compiler_reset(l) };
    }
    #[cfg(not(feature = "luajit"))]
    let _ = l;
}

/// Whether the value on top of the stack stands for a module whose loading has not come to its end.
pub(in crate::lua) unsafe fn is_unfinished(l: *mut lua_State) -> bool {
    // SAFETY: a look at the stack.
    unsafe {
        if cfg!(feature = "luajit") {
            // Its sentinel is the number of these bits.
            lua_type(l, -1) == LUA_TNUMBER && lua_tonumber(l, -1).to_bits() == 0x8100_0000_0000_0073
        } else {
            lua_type(l, -1) == LUA_TLIGHTUSERDATA
        }
    }
}

/// Puts back the numbers of the C library, which versions before 5.4 use: they are the process's, not a state's.
pub(in crate::lua) fn reset_random(touched: bool) {
    if touched && cfg!(any(feature = "lua51", feature = "lua52", feature = "lua53")) {
        // SAFETY: what the C library starts with.
        unsafe { libc::srand(1) };
    }
}
