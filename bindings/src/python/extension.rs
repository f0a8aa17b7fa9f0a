//! The CPython that this module was loaded by: it runs already.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use fcgi_core::Setup;
use pyo3::prelude::*;

use super::application;
use super::{engine, module};

/// Does what `python3` does with this command line, by becoming it.
///
/// # Errors
/// When there is no `python3` to become.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    if setup.is_cgi && (setup.option("app").is_some() || application::may_be_in(setup)) {
        let script = setup.script.clone().unwrap_or_default();
        return engine::answer_cgi(setup.clone(), Path::new(&script));
    }
    if setup.option("app").is_some_and(|spec| spec == application::GIVEN) {
        // A program that serves its application (`fcgi.serve`) does so once on a terminal, too.
        return engine::answer_cgi(Setup { is_cgi: true, ..setup.clone() }, Path::new(""));
    }
    if setup.option("app").is_some() {
        bail!("nothing says where requests come from: give an address to listen on (--listen, listen=...)");
    }
    let mut command = Command::new(executable()?);
    command.args(&setup.own);
    if setup.option("flup").is_some() {
        if setup.script.is_none() {
            bail!("--flup is for a script");
        }
        command.arg(package()?.with_file_name("_flup.py"));
    } else if setup.own_ended {
        command.arg("--");
    }
    command.args(&setup.script).args(&setup.arguments);
    Err(command.exec()).context("cannot start python3")
}

fn executable() -> anyhow::Result<OsString> {
    let found = Python::attach(|py| py.import("sys")?.getattr("executable")?.extract::<Option<OsString>>());
    match found {
        Ok(Some(path)) if !path.is_empty() => Ok(path),
        _ => bail!("this Python does not know where its program is (sys.executable)"),
    }
}

/// The file of the package `fcgi`.
fn package() -> anyhow::Result<PathBuf> {
    Ok(Python::attach(|py| py.import("fcgi")?.getattr("__file__")?.extract())?)
}

/// Becomes a fresh interpreter with the options that are given, in which the rest of the command line is run by the package
/// `fcgi`: by its path, for options such as `-S` take away where it lies. Comes back when that fails.
pub fn afresh(setup: &Setup, rest: &[OsString]) -> anyhow::Error {
    let become_it = || -> anyhow::Result<std::convert::Infallible> {
        let mut command = Command::new(executable()?);
        command.args(&setup.own).arg(package()?.with_file_name("__main__.py")).args(rest);
        Err(command.exec()).context("cannot start python3")
    };
    match become_it() {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

/// The interpreter runs; options of its own would come too late.
///
/// # Errors
/// When there are such options.
pub fn start(setup: &Setup) -> anyhow::Result<()> {
    if let Some(option) = setup.own.first() {
        let option = option.display();
        bail!("the interpreter runs already: give {option} to it");
    }
    Python::attach(|py| module::offer(py, setup))?;
    engine::name_main_thread(setup)
}

/// The version of the interpreter.
pub fn version() -> String {
    Python::attach(|py| {
        let version = py.version_info();
        format!("Python {}.{}.{}", version.major, version.minor, version.patch)
    })
}
