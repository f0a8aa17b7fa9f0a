//! Library functions that must know about requests: those that would end the process, see its environment, start
//! children, or change something that is put back only when it was changed.
//!
//! Most are the library's own functions, called in the same frame with something done before or after: arguments, results
//! and error messages stay theirs.
//!
//! Lua's errors are long jumps. No function here has anything to drop when it calls into Lua.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::ffi::lua_CFunction;
use super::ffi::{self, lua_State};

use super::context;
use super::devices;
use super::ends::{self, unless_ended};
use super::originals::{self, Originals, original};
use super::process::{self, Popen};
use super::stdio::{self, CookieFunctions, FILE_HANDLE, LuaStream};

/// Replaces the functions in the library tables.
///
/// # Safety
/// `l` is a Lua state with all libraries open, used by this thread only, with some stack to spare.
pub(super) unsafe fn install(l: *mut lua_State) {
    // SAFETY: the caller's promise; each field is a C function of the library.
    unsafe {
        devices::install(l);
        // LuaJIT has one hook for all coroutines, which ends a script wherever it is: nothing need be replaced for that.
        let catches = |table: &CStr, name: &CStr, new: lua_CFunction| {
            if cfg!(feature = "luajit") { None } else { replace(l, table, name, new) }
        };
        let originals = Originals {
            setmetatable: ffi::TABLES_HAVE_FINALIZERS
                .then(|| replace(l, c"_G", c"setmetatable", setmetatable))
                .flatten(),
            newproxy: replace(l, c"_G", c"newproxy", newproxy),
            module: replace(l, c"_G", c"module", module),
            debug_setmetatable: replace(l, c"debug", c"setmetatable", debug_setmetatable),
            getregistry: replace(l, c"debug", c"getregistry", getregistry),
            collectgarbage: replace(l, c"_G", c"collectgarbage", collectgarbage),
            setlocale: replace(l, c"os", c"setlocale", setlocale),
            pcall: catches(c"_G", c"pcall", ends::pcall),
            xpcall: catches(c"_G", c"xpcall", ends::xpcall),
            resume: catches(c"coroutine", c"resume", ends::resume),
            io_flush: replace(l, c"io", c"flush", io_flush),
            io_write: replace(l, c"io", c"write", ends::io_write),
            io_read: replace(l, c"io", c"read", ends::io_read),
            open: replace(l, c"io", c"open", devices::open),
            input: replace(l, c"io", c"input", devices::input),
            output: replace(l, c"io", c"output", devices::output),
            lines: replace(l, c"io", c"lines", devices::lines),
            tmpfile: replace(l, c"io", c"tmpfile", devices::tmpfile),
            require: replace(l, c"_G", c"require", super::modules::require),
            // LuaJIT's state of the generator is always put back.
            random: RANDOM_COUNTS.then(|| replace(l, c"math", c"random", random)).flatten(),
            randomseed: replace(l, c"math", c"randomseed", randomseed),
            file_flush: replace_method(l, c"flush", file_flush),
            file_setvbuf: replace_method(l, c"setvbuf", file_setvbuf),
            file_write: replace_method(l, c"write", ends::file_write),
            file_read: replace_method(l, c"read", ends::file_read),
            #[cfg(feature = "luajit")]
            luajit: super::luajit::install(l),
        };
        originals::set(originals);
        replace(l, c"_G", c"print", print);
        replace(l, c"os", c"exit", ends::exit);
        replace(l, c"os", c"getenv", getenv);
        replace(l, c"os", c"execute", execute);
        replace(l, c"io", c"popen", popen);
        catches(c"coroutine", c"wrap", ends::wrap);
        ffi::set_warnings(l, warn);
    }
}

/// Replaces a library function, and gives the original. Where there is none, or it is no C function, nothing is done.
unsafe fn replace(l: *mut lua_State, table: &CStr, name: &CStr, new: lua_CFunction) -> Option<lua_CFunction> {
    // SAFETY: as for `install`.
    unsafe {
        ffi::lua_getglobal(l, table.as_ptr());
        let original = replace_field(l, name, new);
        ffi::lua_pop(l, 1);
        original
    }
}

unsafe fn replace_method(l: *mut lua_State, name: &CStr, new: lua_CFunction) -> Option<lua_CFunction> {
    // SAFETY: as for `install`; files have a metatable whose `__index` is the table of methods.
    unsafe {
        ffi::lua_getfield(l, ffi::LUA_REGISTRYINDEX, FILE_HANDLE.as_ptr());
        ffi::lua_getfield(l, -1, c"__index".as_ptr());
        let original = replace_field(l, name, new);
        ffi::lua_pop(l, 2);
        original
    }
}

pub(super) unsafe fn replace_field(l: *mut lua_State, name: &CStr, new: lua_CFunction) -> Option<lua_CFunction> {
    // SAFETY: what should be the table is on top of the stack.
    unsafe {
        if ffi::lua_type(l, -1) != ffi::LUA_TTABLE {
            return None;
        }
        ffi::lua_getfield(l, -1, name.as_ptr());
        let original = ffi::lua_tocfunction(l, -1);
        if original.is_none() {
            ffi::lua_pop(l, 1);
            return None;
        }
        // The original runs in the frame of the new one, and so finds its upvalues and its environment there.
        let mut upvalues = 0;
        while !ffi::lua_getupvalue(l, -1 - upvalues, upvalues + 1).is_null() {
            upvalues += 1;
        }
        ffi::lua_pushcclosure(l, new, upvalues);
        ffi::share_environment(l);
        ffi::lua_setfield(l, -3, name.as_ptr());
        ffi::lua_pop(l, 1);
        original
    }
}

// -------------------------------------------------------------------- streams

unsafe extern "C-unwind" fn print(l: *mut lua_State) -> c_int {
    // SAFETY: the arguments are on the stack.
    unsafe {
        if cfg!(feature = "luajit") {
            // There this function may be the handler of the error that ends the script.
            unless_ended(l, 0);
        }
        stdio::print(l);
        unless_ended(l, 0)
    }
}

unsafe extern "C-unwind" fn io_flush(l: *mut lua_State) -> c_int {
    // SAFETY: the original runs in this frame.
    unsafe {
        let results = original(l, |o| o.io_flush);
        send(l, results)
    }
}

unsafe extern "C-unwind" fn file_flush(l: *mut lua_State) -> c_int {
    // SAFETY: the original runs in this frame.
    unsafe {
        let results = original(l, |o| o.file_flush);
        send(l, results)
    }
}

/// The script asked for its output to be sent.
unsafe fn send(l: *mut lua_State, results: c_int) -> c_int {
    use std::io::Write;
    let failed = context::with(|c| c.request(|request| request.stdout().flush().is_err()));
    if failed == Some(true) {
        context::with(context::Context::client_has_gone);
    }
    // SAFETY: only the results are on the stack.
    unsafe { unless_ended(l, results) }
}

unsafe extern "C-unwind" fn file_setvbuf(l: *mut lua_State) -> c_int {
    context::with(|c| c.traces.buffering.set(true));
    // SAFETY: the original runs in this frame.
    unsafe { original(l, |o| o.file_setvbuf) }
}

/// `warn`, as `lua` shows warnings: off at first, switched by `@on` and `@off`.
pub(super) unsafe extern "C-unwind" fn warn(_: *mut c_void, message: *const c_char, to_be_continued: c_int) {
    // SAFETY: Lua gives a C string.
    let message = unsafe { CStr::from_ptr(message) }.to_bytes();
    context::with(|c| {
        let continues = c.warning_continues.replace(to_be_continued != 0);
        if !continues && to_be_continued == 0 && message.starts_with(b"@") {
            match message {
                b"@on" => c.warnings.set(true),
                b"@off" => c.warnings.set(false),
                _ => {}
            }
        } else if c.warnings.get() {
            let start: &[u8] = if continues { b"" } else { b"Lua warning: " };
            let end: &[u8] = if to_be_continued == 0 { b"\n" } else { b"" };
            let _ = c.write_stderr(&[start, message, end].concat());
        }
    });
}

// -------------------------------------------------------------------- environment and children

/// The bytes of a string argument.
unsafe fn bytes<'a>(l: *mut lua_State, at: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: the string stays on the stack, and so alive, while the calling function runs.
    unsafe {
        let text = ffi::luaL_checklstring(l, at, &raw mut len);
        std::slice::from_raw_parts(text.cast(), len)
    }
}

unsafe extern "C-unwind" fn getenv(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations; the environment's value is copied at once.
    unsafe {
        let name = bytes(l, 1);
        match context::with(|c| c.param(name)) {
            Some(value) => ffi::lua_pushlstring(l, value.cast(), value.len()),
            // Null pushes nil, as the original does.
            None => ffi::lua_pushstring(l, libc::getenv(ffi::lua_tostring(l, 1))),
        };
        1
    }
}

unsafe extern "C-unwind" fn execute(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        if ffi::lua_isnoneornil(l, 1) != 0 {
            if ffi::HAS_ENVIRONMENTS {
                ffi::lua_pushinteger(l, 1);
            } else {
                ffi::lua_pushboolean(l, 1);
            }
            return 1;
        }
        let status = process::execute(c_string(bytes(l, 1)));
        if ffi::HAS_ENVIRONMENTS {
            ffi::lua_pushnumber(l, f64::from(status.unwrap_or(-1)));
            return unless_ended(l, 1);
        }
        push_status(l, status.unwrap_or_else(|e| -(e.raw_os_error().unwrap_or(libc::EAGAIN))))
    }
}

/// What C functions see of a Lua string: what is before the first zero byte.
fn c_string(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// Pushes what `os.execute` and closing a command give, from a wait status or a negative error number.
unsafe fn push_status(l: *mut lua_State, status: c_int) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        if status < 0 {
            *libc::__errno_location() = -status;
            return ffi::luaL_fileresult(l, 0, ptr::null());
        }
        let (what, code) = if libc::WIFSIGNALED(status) {
            (c"signal", libc::WTERMSIG(status))
        } else {
            (c"exit", libc::WEXITSTATUS(status))
        };
        if status == 0 {
            ffi::lua_pushboolean(l, 1);
        } else {
            ffi::lua_pushnil(l);
        }
        ffi::lua_pushstring(l, what.as_ptr());
        ffi::lua_pushinteger(l, code.into());
        unless_ended(l, 3)
    }
}

unsafe extern "C-unwind" fn popen(l: *mut lua_State) -> c_int {
    // SAFETY: the file is made as the io library makes one: closed until its stream is there. The box is the stream's
    // cookie, and freed when the stream is closed.
    unsafe {
        let command = bytes(l, 1);
        let mode = ffi::luaL_optstring(l, 2, c"r".as_ptr());
        let reads = match CStr::from_ptr(mode).to_bytes() {
            b"r" => true,
            b"w" => false,
            // Older versions let the C library find out.
            _ if ffi::HAS_ENVIRONMENTS => {
                *libc::__errno_location() = libc::EINVAL;
                return ffi::luaL_fileresult(l, 0, ffi::lua_tostring(l, 1));
            }
            _ => return ffi::luaL_argerror(l, 2, c"invalid mode".as_ptr()),
        };
        context::with(|c| c.traces.userdata.set(true));
        let stream = devices::push_closed_file(l);
        stdio::flush_all();
        match Popen::start(c_string(command), reads) {
            Ok(popen) => {
                let cookie = Box::into_raw(Box::new(popen));
                let buffer = (*cookie).buffer.as_mut_ptr();
                let functions = CookieFunctions {
                    read: Some(popen_read),
                    write: Some(popen_write),
                    seek: Some(stdio::no_seek),
                    close: Some(popen_close),
                };
                let file = stdio::fopencookie(cookie.cast(), mode, functions);
                libc::setvbuf(file, buffer.cast(), libc::_IOFBF, stdio::BUFFER);
                devices::open_file(l, stream, file, close_popen);
                1
            }
            Err(e) => {
                *libc::__errno_location() = e.raw_os_error().unwrap_or(libc::EAGAIN);
                ffi::luaL_fileresult(l, 0, ffi::lua_tostring(l, 1))
            }
        }
    }
}

thread_local! {
    /// The wait status of the command that was closed last.
    static CLOSED: std::cell::Cell<c_int> = const { std::cell::Cell::new(0) };
}

unsafe extern "C-unwind" fn close_popen(l: *mut lua_State) -> c_int {
    // SAFETY: the io library calls this with the file as the first argument, once.
    unsafe {
        let stream = ffi::luaL_checkudata(l, 1, FILE_HANDLE.as_ptr()).cast::<LuaStream>();
        CLOSED.set(0);
        libc::fclose((*stream).file);
        if ffi::HAS_ENVIRONMENTS {
            (*stream).file = ptr::null_mut();
            ffi::lua_pushboolean(l, 1);
            return unless_ended(l, 1);
        }
        push_status(l, CLOSED.get())
    }
}

unsafe extern "C" fn popen_read(cookie: *mut c_void, buf: *mut c_char, size: libc::size_t) -> libc::ssize_t {
    // SAFETY: the cookie is the box of an open stream; the C library gives a buffer of this size.
    let (popen, buf) =
        unsafe { (&mut *cookie.cast::<Popen>(), std::slice::from_raw_parts_mut(buf.cast::<u8>(), size)) };
    std::io::Read::read(popen, buf).map_or(-1, |count| count as libc::ssize_t)
}

unsafe extern "C" fn popen_write(cookie: *mut c_void, bytes: *const c_char, size: libc::size_t) -> libc::ssize_t {
    // SAFETY: as above.
    let (popen, bytes) =
        unsafe { (&mut *cookie.cast::<Popen>(), std::slice::from_raw_parts(bytes.cast::<u8>(), size)) };
    std::io::Write::write_all(popen, bytes).map_or(0, |()| size as libc::ssize_t)
}

unsafe extern "C" fn popen_close(cookie: *mut c_void) -> c_int {
    // SAFETY: the C library closes a stream once, and uses its cookie no more.
    let mut popen = unsafe { Box::from_raw(cookie.cast::<Popen>()) };
    CLOSED.set(popen.close().unwrap_or(-libc::ECHILD));
    0
}

// -------------------------------------------------------------------- what leaves traces

unsafe fn note_finalizer(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        if ffi::lua_type(l, 2) == ffi::LUA_TTABLE {
            ffi::lua_pushstring(l, c"__gc".as_ptr());
            if ffi::lua_rawget(l, 2) != ffi::LUA_TNIL {
                context::with(|c| c.traces.finalizers.set(true));
            }
            ffi::lua_pop(l, 1);
        }
    }
}

unsafe extern "C-unwind" fn setmetatable(l: *mut lua_State) -> c_int {
    // SAFETY: the stack is left as it was for the original.
    unsafe {
        note_finalizer(l);
        original(l, |o| o.setmetatable)
    }
}

unsafe extern "C-unwind" fn debug_setmetatable(l: *mut lua_State) -> c_int {
    context::with(|c| c.traces.metatables.set(true));
    // SAFETY: as above.
    unsafe {
        note_finalizer(l);
        original(l, |o| o.debug_setmetatable)
    }
}

unsafe extern "C-unwind" fn collectgarbage(l: *mut lua_State) -> c_int {
    // SAFETY: the first argument is looked at only when it is a string.
    unsafe {
        let harmless = ffi::lua_type(l, 1) != ffi::LUA_TSTRING
            || matches!(CStr::from_ptr(ffi::lua_tostring(l, 1)).to_bytes(), b"count" | b"collect" | b"isrunning");
        if !harmless {
            context::with(|c| c.traces.collector.set(true));
        }
        original(l, |o| o.collectgarbage)
    }
}

/// Whether using random numbers changes those of the next request.
const RANDOM_COUNTS: bool = ffi::RANDOM_IS_REPEATED && !cfg!(feature = "luajit");

unsafe extern "C-unwind" fn random(l: *mut lua_State) -> c_int {
    context::with(|c| c.traces.random.set(true));
    // SAFETY: the original runs in this frame.
    unsafe { original(l, |o| o.random) }
}

/// `newproxy`, whose proxies can have finalizers.
/// `module`: what a script makes of itself is no module to be kept.
unsafe extern "C-unwind" fn module(l: *mut lua_State) -> c_int {
    // SAFETY: the name is looked at only when it is a string; the original runs in this frame.
    unsafe {
        if context::with(|c| c.loading.get()) == 0 && ffi::lua_type(l, 1) == ffi::LUA_TSTRING {
            let name = CStr::from_ptr(ffi::lua_tostring(l, 1)).to_bytes().to_vec();
            context::with(|c| c.volatile.borrow_mut().push(name));
        }
        original(l, |o| o.module)
    }
}

unsafe extern "C-unwind" fn newproxy(l: *mut lua_State) -> c_int {
    context::with(|c| c.traces.finalizers.set(true));
    // SAFETY: the original runs in this frame.
    unsafe { original(l, |o| o.newproxy) }
}

unsafe extern "C-unwind" fn randomseed(l: *mut lua_State) -> c_int {
    context::with(|c| c.traces.random.set(true));
    // SAFETY: the upvalue is the original's.
    unsafe { original(l, |o| o.randomseed) }
}

unsafe extern "C-unwind" fn setlocale(l: *mut lua_State) -> c_int {
    // SAFETY: the original runs in this frame.
    unsafe {
        if ffi::lua_isnoneornil(l, 1) == 0 {
            if context::with(|c| c.shared_process.get()) {
                static SAID: std::sync::Once = std::sync::Once::new();
                SAID.call_once(|| {
                    tracing::warn!(
                        "os.setlocale does nothing with --threads: the locale is the whole process's; use --workers"
                    );
                });
                ffi::lua_pushnil(l);
                return 1;
            }
            context::with(|c| c.traces.locale.set(true));
        }
        original(l, |o| o.setlocale)
    }
}

unsafe extern "C-unwind" fn getregistry(l: *mut lua_State) -> c_int {
    // SAFETY: the copy is made on this stack and kept in the registry.
    unsafe {
        if !context::with(|c| c.traces.registry.replace(true)) {
            super::isolation::remember_registry(l);
        }
        original(l, |o| o.getregistry)
    }
}
