//! What the runners share: one command line, one way to find out how they were started, one way to serve.
//!
//! A runner is [`main`] with its language: options -> mode -> run -> exit status.

mod front;
mod line;
mod log;
mod mode;
mod options;
mod parent;
#[cfg(feature = "_python")]
mod python;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use fcgi_core::{Server, Setup};

pub use line::OwnOptions;

use line::Line;
pub(crate) use options::Options;
#[cfg(feature = "_python")]
pub use python::language as python;

/// What a language gives to its runner.
pub struct Language {
    /// The program's name.
    pub program: &'static str,
    /// The language's name.
    pub name: &'static str,
    /// Extension of its scripts, without the dot.
    pub extension: &'static str,
    /// The version of its interpreter.
    pub version: fn() -> String,
    /// Starts what all interpreters of a process share, before the first of them.
    pub start: fn(&Setup) -> anyhow::Result<()>,
    /// Makes an interpreter for the calling thread.
    pub interpreter: fn(Setup) -> anyhow::Result<Box<dyn fcgi_core::Interpreter>>,
    /// The options of the language's own interpreter.
    pub own: OwnOptions,
    /// Options of the runner that only this language has.
    pub options: &'static [LanguageOption],
    /// One of them that names a program to be served in place of a script.
    pub in_place_of_script: Option<&'static str>,
    /// Serves a program that runs many requests at once, in the calling thread; false when the command line names none.
    pub event_loop: fn(&Setup, &Arc<Server>) -> anyhow::Result<bool>,
    /// Where the interpreter runs before its options are known: starts the program anew with them, before the rest of the
    /// command line, in place of this process. Comes back when that fails.
    pub afresh: Option<fn(&Setup, &[OsString]) -> anyhow::Error>,
    /// Does what the language's own interpreter does with its command line; gives the exit status.
    pub plain: fn(&Setup) -> anyhow::Result<u8>,
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
            Some(name) => arg.value_name(name).value_parser(clap::value_parser!(OsString)),
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
    let command = Options::command()
        .name(language.program)
        .version(format!("{} ({})", env!("CARGO_PKG_VERSION"), (language.version)()))
        .override_usage(format!("{} [OPTION]... [SCRIPT [ARGUMENT]...]", language.program))
        .about(format!("Runs {} scripts: under FastCGI, as CGI, or like the plain interpreter", language.name))
        .after_help(options::examples(language))
        .args(language.options.iter().map(|option| option.to_arg()));
    let mut line = Line::split(words, &language.own, &command);
    let read = |matches: ArgMatches| {
        line.language = language.options.iter().filter_map(|option| option.value(&matches)).collect();
        Options::from_arg_matches(&matches)
    };
    let options = match command.try_get_matches_from(line.runner.clone()).and_then(read) {
        Ok(options) => options,
        Err(e) if e.use_stderr() => {
            let text = e.render().to_string();
            // What is wrong stands before an empty line, in one line or in several.
            let wrong: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let wrong = wrong.join(" ");
            eprintln!("{}: {} (--help tells more)", language.program, wrong.trim_start_matches("error: "));
            return USAGE;
        }
        Err(e) => {
            // --help and --version are not errors, and a pipe that closes early is not ours to complain about.
            let _ = e.print();
            if let (ErrorKind::DisplayHelp, Some(option)) = (e.kind(), language.own.help) {
                println!("\nBefore the script, also {}'s own options:\n", language.name);
                let setup = Setup { program: language.program.into(), own: vec![option.into()], ..Setup::default() };
                return status(language, (language.plain)(&setup));
            }
            return 0;
        }
    };
    status(language, run::run(language, &options, line))
}

/// The exit status; what went wrong is told.
fn status(language: &Language, ended: anyhow::Result<u8>) -> u8 {
    ended.unwrap_or_else(|e| {
        eprintln!("{}: {e:#}", language.program);
        USAGE
    })
}
