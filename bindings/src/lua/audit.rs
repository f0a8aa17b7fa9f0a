//! What a script leaves behind in its state (`--audit`): library tables that it changed, which are put back, and tables of
//! modules that it changed, which stay.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use fcgi_core::audit;

use super::ffi::{self, LIBRARIES, LUA_REGISTRYINDEX, lua_State};
use super::isolation::{copy_table, key};

/// The key of copies of the modules' tables in the registry, by its address.
static MODULES: u8 = 0;

/// What tables beside those of the libraries are, in the order in which they are put back.
const HIDDEN: [&str; 6] = [
    "package.searchers",
    "package.preload",
    "the metatable of texts",
    "the metatable of files",
    "arg",
    "methods of files",
];

/// Remembers the tables of modules that are loaded.
///
/// # Safety
/// `l` is a Lua state of this thread, with some stack to spare.
pub(super) unsafe fn remember_modules(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_newtable(l);
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -2) != 0 {
            // copies loaded name module
            let name = text(l, -2);
            let is_library = LIBRARIES.iter().any(|library| library.to_bytes() == name.as_bytes()) || name == "fcgi";
            if ffi::lua_type(l, -1) == ffi::LUA_TTABLE && !is_library {
                copy_table(l);
                ffi::lua_pushvalue(l, -3);
                ffi::lua_insert(l, -2);
                ffi::lua_rawset(l, -6);
            }
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pop(l, 1);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&MODULES));
    }
}

/// Tells what has changed in modules since then.
///
/// # Safety
/// As for [`remember_modules`].
pub(super) unsafe fn tell_of_modules(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        if ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&MODULES)) != ffi::LUA_TTABLE {
            ffi::lua_pop(l, 1);
            return;
        }
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -3) != 0 {
            // copies loaded name copy
            ffi::lua_pushvalue(l, -2);
            if ffi::lua_rawget(l, -4) == ffi::LUA_TTABLE {
                ffi::lua_insert(l, -2);
                let name = text(l, -3);
                tell(l, &name, true, false);
                ffi::lua_remove(l, -2);
            } else {
                ffi::lua_pop(l, 1);
            }
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pop(l, 2);
        ffi::lua_pushnil(l);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&MODULES));
    }
}

/// Tells what differs in a table that is about to be put back. Stack: table, copy.
///
/// # Safety
/// As for [`remember_modules`].
pub(super) unsafe fn tell_of_library(l: *mut lua_State, at: usize) {
    let name = match LIBRARIES.get(at) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => HIDDEN.get(at - LIBRARIES.len()).unwrap_or(&"a table of the library").to_string(),
    };
    // That a script has globals of its own is nothing to tell.
    // SAFETY: the caller's promise.
    unsafe { tell(l, &name, false, at == 0) };
}

/// Stack: table, copy. Tells of each entry that differs; with `known` only of those that the copy has.
unsafe fn tell(l: *mut lua_State, name: &str, stays: bool, known: bool) {
    // SAFETY: plain stack operations; nothing is changed while a table is walked.
    unsafe {
        for is_copy in [false, true] {
            // Below the key that a walk begins with; below key, value and the key that is looked up.
            let (walked, other) = if is_copy { (-2, -5) } else { (-3, -4) };
            ffi::lua_pushnil(l);
            while ffi::lua_next(l, walked) != 0 {
                // table copy key value
                ffi::lua_pushvalue(l, -2);
                let kind = ffi::lua_rawget(l, other);
                let (absent, same) = (kind == ffi::LUA_TNIL, ffi::lua_rawequal(l, -1, -2) != 0);
                ffi::lua_pop(l, 1);
                let field = format!("{name}.{}", text(l, -2));
                match () {
                    // Met in the other walk.
                    () if is_copy && absent => audit::found(format!("{field} was removed"), stays),
                    () if is_copy || same || (absent && known) => {}
                    () if absent => audit::found(format!("{field} is new{}", made_at(l)), stays),
                    () => audit::found(format!("{field} was changed{}", made_at(l)), stays),
                }
                ffi::lua_pop(l, 1);
            }
        }
    }
}

/// A key as text. Others than texts must not be converted while a table is walked.
unsafe fn text(l: *mut lua_State, at: c_int) -> String {
    // SAFETY: a text stays where it is.
    unsafe {
        if ffi::lua_type(l, at) != ffi::LUA_TSTRING {
            return "[...]".to_owned();
        }
        CStr::from_ptr(ffi::lua_tostring(l, at)).to_string_lossy().into_owned()
    }
}

/// Where the function on top of the stack was made.
unsafe fn made_at(l: *mut lua_State) -> String {
    // SAFETY: the function is copied for the call that takes it; the record is filled by it.
    unsafe {
        if ffi::lua_type(l, -1) != ffi::LUA_TFUNCTION {
            return String::new();
        }
        let mut record: ffi::lua_Debug = std::mem::zeroed();
        ffi::lua_pushvalue(l, -1);
        if ffi::lua_getinfo(l, c">S".as_ptr(), &raw mut record) == 0 || record.linedefined < 0 {
            return String::new();
        }
        let source = CStr::from_ptr(record.short_src.as_ptr()).to_string_lossy();
        format!(", a function of {source}:{}", record.linedefined)
    }
}
