//! What LuaJIT adds: `ffi`, whose declarations belong to the process, the parameters of the compiler, and options of the
//! program.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_int};
use std::os::unix::ffi::OsStrExt;

use super::ffi::{self, LUA_REGISTRYINDEX, lua_CFunction, lua_State};

use super::context;
use super::functions::replace_field;
use super::isolation::key;
use super::originals::original;

/// Keys of our values in the registry.
static FFI: u8 = 0;
/// By the text of a declaration: the request that made it last.
static DECLARED: u8 = 1;
/// By a type's name its metatable, and by a metatable the request that gave it last.
static METATYPES: u8 = 2;
static TYPEOF: u8 = 3;
static METATYPE: u8 = 4;

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

/// Functions of LuaJIT's libraries that ours call.
#[derive(Clone, Copy, Default)]
pub(super) struct Functions {
    on: Option<lua_CFunction>,
    off: Option<lua_CFunction>,
    start: Option<lua_CFunction>,
    attach: Option<lua_CFunction>,
    cdef: Option<lua_CFunction>,
    gc: Option<lua_CFunction>,
    metatype: Option<lua_CFunction>,
}

/// How many tables scripts share besides the libraries.
pub(super) const HIDDEN: c_int = 2;

/// Makes `ffi` one for all requests, and notices when the compiler is set.
///
/// # Safety
/// `l` is a Lua state with all libraries open, used by this thread only, with some stack to spare.
pub(super) unsafe fn install(l: *mut lua_State) -> Functions {
    let mut functions = Functions::default();
    // SAFETY: the caller's promise; the libraries are as they were opened.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_getglobal(l, c"jit".as_ptr());
        functions.on = replace_field(l, c"on", jit_on);
        functions.off = replace_field(l, c"off", jit_off);
        functions.attach = replace_field(l, c"attach", jit_attach);
        ffi::lua_getfield(l, -1, c"opt".as_ptr());
        functions.start = replace_field(l, c"start", jit_start);

        // The types that are declared belong to the process and cannot be taken back, so the library is opened once. A
        // script finds it where it would, not loaded yet.
        ffi::lua_getglobal(l, c"package".as_ptr());
        ffi::lua_getfield(l, -1, c"preload".as_ptr());
        ffi::lua_getfield(l, -1, c"ffi".as_ptr());
        ffi::lua_pushstring(l, c"ffi".as_ptr());
        ffi::lua_call(l, 1, 1);
        functions.cdef = replace_field(l, c"cdef", ffi_cdef);
        functions.gc = replace_field(l, c"gc", ffi_gc);
        for (name, at) in [(c"typeof", &TYPEOF), (c"metatype", &METATYPE)] {
            ffi::lua_getfield(l, -1, name.as_ptr());
            ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(at));
        }
        functions.metatype = replace_field(l, c"metatype", ffi_metatype);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&FFI));
        ffi::lua_pushcfunction(l, open_ffi);
        ffi::lua_setfield(l, -2, c"ffi".as_ptr());
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_pushnil(l);
        ffi::lua_setfield(l, -2, c"ffi".as_ptr());
        ffi::lua_newtable(l);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&DECLARED));
        ffi::lua_newtable(l);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&METATYPES));
        ffi::lua_settop(l, top);
    }
    functions
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

macro_rules! leave_traces {
    ($trace:ident: $($name:ident $of:ident)*) => {$(
        unsafe extern "C-unwind" fn $name(l: *mut lua_State) -> c_int {
            context::with(|c| c.traces.$trace.set(true));
            // SAFETY: the original runs in this frame.
            unsafe { original(l, |o| o.luajit.$of) }
        }
    )*};
}

leave_traces! { compiler: jit_on on jit_off off jit_start start jit_attach attach }
leave_traces! { finalizers: ffi_gc gc }

/// `ffi.metatype`: a type keeps the metatable that an earlier request gave it, so that gets the contents of the new one.
unsafe extern "C-unwind" fn ffi_metatype(l: *mut lua_State) -> c_int {
    const FLUSH: c_int = 0x200;
    unsafe extern "C" {
        fn luaJIT_setmode(l: *mut lua_State, at: c_int, mode: c_int) -> c_int;
    }
    context::with(|c| c.traces.finalizers.set(true));
    let request = context::with(|c| c.requests.get());
    // SAFETY: plain stack operations; the original runs in this frame, on its own arguments. Compiled code takes metatables
    // of types for constant, so it goes.
    unsafe {
        if ffi::lua_istable(l, 2) == 0 {
            return original(l, |o| o.luajit.metatype);
        }
        ffi::lua_settop(l, 2);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&TYPEOF));
        ffi::lua_pushvalue(l, 1);
        if ffi::lua_pcall(l, 1, 1, 0) != ffi::LUA_OK {
            ffi::lua_settop(l, 2);
            return original(l, |o| o.luajit.metatype);
        }
        ffi::lua_replace(l, 1);
        ffi::luaL_tolstring(l, 1, std::ptr::null_mut());
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&METATYPES));
        ffi::lua_pushvalue(l, 3);
        // 1: the type, 2: its new metatable, 3: its name, 4: metatables by names, 5: the one that it has
        let mut stands = ffi::lua_rawget(l, 4) == ffi::LUA_TTABLE;
        if stands {
            ffi::lua_pushvalue(l, 5);
            ffi::lua_rawget(l, 4);
            stands = ffi::lua_tointeger(l, -1) != request;
            ffi::lua_settop(l, 5);
        }
        if stands {
            ffi::lua_pushnil(l);
            while ffi::lua_next(l, 5) != 0 {
                ffi::lua_pop(l, 1);
                ffi::lua_pushvalue(l, -1);
                ffi::lua_pushnil(l);
                ffi::lua_rawset(l, 5);
            }
            ffi::lua_pushnil(l);
            while ffi::lua_next(l, 2) != 0 {
                ffi::lua_pushvalue(l, -2);
                ffi::lua_insert(l, -2);
                ffi::lua_rawset(l, 5);
            }
            luaJIT_setmode(l, 0, FLUSH);
        } else {
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&METATYPE));
            ffi::lua_pushvalue(l, 1);
            ffi::lua_pushvalue(l, 2);
            ffi::lua_call(l, 2, 0);
            ffi::lua_pushvalue(l, 2);
            ffi::lua_replace(l, 5);
        }
        ffi::lua_pushvalue(l, 3);
        ffi::lua_pushvalue(l, 5);
        ffi::lua_rawset(l, 4);
        ffi::lua_pushvalue(l, 5);
        ffi::lua_pushinteger(l, request);
        ffi::lua_rawset(l, 4);
        ffi::lua_pushvalue(l, 1);
        1
    }
}

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
            return original(l, |o| o.luajit.cdef);
        }
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&DECLARED));
        ffi::lua_pushvalue(l, 1);
        let stands = ffi::lua_rawget(l, -2) != ffi::LUA_TNIL && ffi::lua_tointeger(l, -1) != request;
        ffi::lua_settop(l, 1);
        if !stands {
            original(l, |o| o.luajit.cdef);
            ffi::lua_settop(l, 1);
        }
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&DECLARED));
        ffi::lua_pushvalue(l, 1);
        ffi::lua_pushinteger(l, request);
        ffi::lua_rawset(l, -3);
        0
    }
}

// -------------------------------------------------------------------- options of the program

/// Pushes a module's table, loaded or not.
unsafe fn push_loaded(l: *mut lua_State, name: &CStr) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_getfield(l, -1, name.as_ptr());
        ffi::lua_remove(l, -2);
    }
}

/// `-j`: calls a function of `jit`, or starts one of the modules below it. On an error its message is on the stack.
///
/// # Safety
/// `l` is a Lua state of this thread, with some stack to spare.
pub(super) unsafe fn control(l: *mut lua_State, command: &CStr) -> c_int {
    let command = command.to_bytes();
    let at = command.iter().position(|&b| b == b'=');
    let (name, options) = at.map_or((command, None), |at| (&command[..at], Some(&command[at + 1..])));
    // SAFETY: plain stack operations, in protected mode where they can fail.
    unsafe {
        push_loaded(l, c"jit");
        ffi::lua_pushlstring(l, name.as_ptr().cast(), name.len());
        ffi::lua_rawget(l, -2);
        ffi::lua_remove(l, -2);
        if ffi::lua_isfunction(l, -1) == 0 {
            ffi::lua_pop(l, 1);
            if !push_tool(l, name) {
                return ffi::LUA_ERRRUN;
            }
        }
        call_with(l, options.unwrap_or_default())
    }
}

/// Pushes the function that starts one of the modules below `jit`, or why there is none.
unsafe fn push_tool(l: *mut lua_State, name: &[u8]) -> bool {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_getglobal(l, c"require".as_ptr());
        let module = [b"jit.", name].concat();
        ffi::lua_pushlstring(l, module.as_ptr().cast(), module.len());
        drop(module);
        let mut found = ffi::lua_pcall(l, 1, 1, 0) == ffi::LUA_OK && ffi::lua_istable(l, -1) != 0;
        if found {
            ffi::lua_getfield(l, -1, c"start".as_ptr());
            ffi::lua_remove(l, -2);
            found = ffi::lua_isnil(l, -1) == 0;
        }
        if !found {
            ffi::lua_pop(l, 1);
            ffi::lua_pushstring(l, c"unknown luaJIT command or jit.* modules not installed".as_ptr());
        }
        found
    }
}

/// `-b`.
///
/// # Safety
/// As for [`control`].
pub(super) unsafe fn save_bytecode<'a>(l: *mut lua_State, arguments: impl Iterator<Item = &'a OsString>) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        if !push_tool(l, b"bcsave") {
            return ffi::LUA_ERRRUN;
        }
        let mut count = 0;
        for argument in arguments {
            if ffi::lua_checkstack(l, 2) != 0 {
                ffi::lua_pushlstring(l, argument.as_bytes().as_ptr().cast(), argument.len());
                count += 1;
            }
        }
        ffi::lua_pcall(l, count, 0, 0)
    }
}

/// `-O`.
///
/// # Safety
/// As for [`control`].
pub(super) unsafe fn optimize(l: *mut lua_State, options: &CStr) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        push_loaded(l, c"jit.opt");
        ffi::lua_getfield(l, -1, c"start".as_ptr());
        ffi::lua_remove(l, -2);
        call_with(l, options.to_bytes())
    }
}

/// Calls the function on top with the words of a list, of which empty ones are nil.
unsafe fn call_with(l: *mut lua_State, options: &[u8]) -> c_int {
    let mut count = 0;
    // SAFETY: plain stack operations.
    unsafe {
        if !options.is_empty() {
            for word in options.split(|&b| b == b',') {
                ffi::luaL_checkstack(l, 2, std::ptr::null());
                if word.is_empty() {
                    ffi::lua_pushnil(l);
                } else {
                    ffi::lua_pushlstring(l, word.as_ptr().cast(), word.len());
                }
                count += 1;
            }
        }
        ffi::lua_pcall(l, count, 0, 0)
    }
}

/// The line about the compiler that the prompt begins with.
///
/// # Safety
/// As for [`control`].
pub(super) unsafe fn jit_status(l: *mut lua_State) -> String {
    // SAFETY: texts are copied before they leave the stack.
    unsafe {
        let top = ffi::lua_gettop(l);
        push_loaded(l, c"jit");
        ffi::lua_getfield(l, -1, c"status".as_ptr());
        ffi::lua_call(l, 0, ffi::LUA_MULTRET);
        let mut line = if ffi::lua_toboolean(l, top + 2) != 0 { "JIT: ON" } else { "JIT: OFF" }.to_owned();
        for at in top + 3..=ffi::lua_gettop(l) {
            let text = ffi::lua_tostring(l, at);
            if !text.is_null() {
                line.push(' ');
                line.push_str(&CStr::from_ptr(text).to_string_lossy());
            }
        }
        ffi::lua_settop(l, top);
        line
    }
}
