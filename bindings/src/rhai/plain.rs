//! The interpreter without requests: on a terminal and under CGI.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::Context;
use fcgi_core::{Setup, cgi};
use rhai::Scope;

use super::context;
use super::engine::Engine;
use super::repl;

/// The version of Rhai.
pub fn version() -> String {
    "Rhai 1.27".to_owned()
}

/// Does what the command line says: runs the code of `-e`, a script, or what standard input holds; at a terminal, a prompt.
/// Gives the exit status.
///
/// # Errors
/// When an option is not for Rhai.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let mut engine = Engine::new(setup.clone())?;
    let interactive = !setup.is_cgi && std::io::stdout().is_terminal();
    context::with(|context| {
        context.interactive.set(interactive);
        context.is_plain.set(!setup.is_cgi);
    });
    let codes = codes(&setup.own)?;
    if !codes.is_empty() {
        // As in other interpreters, the scripts of several options see one another's variables.
        if let Some(script) = &setup.script {
            context::with(|context| context.arguments.borrow_mut().insert(0, script.clone()));
        }
        return Ok(run_text(&mut engine, &codes.join(OsStr::new("\n")), "-e"));
    }
    match &setup.script {
        Some(script) if script != "-" => {
            let path = std::path::absolute(script)?;
            Ok(engine.answer_once(&path, cgi::request()))
        }
        None if std::io::stdin().is_terminal() => repl::run(&mut engine),
        _ => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text)?;
            Ok(run_text(&mut engine, &OsString::from_vec(text), "stdin"))
        }
    }
}

/// The values of `-e`.
fn codes(own: &[OsString]) -> anyhow::Result<Vec<OsString>> {
    let mut codes = Vec::new();
    let mut own = own.iter();
    while let Some(option) = own.next() {
        match option.as_bytes() {
            b"-e" => codes.push(own.next().context("-e is followed by code")?.clone()),
            [b'-', b'e', code @ ..] => codes.push(OsString::from_vec(code.to_vec())),
            _ => anyhow::bail!("there is no option {} (--help tells what there is)", option.display()),
        }
    }
    Ok(codes)
}

fn run_text(engine: &mut Engine, text: &OsStr, name: &str) -> u8 {
    context::with(|context| context.begin(cgi::request()));
    engine.enter_directory();
    let (status, _) =
        engine.within_limits(|engine| match engine.compile(Path::new(name), text.to_string_lossy().into_owned()) {
            Ok(script) => engine.run(&script, &mut Scope::new()),
            Err(e) => (1, Some(e.describe())),
        });
    // Code on a command line owes nobody an answer.
    context::with(|context| {
        context.is_plain.set(true);
        context.finish(status, false, "");
    });
    status as u8
}
