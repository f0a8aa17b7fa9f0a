//! The interpreter without requests: on a terminal and under CGI, where `lua` itself is what a script expects.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::ffi::{self, JIT, NUMBER, lua_State};
use fcgi_core::Setup;

use super::application::{self, Application};
use super::command_line::{self, CommandLine};
use super::context;
use super::engine;
use super::error::report;
use super::interrupts::{self, catch_interrupts};
use super::repl;
use super::state::Owned;
use super::stdio;

/// Until 5.2 the program makes `arg` just before it runs a script, and passes on its own arguments, not what `arg` holds.
const ARG_WITH_SCRIPT: bool = NUMBER <= 502 && !JIT;

/// What is to be run, for the function that runs it.
pub(super) struct Prepared<'a> {
    pub(super) setup: &'a Setup,
    pub(super) line: &'a CommandLine,
    /// The script, compiled: its place in the registry.
    pub(super) script: Option<c_int>,
}

/// Does what `lua` does with this command line: on the process's own streams and environment, which `os.exit` ends. Gives
/// the exit status.
///
/// # Errors
/// When the interpreter cannot be started.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let line = match CommandLine::parse(&setup.own) {
        Ok(line) => line,
        Err(wrong) => {
            let program = setup.program.display();
            if NUMBER >= 502 {
                eprintln!("{program}: {wrong}");
            }
            eprintln!("{}", usage(&program.to_string()));
            return Ok(1);
        }
    };
    let state = Owned::open(line.ignore_environment)?;
    Ok(run_in(state, &Prepared { setup, line: &line, script: None }))
}

/// As [`run`], in a state that has been opened.
pub(super) fn run_in(state: Owned, job: &Prepared<'_>) -> u8 {
    let setup = job.setup;
    // SAFETY: a program that writes to a closed pipe ends by it, as `lua` does; Rust's start has changed that.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let l = state.pointer();
    state.limit_memory(setup.memory_limit);
    // SAFETY: the job outlives the call; the state is fresh and this thread's.
    let succeeded = unsafe {
        interrupts::of(l);
        ffi::lua_pushcfunction(l, main);
        ffi::lua_pushlightuserdata(l, ptr::from_ref(job).cast_mut().cast());
        // `lua` passes two arguments; with as many, a stack overflow comes at the same depth.
        ffi::lua_pushnil(l);
        let status = ffi::lua_pcall(l, 2, 1, 0);
        let succeeded = ffi::lua_toboolean(l, -1) != 0;
        report(l, status, Some(&setup.program)) && succeeded
    };
    // Its finalizers may still print.
    drop(state);
    // What a loop has set for its one request.
    if succeeded { context::with(|context| context.status.get()) as u8 } else { 1 }
}

fn usage(program: &str) -> String {
    let end = if NUMBER == 501 { "." } else { "" };
    let dots = if JIT { "..." } else { "" };
    let options = if JIT {
        "  -e chunk  Execute string 'chunk'.
  -l name   Require library 'name'.
  -b ...    Save or list bytecode.
  -j cmd    Perform LuaJIT control command.
  -O[opt]   Control LuaJIT optimizations.
  -i        Enter interactive mode after executing 'script'.
  -v        Show version information.
  -E        Ignore environment variables.
  --        Stop handling options.
  -         Execute stdin and stop handling options."
    } else {
        match NUMBER {
            501 => {
                "  -e stat  execute string 'stat'
  -l name  require library 'name'
  -i       enter interactive mode after executing 'script'
  -v       show version information
  --       stop handling options
  -        execute stdin and stop handling options"
            }
            502 => {
                "  -e stat  execute string 'stat'
  -i       enter interactive mode after executing 'script'
  -l name  require library 'name'
  -v       show version information
  -E       ignore environment variables
  --       stop handling options
  -        stop handling options and execute stdin"
            }
            503 => {
                "  -e stat  execute string 'stat'
  -i       enter interactive mode after executing 'script'
  -l name  require library 'name' into global 'name'
  -v       show version information
  -E       ignore environment variables
  --       stop handling options
  -        stop handling options and execute stdin"
            }
            _ => {
                "  -e stat   execute string 'stat'
  -i        enter interactive mode after executing 'script'
  -l mod    require library 'mod' into global 'mod'
  -l g=mod  require library 'mod' into global 'g'
  -v        show version information
  -E        ignore environment variables
  -W        turn warnings on
  --        stop handling options
  -         stop handling options and execute stdin"
            }
        }
    };
    format!("usage: {program} [options]{dots} [script [args]{dots}]{end}\nAvailable options are:\n{options}")
}

/// Everything, in the frame of one C function. Gives true when all went well.
unsafe extern "C-unwind" fn main(l: *mut lua_State) -> c_int {
    // SAFETY: the argument is the job; every chunk runs in protected mode.
    unsafe {
        let job = &*ffi::lua_touserdata(l, 1).cast::<Prepared<'_>>();
        let Prepared { setup, line, script } = job;
        super::module::install(l);
        ffi::set_warnings(l, super::functions::warn);
        if !ARG_WITH_SCRIPT {
            engine::set_command_line(l, setup);
        }
        ffi::gc_start(l);
        // The program of 5.1 initializes before it says which version it is.
        let version_before = if NUMBER == 501 { usize::from(line.initializes) } else { 0 };
        for at in 0..=line.prelude.len() {
            if line.version && at == version_before {
                repl::print_version(l);
            }
            let Some(step) = line.prelude.get(at) else { break };
            catch_interrupts();
            let status = step.run(l);
            if !report(l, status, Some(&setup.program)) {
                return 0;
            }
        }
        #[cfg(feature = "luajit")]
        if let Some(first) = &line.bytecode {
            let arguments = first.iter().chain(&setup.script).chain(&setup.arguments);
            let status = super::luajit::save_bytecode(l, arguments);
            ffi::lua_pushboolean(l, c_int::from(report(l, status, Some(&setup.program))));
            return 1;
        }
        if setup.script.is_some() {
            catch_interrupts();
            let status = run_script(l, setup, *script);
            if !report(l, status, Some(&setup.program)) {
                return 0;
            }
        }
        if line.interactive {
            repl::run(l);
        } else if setup.script.is_none() && !line.executes && !line.version {
            if std::io::stdin().is_terminal() {
                repl::print_version(l);
                repl::run(l);
            } else {
                // Whether that fails does not show in the status.
                report(l, run_stdin(l), Some(&setup.program));
            }
        }
        ffi::lua_pushboolean(l, 1);
        1
    }
}

unsafe fn run_script(l: *mut lua_State, setup: &Setup, compiled: Option<c_int>) -> c_int {
    let script = setup.script.as_deref().unwrap_or_default();
    let name = CString::new(script.as_bytes()).unwrap_or_default();
    // A hyphen is standard input, unless it comes behind `--`.
    let is_stdin = script == "-" && !setup.own_ended;
    // SAFETY: plain stack operations; the script's arguments go behind it.
    unsafe {
        if ARG_WITH_SCRIPT {
            engine::set_command_line(l, setup);
        }
        let status = if let Some(reference) = compiled {
            ffi::lua_rawgeti(l, ffi::LUA_REGISTRYINDEX, reference.into());
            ffi::LUA_OK
        } else {
            ffi::load_file(l, if is_stdin { ptr::null() } else { name.as_ptr() })
        };
        if status != ffi::LUA_OK {
            return status;
        }
        drop(name);
        let count = if ARG_WITH_SCRIPT { push_own_arguments(l, setup) } else { push_arguments(l) };
        if !setup.is_cgi {
            return command_line::call(l, count, ffi::LUA_MULTRET);
        }
        let status = command_line::call(l, count, 1);
        if status == ffi::LUA_OK { answer(l, Path::new(script)) } else { status }
    }
}

/// As a CGI program, an application that the script has given answers the one request.
unsafe fn answer(l: *mut lua_State, script: &Path) -> c_int {
    let absolute = std::path::absolute(script).unwrap_or_else(|_| script.to_owned());
    // SAFETY: what the script gave is on the stack; the message of an error goes there.
    unsafe {
        application::keep(l);
        ffi::lua_settop(l, 0);
        let Some(message) = Application::take(l, &absolute).and_then(|application| application.call(l)) else {
            return ffi::LUA_OK;
        };
        if stdio::nothing_written() {
            let _ = std::io::stdout().write_all(&fcgi_core::response::error_page("500 Internal Server Error", b""));
        }
        ffi::lua_pushlstring(l, message.as_ptr().cast(), message.len());
        ffi::LUA_ERRRUN
    }
}

/// Pushes the script's arguments as they were given; gives their number.
unsafe fn push_own_arguments(l: *mut lua_State, setup: &Setup) -> c_int {
    // SAFETY: plain stack operations; nothing needs dropping when an error is raised.
    unsafe {
        let count = setup.arguments.len() as c_int;
        ffi::luaL_checkstack(l, count + 3, c"too many arguments to script".as_ptr());
        for argument in &setup.arguments {
            ffi::lua_pushlstring(l, argument.as_bytes().as_ptr().cast(), argument.len());
        }
        count
    }
}

/// Pushes what `arg` holds, which chunks before the script may have changed; gives their number.
unsafe fn push_arguments(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations; nothing needs dropping when an error is raised.
    unsafe {
        if ffi::lua_getglobal(l, c"arg".as_ptr()) != ffi::LUA_TTABLE {
            if JIT {
                ffi::lua_pop(l, 1);
                return 0;
            }
            return ffi::luaL_error(l, c"'arg' is not a table".as_ptr());
        }
        let count = ffi::luaL_len(l, -1) as c_int;
        ffi::luaL_checkstack(l, count + 3, c"too many arguments to script".as_ptr());
        for at in 1..=count {
            ffi::lua_rawgeti(l, -at, at.into());
        }
        ffi::lua_remove(l, -(count + 1));
        count
    }
}

unsafe fn run_stdin(l: *mut lua_State) -> c_int {
    // SAFETY: plain stack operations.
    unsafe {
        let status = ffi::load_file(l, ptr::null());
        if status == ffi::LUA_OK { command_line::call(l, 0, ffi::LUA_MULTRET) } else { status }
    }
}
