//! The interpreter of one thread: started once, then one script run after another.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsString, c_int};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::rc::Rc;

use anyhow::Context as _;
use fcgi_core::interpreter::Requests;
use fcgi_core::script::Cache;
use fcgi_core::{Interpreter, Request};
use mlua::ffi::{self, lua_State};
use mlua::{Lua, LuaOptions, StdLib};

use super::command_line::{CommandLine, Step};
use super::context::{self, Accept};
use super::error::{describe_error, take_message};
use super::functions;
use super::isolation::Baseline;
use super::stdio::Files;

/// How scripts are run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The name that stands before error messages and in `arg[-1]`: that of the program.
    pub program: OsString,
    /// The whole command line, for `arg`.
    pub command_line: Vec<OsString>,
    /// Options of `lua` itself, such as `-e` and its chunk.
    pub own: Vec<OsString>,
    /// Whether `--` ended the options.
    pub own_ended: bool,
    /// The script; `-` is standard input.
    pub script: Option<OsString>,
    /// Arguments of the script.
    pub arguments: Vec<OsString>,
    /// Error pages tell what went wrong.
    pub display_errors: bool,
    /// Other interpreters run in this process.
    pub shared_process: bool,
}

/// A Lua state that serves requests.
pub struct Engine {
    l: *mut lua_State,
    options: Options,
    files: Files,
    baseline: Baseline,
    scripts: Cache<Function>,
    directory: Option<PathBuf>,
    /// What runs before each script.
    prelude: Vec<Step>,
    /// The umask that the process was started with.
    umask: libc::mode_t,
    /// The script that `arg` names.
    named: Option<PathBuf>,
    /// Owns the state that `l` points to; the last to be dropped.
    _lua: Lua,
}

/// A compiled script, kept in the registry of its state.
struct Function {
    l: *mut lua_State,
    reference: c_int,
}

impl Drop for Function {
    fn drop(&mut self) {
        // SAFETY: the engine, which owns state and function, drops its scripts before its state.
        unsafe { ffi::luaL_unref(self.l, ffi::LUA_REGISTRYINDEX, self.reference) };
    }
}

/// How a script ended.
struct Ended {
    status: u32,
    /// What `lua` would print.
    error: Option<Vec<u8>>,
}

impl Engine {
    /// Starts the interpreter, for this thread.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let line = CommandLine::parse(&options.own).map_err(|wrong| anyhow::anyhow!("{wrong} (--help tells more)"))?;
        let (lua, l) = new_state(line.ignore_environment)?;
        context::with(|c| c.shared_process.set(options.shared_process));
        // SAFETY: all libraries are open, and the state stays in this thread: `Engine` is not `Send`.
        let files = unsafe { Files::install(l) }.context("cannot make the standard streams")?;
        // SAFETY: as above; the collector is set as `lua` sets it.
        let baseline = unsafe {
            functions::install(l);
            super::module::install(l);
            set_arguments(l, &options, Path::new(""));
            ffi::lua_gc(l, ffi::LUA_GCRESTART);
            ffi::lua_gc(l, ffi::LUA_GCGEN, 0 as c_int, 0 as c_int);
            Baseline::take(l)
        };
        Ok(Self {
            l,
            options,
            files,
            baseline,
            scripts: Cache::default(),
            directory: None,
            prelude: line.prelude,
            umask: umask(),
            named: None,
            _lua: lua,
        })
    }

    fn run(&mut self, script: &Path) -> Ended {
        if let Err(e) = self.enter_directory(script) {
            return self.failed(format!("cannot enter the directory of {}: {e}", script.display()).as_bytes());
        }
        let l = self.l;
        let function = match self.scripts.get(script, |path| compile(l, path)) {
            Ok(function) => function.reference,
            Err(message) => return self.failed(&message),
        };
        // SAFETY: as below.
        if let Some(message) = unsafe { self.run_prelude() } {
            return self.failed(&message);
        }
        // SAFETY: the function is one of this state; `call_script` is called in protected mode, as `lua` does.
        let (status, message) = unsafe {
            if self.named.as_deref() != Some(script) {
                super::isolation::set_script_name(l, script.as_os_str().as_bytes());
                self.named = Some(script.to_owned());
            }
            ffi::lua_pushcfunction(l, call_script);
            ffi::lua_rawgeti(l, ffi::LUA_REGISTRYINDEX, function.into());
            let mut pushed = 1;
            for argument in &self.options.arguments {
                ffi::lua_pushlstring(l, argument.as_bytes().as_ptr().cast(), argument.len());
                pushed += 1;
            }
            let status = ffi::lua_pcall(l, pushed, 1, 0);
            let message = take_message(l);
            (status, message)
        };
        if let Some(exit) = context::with(|c| c.exit.get()) {
            return Ended { status: exit.status as u32 & 0xff, error: None };
        }
        match message {
            Some(message) => self.failed(&message),
            None if status != ffi::LUA_OK => self.failed(b"(error object is not a string)"),
            None => Ended { status: context::with(|c| c.status.get()), error: None },
        }
    }

    /// Runs what the command line and `LUA_INIT` want before the script; gives the message when that fails.
    unsafe fn run_prelude(&self) -> Option<Vec<u8>> {
        unsafe extern "C-unwind" fn run(l: *mut lua_State) -> c_int {
            // SAFETY: the argument is a step, which outlives the call.
            unsafe {
                let step = &*ffi::lua_touserdata(l, 1).cast::<Step>();
                if step.run(l) == ffi::LUA_OK {
                    ffi::lua_pushnil(l);
                }
                1
            }
        }
        self.prelude.iter().find_map(|step| {
            // SAFETY: the step runs in a C function's frame, in protected mode.
            unsafe {
                ffi::lua_pushcfunction(self.l, run);
                ffi::lua_pushlightuserdata(self.l, ptr::from_ref(step).cast_mut().cast());
                ffi::lua_pcall(self.l, 1, 1, 0);
                take_message(self.l)
            }
        })
    }

    fn failed(&self, message: &[u8]) -> Ended {
        let mut text = self.options.program.as_bytes().to_vec();
        text.extend_from_slice(b": ");
        text.extend_from_slice(message);
        text.push(b'\n');
        Ended { status: 1, error: Some(text) }
    }

    /// A script runs in its own directory, as under CGI.
    fn enter_directory(&mut self, script: &Path) -> io::Result<()> {
        let directory = script.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if self.directory.as_deref() != Some(directory) {
            std::env::set_current_dir(directory)?;
            self.directory = Some(directory.to_owned());
        }
        Ok(())
    }

    /// Lets finalizers run and files be closed, as the end of the process would.
    fn collect(&mut self) {
        let l = self.l;
        let (finalizers, userdata) = context::with(|c| (c.traces.finalizers.take(), c.traces.userdata.take()));
        if !finalizers && !userdata {
            return;
        }
        // SAFETY: the collector runs in a state that no function is active in.
        unsafe {
            // Finalizers may call functions of the script, so those go last.
            if finalizers {
                ffi::lua_gc(l, ffi::LUA_GCCOLLECT);
                super::isolation::clear_global_values(l);
                ffi::lua_gc(l, ffi::LUA_GCCOLLECT);
            }
            self.restore();
            ffi::lua_gc(l, ffi::LUA_GCCOLLECT);
        }
        context::with(|c| c.traces.userdata.set(false));
    }

    fn restore(&mut self) {
        // SAFETY: the state is this thread's, no function is active in it; running out of memory here ends the process.
        unsafe {
            ffi::lua_settop(self.l, 0);
            context::with(|c| self.baseline.restore(self.l, c));
        }
    }
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        context::with(|c| {
            *c.request.borrow_mut() = Some(request);
            *c.accept.borrow_mut() = Some(Accept { script: script.to_owned(), watch: None, requests: more.clone() });
        });
        let ended = self.run(script);
        let quick = context::with(|c| c.exit.get()).is_some_and(|exit| !exit.close);
        if !quick {
            if let Some(error) = &ended.error {
                context::with(|c| c.request(|request| request.stderr().write_all(error).is_ok()));
            }
            self.collect();
        }
        self.files.flush();
        let details = ended.error.as_deref().filter(|_| self.options.display_errors).unwrap_or_default();
        context::with(|c| c.finish(ended.status, details));
        if quick {
            // The process would have ended without finalizers; what they say is not heard.
            self.collect();
        }
        self.restore();
        self.files.reset();
        if context::with(|c| c.traces.buffering.take()) {
            // SAFETY: the library tables were put back, and the streams are empty.
            match unsafe { self.files.install_again(self.l) } {
                Ok(files) => self.files = files,
                Err(e) => tracing::error!("cannot make the standard streams anew: {e}"),
            }
        }
        if context::with(|c| c.native.get()) {
            // C code can change what Lua cannot.
            self.directory = None;
            // SAFETY: this cannot fail.
            unsafe { libc::umask(self.umask) };
        }
        context::with(context::Context::reset);
    }
}

/// A Lua state with all libraries, able to load C modules; and the pointer to it, which is good as long as its owner.
/// With `ignore_environment`, `LUA_PATH` and `LUA_CPATH` mean nothing.
pub(super) fn new_state(ignore_environment: bool) -> anyhow::Result<(Lua, *mut lua_State)> {
    let fails = |e: mlua::Error| anyhow::anyhow!("cannot start Lua: {e}");
    // Other options would replace `pcall` by one that coroutines cannot yield across.
    // SAFETY: scripts are trusted with what `lua` trusts them with.
    let lua = unsafe { Lua::unsafe_new_with(StdLib::NONE, LuaOptions::new()) };
    if ignore_environment {
        lua.set_named_registry_value("LUA_NOENV", true).map_err(fails)?;
    }
    lua.load_std_libs(StdLib::ALL).map_err(fails)?;
    search_system_directories(&lua).map_err(|e| anyhow::anyhow!("cannot set package.path: {e}"))?;
    // SAFETY: one value is pushed, as promised.
    let pointer = unsafe { lua.exec_raw::<mlua::LightUserData>((), |l| ffi::lua_pushlightuserdata(l, l.cast())) };
    let pointer = pointer.map_err(fails)?;
    Ok((lua, pointer.0.cast()))
}

/// Lua looks below `/usr/local` only; the system's packages of modules lie below `/usr`, where the system's own `lua` finds
/// them. `LUA_PATH` and `LUA_CPATH` keep their meaning: `;;` in them stands for the default, which this extends.
fn search_system_directories(lua: &Lua) -> mlua::Result<()> {
    let package: mlua::Table = lua.globals().get("package")?;
    let arch = std::env::consts::ARCH;
    let extend = |field: &str, before: &str, more: &str| -> mlua::Result<()> {
        let path: String = package.get(field)?;
        package.set(field, path.replacen(before, &format!("{more}{before}"), 1))
    };
    extend("path", "./?.lua;./?/init.lua", "/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua;")?;
    extend(
        "cpath",
        "/usr/local/lib/lua/5.4/loadall.so;./?.so",
        &format!("/usr/lib/{arch}-linux-gnu/lua/5.4/?.so;/usr/lib/lua/5.4/?.so;"),
    )
}

/// The umask, which can only be asked for by setting it.
fn umask() -> libc::mode_t {
    // SAFETY: neither call can fail; the interpreter's thread has an umask of its own, or is the only one.
    unsafe {
        let umask = libc::umask(0o077);
        libc::umask(umask);
        umask
    }
}

fn compile(l: *mut lua_State, path: &Path) -> Result<Function, Vec<u8>> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| b"a script's name has a zero byte".to_vec())?;
    // SAFETY: loading does not raise errors; its result is taken off the stack.
    unsafe {
        if ffi::luaL_loadfilex(l, name.as_ptr(), ptr::null()) == ffi::LUA_OK {
            Ok(Function { l, reference: ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX) })
        } else {
            let message = CStr::from_ptr(ffi::lua_tostring(l, -1)).to_bytes().to_vec();
            ffi::lua_pop(l, 1);
            Err(message)
        }
    }
}

/// Sets the global `arg`: the script at 0, its arguments behind it, the program before it.
///
/// # Safety
/// `l` is a Lua state of this thread.
pub(super) unsafe fn set_arguments(l: *mut lua_State, options: &Options, script: &Path) {
    let push = |text: &[u8]| {
        // SAFETY: the caller's promise.
        unsafe { ffi::lua_pushlstring(l, text.as_ptr().cast(), text.len()) };
    };
    // SAFETY: the caller's promise; plain stack operations.
    unsafe {
        ffi::lua_createtable(l, options.arguments.len() as c_int, 2);
        push(options.program.as_bytes());
        ffi::lua_rawseti(l, -2, -1);
        push(script.as_os_str().as_bytes());
        ffi::lua_rawseti(l, -2, 0);
        for (at, argument) in options.arguments.iter().enumerate() {
            push(argument.as_bytes());
            ffi::lua_rawseti(l, -2, at as i64 + 1);
        }
        ffi::lua_setglobal(l, c"arg".as_ptr());
    }
}

/// Sets the global `arg` as `lua` does: the script at 0, what stands behind it from 1 on, what stands before it below 0.
///
/// # Safety
/// `l` is a Lua state of this thread.
pub(super) unsafe fn set_command_line(l: *mut lua_State, options: &Options) {
    let line = &options.command_line;
    let behind = options.arguments.len() + usize::from(options.script.is_some());
    let script = if options.script.is_some() { line.len().saturating_sub(behind) } else { 0 };
    // SAFETY: the caller's promise; plain stack operations.
    unsafe {
        ffi::lua_createtable(l, options.arguments.len() as c_int, script as c_int + 1);
        for (at, text) in line.iter().enumerate() {
            ffi::lua_pushlstring(l, text.as_bytes().as_ptr().cast(), text.len());
            ffi::lua_rawseti(l, -2, at as i64 - script as i64);
        }
        ffi::lua_setglobal(l, c"arg".as_ptr());
    }
}

/// Calls the script with its arguments, in a C function's frame, so that tracebacks end as those of `lua` do. Gives nil,
/// or what to say about the error.
pub(super) unsafe extern "C-unwind" fn call_script(l: *mut lua_State) -> c_int {
    // SAFETY: the script and its arguments are the whole stack; the message handler goes below them.
    unsafe {
        let arguments = ffi::lua_gettop(l) - 1;
        make_globals_fresh(l);
        ffi::lua_pushcfunction(l, describe_error);
        ffi::lua_insert(l, 1);
        if ffi::lua_pcall(l, arguments, 0, 1) == ffi::LUA_OK {
            ffi::lua_pushnil(l);
        } else if ffi::lua_tostring(l, -1).is_null() {
            ffi::lua_pushstring(l, c"(error message not a string)".as_ptr());
        }
        1
    }
}

/// The script's function is used again and again: its `_ENV` must be the globals, whatever it was set to.
unsafe fn make_globals_fresh(l: *mut lua_State) {
    // SAFETY: the function is at 1, and a script has one upvalue, if it has any.
    unsafe {
        ffi::lua_rawgeti(l, ffi::LUA_REGISTRYINDEX, ffi::LUA_RIDX_GLOBALS);
        if !ffi::lua_getupvalue(l, 1, 1).is_null() {
            let same = ffi::lua_rawequal(l, -1, -2) != 0;
            ffi::lua_pop(l, 1);
            if !same {
                // Not by setting it: functions that were kept by modules share the old one.
                if ffi::luaL_loadstring(l, c"return _ENV".as_ptr()) == ffi::LUA_OK {
                    ffi::lua_upvaluejoin(l, 1, 1, -1, 1);
                }
                ffi::lua_pop(l, 1);
            }
        }
        ffi::lua_pop(l, 1);
    }
}
