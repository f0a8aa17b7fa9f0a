//! `require` keeps modules. What the loading of a module changes in the shared tables (a module in the old style sets a
//! global; another extends `string`) is noted, undone after the request like everything else, and done again when a later
//! request requires the module. A module that looked at the request while it was loaded is not kept.
//!
//! When a script requires a module for the first time, `require` gives two results; the second, where the module was found,
//! is given by the first call of each request. A module that another one requires as it is loaded has been required, too.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::ffi::{self, LIBRARIES, LUA_REGISTRYINDEX, lua_State};

use super::context;
use super::isolation::{
    BEFORE, CHANGES, MET, NESTED, ORIGIN, copy_table, key, push_baseline, put_missing, remember_registry,
};
use super::originals::original;

/// `require`: the library's, which keeps modules, and what their loading changed.
pub(super) unsafe extern "C-unwind" fn require(l: *mut lua_State) -> c_int {
    // SAFETY: the upvalue is the original's; what is kept for later lies in the registry, for the original clears the stack.
    unsafe {
        let mut len = 0;
        let name = ffi::luaL_checklstring(l, 1, &raw mut len);
        let name = std::slice::from_raw_parts(name.cast::<u8>(), len);
        ffi::luaL_checkstack(l, 20, ptr::null());
        if cfg!(feature = "luajit") && name == b"ffi" {
            // Nobody tells which of its objects have finalizers.
            context::with(|c| c.traces.finalizers.set(true));
        }
        let parent = context::with(|c| c.loading.get());
        if parent > 0 {
            note_nested(l, parent);
        }
        if is_loaded(l) {
            let first = meet(l, 1);
            let results = original(l, |o| o.require);
            return if first && push_origin(l) { results + 1 } else { results };
        }
        let (depth, looks) = context::with(|c| {
            c.loading.set(c.loading.get() + 1);
            (c.loading.get(), c.looks.get())
        });
        copy_shared(l, depth);
        let libraries = libraries_loaded();
        let results = original(l, |o| o.require);
        if libraries_loaded() != libraries {
            note_native();
        }
        note_loaded(l, depth, results);
        meet(l, 1);
        note_changes(l, depth);
        context::with(|c| {
            c.loading.set(depth - 1);
            if c.looks.get() != looks {
                c.volatile.borrow_mut().push(name.to_vec());
            }
        });
        if context::with(|c| c.traces.registry.get()) {
            remember_registry(l);
        }
        results
    }
}

/// The script meets the module that is named at `name`, and those that it requires itself; whether for the first time in
/// this request. Then what their loading changed is done again.
unsafe fn meet(l: *mut lua_State, name: c_int) -> bool {
    let request = context::with(|c| c.requests.get());
    // SAFETY: plain stack operations; as deep as modules require each other, and not in circles, for each is met once.
    unsafe {
        ffi::luaL_checkstack(l, 20, ptr::null());
        let top = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&MET));
        ffi::lua_pushvalue(l, name);
        ffi::lua_rawget(l, -2);
        let first = ffi::lua_tointeger(l, -1) != request;
        if first {
            ffi::lua_pushvalue(l, name);
            ffi::lua_pushinteger(l, request);
            ffi::lua_rawset(l, top + 1);
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&NESTED));
            ffi::lua_pushvalue(l, name);
            if ffi::lua_rawget(l, -2) == ffi::LUA_TTABLE {
                let nested = ffi::lua_gettop(l);
                let mut at = 1;
                while ffi::lua_rawgeti(l, nested, at) != ffi::LUA_TNIL {
                    meet(l, ffi::lua_gettop(l));
                    ffi::lua_pop(l, 1);
                    at += 1;
                }
            }
            apply_changes(l, name);
        }
        ffi::lua_settop(l, top);
        first
    }
}

/// Pushes where the module that is named at 1 was found; whether that is known.
unsafe fn push_origin(l: *mut lua_State) -> bool {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&ORIGIN));
        ffi::lua_pushvalue(l, 1);
        let known = ffi::lua_rawget(l, -2) != ffi::LUA_TNIL;
        ffi::lua_remove(l, -2);
        if !known {
            ffi::lua_pop(l, 1);
        }
        known
    }
}

/// The module that is being loaded at depth `parent` requires the one that is named at 1.
unsafe fn note_nested(l: *mut lua_State, parent: c_int) {
    // SAFETY: plain stack operations; the list was made by `copy_shared`.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        if ffi::lua_rawgeti(l, -1, parent.into()) == ffi::LUA_TTABLE {
            ffi::lua_getfield(l, -1, c"nested".as_ptr());
            ffi::lua_pushvalue(l, 1);
            ffi::lua_rawseti(l, -2, ffi::lua_rawlen(l, -2) as i64 + 1);
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pop(l, 2);
    }
}

/// The module that is named at 1 has been loaded, with what `require` gives on top: keeps where it was found, and what it
/// required.
unsafe fn note_loaded(l: *mut lua_State, depth: c_int, results: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&ORIGIN));
        ffi::lua_pushvalue(l, 1);
        if results == 2 {
            ffi::lua_pushvalue(l, top);
        } else {
            ffi::lua_pushnil(l);
        }
        ffi::lua_rawset(l, -3);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&NESTED));
        ffi::lua_pushvalue(l, 1);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        ffi::lua_rawgeti(l, -1, depth.into());
        ffi::lua_getfield(l, -1, c"nested".as_ptr());
        ffi::lua_replace(l, -3);
        ffi::lua_pop(l, 1);
        ffi::lua_rawset(l, -3);
        ffi::lua_settop(l, top);
    }
}

/// A C module has been loaded, by this interpreter or another one of the process.
static NATIVE: AtomicBool = AtomicBool::new(false);

/// Whether C modules have been loaded, which can change what only the system knows.
pub(super) fn any_native() -> bool {
    NATIVE.load(Relaxed)
}

/// How many shared libraries this process has loaded so far.
fn libraries_loaded() -> u64 {
    unsafe extern "C" fn count(info: *mut libc::dl_phdr_info, _: usize, result: *mut std::ffi::c_void) -> c_int {
        // SAFETY: the C library gives a description, and what was given to it. The first one suffices.
        unsafe { *result.cast::<u64>() = (*info).dlpi_adds };
        1
    }
    let mut adds = 0;
    // SAFETY: the function gets a pointer to the number.
    unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut adds).cast()) };
    adds
}

/// A module in C was loaded: it can change what only the system knows. With several interpreters in the process, what it
/// prints to descriptor 1 is nobody's.
fn note_native() {
    static SAID: std::sync::Once = std::sync::Once::new();
    NATIVE.store(true, Relaxed);
    if context::with(|c| c.shared_process.get()) {
        SAID.call_once(|| {
            tracing::warn!(
                "a script loads a C module: with --threads, what such a module prints by itself does not reach the \
                 request; use --workers if it should"
            );
        });
    }
}

/// Whether the module that is named at 1 is loaded.
unsafe fn is_loaded(l: *mut lua_State) -> bool {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_pushvalue(l, 1);
        ffi::lua_rawget(l, -2);
        let loaded = ffi::lua_toboolean(l, -1) != 0;
        ffi::lua_pop(l, 2);
        loaded
    }
}

/// Keeps copies of the library tables, and the metatable of globals, in `BEFORE[depth]`.
unsafe fn copy_shared(l: *mut lua_State, depth: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        ffi::lua_newtable(l);
        for at in 0..LIBRARIES.len() as c_int {
            push_baseline(l, at);
            copy_table(l);
            ffi::lua_remove(l, -2);
            ffi::lua_rawseti(l, -2, (at + 1).into());
        }
        ffi::lua_newtable(l);
        ffi::lua_setfield(l, -2, c"nested".as_ptr());
        push_baseline(l, 0);
        if ffi::lua_getmetatable(l, -1) != 0 {
            ffi::lua_rawseti(l, -3, 0);
        }
        ffi::lua_pop(l, 1);
        ffi::lua_rawseti(l, -2, depth.into());
        ffi::lua_pop(l, 1);
    }
}

/// Compares with `BEFORE[depth]`, and adds what the module that is named at 1 changed to `CHANGES[name]`: for the number of
/// each shared table its new entries, and at `metatable` that of globals.
unsafe fn note_changes(l: *mut lua_State, depth: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        ffi::lua_rawgeti(l, -1, depth.into());
        let before = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&CHANGES));
        ffi::lua_pushvalue(l, 1);
        // What an earlier loading changed stands already, so only a new loading's own changes are seen.
        if ffi::lua_rawget(l, -2) != ffi::LUA_TTABLE {
            ffi::lua_pop(l, 1);
            ffi::lua_newtable(l);
        }
        let changes = ffi::lua_gettop(l);
        for at in 0..LIBRARIES.len() as c_int {
            push_baseline(l, at);
            ffi::lua_rawgeti(l, before, (at + 1).into());
            ffi::lua_pushnil(l);
            while ffi::lua_next(l, -3) != 0 {
                // now before key value
                ffi::lua_pushvalue(l, -2);
                ffi::lua_rawget(l, -4);
                let same = ffi::lua_rawequal(l, -1, -2) != 0;
                ffi::lua_pop(l, 1);
                if !same {
                    note_change(l, changes, at);
                }
                ffi::lua_pop(l, 1);
            }
            ffi::lua_pop(l, 2);
        }
        push_baseline(l, 0);
        if ffi::lua_getmetatable(l, -1) != 0 {
            ffi::lua_rawgeti(l, before, 0);
            if ffi::lua_rawequal(l, -1, -2) == 0 {
                ffi::lua_pushvalue(l, -2);
                ffi::lua_setfield(l, changes, c"metatable".as_ptr());
            }
        }
        ffi::lua_settop(l, changes);
        ffi::lua_pushnil(l);
        let is_any = ffi::lua_next(l, changes) != 0;
        ffi::lua_settop(l, changes);
        if is_any {
            ffi::lua_pushvalue(l, 1);
            ffi::lua_insert(l, changes);
            ffi::lua_rawset(l, changes - 1);
        }
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        ffi::lua_pushnil(l);
        ffi::lua_rawseti(l, -2, depth.into());
        ffi::lua_settop(l, top);
    }
}

/// Stack: key, value. Sets the entry in `changes[table]`.
unsafe fn note_change(l: *mut lua_State, changes: c_int, table: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        if ffi::lua_rawgeti(l, changes, table.into()) != ffi::LUA_TTABLE {
            ffi::lua_pop(l, 1);
            ffi::lua_newtable(l);
            ffi::lua_pushvalue(l, -1);
            ffi::lua_rawseti(l, changes, table.into());
        }
        ffi::lua_pushvalue(l, -3);
        ffi::lua_pushvalue(l, -3);
        ffi::lua_rawset(l, -3);
        ffi::lua_pop(l, 1);
    }
}

/// Does again what the module that is named at `name` changed.
unsafe fn apply_changes(l: *mut lua_State, name: c_int) {
    // SAFETY: plain stack operations; the table was made by `note_changes`.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&CHANGES));
        ffi::lua_pushvalue(l, name);
        if ffi::lua_rawget(l, -2) == ffi::LUA_TTABLE {
            let changes = ffi::lua_gettop(l);
            for at in 0..LIBRARIES.len() as c_int {
                if ffi::lua_rawgeti(l, changes, at.into()) == ffi::LUA_TTABLE {
                    push_baseline(l, at);
                    put_missing(l);
                    ffi::lua_pop(l, 1);
                }
                ffi::lua_pop(l, 1);
            }
            push_baseline(l, 0);
            if ffi::lua_getfield(l, changes, c"metatable".as_ptr()) == ffi::LUA_TTABLE {
                ffi::lua_setmetatable(l, -2);
            }
        }
        ffi::lua_settop(l, top);
    }
}
