//! What the runners share: one command line, one way to find out how they were started, one way to serve.
//!
//! A runner is [`main`] with its language: options -> mode -> run -> exit status.

mod front;
mod line;
mod log;
mod mode;
mod options;
mod run;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use fcgi_core::Setup;

pub use line::OwnOptions;

use line::Line;
pub use options::Options;

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
    /// Does what the language's own interpreter does with its command line; gives the exit status.
    pub plain: fn(&Setup) -> anyhow::Result<u8>,
}

/// The exit status of a program that was used wrongly.
const USAGE: u8 = 2;

/// A runner: everything from the command line to the exit status.
pub fn main(language: &Language) -> ExitCode {
    let command = Options::command()
        .name(language.program)
        .version(format!("{} ({})", env!("CARGO_PKG_VERSION"), (language.version)()))
        .override_usage(format!("{} [OPTION]... [SCRIPT [ARGUMENT]...]", language.program))
        .about(format!("Runs {} scripts: under FastCGI, as CGI, or like the plain interpreter", language.name))
        .after_help(options::examples(language));
    let line = Line::split(std::env::args_os().collect(), &language.own, &command);
    let options = match command.try_get_matches_from(&line.runner).and_then(|m| Options::from_arg_matches(&m)) {
        Ok(options) => options,
        Err(e) if e.use_stderr() => {
            let text = e.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            eprintln!("{}: {} (--help tells more)", language.program, first.trim_start_matches("error: "));
            return ExitCode::from(USAGE);
        }
        Err(e) => {
            // --help and --version are not errors, and a pipe that closes early is not ours to complain about.
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
    };
    log::start(&options);
    match run::run(language, &options, line) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("{}: {e:#}", language.program);
            ExitCode::from(USAGE)
        }
    }
}
