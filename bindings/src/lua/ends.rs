//! How a script ends from wherever it stands.
//!
//! `os.exit` raises an error, which Lua code may catch (`pcall`, coroutines). So the functions that can catch it raise it
//! again, and a hook raises it at the next instruction wherever else it was caught. The error's value is nil, because
//! `__close` metamethods see it: under `os.exit(_, true)` Lua calls them without an error.
//!
//! Lua's errors are long jumps. No function here has anything to drop when it calls into Lua.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::ffi::{self, lua_State};

use super::context::{self, Exit};
use super::originals::original;
use super::timeout;

/// When memory is out, Lua collects garbage and tries again.
const ATTEMPTS: u8 = if ffi::ALLOCATIONS_HAVE_TYPES { 2 } else { 1 };

/// The size of the userdata that there is no memory for. Where Lua does not tell its allocator what a block is for, it is known
/// by its size: the collector, which may run before, allocates as well, and must not fail in the midst of its work.
pub(super) const ODD_SIZE: usize = 78_901;

/// Ends the script. Does not return.
unsafe fn leave(l: *mut lua_State) -> c_int {
    // SAFETY: nothing here needs dropping.
    unsafe {
        if context::with(|c| c.exit.get().is_some_and(|exit| !exit.close)) {
            ffi::lua_sethook(l, Some(leave_again), ffi::LUA_MASKCOUNT, 1);
        }
        raise(l)
    }
}

unsafe extern "C-unwind" fn leave_again(l: *mut lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: as for `leave`; hooks may raise errors.
    unsafe {
        if context::with(|c| c.exit.get().is_some()) {
            raise(l);
        } else {
            // A coroutine that outlived its request.
            ffi::lua_sethook(l, None, 0, 0);
        }
    }
}

/// Raises the error that ends the script.
unsafe fn raise(l: *mut lua_State) -> c_int {
    // SAFETY: as for `leave`.
    unsafe {
        // A message handler of the script must not hear of it. The one error that Lua does not tell to handlers is that
        // memory is out, so that is what happens.
        if cfg!(feature = "luajit") || context::with(|c| c.handlers.get()) > 0 {
            context::with(|c| c.no_memory.set(ATTEMPTS));
            ffi::new_userdata(l, ODD_SIZE);
        }
        ffi::lua_pushnil(l);
        ffi::lua_error(l)
    }
}

/// Passes results on, unless the script has ended meanwhile.
pub(super) unsafe fn unless_ended(l: *mut lua_State, results: c_int) -> c_int {
    if context::with(|c| c.exit.get().is_some()) {
        // SAFETY: as for `leave`.
        unsafe { leave(l) }
    } else {
        results
    }
}

pub(super) unsafe extern "C-unwind" fn exit(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations; errors of arguments jump while nothing needs dropping.
    unsafe {
        // Lua 5.1 wants a number.
        let status = if ffi::lua_isboolean(l, 1) != 0 && !cfg!(feature = "lua51") {
            if ffi::lua_toboolean(l, 1) != 0 { libc::EXIT_SUCCESS } else { libc::EXIT_FAILURE }
        } else {
            ffi::luaL_optinteger(l, 1, 0) as c_int
        };
        let close = ffi::lua_toboolean(l, 2) != 0 && !cfg!(feature = "lua51");
        context::with(|c| c.exit.set(Some(Exit { status, close })));
        leave(l)
    }
}

macro_rules! end_when_ended {
    ($($name:ident)*) => {$(
        pub(super) unsafe extern "C-unwind" fn $name(l: *mut lua_State) -> c_int {
            // SAFETY: the original runs in this frame; afterwards only its results are on the stack.
            unsafe {
                let results = original(l, |o| o.$name);
                unless_ended(l, results)
            }
        }
    )*};
}

end_when_ended! { pcall io_write io_read file_write file_read }

pub(super) unsafe extern "C-unwind" fn resume(l: *mut lua_State) -> c_int {
    // SAFETY: the original runs in this frame, and gives errors as results, unless the argument is no coroutine.
    unsafe {
        let thread = ffi::lua_tothread(l, 1);
        let before = (!thread.is_null()).then(|| timeout::runs(thread));
        let results = original(l, |o| o.resume);
        if let Some(before) = before {
            timeout::runs(before);
        }
        unless_ended(l, results)
    }
}

pub(super) unsafe extern "C-unwind" fn xpcall(l: *mut lua_State) -> c_int {
    context::with(|c| c.handlers.set(c.handlers.get() + 1));
    // SAFETY: as for the functions above. (Not reached when a coroutine yields inside: then the count stays too high,
    // which only makes ending dearer.)
    unsafe {
        let results = original(l, |o| o.xpcall);
        context::with(|c| c.handlers.set(c.handlers.get().saturating_sub(1)));
        unless_ended(l, results)
    }
}

/// `coroutine.wrap`: makes a function that resumes, and ends the script when the coroutine has.
pub(super) unsafe extern "C-unwind" fn wrap(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        if cfg!(feature = "lua51") && ffi::lua_iscfunction(l, 1) != 0 {
            return ffi::luaL_argerror(l, 1, c"Lua function expected".as_ptr());
        }
        ffi::luaL_checktype(l, 1, ffi::LUA_TFUNCTION);
        let thread = ffi::lua_newthread(l);
        ffi::lua_pushvalue(l, 1);
        ffi::lua_xmove(l, thread, 1);
        ffi::lua_pushcclosure(l, resume_wrapped, 1);
        1
    }
}

unsafe extern "C-unwind" fn resume_wrapped(l: *mut lua_State) -> c_int {
    // SAFETY: the upvalue is a thread; values are moved between the two stacks as `lua_resume` leaves them.
    unsafe {
        let thread = ffi::lua_tothread(l, ffi::lua_upvalueindex(1));
        let results = resume_thread(l, thread);
        if results >= 0 {
            return results;
        }
        if context::with(|c| c.exit.get().is_some()) {
            return leave(l);
        }
        let status = ffi::lua_status(thread);
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            ffi::close_coroutine(thread, l);
        }
        // An error that is a text says where it happened, as an error of the resuming function would.
        if status != ffi::LUA_ERRMEM && ffi::is_message(l, -1) {
            ffi::luaL_where(l, 1);
            ffi::lua_insert(l, -2);
            ffi::lua_concat(l, 2);
        }
        ffi::lua_error(l)
    }
}

/// Resumes with all arguments on the stack; the number of results, or -1 with an error on the stack.
unsafe fn resume_thread(l: *mut lua_State, thread: *mut lua_State) -> c_int {
    // SAFETY: both stacks are given room before values are moved.
    unsafe {
        let arguments = ffi::lua_gettop(l);
        if let Some(why) = ffi::why_not_resume(l, thread) {
            ffi::lua_pushstring(l, why.as_ptr());
            return -1;
        }
        if ffi::lua_checkstack(thread, arguments) == 0 {
            ffi::lua_pushstring(l, c"too many arguments to resume".as_ptr());
            return -1;
        }
        ffi::lua_xmove(l, thread, arguments);
        let mut results = 0;
        let before = timeout::runs(thread);
        let status = ffi::lua_resume(thread, l, arguments, &raw mut results);
        timeout::runs(before);
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            ffi::lua_xmove(thread, l, 1);
            return -1;
        }
        if ffi::lua_checkstack(l, results + 1) == 0 {
            ffi::lua_pop(thread, results);
            ffi::lua_pushstring(l, c"too many results to resume".as_ptr());
            return -1;
        }
        ffi::lua_xmove(thread, l, results);
        results
    }
}
