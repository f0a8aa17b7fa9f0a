//! A Lua state that serves: its libraries, its streams, its limits, and how it was before the first script.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use super::ffi::{self, lua_State};
use anyhow::{Context as _, bail};
use fcgi_core::interpreter::Setup;
use fcgi_core::script::Cache;

use super::application::Application;
use super::audit;
use super::context;
use super::functions;
use super::isolation::{self, Baseline};
use super::memory::Memory;
use super::modules;
use super::stdio::{self, Files, Handles};
use super::timeout;

/// A Lua state, closed when it is dropped.
pub(super) struct Owned {
    l: *mut lua_State,
    /// What its allocator uses until the state has been closed.
    memory: Box<Memory>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the state is open, and no function is active in it. Its finalizers need no limit.
        unsafe {
            self.memory.uninstall(self.l);
            ffi::lua_close(self.l);
        }
    }
}

impl Owned {
    /// Opens a state with all libraries, able to load C modules. With `ignore_environment`, `LUA_PATH` and `LUA_CPATH` mean
    /// nothing.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn open(ignore_environment: bool) -> anyhow::Result<Self> {
        // SAFETY: the state is fresh and this thread's. Running out of memory in here ends the process.
        unsafe {
            let l = ffi::luaL_newstate();
            if l.is_null() {
                bail!("cannot start Lua: out of memory");
            }
            let memory = Memory::install(l);
            if ignore_environment {
                ffi::lua_pushboolean(l, 1);
                ffi::lua_setfield(l, ffi::LUA_REGISTRYINDEX, c"LUA_NOENV".as_ptr());
            }
            ffi::luaL_openlibs(l);
            search_system_directories(l);
            Ok(Self { l, memory })
        }
    }

    /// Lets the state use so much memory; whether the limit before has been met.
    pub(super) fn limit_memory(&self, limit: Option<usize>) -> bool {
        self.memory.set_limit(limit)
    }

    /// The state, good as long as its owner.
    pub(super) fn pointer(&self) -> *mut lua_State {
        self.l
    }
}

/// Lua looks below `/usr/local` only; the system's packages of modules lie below `/usr`, where the system's own `lua` finds
/// them. `LUA_PATH` and `LUA_CPATH` keep their meaning: `;;` in them stands for the default, which this extends.
unsafe fn search_system_directories(l: *mut lua_State) {
    // SAFETY: as for `extend`.
    unsafe {
        let (arch, version) = (std::env::consts::ARCH, ffi::VERSION);
        let scripts = format!("/usr/share/lua/{version}/?.lua;/usr/share/lua/{version}/?/init.lua");
        let mut libraries = format!("/usr/lib/{arch}-linux-gnu/lua/{version}/?.so;/usr/lib/lua/{version}/?.so");
        if ffi::JIT {
            // The second one is unknown to the system's program.
            libraries.truncate(libraries.find(';').unwrap_or(libraries.len()));
        }
        let all_in_one = format!("/usr/local/lib/lua/{version}/loadall.so");
        if ffi::HAS_ENVIRONMENTS {
            // These look into the working directory first.
            let last = format!("/usr/local/share/lua/{version}/?/init.lua");
            let last = if cfg!(feature = "luajit") { last } else { last.replace("share", "lib") };
            extend(l, c"path", &last, &format!("{last};{scripts}"));
        } else {
            let own = if ffi::VERSION == "5.2" { "./?.lua" } else { "./?.lua;./?/init.lua" };
            extend(l, c"path", own, &format!("{scripts};{own}"));
        }
        extend(l, c"cpath", &all_in_one, &format!("{libraries};{all_in_one}"));
    }
}

/// Replaces a part of one of `package`'s paths.
unsafe fn extend(l: *mut lua_State, field: &CStr, part: &str, by: &str) {
    // SAFETY: plain stack operations; what is not a text is left alone.
    unsafe {
        ffi::lua_getglobal(l, c"package".as_ptr());
        ffi::lua_getfield(l, -1, field.as_ptr());
        let path = ffi::lua_tostring(l, -1);
        if !path.is_null() {
            let path = CStr::from_ptr(path).to_string_lossy().replacen(part, by, 1);
            ffi::lua_pushlstring(l, path.as_ptr().cast(), path.len());
            ffi::lua_setfield(l, -3, field.as_ptr());
        }
        ffi::lua_pop(l, 2);
    }
}

/// A compiled script, kept in the registry of its state.
pub(super) struct Function {
    l: *mut lua_State,
    reference: c_int,
}

impl Function {
    /// Takes the function on top of the stack off it.
    ///
    /// # Safety
    /// A function is there, and the state outlives what is given.
    pub(super) unsafe fn take(l: *mut lua_State) -> Self {
        // SAFETY: the caller's promise.
        Self { l, reference: unsafe { ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX) } }
    }

    /// Where it lies in the registry.
    pub(super) fn reference(&self) -> c_int {
        self.reference
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // SAFETY: the state, which owns the function, drops its functions before it is closed.
        unsafe { ffi::luaL_unref(self.l, ffi::LUA_REGISTRYINDEX, self.reference) };
    }
}

/// A state on the streams of the requests of this thread.
pub(super) struct State {
    pub(super) l: *mut lua_State,
    files: Files,
    handles: Handles,
    baseline: Baseline,
    functions: Cache<Function>,
    /// The script that `arg` names.
    named: Option<PathBuf>,
    /// The last to be dropped.
    owned: Owned,
}

impl State {
    /// Opens a state for this thread.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn new(setup: &Setup, ignore_environment: bool) -> anyhow::Result<Self> {
        let owned = Owned::open(ignore_environment)?;
        let l = owned.pointer();
        // SAFETY: all libraries are open, and the state stays in this thread: a pointer is not `Send`.
        let handles = unsafe { Handles::of(l) };
        // SAFETY: as above.
        let files = unsafe { Files::install(handles) }.context("cannot make the standard streams")?;
        // SAFETY: as above; the collector is set as `lua` sets it.
        let baseline = unsafe {
            functions::install(l);
            super::module::install(l);
            super::module::install_lfcgi(l);
            if setup.watchdog.is_some() {
                ffi::heed_hooks(l);
            }
            super::engine::set_arguments(l, setup, Path::new(""));
            ffi::gc_start(l);
            Baseline::take(l)
        };
        Ok(Self { l, files, handles, baseline, functions: Cache::default(), named: None, owned })
    }

    /// A request begins: its streams are those of this state, which may use so much memory, and is the one that runs.
    pub(super) fn begin(&mut self, memory_limit: Option<usize>) {
        // SAFETY: the state is open.
        unsafe { self.files = stdio::attach(self.handles, self.files) };
        self.owned.limit_memory(memory_limit);
        context::with(|c| c.texts.set(self.baseline.texts().map(NonNull::from)));
        timeout::reset(self.l);
        if fcgi_core::audit::is_wanted() {
            // SAFETY: no function is active in the state.
            unsafe { audit::remember_modules(self.l) };
        }
    }

    /// The script has ended; whether its memory was out meanwhile.
    pub(super) fn end(&mut self) -> bool {
        timeout::reset(ptr::null_mut());
        context::with(|c| c.texts.set(None));
        self.owned.limit_memory(None)
    }

    /// Names the script in `arg`.
    pub(super) fn name(&mut self, script: &Path) {
        if self.named.as_ref().is_none_or(|named| named.as_os_str() != script.as_os_str()) {
            // SAFETY: the state is this thread's, no function is active in it.
            unsafe { isolation::set_script_name(self.l, script.as_os_str().as_bytes()) };
            self.named = Some(script.to_owned());
        }
    }

    /// Pushes the compiled script, from the file or from `code`.
    ///
    /// # Errors
    /// Lua's message.
    pub(super) fn push_script(&mut self, script: &Path, code: Option<&mut Cache<Vec<u8>>>) -> Result<(), Vec<u8>> {
        let l = self.l;
        if let Some(code) = code {
            let bytes = code.get(script, |path| {
                load_file(l, path)?;
                // SAFETY: the function is on top of the stack.
                let code = unsafe { dump(l) };
                // SAFETY: as above.
                unsafe { ffi::lua_pop(l, 1) };
                Ok::<_, Vec<u8>>(code)
            })?;
            return load_code(l, script, bytes);
        }
        let function = self.functions.get(script, |path| {
            load_file(l, path)?;
            // SAFETY: the function is on top of the stack.
            Ok::<_, Vec<u8>>(unsafe { Function::take(l) })
        })?;
        // SAFETY: plain stack operations.
        unsafe { ffi::lua_rawgeti(l, ffi::LUA_REGISTRYINDEX, function.reference.into()) };
        Ok(())
    }

    /// The application that the script has given, if it has.
    pub(super) fn take_application(&mut self, script: &Path) -> Option<Application> {
        // SAFETY: no function is active in the state.
        unsafe { Application::take(self.l, script) }
    }

    /// Lets finalizers run and files be closed, as the end of the process would.
    pub(super) fn collect(&mut self) {
        let l = self.l;
        let (finalizers, userdata) = context::with(|c| (c.traces.finalizers.take(), c.traces.userdata.take()));
        // C modules may have made userdata, of which some versions do not tell.
        let userdata = userdata || (!ffi::ALLOCATIONS_HAVE_TYPES && modules::any_native());
        if !finalizers && !userdata {
            return;
        }
        // SAFETY: the collector runs in a state that no function is active in.
        unsafe {
            // Finalizers may call functions of the script, so those go last.
            if finalizers {
                ffi::collect(l);
                isolation::clear_global_values(l);
                ffi::collect(l);
            }
            self.restore();
            ffi::collect(l);
        }
        context::with(|c| c.traces.userdata.set(false));
    }

    /// Puts back what the script has changed.
    pub(super) fn restore(&mut self) {
        // SAFETY: the state is this thread's, no function is active in it; running out of memory here ends the process.
        unsafe {
            ffi::lua_settop(self.l, 0);
            if fcgi_core::audit::is_wanted() {
                audit::tell_of_modules(self.l);
            }
            context::with(|c| {
                if modules::any_native() {
                    // C code can set the default files unseen.
                    c.traces.files.set(true);
                }
                self.baseline.restore(self.l, c);
            });
        }
    }
}

/// Loads a file; the function is on the stack then.
pub(super) fn load_file(l: *mut lua_State, path: &Path) -> Result<(), Vec<u8>> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| b"a script's name has a zero byte".to_vec())?;
    // SAFETY: loading does not raise errors.
    unsafe { loaded(l, ffi::load_file(l, name.as_ptr())) }
}

/// Loads what `dump` gave.
fn load_code(l: *mut lua_State, path: &Path, code: &[u8]) -> Result<(), Vec<u8>> {
    let name = CString::new([b"@", path.as_os_str().as_bytes()].concat()).unwrap_or_default();
    // SAFETY: the code was made by this program's Lua; loading does not raise errors.
    unsafe { loaded(l, ffi::luaL_loadbufferx(l, code.as_ptr().cast(), code.len(), name.as_ptr(), c"b".as_ptr())) }
}

unsafe fn loaded(l: *mut lua_State, status: c_int) -> Result<(), Vec<u8>> {
    if status == ffi::LUA_OK {
        return Ok(());
    }
    // SAFETY: a failed loading leaves a message, which is a text.
    unsafe {
        let message = CStr::from_ptr(ffi::lua_tostring(l, -1)).to_bytes().to_vec();
        ffi::lua_pop(l, 1);
        Err(message)
    }
}

/// The code of the function on top of the stack, with what tracebacks need.
unsafe fn dump(l: *mut lua_State) -> Vec<u8> {
    unsafe extern "C-unwind" fn write(
        _: *mut lua_State,
        bytes: *const std::ffi::c_void,
        len: usize,
        code: *mut std::ffi::c_void,
    ) -> c_int {
        if len > 0 {
            // SAFETY: Lua gives so many bytes, and the vector that `dump` passed.
            unsafe { (*code.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(bytes.cast(), len)) };
        }
        0
    }
    let mut code = Vec::new();
    // SAFETY: the writer gets the vector, which outlives the call.
    unsafe { ffi::lua_dump(l, write, (&raw mut code).cast(), 0) };
    code
}
