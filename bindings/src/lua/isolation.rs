//! Puts back what a script changed: globals, library tables, metatables, default files, collector, locale, random numbers.
//!
//! When the interpreter starts, a copy of each table that all scripts share is taken. After each request the tables are
//! compared with their copies, entry by entry, and what differs is put back.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

use super::ffi::{self, LIBRARIES, LUA_REGISTRYINDEX, lua_State};

use super::audit;
use super::context::Context;
use super::pristine::{self, Entries, Shape};
use super::stdio::FILE_HANDLE;

/// Further tables, pushed by [`push_hidden`].
#[cfg(not(feature = "luajit"))]
const HIDDEN: c_int = 6;
#[cfg(feature = "luajit")]
const HIDDEN: c_int = 6 + super::luajit::HIDDEN;

/// Which of them is the metatable of texts.
const TEXTS: usize = 2;

/// Keys of our tables in the registry, by their addresses.
static BASELINE: u8 = 0;
static LOADED: u8 = 1;
pub(super) static BEFORE: u8 = 2;
pub(super) static CHANGES: u8 = 3;
static REGISTRY: u8 = 4;
/// By a module's name: the request that met it last, where it was found, what it requires itself.
pub(super) static MET: u8 = 5;
pub(super) static ORIGIN: u8 = 6;
pub(super) static NESTED: u8 = 7;

pub(super) fn key(of: &'static u8) -> *const c_void {
    ptr::from_ref(of).cast()
}

/// How the shared tables were when the interpreter started.
pub(super) struct Baseline {
    tables: Vec<Shared>,
    collector: ffi::GcParameters,
    /// How the libraries look in the table of loaded modules.
    loaded: Option<Entries>,
    random: ffi::Random,
}

/// A table that scripts share.
struct Shared {
    /// Its number of entries.
    size: c_int,
    /// How it looks in memory, if that tells anything.
    shape: Option<Shape>,
}

impl Baseline {
    /// Takes the copies.
    ///
    /// # Safety
    /// `l` is a Lua state with all libraries open, used by this thread only; called in protected mode.
    pub(super) unsafe fn take(l: *mut lua_State) -> Self {
        let mut tables = Vec::new();
        let loaded;
        // SAFETY: the caller's promise; each step leaves the stack as it found it.
        unsafe {
            ffi::luaL_checkstack(l, 20, ptr::null());
            let layout_is_known = pristine::layout_is_known(l);
            ffi::lua_newtable(l);
            for at in 0..LIBRARIES.len() as c_int + HIDDEN {
                push_shared(l, at);
                let shape = layout_is_known.then(|| Shape::of(l));
                tables.push(Shared { size: copy_table(l), shape });
                ffi::lua_rawseti(l, -3, (2 * at + 2).into());
                ffi::lua_rawseti(l, -2, (2 * at + 1).into());
            }
            ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&BASELINE));
            // Of the loaded modules only the libraries are put back.
            ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
            loaded = layout_is_known.then(|| Entries::of(l));
            copy_table(l);
            ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&LOADED));
            ffi::lua_pop(l, 1);
            for table in [&BEFORE, &CHANGES, &MET, &ORIGIN, &NESTED] {
                ffi::lua_newtable(l);
                ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(table));
            }
        }
        // SAFETY: as above.
        let (collector, random) = unsafe { (ffi::gc_parameters(l), ffi::Random::of(l)) };
        Self { tables, collector, loaded, random }
    }

    /// How the metatable of texts looks, if that tells anything.
    pub(super) fn texts(&self) -> Option<&Shape> {
        self.tables.get(LIBRARIES.len() + TEXTS).and_then(|table| table.shape.as_ref())
    }

    /// Puts back what differs.
    ///
    /// # Safety
    /// As for [`take`](Self::take).
    pub(super) unsafe fn restore(&mut self, l: *mut lua_State, context: &Context) {
        // SAFETY: the caller's promise; each step leaves the stack as it found it.
        unsafe {
            ffi::luaL_checkstack(l, 20, ptr::null());
            let hooked = ffi::lua_gethook(l).is_some();
            ffi::lua_sethook(l, None, 0, 0);
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BASELINE));
            ffi::lua_rawgeti(l, -1, 1);
            ffi::restore_globals(l);
            for (at, table) in self.tables.iter_mut().enumerate() {
                if table.shape.as_ref().is_some_and(|shape| shape.is_same()) {
                    continue;
                }
                ffi::lua_rawgeti(l, -1, 2 * at as i64 + 1);
                ffi::lua_rawgeti(l, -2, 2 * at as i64 + 2);
                if fcgi_core::audit::is_wanted() {
                    audit::tell_of_library(l, at);
                }
                restore_table(l, table.size);
                ffi::lua_pop(l, 1);
                clear_metatable(l);
                ffi::lua_pop(l, 1);
                if let Some(shape) = &mut table.shape {
                    shape.renew();
                }
            }
            ffi::lua_pop(l, 1);
            let modules_changed = !context.volatile.borrow().is_empty()
                || !self.loaded.as_ref().is_some_and(|libraries| libraries.are_same());
            if modules_changed {
                restore_loaded(l);
            }
            let metatables = context.traces.metatables.replace(false);
            if metatables {
                restore_type_metatables(l);
            }
            forget_volatile(l, context);
            if modules_changed && let Some(libraries) = &mut self.loaded {
                // They may have got other places in the table.
                libraries.renew();
            }
            if context.loading.get() != 0 {
                ffi::lua_newtable(l);
                ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&BEFORE));
                forget_unfinished(l);
            }
            if hooked {
                // Some versions remember the function of a hook apart from the hook.
                ffi::lua_getglobal(l, c"debug".as_ptr());
                ffi::lua_getfield(l, -1, c"sethook".as_ptr());
                ffi::lua_call(l, 0, 0);
                ffi::lua_pop(l, 1);
            }
            let registry = context.traces.registry.replace(false);
            if registry {
                restore_registry(l);
            }
            // Before Lua 5.2 they are in environments of functions, which nobody watches.
            let files = context.traces.files.replace(false) || registry || metatables;
            if files || ffi::HAS_ENVIRONMENTS {
                restore_default_files(l, metatables);
            }
            if context.traces.collector.replace(false) {
                ffi::gc_reset(l, &self.collector);
                // What came together while it was stopped.
                ffi::collect(l);
            }
            self.random.restore(l, context.traces.random.replace(false));
            if context.traces.compiler.replace(false) {
                ffi::compiler_reset(l);
                // The functions that do so say that it was touched.
                context.traces.compiler.set(false);
            }
        }
    }
}

/// Pushes a shared table.
unsafe fn push_shared(l: *mut lua_State, at: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        match LIBRARIES.get(at as usize) {
            Some(name) => {
                ffi::lua_getglobal(l, name.as_ptr());
            }
            None => push_hidden(l, at - LIBRARIES.len() as c_int),
        }
    }
}

unsafe fn push_hidden(l: *mut lua_State, which: c_int) {
    // SAFETY: plain stack operations; the libraries have made these tables.
    unsafe {
        match which {
            0 => {
                ffi::lua_getglobal(l, c"package".as_ptr());
                ffi::lua_getfield(l, -1, ffi::SEARCHERS.as_ptr());
                ffi::lua_remove(l, -2);
            }
            1 => {
                ffi::push_preload(l);
            }
            2 => {
                ffi::lua_pushstring(l, c"".as_ptr());
                ffi::lua_getmetatable(l, -1);
                ffi::lua_remove(l, -2);
            }
            3 => {
                ffi::lua_getfield(l, LUA_REGISTRYINDEX, FILE_HANDLE.as_ptr());
            }
            4 => {
                ffi::lua_getglobal(l, c"arg".as_ptr());
            }
            #[cfg(feature = "luajit")]
            6.. => super::luajit::push_hidden(l, which - 6),
            _ => {
                ffi::lua_getfield(l, LUA_REGISTRYINDEX, FILE_HANDLE.as_ptr());
                ffi::lua_getfield(l, -1, c"__index".as_ptr());
                ffi::lua_remove(l, -2);
            }
        }
    }
}

/// Pushes a copy of the table on top; gives its number of entries.
pub(super) unsafe fn copy_table(l: *mut lua_State) -> c_int {
    let mut size = 0;
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_newtable(l);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -3) != 0 {
            ffi::lua_pushvalue(l, -2);
            ffi::lua_insert(l, -2);
            ffi::lua_rawset(l, -4);
            size += 1;
        }
    }
    size
}

/// Stack: table, copy. Makes the table equal to the copy, which has `size` entries.
unsafe fn restore_table(l: *mut lua_State, size: c_int) {
    let mut seen = 0;
    // SAFETY: plain stack operations; entries that exist may be changed and removed while a table is walked.
    unsafe {
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -3) != 0 {
            // table copy key value
            ffi::lua_pushvalue(l, -2);
            let expected = ffi::lua_rawget(l, -4);
            if expected != ffi::LUA_TNIL {
                seen += 1;
            }
            if ffi::lua_rawequal(l, -1, -2) != 0 {
                ffi::lua_pop(l, 2);
            } else {
                // table copy key value expected
                ffi::lua_pushvalue(l, -3);
                ffi::lua_insert(l, -2);
                ffi::lua_rawset(l, -6);
                ffi::lua_pop(l, 1);
            }
        }
        if seen != size {
            ffi::lua_pushvalue(l, -1);
            ffi::lua_pushvalue(l, -3);
            put_missing(l);
            ffi::lua_pop(l, 2);
        }
    }
}

/// Removes what the script put into globals, but for functions.
///
/// # Safety
/// As for [`Baseline::take`].
pub(super) unsafe fn clear_global_values(l: *mut lua_State) {
    // SAFETY: plain stack operations; entries may be removed while a table is walked.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BASELINE));
        ffi::lua_rawgeti(l, -1, 1);
        ffi::lua_rawgeti(l, -2, 2);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -3) != 0 {
            // baseline globals copy key value
            let kept = ffi::lua_type(l, -1) == ffi::LUA_TFUNCTION;
            ffi::lua_pop(l, 1);
            ffi::lua_pushvalue(l, -1);
            if ffi::lua_rawget(l, -3) == ffi::LUA_TNIL && !kept {
                ffi::lua_pushvalue(l, -2);
                ffi::lua_pushnil(l);
                ffi::lua_rawset(l, -6);
            }
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pop(l, 3);
    }
}

/// Stack: from, to. Sets in `to` the entries of `from` that are missing or different.
pub(super) unsafe fn put_missing(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -3) != 0 {
            // from to key value
            ffi::lua_pushvalue(l, -2);
            ffi::lua_rawget(l, -4);
            let same = ffi::lua_rawequal(l, -1, -2) != 0;
            ffi::lua_pop(l, 1);
            if same {
                ffi::lua_pop(l, 1);
            } else {
                ffi::lua_pushvalue(l, -2);
                ffi::lua_insert(l, -2);
                ffi::lua_rawset(l, -4);
            }
        }
    }
}

/// The table on top had no metatable.
unsafe fn clear_metatable(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        if ffi::lua_getmetatable(l, -1) != 0 {
            ffi::lua_pop(l, 1);
            ffi::lua_pushnil(l);
            ffi::lua_setmetatable(l, -2);
        }
    }
}

unsafe fn restore_loaded(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&LOADED));
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        put_missing(l);
        clear_metatable(l);
        ffi::lua_pop(l, 2);
    }
}

/// Forgets modules whose loading was broken off: Lua 5.1 would take a further attempt for a loop.
unsafe fn forget_unfinished(l: *mut lua_State) {
    if !ffi::HAS_ENVIRONMENTS {
        return;
    }
    // SAFETY: plain stack operations; entries may be removed while a table is walked.
    unsafe {
        ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -2) != 0 {
            let unfinished = ffi::is_unfinished(l);
            ffi::lua_pop(l, 1);
            if unfinished {
                ffi::lua_pushvalue(l, -1);
                ffi::lua_pushnil(l);
                ffi::lua_rawset(l, -4);
            }
        }
        ffi::lua_pop(l, 1);
    }
}

/// Of the basic types only strings have a metatable.
unsafe fn restore_type_metatables(l: *mut lua_State) {
    unsafe extern "C-unwind" fn nothing(_: *mut lua_State) -> c_int {
        0
    }
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_pushnil(l);
        ffi::lua_pushboolean(l, 0);
        ffi::lua_pushinteger(l, 0);
        ffi::lua_pushcfunction(l, nothing);
        ffi::lua_pushlightuserdata(l, ptr::null_mut());
        ffi::lua_pushthread(l);
        for _ in 0..6 {
            clear_metatable(l);
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pushstring(l, c"".as_ptr());
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BASELINE));
        ffi::lua_rawgeti(l, -1, 2 * (LIBRARIES.len() + TEXTS) as i64 + 1);
        ffi::lua_remove(l, -2);
        ffi::lua_setmetatable(l, -2);
        ffi::lua_pop(l, 1);
    }
}

unsafe fn restore_default_files(l: *mut lua_State, metatables: bool) {
    // SAFETY: plain stack operations; the names are those of the io library.
    unsafe {
        ffi::lua_getglobal(l, c"io".as_ptr());
        for (which, field) in [(c"input", c"stdin"), (c"output", c"stdout")] {
            ffi::lua_getfield(l, -1, field.as_ptr());
            ffi::set_default_file(l, which);
        }
        if metatables {
            for field in [c"stdin", c"stdout", c"stderr"] {
                ffi::lua_getfield(l, -1, field.as_ptr());
                ffi::luaL_setmetatable(l, FILE_HANDLE.as_ptr());
                ffi::lua_pop(l, 1);
            }
        }
        ffi::lua_pop(l, 1);
    }
}

unsafe fn forget_volatile(l: *mut lua_State, context: &Context) {
    let mut names = context.volatile.borrow_mut();
    for name in names.drain(..) {
        // SAFETY: plain stack operations.
        unsafe {
            ffi::lua_getfield(l, LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
            ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&CHANGES));
            for _ in 0..2 {
                ffi::lua_pushlstring(l, name.as_ptr().cast(), name.len());
                ffi::lua_pushnil(l);
                ffi::lua_rawset(l, -3);
                ffi::lua_pop(l, 1);
            }
        }
    }
}

// -------------------------------------------------------------------- the registry

/// Notes what is in the registry, for a script is about to get at it.
pub(super) unsafe fn remember_registry(l: *mut lua_State) {
    // SAFETY: plain stack operations, called from a C function, which has stack for them.
    unsafe {
        ffi::luaL_checkstack(l, 8, ptr::null());
        ffi::lua_pushvalue(l, LUA_REGISTRYINDEX);
        copy_table(l);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&REGISTRY));
        ffi::lua_pop(l, 1);
    }
}

unsafe fn restore_registry(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&REGISTRY));
        ffi::lua_pushnil(l);
        ffi::lua_rawsetp(l, LUA_REGISTRYINDEX, key(&REGISTRY));
        ffi::lua_pushvalue(l, LUA_REGISTRYINDEX);
        ffi::lua_insert(l, -2);
        // Numbers are references of the interpreter's own, addresses belong to C code: neither is a script's.
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -3) != 0 {
            ffi::lua_pop(l, 1);
            if ffi::lua_type(l, -1) == ffi::LUA_TSTRING {
                ffi::lua_pushvalue(l, -1);
                ffi::lua_pushvalue(l, -1);
                ffi::lua_rawget(l, -4);
                ffi::lua_rawset(l, -5);
            }
        }
        ffi::lua_pop(l, 2);
    }
}

/// Pushes a library's own table, whatever the global of its name is now.
pub(super) unsafe fn push_baseline(l: *mut lua_State, at: c_int) {
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BASELINE));
        ffi::lua_rawgeti(l, -1, (2 * at + 1).into());
        ffi::lua_remove(l, -2);
    }
}

/// Sets the entry 0 of `arg`, the script's name, for this request and, as far as `restore` is concerned, for ever.
///
/// # Safety
/// As for [`Baseline::take`].
pub(super) unsafe fn set_script_name(l: *mut lua_State, name: &[u8]) {
    let at = i64::from(LIBRARIES.len() as c_int + 4);
    // SAFETY: plain stack operations.
    unsafe {
        ffi::lua_rawgetp(l, LUA_REGISTRYINDEX, key(&BASELINE));
        for table in [2 * at + 1, 2 * at + 2] {
            ffi::lua_rawgeti(l, -1, table);
            ffi::lua_pushlstring(l, name.as_ptr().cast(), name.len());
            ffi::lua_rawseti(l, -2, 0);
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pop(l, 1);
    }
}
