//! The interpreter of one thread: started once, then one script run after another.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{OsStr, c_int};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::rc::Rc;

use super::ffi::{self, lua_State};
use fcgi_core::interpreter::{Isolation, Loop, Requests, Setup};
use fcgi_core::script::{Cache, Watch};
use fcgi_core::{Interpreter, Request};

use super::application::{self, Application};
use super::command_line::{CommandLine, Step};
use super::context;
use super::error::{as_text, describe_error, take_message};
use super::forked;
use super::modules;
use super::state::{Owned, State, load_file};
use super::stdio;
use super::timeout;

/// Applications that stay loaded; when another one comes, the one that was unused for the longest time goes.
const APPLICATIONS: usize = 64;

/// What serves the requests of one thread.
pub struct Engine {
    setup: Setup,
    ignore_environment: bool,
    /// Runs one script after the other; made when it is needed.
    state: Option<State>,
    applications: Vec<Running>,
    /// Compiled scripts, for states that live for one request.
    code: Cache<Vec<u8>>,
    directory: Option<PathBuf>,
    /// The script that was run last.
    script: Rc<Path>,
    /// What runs before each script.
    prelude: Vec<Step>,
    /// The umask that the process was started with.
    umask: libc::mode_t,
}

/// An application that has been loaded, in a state of its own. Those used last are last.
struct Running {
    script: Watch,
    application: Application,
    state: State,
}

/// How a script ended.
struct Ended {
    status: u32,
    /// What `lua` would print.
    error: Option<Vec<u8>>,
}

/// Makes an interpreter for the calling thread.
///
/// # Errors
/// When the system has no memory for it, or an option is not for Lua.
pub fn interpreter(setup: Setup) -> anyhow::Result<Box<dyn Interpreter>> {
    match setup.isolation {
        Isolation::Fork => forked::interpreter(&setup),
        _ => Ok(Box::new(Engine::new(setup)?)),
    }
}

/// Compiles a file without running it.
///
/// # Errors
/// What is wrong with it.
pub fn compile(_: &Setup, path: &Path) -> anyhow::Result<()> {
    let state = Owned::open(true)?;
    let compiled = load_file(state.pointer(), path);
    compiled.map_err(|message| anyhow::anyhow!("{}", String::from_utf8_lossy(&message)))
}

impl Engine {
    /// Starts the interpreter, for this thread.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn new(setup: Setup) -> anyhow::Result<Self> {
        let line = CommandLine::parse(&setup.own).map_err(|wrong| anyhow::anyhow!("{wrong} (--help tells more)"))?;
        context::with(|c| {
            c.shared_process.set(setup.shared_process);
            *c.watched.borrow_mut() =
                setup.watchdog.as_ref().map(|watchdog| timeout::watch(watchdog, setup.slow_log.as_ref()));
        });
        let state = State::new(&setup, line.ignore_environment)?;
        Ok(Self {
            setup,
            ignore_environment: line.ignore_environment,
            state: Some(state),
            applications: Vec::new(),
            code: Cache::default(),
            directory: None,
            script: Path::new("").into(),
            prelude: line.prelude,
            umask: umask(),
        })
    }

    /// Runs a script in a state; if it gives an application, the application answers.
    fn run(&mut self, state: &mut State, script: &Path) -> (Ended, Option<Application>) {
        if let Err(e) = self.enter_directory(script) {
            return (self.lost(script, &e), None);
        }
        let l = state.l;
        // SAFETY: as below.
        if let Some(message) = unsafe { self.run_prelude(l) } {
            return (self.ended(Some(message)), None);
        }
        state.name(script);
        // SAFETY: the function is one of this state; `call_script` is called in protected mode, as `lua` does.
        let message = unsafe {
            ffi::lua_pushcfunction(l, call_script);
            let code = (self.setup.isolation == Isolation::State).then_some(&mut self.code);
            if let Err(message) = state.push_script(script, code) {
                ffi::lua_settop(l, 0);
                return (self.failed(&message), None);
            }
            let mut pushed = 1;
            for argument in &self.setup.arguments {
                ffi::lua_pushlstring(l, argument.as_bytes().as_ptr().cast(), argument.len());
                pushed += 1;
            }
            let status = ffi::lua_pcall(l, pushed, 1, 0);
            let message = take_message(l);
            message.or_else(|| (status != ffi::LUA_OK).then(|| b"(error object is not a string)".to_vec()))
        };
        let ended = self.ended(message);
        let application = if ended.error.is_none() && context::with(|c| c.exit.get()).is_none() {
            state.take_application(script)
        } else {
            None
        };
        match application {
            Some(application) => (self.call(state, &application), Some(application)),
            None => (ended, None),
        }
    }

    /// Lets an application answer.
    fn call(&self, state: &State, application: &Application) -> Ended {
        // SAFETY: the application is one of this state, in which no function is active.
        let message = unsafe { application.call(state.l) };
        let failed = message.is_some();
        let ended = self.ended(message);
        if failed {
            // No half answer, if that can be helped.
            context::with(context::Context::discard);
        }
        ended
    }

    /// How the script ended, from the message that it left, or from what the context knows.
    fn ended(&self, message: Option<Vec<u8>>) -> Ended {
        if let Some(message) = context::with(|c| c.timed_out.borrow().clone()) {
            return self.failed(&message);
        }
        if let Some(exit) = context::with(|c| c.exit.get()) {
            return Ended { status: exit.status as u32 & 0xff, error: None };
        }
        match message {
            Some(message) => self.failed(&message),
            None => Ended { status: context::with(|c| c.status.get()), error: None },
        }
    }

    /// Runs what the command line and `LUA_INIT` want before the script; gives the message when that fails.
    unsafe fn run_prelude(&self, l: *mut lua_State) -> Option<Vec<u8>> {
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
                ffi::lua_pushcfunction(l, run);
                ffi::lua_pushlightuserdata(l, ptr::from_ref(step).cast_mut().cast());
                ffi::lua_pcall(l, 1, 1, 0);
                take_message(l)
            }
        })
    }

    fn failed(&self, message: &[u8]) -> Ended {
        if message.is_empty() {
            return Ended { status: 1, error: None };
        }
        let mut text = self.setup.program.as_bytes().to_vec();
        text.extend_from_slice(b": ");
        text.extend_from_slice(message);
        text.push(b'\n');
        Ended { status: 1, error: Some(text) }
    }

    /// A script runs in its own directory, as under CGI.
    fn enter_directory(&mut self, script: &Path) -> io::Result<()> {
        // As texts: to compare the components of paths costs ten times as much.
        let path = script.as_os_str().as_bytes();
        let directory = match path.iter().rposition(|&byte| byte == b'/') {
            None => b".",
            Some(at) => &path[..at.max(1)],
        };
        if self.directory.as_ref().is_none_or(|now| now.as_os_str().as_bytes() != directory) {
            let directory = Path::new(OsStr::from_bytes(directory));
            std::env::set_current_dir(directory)?;
            self.directory = Some(directory.to_owned());
        }
        Ok(())
    }

    /// The application that a script has given, unless its file has changed since.
    fn take_application(&mut self, script: &Path) -> Option<Running> {
        let at = self.applications.iter().rposition(|running| running.script.path() == script)?;
        let mut running = self.applications.remove(at);
        (!running.script.has_changed()).then_some(running)
    }

    fn keep_application(&mut self, running: Running) {
        if self.applications.len() >= APPLICATIONS {
            self.applications.remove(0);
        }
        self.applications.push(running);
    }

    /// Takes the state for scripts, or makes one.
    fn take_state(&mut self) -> anyhow::Result<State> {
        self.state.take().map_or_else(|| State::new(&self.setup, self.ignore_environment), Ok)
    }

    /// Runs the script, or its application, for the request; gives how it ended, and what is to become of the state.
    fn answer(&mut self, script: &Path, running: Option<Running>) -> (Ended, Option<State>, After) {
        let (mut state, known) = match running {
            Some(Running { script, application, state }) => (state, Some((script, application))),
            None => match self.take_state() {
                Ok(state) => (state, None),
                Err(e) => return (self.failed(format!("{e:#}").as_bytes()), None, After::Restore),
            },
        };
        state.begin(self.setup.memory_limit);
        let (ended, application) = if let Some((watch, application)) = known {
            let ended = match self.enter_directory(script) {
                Ok(()) => self.call(&state, &application),
                Err(e) => self.lost(script, &e),
            };
            (ended, Some((watch, application)))
        } else {
            let (ended, application) = self.run(&mut state, script);
            (ended, application.map(|application| (Watch::new(script), application)))
        };
        let memory_was_out = state.end();
        let left = context::with(|c| c.exit.get().is_some() && c.timed_out.borrow().is_none());
        let after = match application {
            // What filled the memory may still be there.
            _ if memory_was_out || self.setup.isolation == Isolation::State => After::Close,
            // The process would have ended, and with it the application.
            Some(_) if left => After::Close,
            Some((watch, application)) => {
                fcgi_core::interpreter::keeps();
                After::Keep(watch, application)
            }
            None => After::Restore,
        };
        (ended, Some(state), after)
    }

    fn lost(&self, script: &Path, error: &io::Error) -> Ended {
        self.failed(format!("cannot enter the directory of {}: {error}", script.display()).as_bytes())
    }
}

/// What becomes of a state when its request has been answered.
enum After {
    /// It is put back to how it was, for the next script.
    Restore,
    /// It is closed, as it is at the end of a process.
    Close,
    /// It stays with its application.
    Keep(Watch, Application),
}

/// The end of a request as the end of a process: finalizers run, files are closed.
fn settle(state: &mut Option<State>, after: &After) {
    match after {
        After::Restore => state.iter_mut().for_each(State::collect),
        After::Close => *state = None,
        After::Keep(..) => {}
    }
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        let running = self.take_application(script);
        let more = (self.setup.isolation == Isolation::Globals).then(|| more.clone());
        if self.script.as_os_str() != script.as_os_str() {
            self.script = script.into();
        }
        let named = self.script.clone();
        context::with(|c| {
            *c.request.borrow_mut() = Some(request);
            *c.accept.borrow_mut() = more.map(|requests| Loop::new(named, requests));
            c.begin_watch();
        });
        let (ended, mut state, after) = self.answer(script, running);
        // A process that is left at once ends without finalizers: what they say is not heard.
        let quick = context::with(|c| c.exit.get()).is_some_and(|exit| !exit.close);
        if let Some(error) = &ended.error {
            context::with(|c| c.request(|request| request.stderr().write_all(error).is_ok()));
        }
        if !quick {
            settle(&mut state, &after);
        }
        stdio::flush_stdout();
        let details = ended.error.as_deref().filter(|_| self.setup.display_errors).unwrap_or_default();
        context::with(|c| {
            c.end_watch();
            c.finish(ended.status, details);
        });
        if quick {
            settle(&mut state, &after);
        }
        stdio::renew_all();
        match (after, state) {
            (After::Restore, Some(mut state)) => {
                state.restore();
                self.state = Some(state);
            }
            (After::Keep(script, application), Some(state)) => {
                self.keep_application(Running { script, application, state });
            }
            _ => {}
        }
        if modules::any_native() {
            // C code can change what Lua cannot.
            self.directory = None;
            // SAFETY: this cannot fail.
            unsafe { libc::umask(self.umask) };
        }
        // What belongs to the process is put back whatever becomes of the state.
        if context::with(|c| c.traces.locale.take()) {
            // SAFETY: the locale is this interpreter's: with several of them, scripts cannot set it.
            unsafe { libc::setlocale(libc::LC_ALL, c"C".as_ptr()) };
        }
        ffi::reset_random(context::with(|c| c.traces.random.take()));
        context::with(context::Context::reset);
    }
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

/// Sets the global `arg`: the script at 0, its arguments behind it, the program before it.
///
/// # Safety
/// `l` is a Lua state of this thread.
pub(super) unsafe fn set_arguments(l: *mut lua_State, setup: &Setup, script: &Path) {
    let push = |text: &[u8]| {
        // SAFETY: the caller's promise.
        unsafe { ffi::lua_pushlstring(l, text.as_ptr().cast(), text.len()) };
    };
    // SAFETY: the caller's promise; plain stack operations.
    unsafe {
        ffi::lua_createtable(l, setup.arguments.len() as c_int, 2);
        push(setup.program.as_bytes());
        ffi::lua_rawseti(l, -2, -1);
        push(script.as_os_str().as_bytes());
        ffi::lua_rawseti(l, -2, 0);
        for (at, argument) in setup.arguments.iter().enumerate() {
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
pub(super) unsafe fn set_command_line(l: *mut lua_State, setup: &Setup) {
    let line = &setup.command_line;
    let behind = setup.arguments.len() + usize::from(setup.script.is_some());
    // Without a script the program's name stands at 0; not so in LuaJIT.
    let script = if setup.script.is_some() || ffi::JIT { line.len().saturating_sub(behind) } else { 0 };
    // SAFETY: the caller's promise; plain stack operations.
    unsafe {
        ffi::lua_createtable(l, setup.arguments.len() as c_int, script as c_int + 1);
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
        // The script's function is used again and again.
        ffi::make_globals_fresh(l);
        ffi::lua_pushcfunction(l, describe_error);
        ffi::lua_insert(l, 1);
        if ffi::lua_pcall(l, arguments, 1, 1) == ffi::LUA_OK {
            application::keep(l);
            ffi::lua_pushnil(l);
        } else {
            as_text(l);
        }
        1
    }
}
