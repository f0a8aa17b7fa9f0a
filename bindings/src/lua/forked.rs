//! Scripts whose requests run in child processes (`--isolation fork`). The state that they are forked from is as `lua` opens
//! it: no function of it is replaced, for nothing has to be put back.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fcgi_core::fork::{Forking, Ground, Moment, Report, Warm};
use fcgi_core::script::Cache;
use fcgi_core::{Interpreter, Setup};

use super::command_line::CommandLine;
use super::ffi;
use super::plain::{self, Prepared};
use super::state::{Function, Owned, load_file};

/// The state that children are forked from.
struct Forked {
    setup: Setup,
    line: CommandLine,
    code: Cache<Function>,
    /// Whether the script that comes next is compiled; if not, the child says what is wrong with it.
    is_compiled: bool,
    /// The last to be dropped.
    state: Option<Owned>,
}

/// Makes what serves the requests of a process by children.
///
/// # Errors
/// When an option is not for Lua, or the system has no memory for us.
pub(super) fn interpreter(setup: &Setup) -> anyhow::Result<Box<dyn Interpreter>> {
    let ground = Ground::new(setup)?;
    let line = CommandLine::parse(&setup.own).map_err(|wrong| anyhow::anyhow!("{wrong} (--help tells more)"))?;
    let state = Owned::open(line.ignore_environment)?;
    // SAFETY: the state is fresh, and this thread's.
    unsafe { super::module::install(state.pointer()) };
    // What the script may use is the process's to limit.
    let setup = Setup { is_cgi: true, memory_limit: None, ..setup.clone() };
    let warm = Forked { setup, line, code: Cache::default(), is_compiled: false, state: Some(state) };
    Ok(Box::new(Forking::new(ground, warm)))
}

impl Warm for Forked {
    fn prepare(&mut self, script: &Path) {
        let Some(l) = self.state.as_ref().map(Owned::pointer) else { return };
        let compile = |path: &Path| {
            load_file(l, path)?;
            // SAFETY: the function is on top of the stack of a state that outlives it.
            Ok::<_, Vec<u8>>(unsafe { Function::take(l) })
        };
        self.is_compiled = self.code.get(script, compile).is_ok();
        // SAFETY: no function is active in the state. What children collect first costs a copy of the memory that it lies in.
        unsafe { ffi::lua_settop(l, 0) };
    }

    fn fork(&mut self, _: Moment) {}

    fn run(&mut self, script: &Path, _: &Report) -> u8 {
        let Some(state) = self.state.take() else { return 1 };
        let mut command_line = vec![self.setup.program.clone(), OsString::from(script)];
        command_line.extend(self.setup.arguments.iter().cloned());
        let setup = Setup { script: Some(script.into()), command_line, ..self.setup.clone() };
        let directory = script.parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Err(e) = directory.map_or(Ok(()), std::env::set_current_dir) {
            let program = setup.program.as_bytes().escape_ascii();
            eprintln!("{program}: cannot enter the directory of {}: {e}", script.display());
            return 1;
        }
        // SAFETY: the state is this process's own; numbers that it has drawn from chance it shares with the other children.
        unsafe { ffi::seed(state.pointer()) };
        let compiled =
            if self.is_compiled { self.code.get(script, |_| Err(())).ok().map(Function::reference) } else { None };
        plain::run_in(state, &Prepared { setup: &setup, line: &self.line, script: compiled })
    }

    fn preload(&mut self, _: &[Vec<u8>]) {}
}
