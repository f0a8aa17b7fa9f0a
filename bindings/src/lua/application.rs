//! Applications: a script that gives a function, or a table with a function `run`, is not run again for each request. What
//! it gave is called, with the environment of WSAPI, and answers with status, headers and body:
//!
//! ```lua
//! return function(env)
//!   return 200, { ["Content-Type"] = "text/plain" }, "You asked for " .. env.PATH_INFO
//! end
//! ```
//!
//! `env` holds the request's variables ("" for those that it lacks), all of them in `env.headers`, the body to be read by
//! `env.input:read(count)`, and `env.error:write(text)` for the error log. The body of the answer is a text, or a function
//! that gives one piece after the other, and nil at the end; without a `Content-Length` each piece is sent at once.
//!
//! What the application keeps in its globals and upvalues stays from one request to the next; it has its Lua state for
//! itself.
//!
//! Source of the rules: WSAPI's manual, "WSAPI applications" and "the WSAPI environment".
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ffi::{self, LUA_REGISTRYINDEX, lua_State};

use super::context;
use super::error::{as_text, describe_error, take_message};
use super::isolation::key;
use super::module;
use super::stdio;

const GLUE: &str = include_str!("application.lua");
/// What the glue is given, in order: the libraries' own functions.
const GIVEN: [(&CStr, Option<&CStr>); 12] = [
    (c"io", None),
    (c"os", Some(c"getenv")),
    (c"fcgi", Some(c"params")),
    (c"_G", Some(c"setmetatable")),
    (c"_G", Some(c"type")),
    (c"_G", Some(c"tostring")),
    (c"_G", Some(c"tonumber")),
    (c"_G", Some(c"pairs")),
    (c"_G", Some(c"ipairs")),
    (c"_G", Some(c"error")),
    (c"table", Some(c"concat")),
    (c"string", Some(c"find")),
];

/// Keys in the registry: what the script gave; the application with its glue.
static GIVEN_BACK: u8 = 0;
static GLUED: u8 = 1;

/// An application, kept in the registry of its state.
#[derive(Debug)]
pub(super) struct Application {
    /// Its directory.
    directory: CString,
}

/// Keeps what the script gave, which is on top of the stack, if it can be an application.
///
/// # Safety
/// `l` is a Lua state of this thread; called in protected mode.
pub(super) unsafe fn keep(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        let callable = match ffi::lua_type(l, -1) {
            ffi::LUA_TFUNCTION => true,
            ffi::LUA_TTABLE => {
                let kind = ffi::lua_getfield(l, -1, c"run".as_ptr());
                ffi::lua_pop(l, 1);
                kind == ffi::LUA_TFUNCTION
            }
            _ => false,
        };
        if callable {
            ffi::lua_pushvalue(l, -1);
            ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&GIVEN_BACK));
        }
    }
}

impl Application {
    /// The application that the script has given; `None` for an ordinary script, which answers by itself.
    ///
    /// # Safety
    /// `l` is a Lua state of this thread, with no function active.
    pub(super) unsafe fn take(l: *mut lua_State, script: &Path) -> Option<Self> {
        // SAFETY: plain stack operations; loading and calling the glue, and looking into a table, are protected.
        unsafe {
            let top = ffi::lua_gettop(l);
            if ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&GIVEN_BACK)) == ffi::LUA_TNIL {
                ffi::lua_settop(l, top);
                if !push_module(l, script) {
                    ffi::lua_settop(l, top);
                    return None;
                }
            }
            ffi::lua_pushnil(l);
            ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&GIVEN_BACK));
            // An accept loop, and a script that has answered, are what they are whatever they give.
            let application = stdio::nothing_written() && !context::with(|c| c.accepted.get()) && push_glue(l);
            if application {
                ffi::lua_createtable(l, 2, 0);
                ffi::lua_pushvalue(l, -2);
                ffi::lua_rawseti(l, -2, 1);
                ffi::lua_pushvalue(l, top + 1);
                ffi::lua_rawseti(l, -2, 2);
                ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&GLUED));
            }
            ffi::lua_settop(l, top);
            let directory = script.parent().map(|d| d.as_os_str().as_bytes()).unwrap_or_default();
            application.then(|| Self { directory: CString::new(directory).unwrap_or_default() })
        }
    }

    /// Calls the application for the request; gives what to say about an error.
    ///
    /// # Safety
    /// `l` is the state that the application was taken from, with no function active.
    pub(super) unsafe fn call(&self, l: *mut lua_State) -> Option<Vec<u8>> {
        unsafe extern "C-unwind" fn call(l: *mut lua_State) -> c_int {
            // SAFETY: the argument is the directory's name; the rest was put into the registry by `take`.
            unsafe {
                ffi::lua_pushcfunction(l, describe_error);
                ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&GLUED));
                ffi::lua_rawgeti(l, -1, 1);
                ffi::lua_rawgeti(l, -2, 2);
                ffi::lua_pushstring(l, ffi::lua_touserdata(l, 1).cast());
                if ffi::lua_pcall(l, 2, 0, 2) == ffi::LUA_OK {
                    ffi::lua_pushnil(l);
                } else {
                    as_text(l);
                }
                1
            }
        }
        // SAFETY: the caller's promise; the name outlives the call.
        unsafe {
            ffi::lua_pushcfunction(l, call);
            ffi::lua_pushlightuserdata(l, self.directory.as_ptr().cast_mut().cast());
            ffi::lua_pcall(l, 1, 1, 0);
            take_message(l)
        }
    }
}

/// A script in the style of `module(...)` gives nothing, but leaves a module of its own name, as launchers of WSAPI know.
unsafe fn push_module(l: *mut lua_State, script: &Path) -> bool {
    unsafe extern "C-unwind" fn find(l: *mut lua_State) -> c_int {
        // SAFETY: the argument is a module's name.
        unsafe {
            ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
            ffi::lua_getfield(l, -1, ffi::lua_touserdata(l, 1).cast());
            if ffi::lua_type(l, -1) == ffi::LUA_TTABLE {
                keep(l);
            }
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&GIVEN_BACK));
            1
        }
    }
    if !stdio::nothing_written() {
        return false;
    }
    let name = script.file_stem().map(OsStrExt::as_bytes).unwrap_or_default();
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name outlives the call.
    unsafe {
        ffi::lua_pushcfunction(l, find);
        ffi::lua_pushlightuserdata(l, name.as_ptr().cast_mut().cast());
        ffi::lua_pcall(l, 1, 1, 0) == ffi::LUA_OK && ffi::lua_type(l, -1) == ffi::LUA_TTABLE
    }
}

/// Pushes the function that calls applications.
unsafe fn push_glue(l: *mut lua_State) -> bool {
    unsafe extern "C-unwind" fn make(l: *mut lua_State) -> c_int {
        // SAFETY: plain stack operations.
        unsafe {
            if ffi::luaL_loadbufferx(l, GLUE.as_ptr().cast(), GLUE.len(), c"=(application)".as_ptr(), c"t".as_ptr())
                != ffi::LUA_OK
            {
                ffi::lua_error(l);
            }
            ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
            for (library, function) in GIVEN {
                if library == c"fcgi" {
                    ffi::lua_pushcfunction(l, module::params);
                    ffi::lua_insert(l, -2);
                    continue;
                }
                ffi::lua_getfield(l, -1, library.as_ptr());
                if let Some(function) = function {
                    ffi::lua_getfield(l, -1, function.as_ptr());
                    ffi::lua_remove(l, -2);
                }
                ffi::lua_insert(l, -2);
            }
            ffi::lua_pop(l, 1);
            ffi::lua_call(l, GIVEN.len() as c_int, 1);
            1
        }
    }
    // SAFETY: a C function without arguments, in protected mode.
    unsafe {
        ffi::lua_pushcfunction(l, make);
        let status = ffi::lua_pcall(l, 0, 1, 0);
        if status != ffi::LUA_OK {
            tracing::error!("cannot make the function that calls applications");
        }
        status == ffi::LUA_OK
    }
}
