//! The module `fcgi`: what a script can ask of its requests.
//!
//! ```lua
//! local fcgi = require "fcgi"
//! local count = 0
//! while fcgi.accept() do
//!   count = count + 1
//!   print("Content-Type: text/html\n")
//!   print("Hello world!<br>Request number " .. count .. ".")
//! end
//! ```
//!
//! | function | what it does |
//! | --- | --- |
//! | `accept()` | ends the request before and waits for the next; false when there are no more. Everything that the script did stays. As a CGI program, or on a terminal, it is true once. |
//! | `finish([status])` | ends the request now: the answer is sent, the script goes on |
//! | `set_exit_status(status)` | the exit status that the request will have |
//! | `role()` | `"RESPONDER"`, `"AUTHORIZER"`, `"FILTER"` or `"LOGGER"` |
//! | `data()` | a file: what a Filter is to transform |
//! | `aborted()` | whether nobody waits for the answer any more |
//! | `params()` | the request's variables, a new table |
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr;

use super::ffi::{self, lua_State};
use fcgi_core::{Params, Role};

use super::accept::accept;
use super::context::{self, Context};
use super::devices;
use super::stdio::{self, Device};

/// Makes `require "fcgi"` find the module.
///
/// # Safety
/// `l` is a Lua state with all libraries open, used by this thread only.
pub(super) unsafe fn install(l: *mut lua_State) {
    // SAFETY: the caller's promise; plain stack operations.
    unsafe {
        ffi::push_preload(l);
        ffi::lua_pushcfunction(l, open);
        ffi::lua_setfield(l, -2, c"fcgi".as_ptr());
        ffi::lua_pop(l, 1);
    }
}

/// Makes `require "lfcgi"` find a module with which launchers for wsapi-fcgi run as they are.
///
/// # Safety
/// As for [`install`].
pub(super) unsafe fn install_lfcgi(l: *mut lua_State) {
    unsafe extern "C-unwind" fn load(l: *mut lua_State) -> c_int {
        const TEXT: &str = include_str!("lfcgi.lua");
        // It holds the streams and functions of one request's script.
        context::with(|c| c.volatile.borrow_mut().push(b"lfcgi".to_vec()));
        // SAFETY: plain stack operations.
        unsafe {
            let status =
                ffi::luaL_loadbufferx(l, TEXT.as_ptr().cast(), TEXT.len(), c"=(lfcgi)".as_ptr(), c"t".as_ptr());
            if status != ffi::LUA_OK {
                ffi::lua_error(l);
            }
            ffi::lua_call(l, 0, 1);
            1
        }
    }
    // SAFETY: the caller's promise; plain stack operations.
    unsafe {
        ffi::push_preload(l);
        ffi::lua_pushcfunction(l, load);
        ffi::lua_setfield(l, -2, c"lfcgi".as_ptr());
        ffi::lua_pop(l, 1);
    }
}

unsafe extern "C-unwind" fn open(l: *mut lua_State) -> c_int {
    const FUNCTIONS: [(&CStr, ffi::lua_CFunction); 7] = [
        (c"accept", accept),
        (c"finish", finish),
        (c"set_exit_status", set_exit_status),
        (c"role", role),
        (c"data", data),
        (c"aborted", aborted),
        (c"params", params),
    ];
    // A script may change the table; the next one gets another.
    context::with(|c| c.volatile.borrow_mut().push(b"fcgi".to_vec()));
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_createtable(l, 0, FUNCTIONS.len() as c_int);
        for (name, function) in FUNCTIONS {
            ffi::lua_pushcfunction(l, function);
            ffi::lua_setfield(l, -2, name.as_ptr());
        }
        1
    }
}

unsafe extern "C-unwind" fn finish(l: *mut lua_State) -> c_int {
    // SAFETY: an error of the argument jumps while nothing needs dropping.
    let status = unsafe { ffi::luaL_optinteger(l, 1, context::with(|c| c.status.get()).into()) };
    stdio::flush_stdout();
    context::with(|c| {
        c.status.set(status as u32);
        c.end_watch();
        let children = c.children.take();
        c.request(|request| {
            if let Some(children) = children {
                children.finish(request);
            }
            // A client that has gone needs no answer.
            let _ = request.finish(status as u32);
        });
    });
    0
}

unsafe extern "C-unwind" fn set_exit_status(l: *mut lua_State) -> c_int {
    // SAFETY: as for `finish`.
    let status = unsafe { ffi::luaL_checkinteger(l, 1) };
    context::with(|c| c.status.set(status as u32));
    0
}

unsafe extern "C-unwind" fn role(l: *mut lua_State) -> c_int {
    let role = context::with(|c| c.request(|request| request.role().name()));
    let role = role.unwrap_or_else(|| {
        let named = std::env::var("FCGI_ROLE").ok().and_then(|name| Role::from_name(&name));
        named.unwrap_or(Role::Responder).name()
    });
    // SAFETY: one value is pushed.
    unsafe { ffi::lua_pushlstring(l, role.as_ptr().cast(), role.len()) };
    1
}

unsafe extern "C-unwind" fn data(l: *mut lua_State) -> c_int {
    // SAFETY: a file is pushed, or an error raised while nothing needs dropping.
    unsafe {
        if devices::push_file(l, Device::Data) {
            return 1;
        }
        ffi::luaL_error(l, c"no memory for a stream".as_ptr())
    }
}

unsafe extern "C-unwind" fn aborted(l: *mut lua_State) -> c_int {
    let aborted = context::with(|c| c.request(fcgi_core::Request::is_aborted)).unwrap_or(false);
    // SAFETY: one value is pushed.
    unsafe { ffi::lua_pushboolean(l, c_int::from(aborted)) };
    1
}

/// `params`.
pub(super) unsafe extern "C-unwind" fn params(l: *mut lua_State) -> c_int {
    context::with(Context::looked);
    // Lua may raise an error while a value is copied, so the request is not borrowed meanwhile: nobody else uses it.
    let variables = context::with(|c| c.request.borrow().as_ref().map(|request| ptr::from_ref(request.params())));
    let copy = |variables: &Params| {
        for (name, value) in variables {
            // SAFETY: the table is on top of the stack.
            unsafe {
                ffi::lua_pushlstring(l, name.as_ptr().cast(), name.len());
                ffi::lua_pushlstring(l, value.as_ptr().cast(), value.len());
                ffi::lua_rawset(l, -3);
            }
        }
    };
    // SAFETY: plain stack operations; the request stays while this function runs.
    unsafe {
        ffi::lua_newtable(l);
        match variables {
            Some(variables) => copy(&*variables),
            // As a CGI program or on a terminal, where no memory is limited.
            None => copy(&fcgi_core::cgi::request_variables()),
        }
    }
    1
}
