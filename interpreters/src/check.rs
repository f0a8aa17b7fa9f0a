//! `--check`: what of a script would differ from CGI, without serving it: it is run for two empty GET requests, and what it
//! leaves behind is looked at.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use fcgi_core::audit::{Audited, Finding};
use fcgi_core::interpreter::Requests;
use fcgi_core::request::{Input, Transport};
use fcgi_core::script::Scripts;
use fcgi_core::{Isolation, Params, Request, Role, Server, Setup};

use crate::Language;

/// Nothing differs.
const SAME: u8 = 0;
/// Something does.
const DIFFERS: u8 = 1;
/// The script fails: nobody knows.
const FAILED: u8 = 2;

/// How a request has ended that nobody waits for.
#[derive(Default)]
struct Ended {
    errors: Vec<u8>,
    status: u32,
}

/// The streams of such a request: no body, an answer for nobody.
struct Nobody(Arc<Mutex<Ended>>);

impl Nobody {
    fn ended(&self) -> std::sync::MutexGuard<'_, Ended> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Nobody {
    fn read(&mut self, _: Input, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_error(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.ended().errors.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_aborted(&mut self) -> bool {
        false
    }

    fn finish(&mut self, status: u32) -> io::Result<()> {
        self.ended().status = status;
        Ok(())
    }
}

fn params(script: &Path) -> Params {
    let mut params = Params::new();
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/"),
        ("SCRIPT_NAME", ""),
        ("QUERY_STRING", ""),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("FCGI_ROLE", "RESPONDER"),
    ] {
        params.set(name.as_bytes(), value.as_bytes());
    }
    params.set(b"SCRIPT_FILENAME", script.as_os_str().as_bytes());
    params
}

/// Runs the script and says what it leaves behind; gives the exit status.
///
/// # Errors
/// When there is no such script, or no interpreter for it.
pub(crate) fn run(language: &Language, setup: Setup) -> anyhow::Result<u8> {
    let script = setup.script.clone().context("--check is for a script: name it")?;
    let script = std::path::absolute(script)?;
    File::open(&script).with_context(|| format!("cannot open {}", script.display()))?;
    // Interpreters may take the process's own for their scripts.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let setup = Setup { isolation: Isolation::Globals, audit: true, ..setup };
    (language.start)(&setup)?;
    let mut audited = Audited::new((language.interpreter)(setup)?);
    let server = Arc::new(Server::builder().start()?);
    let requests = Rc::new(RefCell::new(Requests::new(server, Scripts::One(script.clone()))));
    let shown = script.display();
    writeln!(out, "{shown} is run for two empty GET requests")?;
    let mut differs = false;
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        let ended = Arc::new(Mutex::new(Ended::default()));
        let request = Request::new(Role::Responder, params(&script), Box::new(Nobody(ended.clone())));
        let findings = audited.look_at(&script, request, &requests);
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.status != 0 {
            let errors = String::from_utf8_lossy(&ended.errors);
            writeln!(out, "{shown} cannot be checked: it ends with status {}\n{}", ended.status, errors.trim_end())?;
            return Ok(FAILED);
        }
        for Finding { what, stays } in findings {
            differs |= stays;
            let end = if stays { "stays for the next request, unlike under CGI" } else { "is put back" };
            if told.insert(what.clone()) {
                writeln!(out, "{shown}: {what}: {end}")?;
            }
        }
    }
    if differs {
        writeln!(out, "{shown} needs --isolation fork, if the next request must not find that")?;
    } else {
        writeln!(out, "{shown}: nothing differs from CGI")?;
    }
    Ok(if differs { DIFFERS } else { SAME })
}
