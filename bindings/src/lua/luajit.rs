//! What LuaJIT adds: `ffi`, whose declarations belong to the process, and the parameters of the compiler.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use super::ffi::{self, LUA_REGISTRYINDEX, lua_State};

use super::context;
use super::functions::replace_field;
use super::isolation::key;
use super::originals::{Originals, original};

/// Keys of our values in the registry.
static FFI: u8 = 0;
/// By the text of a declaration: the request that made it last.
static DECLARED: u8 = 1;

/// The parameters of the compiler that `jit.opt.start` sets, as LuaJIT starts with them.
const PARAMETERS: [&CStr; 15] = [
    c"maxtrace=1000",
    c"maxrecord=4000",
    c"maxirconst=500",
    c"maxside=100",
    c"maxsnap=500",
    c"minstitch=0",
    c"hotloop=56",
    c"hotexit=10",
    c"tryside=4",
    c"instunroll=4",
    c"loopunroll=15",
    c"callunroll=3",
    c"recunroll=2",
    c"sizemcode=64",
    c"maxmcode=2048",
];

/// How many tables scripts share besides the libraries.
pub(super) const HIDDEN: c_int = 2;

/// Makes `ffi` one for all requests.
///
/// # Safety
/// `l` is a Lua state with all libraries open, used by this thread only, with some stack to spare.
pub(super) unsafe fn install(l: *mut lua_State, originals: &mut Originals) {
    // SAFETY: the caller's promise; the libraries are as they were opened.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_getglobal(l, c"jit".as_ptr());
        originals.jit_attach = replace_field(l, c"attach", jit_attach);

        // The types that are declared belong to the process and cannot be taken back, so the library is opened once. A
        // script finds it where it would, not loaded yet.
        ffi::lua_getglobal(l, c"package".as_ptr());
        ffi::lua_getfield(l, -1, c"preload".as_ptr());
        ffi::lua_getfield(l, -1, c"ffi".as_ptr());
        ffi::lua_pushstring(l, c"ffi".as_ptr());
        ffi::lua_call(l, 1, 1);
        originals.ffi_cdef = replace_field(l, c"cdef", ffi_cdef);
        originals.ffi_gc = replace_field(l, c"gc", ffi_gc);
        originals.ffi_metatype = replace_field(l, c"metatype", ffi_metatype);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&FFI));
        ffi::lua_pushcfunction(l, open_ffi);
        ffi::lua_setfield(l, -2, c"ffi".as_ptr());
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_pushnil(l);
        ffi::lua_setfield(l, -2, c"ffi".as_ptr());
        ffi::lua_newtable(l);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&DECLARED));
        ffi::lua_settop(l, top);
    }
}

/// Pushes the tables of LuaJIT that scripts share besides the libraries.
///
/// # Safety
/// `l` is a Lua state of this thread, with the libraries as they were opened.
pub(super) unsafe fn push_hidden(l: *mut lua_State, which: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        if which == 0 {
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&FFI));
        } else {
            ffi::lua_getglobal(l, c"jit".as_ptr());
            ffi::lua_getfield(l, -1, c"opt".as_ptr());
            ffi::lua_remove(l, -2);
        }
    }
}

/// Sets the parameters of the compiler, and lets go of what listens to it. The function `jit.opt.start` is on top of the stack.
///
/// # Safety
/// As for [`push_hidden`].
pub(super) unsafe fn reset_parameters(l: *mut lua_State) {
    // SAFETY: plain stack operations; the function takes each of the parameters.
    unsafe {
        ffi::luaL_checkstack(l, PARAMETERS.len() as c_int + 2, std::ptr::null());
        ffi::lua_pushvalue(l, -1);
        for parameter in PARAMETERS {
            ffi::lua_pushstring(l, parameter.as_ptr());
        }
        ffi::lua_call(l, PARAMETERS.len() as c_int, 0);
        // The library expects a table here once there has been one.
        ffi::lua_newtable(l);
        ffi::lua_setfield(l, LUA_REGISTRYINDEX, c"_VMEVENTS".as_ptr());
    }
}

unsafe extern "C-unwind" fn jit_attach(l: *mut lua_State) -> c_int {
    context::with(|c| c.traces.compiler.set(true));
    // SAFETY: the original runs in this frame.
    unsafe { original(l, |o| o.jit_attach) }
}

macro_rules! may_set_finalizers {
    ($($name:ident)*) => {$(
        unsafe extern "C-unwind" fn $name(l: *mut lua_State) -> c_int {
            context::with(|c| c.traces.finalizers.set(true));
            // SAFETY: the original runs in this frame.
            unsafe { original(l, |o| o.$name) }
        }
    )*};
}

may_set_finalizers! { ffi_gc ffi_metatype }

/// `require "ffi"`: found anew by each request.
unsafe extern "C-unwind" fn open_ffi(l: *mut lua_State) -> c_int {
    context::with(|c| c.volatile.borrow_mut().push(b"ffi".to_vec()));
    // SAFETY: one value is pushed.
    unsafe { ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&FFI)) };
    1
}

/// `ffi.cdef`: what an earlier request has declared stands already, and to declare it again would be an error.
unsafe extern "C-unwind" fn ffi_cdef(l: *mut lua_State) -> c_int {
    let request = context::with(|c| c.requests.get());
    // SAFETY: plain stack operations; the original runs in this frame, on its own arguments.
    unsafe {
        if ffi::lua_gettop(l) != 1 || ffi::lua_type(l, 1) != ffi::LUA_TSTRING {
            return original(l, |o| o.ffi_cdef);
        }
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&DECLARED));
        ffi::lua_pushvalue(l, 1);
        let stands = ffi::lua_rawget(l, -2) != ffi::LUA_TNIL && ffi::lua_tointeger(l, -1) != request;
        ffi::lua_settop(l, 1);
        if !stands {
            original(l, |o| o.ffi_cdef);
            ffi::lua_settop(l, 1);
        }
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&DECLARED));
        ffi::lua_pushvalue(l, 1);
        ffi::lua_pushinteger(l, request);
        ffi::lua_rawset(l, -3);
        0
    }
}
