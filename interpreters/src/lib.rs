//! What the runners share: one command line, one way to find out how they were started, one way to serve.
//!
//! A runner is [`main`] with its language: options -> mode -> run -> exit status.

mod accounts;
mod check;
mod command_line;
mod config;
mod front;
mod languages;
mod line;
mod log;
mod master;
mod mode;
mod notify;
mod options;
mod parent;
mod pid_file;
mod print_config;
#[cfg(feature = "_python")]
mod python;
mod rlimits;
mod run;
mod scripts;
mod service;
mod system;
mod watched;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, ValueHint, value_parser};
use fcgi_core::fork::Moment;
use fcgi_core::{Server, Setup};

pub use line::OwnOptions;

use command_line::{Order, command_of};
use languages::{KNOWN, Known};
pub(crate) use options::Options;
#[cfg(feature = "_python")]
pub use python::language as python;

/// What a language gives to its runner.
pub struct Language {
    /// The program's name.
    pub program: &'static str,
    /// The language's name.
    pub name: &'static str,
    /// The version of its interpreter.
    pub version: fn() -> String,
    /// Starts what all interpreters of a process share, before the first of them.
    pub start: fn(&Setup) -> anyhow::Result<()>,
    /// Makes an interpreter for the calling thread.
    pub interpreter: fn(Setup) -> anyhow::Result<Box<dyn fcgi_core::Interpreter>>,
    /// Compiles a file without running it. What is wrong with it is the error; the process has [begun](Language::start).
    pub compile: fn(&Setup, &Path) -> anyhow::Result<()>,
    /// The options of the language's own interpreter.
    pub own: OwnOptions,
    /// Serves a program that runs many requests at once, in the calling thread; false when the command line names none.
    pub event_loop: fn(&Setup, &Arc<Server>) -> anyhow::Result<bool>,
    /// A warning when the interpreter is older than what it uses.
    pub outdated: fn() -> Option<String>,
    /// Where the interpreter runs before its options are known: starts the program anew with them, before the rest of the
    /// command line, in place of this process. Comes back when that fails.
    pub afresh: Option<fn(&Setup, &[OsString]) -> anyhow::Error>,
    /// Lets workers be forked from a process that has loaded what they have in common (`--preload`).
    pub preload: Option<Preload>,
    /// Does what the language's own interpreter does with its command line; gives the exit status.
    pub plain: fn(&Setup) -> anyhow::Result<u8>,
}

/// How a language loads what workers have in common, in the process that they are forked from.
#[derive(Clone, Copy, Debug)]
pub struct Preload {
    /// Loads it. The interpreter has been [started](Language::start), and is not in the workers.
    pub load: fn(&Setup) -> anyhow::Result<()>,
    /// Does what the interpreter wants done around each fork.
    pub around_fork: fn(Moment),
}

impl Language {
    /// What all runners know of it.
    fn known(&self) -> &'static Known {
        KNOWN.iter().find(|known| known.program == self.program).unwrap_or(&KNOWN[0])
    }
}

/// A long option that only one language has. Its value is handed to the language as it is.
#[derive(Clone, Copy, Debug)]
pub struct LanguageOption {
    /// Its name, without dashes.
    pub long: &'static str,
    /// What `--help` calls its value; an option without one is a switch.
    pub value_name: Option<&'static str>,
    /// What `--help` says.
    pub help: &'static str,
    /// Under which of its headings.
    pub heading: &'static str,
}

impl LanguageOption {
    fn to_arg(self) -> Arg {
        let arg = Arg::new(self.long).long(self.long).help(self.help).help_heading(self.heading);
        match self.value_name {
            // The name of a value says what it may be.
            Some(words) if words.contains('|') => {
                let words = PossibleValuesParser::new(words.split('|')).map(OsString::from);
                arg.value_name(self.value_name.unwrap_or_default()).value_parser(words)
            }
            Some("N") => {
                let number = value_parser!(u64).map(|number| OsString::from(number.to_string()));
                arg.value_name("N").value_parser(number)
            }
            Some("DIR") => arg.value_name("DIR").value_hint(ValueHint::DirPath).value_parser(value_parser!(OsString)),
            Some(name) => arg.value_name(name).value_parser(value_parser!(OsString)),
            None => arg.action(ArgAction::SetTrue),
        }
    }

    fn value(self, matches: &ArgMatches) -> Option<(&'static str, OsString)> {
        let value = if self.value_name.is_some() {
            matches.get_one::<OsString>(self.long).cloned()
        } else {
            matches.get_flag(self.long).then(OsString::new)
        };
        value.map(|value| (self.long, value))
    }
}

/// The exit status of a program that was used wrongly.
const USAGE: u8 = 2;

/// A runner: everything from the command line to the exit status.
pub fn main(language: &Language) -> ExitCode {
    ExitCode::from(run_with(language, std::env::args_os().collect()))
}

/// As [`main`], with a command line that is given; gives the exit status as a number.
pub fn run_with(language: &Language, words: Vec<OsString>) -> u8 {
    let order = match Order::read(language, words) {
        Ok(order) => order,
        Err(ended) => return ended.tell(language),
    };
    order.run(language)
}

/// The exit status; what went wrong is told.
fn status(language: &Language, ended: anyhow::Result<u8>) -> u8 {
    ended.unwrap_or_else(|e| {
        eprintln!("{}: {e:#}", language.program);
        USAGE
    })
}
