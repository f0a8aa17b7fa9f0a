//! `/dev/stdin`, `/dev/stdout`, `/dev/stderr`: the request's streams under their names as files.
//!
//! The process's own descriptors 0, 1 and 2 belong to no request, so the functions of `io` that open files by name get a
//! stream of the request's instead.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_int};

use super::ffi::lua_CFunction;
use super::ffi::{self, lua_State};

use super::context;
use super::originals::original;
#[cfg(not(feature = "luajit"))]
use super::stdio::FILE_HANDLE;
use super::stdio::{self, Device, LuaStream};

thread_local! {
    /// The function of the `io` library that closes a file, as it stands in files that it opened.
    static CLOSE: Cell<Option<lua_CFunction>> = const { Cell::new(None) };
}

/// LuaJIT: the key of the library's `io.open` in the registry.
#[cfg(feature = "luajit")]
static OPEN: u8 = 0;

/// Learns how the `io` library makes and closes files.
///
/// # Safety
/// `l` is a Lua state with the `io` library as it was opened, used by this thread only.
pub(super) unsafe fn install(l: *mut lua_State) {
    // SAFETY: the caller's promise; a file is opened and closed at once.
    unsafe {
        ffi::lua_getglobal(l, c"io".as_ptr());
        ffi::lua_getfield(l, -1, c"open".as_ptr());
        #[cfg(feature = "luajit")]
        ffi::lua_rawsetp(l, ffi::LUA_REGISTRYINDEX, super::isolation::key(&OPEN));
        #[cfg(feature = "lua51")]
        {
            ffi::lua_getfenv(l, -1);
            ffi::lua_getfield(l, -1, c"__close".as_ptr());
            CLOSE.set(ffi::lua_tocfunction(l, -1));
            ffi::lua_pop(l, 3);
        }
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        {
            if CLOSE.get().is_none() {
                ffi::lua_pushstring(l, c"/dev/null".as_ptr());
                if ffi::lua_pcall(l, 1, 1, 0) == ffi::LUA_OK {
                    let stream = ffi::luaL_testudata(l, -1, FILE_HANDLE.as_ptr()).cast::<LuaStream>();
                    if !stream.is_null()
                        && let Some(close) = (*stream).close.take()
                    {
                        CLOSE.set(Some(close));
                        libc::fclose((*stream).file);
                    }
                }
            }
            ffi::lua_pop(l, 1);
        }
        ffi::lua_pop(l, 1);
    }
}

/// Pushes a file of the `io` library that is closed still.
///
/// # Safety
/// `l` is a Lua state of this thread, with some stack to spare.
pub(super) unsafe fn push_closed_file(l: *mut lua_State) -> *mut LuaStream {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(feature = "luajit")]
        {
            // Only the library itself can make a userdata that it takes for a file.
            ffi::lua_rawgetp(l, ffi::LUA_REGISTRYINDEX, super::isolation::key(&OPEN));
            ffi::lua_pushstring(l, c"/dev/null".as_ptr());
            ffi::lua_call(l, 1, 1);
            let stream = ffi::lua_touserdata(l, -1).cast::<LuaStream>();
            if stream.is_null() {
                ffi::luaL_error(l, c"cannot open /dev/null".as_ptr());
            }
            libc::fclose((*stream).file);
            (*stream).file = std::ptr::null_mut();
            stream
        }
        #[cfg(not(feature = "luajit"))]
        {
            let stream = ffi::new_userdata(l, size_of::<LuaStream>()).cast::<LuaStream>();
            stream.write(LuaStream {
                file: std::ptr::null_mut(),
                #[cfg(not(feature = "lua51"))]
                close: None,
            });
            ffi::luaL_setmetatable(l, FILE_HANDLE.as_ptr());
            stream
        }
    }
}

/// Opens what `push_closed_file` has left on top of the stack; `close` will close it.
///
/// # Safety
/// As for `push_closed_file`; the C stream is the file's from now on.
pub(super) unsafe fn open_file(l: *mut lua_State, stream: *mut LuaStream, file: *mut libc::FILE, close: lua_CFunction) {
    // SAFETY: the caller's promise.
    unsafe {
        (*stream).file = file;
        #[cfg(feature = "lua51")]
        {
            ffi::lua_createtable(l, 0, 1);
            ffi::lua_pushcfunction(l, close);
            ffi::lua_setfield(l, -2, c"__close".as_ptr());
            ffi::lua_setfenv(l, -2);
        }
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        {
            let _ = l;
            (*stream).close = Some(close);
        }
        #[cfg(feature = "luajit")]
        let _ = (l, close);
    }
}

/// The device that a path names.
fn device(path: &[u8]) -> Option<Device> {
    let number = path.strip_prefix(b"/dev/fd/").or_else(|| path.strip_prefix(b"/proc/self/fd/"));
    match (path, number) {
        (b"/dev/stdin", _) | (_, Some(b"0")) => Some(Device::Stdin),
        (b"/dev/stdout", _) | (_, Some(b"1")) => Some(Device::Stdout),
        (b"/dev/stderr", _) | (_, Some(b"2")) => Some(Device::Stderr),
        _ => None,
    }
}

/// When the first argument names a device, puts a file for it on the stack.
unsafe fn push_device(l: *mut lua_State) -> bool {
    // SAFETY: the file is made as the io library makes one: closed until its stream is there.
    unsafe {
        if ffi::lua_type(l, 1) != ffi::LUA_TSTRING {
            return false;
        }
        let path = CStr::from_ptr(ffi::lua_tostring(l, 1)).to_bytes();
        device(path).is_some_and(|device| push_file(l, device))
    }
}

/// Puts a file on the stack that reads from or writes to a device; whether there was memory for it.
///
/// # Safety
/// `l` is a Lua state of this thread, with some stack to spare.
pub(super) unsafe fn push_file(l: *mut lua_State, device: Device) -> bool {
    note_file();
    // SAFETY: as above.
    unsafe {
        let Some(close) = CLOSE.get().or(cfg!(feature = "luajit").then_some(never as lua_CFunction)) else {
            return false;
        };
        let stream = push_closed_file(l);
        let Ok(file) = stdio::open_device(device) else {
            ffi::lua_pop(l, 1);
            return false;
        };
        open_file(l, stream, file, close);
        true
    }
}

/// LuaJIT closes files itself.
unsafe extern "C-unwind" fn never(_: *mut lua_State) -> c_int {
    0
}

/// `io.open`. The mode is what the device can do, whatever was asked for.
pub(super) unsafe extern "C-unwind" fn open(l: *mut lua_State) -> c_int {
    note_file();
    // SAFETY: the stack is as the original expects it, or holds the result.
    unsafe { if push_device(l) { 1 } else { original(l, |o| o.open) } }
}

/// `io.tmpfile`.
pub(super) unsafe extern "C-unwind" fn tmpfile(l: *mut lua_State) -> c_int {
    note_file();
    // SAFETY: the original runs in this frame.
    unsafe { original(l, |o| o.tmpfile) }
}

/// A file is opened: if the script leaves it open, it is closed when the request ends.
fn note_file() {
    context::with(|c| c.traces.userdata.set(true));
}

/// A default file is set, unless there is no argument.
unsafe fn note_default_file(l: *mut lua_State) {
    // SAFETY: a look at the stack.
    if unsafe { ffi::lua_isnoneornil(l, 1) } == 0 {
        context::with(|c| c.traces.files.set(true));
    }
}

/// Notes that a file is opened, if the argument is a name; without one these functions open none.
unsafe fn note_named_file(l: *mut lua_State) {
    // SAFETY: a look at the stack.
    if unsafe { ffi::lua_type(l, 1) } == ffi::LUA_TSTRING {
        note_file();
    }
}

/// `io.input`.
pub(super) unsafe extern "C-unwind" fn input(l: *mut lua_State) -> c_int {
    // SAFETY: the original takes a file as well as a name.
    unsafe {
        note_named_file(l);
        note_default_file(l);
        replace_name(l);
        original(l, |o| o.input)
    }
}

/// `io.output`.
pub(super) unsafe extern "C-unwind" fn output(l: *mut lua_State) -> c_int {
    // SAFETY: the original takes a file as well as a name.
    unsafe {
        note_named_file(l);
        note_default_file(l);
        replace_name(l);
        original(l, |o| o.output)
    }
}

/// `io.lines`: of a device, the method of its file.
pub(super) unsafe extern "C-unwind" fn lines(l: *mut lua_State) -> c_int {
    // SAFETY: the method gets the file in the place of the name, and the formats behind it.
    unsafe {
        note_named_file(l);
        if !push_device(l) {
            return original(l, |o| o.lines);
        }
        ffi::lua_replace(l, 1);
        ffi::lua_getfield(l, 1, c"lines".as_ptr());
        ffi::lua_insert(l, 1);
        ffi::lua_call(l, ffi::lua_gettop(l) - 1, 1);
        1
    }
}

unsafe fn replace_name(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        if push_device(l) {
            ffi::lua_replace(l, 1);
        }
    }
}
