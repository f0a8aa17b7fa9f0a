//! Lua's C API as it is in Lua 5.4, whichever version is built in: what a version lacks is made up here, and what the
//! versions do differently has one name here.
#![allow(unsafe_code, non_snake_case)]
// Not every version needs all of it.
#![allow(dead_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

pub(super) use mlua::ffi::*;
pub(super) use mlua::lua_CFunction;

/// How the version is called in the names of directories and variables.
#[cfg(any(feature = "lua51", feature = "luajit"))]
pub(super) const VERSION: &str = "5.1";
#[cfg(feature = "lua52")]
pub(super) const VERSION: &str = "5.2";
#[cfg(feature = "lua53")]
pub(super) const VERSION: &str = "5.3";
#[cfg(feature = "lua54")]
pub(super) const VERSION: &str = "5.4";
#[cfg(feature = "lua55")]
pub(super) const VERSION: &str = "5.5";

/// Globals that hold library tables, `_G` first.
#[cfg(feature = "lua51")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package"];
#[cfg(feature = "luajit")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package", c"bit", c"jit"];
#[cfg(feature = "lua52")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package", c"bit32"];
#[cfg(feature = "lua53")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package", c"utf8", c"bit32"];
#[cfg(any(feature = "lua54", feature = "lua55"))]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"utf8", c"debug", c"package"];

/// Where `package` keeps the functions that find modules.
pub(super) const SEARCHERS: &CStr =
    if cfg!(any(feature = "lua51", feature = "luajit")) { c"loaders" } else { c"searchers" };
/// How the message of a text that ends too early ends.
pub(super) const AT_END: &[u8] = if HAS_ENVIRONMENTS { b"'<eof>'" } else { b"<eof>" };
/// Whether functions have environments, and globals are one.
pub(super) const HAS_ENVIRONMENTS: bool = cfg!(any(feature = "lua51", feature = "luajit"));
/// Whether `print` sends what it prints.
pub(super) const PRINT_FLUSHES: bool = !HAS_ENVIRONMENTS;
/// Whether there are warnings.
pub(super) const HAS_WARNINGS: bool = cfg!(any(feature = "lua54", feature = "lua55"));
/// Whether the allocator is told what a block is for.
pub(super) const ALLOCATIONS_HAVE_TYPES: bool = !HAS_ENVIRONMENTS;
/// Whether tables can have finalizers.
pub(super) const TABLES_HAVE_FINALIZERS: bool = !HAS_ENVIRONMENTS;
/// Whether `math.random` starts anew in each process as in the one before.
pub(super) const RANDOM_IS_REPEATED: bool = !cfg!(any(feature = "lua54", feature = "lua55"));

// -------------------------------------------------------------------- the collector

/// Does something with the collector that needs no argument.
pub(super) unsafe fn gc(l: *mut lua_State, what: c_int) -> c_int {
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
pub(super) unsafe fn collect(l: *mut lua_State) {
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
pub(super) unsafe fn gc_start(l: *mut lua_State) {
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
pub(super) type GcParameters = [c_int; 6];
#[cfg(not(feature = "lua55"))]
pub(super) type GcParameters = ();

/// Asks for the collector's parameters.
pub(super) unsafe fn gc_parameters(l: *mut lua_State) -> GcParameters {
    #[cfg(feature = "lua55")]
    // SAFETY: as `lua_gc`; a negative value asks.
    return std::array::from_fn(|at| unsafe { lua_gc(l, LUA_GCPARAM, at as c_int, -1 as c_int) });
    #[cfg(not(feature = "lua55"))]
    let _ = l;
}

/// Sets the collector as it was when the program had started.
#[cfg_attr(not(feature = "lua55"), allow(unused_variables, clippy::trivially_copy_pass_by_ref))]
pub(super) unsafe fn gc_reset(l: *mut lua_State, parameters: &GcParameters) {
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

// -------------------------------------------------------------------- tables of the libraries

/// Pushes the table of globals, whatever the global `_G` is.
pub(super) unsafe fn push_globals(l: *mut lua_State) {
    // SAFETY: as `lua_pushglobaltable`.
    unsafe { lua_pushglobaltable(l) };
}

/// Pushes `package.preload`.
pub(super) unsafe fn push_preload(l: *mut lua_State) {
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

// -------------------------------------------------------------------- functions

/// Gives the function on top of the stack the environment of the one below it, in versions that have environments: library
/// functions find their own things there.
pub(super) unsafe fn share_environment(l: *mut lua_State) {
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
pub(super) unsafe fn load_file(l: *mut lua_State, name: *const c_char) -> c_int {
    // SAFETY: as `luaL_loadfile`.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        return luaL_loadfile(l, name);
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        return luaL_loadfilex(l, name, ptr::null());
    }
}

/// Makes the globals of the function at 1 those of the state, whatever a script has made of them.
pub(super) unsafe fn make_globals_fresh(l: *mut lua_State) {
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
pub(super) unsafe fn close_coroutine(thread: *mut lua_State, l: *mut lua_State) {
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
pub(super) unsafe fn why_not_resume(l: *mut lua_State, thread: *mut lua_State) -> Option<&'static CStr> {
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

// -------------------------------------------------------------------- warnings

/// Hears warnings.
pub(super) type WarnFunction = unsafe extern "C-unwind" fn(*mut c_void, *const c_char, c_int);

/// Sets what hears warnings, in versions that have them.
pub(super) unsafe fn set_warnings(l: *mut lua_State, warn: WarnFunction) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: as `lua_setwarnf`.
    unsafe {
        lua_setwarnf(l, Some(warn), ptr::null_mut());
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = (l, warn);
}

/// Warns, in versions that can.
pub(super) unsafe fn warning(l: *mut lua_State, message: &CStr) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: as `lua_warning`.
    unsafe {
        lua_warning(l, message.as_ptr(), 0);
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = (l, message);
}

// -------------------------------------------------------------------- values

/// A userdata of `size` bytes.
pub(super) unsafe fn new_userdata(l: *mut lua_State, size: usize) -> *mut c_void {
    // SAFETY: as `lua_newuserdata`.
    unsafe { lua_newuserdata(l, size) }
}

/// `luaL_testudata`.
#[cfg(any(feature = "lua51", feature = "luajit"))]
pub(super) unsafe fn luaL_testudata(l: *mut lua_State, at: c_int, name: *const c_char) -> *mut c_void {
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
pub(super) unsafe fn luaL_fileresult(l: *mut lua_State, succeeded: c_int, name: *const c_char) -> c_int {
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

// -------------------------------------------------------------------- what is put back after a request

/// Takes the table on top of the stack off it, and makes it the globals, in versions where a script can replace them.
pub(super) unsafe fn restore_globals(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        lua_replace(l, LUA_GLOBALSINDEX);
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        lua_pop(l, 1);
    }
}

/// Takes a file off the stack, and makes it the default `input` or `output`. Below it is the table of `io`.
pub(super) unsafe fn set_default_file(l: *mut lua_State, which: &CStr) {
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
pub(super) struct Random {
    /// LuaJIT: where the generator's state is, and what it is at first.
    #[cfg(feature = "luajit")]
    state: (*mut u8, Vec<u8>),
}

impl Random {
    /// How they begin in a state that no script has run in.
    pub(super) unsafe fn of(l: *mut lua_State) -> Self {
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
    pub(super) unsafe fn restore(&self, l: *mut lua_State, touched: bool) {
        #[cfg(feature = "luajit")]
        // SAFETY: the state is where it was.
        unsafe {
            ptr::copy_nonoverlapping(self.state.1.as_ptr(), self.state.0, self.state.1.len());
        }
        #[cfg(any(feature = "lua51", feature = "lua52", feature = "lua53"))]
        if touched {
            let _ = l;
            // SAFETY: what the C library starts with.
            unsafe { libc::srand(1) };
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

/// LuaJIT: sets the compiler as it is at first.
pub(super) unsafe fn compiler_reset(l: *mut lua_State) {
    #[cfg(feature = "luajit")]
    // SAFETY: the library tables have been put back; these functions take no argument.
    unsafe {
        lua_getglobal(l, c"jit".as_ptr());
        lua_getfield(l, -1, c"opt".as_ptr());
        lua_getfield(l, -1, c"start".as_ptr());
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
pub(super) unsafe fn heed_hooks(l: *mut lua_State) {
    #[cfg(feature = "luajit")]
    {
        COMPILES.set(false);
        // SAFETY: the library tables are as they were opened.
        unsafe { compiler_reset(l) };
    }
    #[cfg(not(feature = "luajit"))]
    let _ = l;
}

// -------------------------------------------------------------------- print

/// Pushes what `print` prints of an argument.
pub(super) unsafe fn printed(l: *mut lua_State, at: c_int, len: *mut usize) -> *const c_char {
    // SAFETY: errors are raised while nothing needs dropping.
    unsafe {
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        return luaL_tolstring(l, at, len);
        #[cfg(not(any(feature = "lua54", feature = "lua55")))]
        {
            if lua_type(l, at) == LUA_TSTRING {
                lua_pushvalue(l, at);
                return lua_tolstring(l, -1, len);
            }
            // The global of this name, whatever it is.
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

// -------------------------------------------------------------------- errors, in the words of each version's `lua`

/// Whether a value is an error's text, for `coroutine.wrap`.
pub(super) unsafe fn is_message(l: *mut lua_State, at: c_int) -> bool {
    // SAFETY: a look at the stack.
    unsafe {
        if cfg!(any(feature = "lua54", feature = "lua55")) {
            lua_type(l, at) == LUA_TSTRING
        } else {
            lua_isstring(l, at) != 0
        }
    }
}

/// What `lua` does with an error before the stack is unwound; the error is at 1, and what becomes of it on top.
#[cfg(feature = "lua51")]
pub(super) unsafe fn describe(l: *mut lua_State) {
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
pub(super) unsafe fn describe(l: *mut lua_State) {
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
pub(super) unsafe fn describe(l: *mut lua_State) {
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
pub(super) unsafe fn without_text(l: *mut lua_State, at: c_int) -> &'static CStr {
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

/// Whether the value on top of the stack stands for a module whose loading has not come to its end.
pub(super) unsafe fn is_unfinished(l: *mut lua_State) -> bool {
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
