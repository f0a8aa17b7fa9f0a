//! `require` keeps modules. What the loading of a module changes in the shared tables (a module in the old style sets a
//! global; another extends `string`) is noted, undone after the request like everything else, and done again when a later
//! request requires the module. A module that looked at the request while it was loaded is not kept.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use mlua::ffi::{self, LUA_REGISTRYINDEX, lua_State};

use super::context;
use super::functions::original;
use super::isolation::{BEFORE, CHANGES, LIBRARIES, copy_table, key, push_baseline, remember_registry};

/// `require`: the library's, which keeps modules, and what their loading changed.
pub(super) unsafe extern "C-unwind" fn require(l: *mut lua_State) -> c_int {
    // SAFETY: the upvalue is the original's; what is kept for later lies in the registry, for the original clears the stack.
    unsafe {
        let mut len = 0;
        let name = ffi::luaL_checklstring(l, 1, &raw mut len);
        let name = std::slice::from_raw_parts(name.cast::<u8>(), len);
        ffi::luaL_checkstack(l, 20, ptr::null());
        if is_loaded(l) {
            if context::with(|c| c.modules_changed.get() && c.applied.borrow_mut().insert(name.to_vec())) {
                apply_changes(l);
            }
            return original(l, |o| o.require);
        }
        let (depth, looks) = context::with(|c| {
            c.loading.set(c.loading.get() + 1);
            (c.loading.get(), c.looks.get())
        });
        copy_shared(l, depth);
        let results = original(l, |o| o.require);
        let changed = note_changes(l, depth);
        context::with(|c| {
            c.loading.set(depth - 1);
            if changed {
                c.modules_changed.set(true);
                c.applied.borrow_mut().insert(name.to_vec());
            }
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
        push_baseline(l, 0);
        if ffi::lua_getmetatable(l, -1) != 0 {
            ffi::lua_rawseti(l, -3, 0);
        }
        ffi::lua_pop(l, 1);
        ffi::lua_rawseti(l, -2, depth.into());
        ffi::lua_pop(l, 1);
    }
}

/// Compares with `BEFORE[depth]`, and keeps what the module at 1 changed in `CHANGES[name]`, as a list of table number,
/// key, value. Whether there was anything.
unsafe fn note_changes(l: *mut lua_State, depth: c_int) -> bool {
    // SAFETY: plain stack operations.
    unsafe {
        let mut count = 0;
        ffi::lua_newtable(l);
        let list = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        ffi::lua_rawgeti(l, -1, depth.into());
        ffi::lua_remove(l, -2);
        let before = ffi::lua_gettop(l);
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
                    ffi::lua_pushinteger(l, at.into());
                    ffi::lua_rawseti(l, list, count + 1);
                    ffi::lua_pushvalue(l, -2);
                    ffi::lua_rawseti(l, list, count + 2);
                    ffi::lua_pushvalue(l, -1);
                    ffi::lua_rawseti(l, list, count + 3);
                    count += 3;
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
                ffi::lua_rawseti(l, list, 0);
                count += 1;
            }
        }
        ffi::lua_settop(l, list);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
        ffi::lua_pushnil(l);
        ffi::lua_rawseti(l, -2, depth.into());
        if count > 0 {
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&CHANGES));
            ffi::lua_pushvalue(l, 1);
            ffi::lua_pushvalue(l, list);
            ffi::lua_rawset(l, -3);
        }
        ffi::lua_settop(l, list - 1);
        count > 0
    }
}

/// Does again what the module at 1 changed.
unsafe fn apply_changes(l: *mut lua_State) {
    // SAFETY: plain stack operations; the list was made by `note_changes`.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&CHANGES));
        ffi::lua_pushvalue(l, 1);
        if ffi::lua_rawget(l, -2) == ffi::LUA_TTABLE {
            let list = ffi::lua_gettop(l);
            let mut at = 1;
            while ffi::lua_rawgeti(l, list, at) != ffi::LUA_TNIL {
                let table = ffi::lua_tointeger(l, -1) as c_int;
                ffi::lua_pop(l, 1);
                push_baseline(l, table);
                ffi::lua_rawgeti(l, list, at + 1);
                ffi::lua_rawgeti(l, list, at + 2);
                ffi::lua_rawset(l, -3);
                ffi::lua_pop(l, 1);
                at += 3;
            }
            push_baseline(l, 0);
            if ffi::lua_rawgeti(l, list, 0) == ffi::LUA_TTABLE {
                ffi::lua_setmetatable(l, -2);
            }
        }
        ffi::lua_settop(l, top);
    }
}
