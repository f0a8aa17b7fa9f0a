//! The standard streams of a request: C streams whose ends are the request's.
//!
//! Lua's `io` library reads and writes C streams (`FILE *`). glibc's `fopencookie` makes such a stream from functions, so
//! `io.stdout` and its like stay real files, with all their methods and their buffering. The buffers are as large as those
//! that a C program has on pipes: output overtakes a child's output, or is overtaken by it, as under CGI.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::ptr;

use super::ffi::{self, lua_State};
use libc::{FILE, off64_t, size_t, ssize_t};

use super::context;

/// The buffer of a C stream on a pipe.
pub(super) const BUFFER: usize = 4096;

#[repr(C)]
pub(super) struct CookieFunctions {
    pub(super) read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t>,
    pub(super) write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t>,
    pub(super) seek: Option<unsafe extern "C" fn(*mut c_void, *mut off64_t, c_int) -> c_int>,
    pub(super) close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    static mut stdin: *mut FILE;
    static mut stdout: *mut FILE;
    static mut stderr: *mut FILE;
    pub(super) fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: CookieFunctions) -> *mut FILE;
    fn __fpurge(file: *mut FILE);
    fn __fpending(file: *mut FILE) -> size_t;
    fn __fbufsize(file: *mut FILE) -> size_t;
    fn clearerr(file: *mut FILE);
    fn fwrite_unlocked(bytes: *const c_void, size: size_t, count: size_t, file: *mut FILE) -> size_t;
    fn fflush_unlocked(file: *mut FILE) -> c_int;
}

/// What Lua's `io` library keeps in a file's userdata (`luaL_Stream`), or begins it with.
#[repr(C)]
pub(super) struct LuaStream {
    pub(super) file: *mut FILE,
    #[cfg(not(any(feature = "lua51", feature = "luajit")))]
    pub(super) close: Option<ffi::lua_CFunction>,
}

/// The name of the metatable of files (`LUA_FILEHANDLE`).
pub(super) const FILE_HANDLE: &std::ffi::CStr = c"FILE*";

/// The files that the `io` library of a state has made of standard input, output and error.
#[derive(Clone, Copy)]
pub(super) struct Handles([*mut LuaStream; 3]);

impl Handles {
    /// Finds them, and keeps them alive as long as the state, whatever a script does to `io`.
    ///
    /// # Safety
    /// `l` is a Lua state with the `io` library as it was opened, used by this thread only.
    pub(super) unsafe fn of(l: *mut lua_State) -> Self {
        // SAFETY: the caller's promise; a file is a userdata of at least this size.
        unsafe {
            ffi::lua_getglobal(l, c"io".as_ptr());
            let handles = [c"stdin", c"stdout", c"stderr"].map(|name| {
                ffi::lua_getfield(l, -1, name.as_ptr());
                let handle = ffi::lua_touserdata(l, -1).cast::<LuaStream>();
                ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
                handle
            });
            ffi::lua_pop(l, 1);
            Self(handles)
        }
    }
}

/// The three streams of one thread. They live as long as the thread.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Files {
    stdin: *mut FILE,
    stdout: *mut FILE,
    stderr: *mut FILE,
    /// Buffers of the first two: of itself, the C library would take larger ones for streams that are no descriptors.
    buffers: [*mut c_char; 2],
}

thread_local! {
    static FILES: std::cell::Cell<Option<Files>> = const { std::cell::Cell::new(None) };
}

impl Files {
    /// Makes the streams of this thread, if there are none yet, and puts them into the files of a state.
    ///
    /// # Errors
    /// When the system has no memory for them.
    ///
    /// # Safety
    /// The state is open, and this thread's.
    pub(super) unsafe fn install(handles: Handles) -> io::Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(files) = FILES.get() {
                files.put_into(handles);
                return Ok(files);
            }
            let buffers = [(); 2].map(|()| Box::leak(Box::new([0; BUFFER])).as_mut_ptr());
            let files = Self::open(buffers)?;
            files.put_into(handles);
            Ok(files)
        }
    }

    /// Replaces the streams by new ones, for their buffering was changed, which the C library does not undo.
    ///
    /// # Safety
    /// Nothing is left in the buffers; each state gets the new streams by [`attach`] before it uses them.
    unsafe fn replace(self) -> io::Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            for file in [self.stdin, self.stdout, self.stderr] {
                libc::fclose(file);
            }
            Self::open(self.buffers)
        }
    }

    unsafe fn open(buffers: [*mut c_char; 2]) -> io::Result<Self> {
        // SAFETY: the functions match the modes; the cookie is not used, for a thread has one context. The buffers are
        // not used by other streams.
        unsafe {
            let files = Self {
                stdin: open(c"r", Some(read_stdin), None)?,
                stdout: open(c"w", None, Some(write_stdout))?,
                stderr: open(c"w", None, Some(write_stderr))?,
                buffers,
            };
            libc::setvbuf(files.stdin, buffers[0], libc::_IOFBF, BUFFER);
            libc::setvbuf(files.stdout, buffers[1], libc::_IOFBF, BUFFER);
            libc::setvbuf(files.stderr, ptr::null_mut(), libc::_IONBF, 0);
            FILES.set(Some(files));
            if !context::with(|c| c.shared_process.get()) {
                // C code that prints (modules, Lua's own `dofile()` of standard input) uses these.
                (stdin, stdout, stderr) = (files.stdin, files.stdout, files.stderr);
            }
            Ok(files)
        }
    }

    /// Puts the streams into the files of a state.
    ///
    /// # Safety
    /// The state is open.
    unsafe fn put_into(self, handles: Handles) {
        for (handle, file) in handles.0.into_iter().zip([self.stdin, self.stdout, self.stderr]) {
            // SAFETY: the registry keeps the userdata alive as long as the state.
            unsafe { (*handle).file = file };
        }
    }

    /// Writes out what the script has left in its output buffer.
    fn flush(self) {
        // SAFETY: the stream is open, and used by this thread only.
        unsafe { fflush_unlocked(self.stdout) };
    }

    /// Makes the streams as good as new: nothing buffered, no error, no end.
    fn reset(self) {
        // SAFETY: as above.
        unsafe {
            for file in [self.stdin, self.stdout] {
                __fpurge(file);
                clearerr(file);
            }
            clearerr(self.stderr);
        }
    }
}

/// The request's streams, as files that a script opens by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Stdin,
    Stdout,
    Stderr,
    /// The file that a Filter transforms.
    Data,
}

/// A further C stream on one of the request's streams.
///
/// # Errors
/// When the system has no memory for it.
pub(super) fn open_device(device: Device) -> io::Result<*mut FILE> {
    // SAFETY: the functions match the modes.
    unsafe {
        match device {
            Device::Stdin => open(c"r", Some(read_stdin), None),
            Device::Data => open(c"r", Some(read_data), None),
            Device::Stdout => open(c"w", None, Some(write_stdout)),
            Device::Stderr => open(c"w", None, Some(write_stderr)),
        }
    }
}

unsafe fn open(
    mode: &std::ffi::CStr,
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t>,
) -> io::Result<*mut FILE> {
    let functions = CookieFunctions { read, write, seek: Some(no_seek), close: None };
    // SAFETY: the mode is a C string, and the functions live as long as the program.
    let file = unsafe { fopencookie(ptr::null_mut(), mode.as_ptr(), functions) };
    if file.is_null() { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// Writes a line as `print` does: pieces with tabs between them, and, since Lua 5.2, everything flushed out.
///
/// # Safety
/// `l` is a Lua state of this thread; its stack holds the arguments.
pub(super) unsafe fn print(l: *mut lua_State) {
    let Some(files) = FILES.get() else { return };
    // SAFETY: the stream is open and this thread's. `luaL_tolstring` can raise an error: nothing here needs dropping.
    unsafe {
        let put = |bytes: *const c_char, len: usize| fwrite_unlocked(bytes.cast(), 1, len, files.stdout);
        let count = ffi::lua_gettop(l);
        let end = || {
            put(c"\n".as_ptr(), 1);
            if ffi::PRINT_FLUSHES {
                fflush_unlocked(files.stdout);
            }
        };
        if count == 1 && ffi::PRINT_FLUSHES {
            let mut len = 0;
            let text = if is_plain_text(l) {
                ffi::lua_tolstring(l, 1, &raw mut len)
            } else {
                ffi::printed(l, 1, &raw mut len)
            };
            // It need not go through the stream's buffer, when nothing waits there.
            if __fpending(files.stdout) == 0 {
                let text = std::slice::from_raw_parts(text.cast::<u8>(), len);
                after_write(&context::with(|c| c.write_line(text)));
            } else {
                put(text, len);
                end();
            }
            return;
        }
        for at in 1..=count {
            let mut len = 0;
            let text = ffi::printed(l, at, &raw mut len);
            if at > 1 {
                put(c"\t".as_ptr(), 1);
            }
            put(text, len);
            ffi::lua_pop(l, 1);
        }
        end();
    }
}

/// Whether the argument is a text that no metamethod makes another one of; to ask Lua for the metamethod costs more than
/// to see that the metatable is as it was.
unsafe fn is_plain_text(l: *mut lua_State) -> bool {
    if ffi::PRINT_CALLS_TOSTRING {
        return false;
    }
    // SAFETY: the shape belongs to the state that runs, and lives as long.
    unsafe {
        let Some(texts) = context::with(|c| c.texts.get()) else { return false };
        if ffi::lua_type(l, 1) != ffi::LUA_TSTRING || ffi::lua_getmetatable(l, 1) == 0 {
            return false;
        }
        let plain = texts.as_ref().is_of(l) && texts.as_ref().is_same();
        ffi::lua_pop(l, 1);
        plain
    }
}

/// Writes out what the script's files have in their buffers, as `lua` does before it starts a command.
pub(super) fn flush_all() {
    if context::with(|c| c.shared_process.get()) {
        // Streams of other threads are not ours to touch.
        if let Some(files) = FILES.get() {
            files.flush();
        }
    } else {
        // SAFETY: all streams of the process are this thread's.
        unsafe { libc::fflush(ptr::null_mut()) };
    }
}

/// Writes out what the script has left in its output buffer.
pub(super) fn flush_stdout() {
    if let Some(files) = FILES.get() {
        files.flush();
    }
}

/// Makes the streams as good as new for the next request of an accept loop.
pub(super) fn renew() {
    if let Some(files) = FILES.get() {
        files.reset();
    }
}

/// Makes the streams as good as new for another script.
pub(super) fn renew_all() {
    renew();
    if let Some(files) = FILES.get()
        && context::with(|c| c.traces.buffering.take())
    {
        // SAFETY: the streams are empty now.
        if let Err(e) = unsafe { files.replace() } {
            tracing::error!("cannot make the standard streams anew: {e}");
        }
    }
}

/// Makes sure that a state's files are those of its thread, which another state may have replaced.
///
/// # Safety
/// As for [`Files::install`].
pub(super) unsafe fn attach(handles: Handles, files: Files) -> Files {
    match FILES.get() {
        Some(now) if now != files => {
            // SAFETY: the caller's promise.
            unsafe { now.put_into(handles) };
            now
        }
        _ => files,
    }
}

/// Whether nothing has been written to standard output.
pub(super) fn nothing_written() -> bool {
    // SAFETY: the streams are open, and used by this thread only. The C library makes a stream's buffer when it is first
    // written to.
    unsafe {
        match context::with(|c| c.request(|request| request.written() == 0 && !request.is_finished())) {
            Some(nothing) => nothing && FILES.get().is_none_or(|files| __fpending(files.stdout) == 0),
            None => __fbufsize(stdout) == 0,
        }
    }
}

fn after_write(result: &io::Result<()>) -> bool {
    if result.is_err() {
        set_errno(libc::EPIPE);
        // Under CGI the program would be killed by SIGPIPE; the request that is not wanted ends likewise.
        context::with(context::Context::client_has_gone);
    }
    result.is_ok()
}

fn set_errno(number: c_int) {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = number };
}

unsafe extern "C" fn read_stdin(_: *mut c_void, buf: *mut c_char, size: size_t) -> ssize_t {
    // SAFETY: the C library gives a buffer of this size.
    let buf = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), size) };
    match context::with(|c| c.read_stdin(buf)) {
        Ok(count) => count as ssize_t,
        // An upload that broke off ends the stream, as it ends a CGI program's pipe.
        Err(_) => 0,
    }
}

unsafe extern "C" fn read_data(_: *mut c_void, buf: *mut c_char, size: size_t) -> ssize_t {
    use std::io::Read;
    // SAFETY: the C library gives a buffer of this size.
    let buf = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), size) };
    let count = context::with(|c| c.request(|request| request.data().read(buf)));
    count.and_then(Result::ok).map_or(0, |count| count as ssize_t)
}

unsafe extern "C" fn write_stdout(_: *mut c_void, bytes: *const c_char, size: size_t) -> ssize_t {
    // SAFETY: the C library gives so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), size) };
    if after_write(&context::with(|c| c.write_stdout(bytes))) { size as ssize_t } else { 0 }
}

unsafe extern "C" fn write_stderr(_: *mut c_void, bytes: *const c_char, size: size_t) -> ssize_t {
    // SAFETY: the C library gives so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), size) };
    if after_write(&context::with(|c| c.write_stderr(bytes))) { size as ssize_t } else { 0 }
}

/// A pipe cannot seek, and says so.
pub(super) unsafe extern "C" fn no_seek(_: *mut c_void, _: *mut off64_t, _: c_int) -> c_int {
    set_errno(libc::ESPIPE);
    -1
}
