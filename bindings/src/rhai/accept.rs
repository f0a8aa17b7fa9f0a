//! Loops inside scripts: `while fcgi::accept() { ... }`. What stands before the loop is done once, and variables stay. Without
//! a server (as a CGI program, on a terminal) the body runs once.

use std::cell::Cell;
use std::io;

use fcgi_core::script::Watch;
use rhai::{Dynamic, Engine, EvalAltResult, FuncRegistration, INT, Module};

use super::context;
use super::functions::variables;
use super::stdio::{failed, text_or_blob};

thread_local! {
    /// What a process without a server has given: its one request.
    static GIVEN: Cell<bool> = const { Cell::new(false) };
}

/// A script begins that may loop.
pub(super) fn begin() {
    GIVEN.set(false);
}

/// Gives the next request to the script; the first one is that which the script was started for. False when there is none any
/// more: the server stops, the script has changed, or there is no server.
fn accept() -> io::Result<bool> {
    context::with(|context| {
        if !GIVEN.replace(true) {
            if let Some(accept) = context.accept.borrow_mut().as_mut() {
                accept.watch = Some(Watch::new(&accept.script));
            }
            return Ok(true);
        }
        context.finish(context.status.get(), false, "");
        let mut accept = context.accept.borrow_mut();
        let Some(accept) = accept.as_mut() else { return Ok(false) };
        if accept.watch.as_mut().is_some_and(Watch::has_changed) {
            return Ok(false);
        }
        let next = accept.requests.borrow_mut().accept_for(&accept.script)?;
        let found = next.is_some();
        if let Some(request) = next {
            context.begin(request);
        }
        Ok(found)
    })
}

/// Sends the answer; the script goes on, and nobody hears of what it says until it accepts the next request.
fn finish(status: u32) {
    context::with(|context| {
        context.status.set(status);
        context.request(|request| request.finish(status));
    });
}

fn data() -> Result<Dynamic, Box<EvalAltResult>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = context::with(|context| context.request(|request| request.data().read_to_end(&mut bytes)));
    read.unwrap_or(Ok(0)).map_err(|e| failed(&e))?;
    Ok(text_or_blob(bytes))
}

/// Adds the module `fcgi`.
pub(super) fn add_to(engine: &mut Engine) {
    let mut module = Module::new();
    let volatile = |name: &str| FuncRegistration::new(name).with_volatility(true);
    volatile("accept").set_into_module(&mut module, || accept().map_err(|e| failed(&e)));
    volatile("finish").set_into_module(&mut module, || finish(context::with(|context| context.status.get())));
    volatile("finish").set_into_module(&mut module, |status: INT| finish(status as u32));
    volatile("set_exit_status").set_into_module(&mut module, |status: INT| {
        context::with(|context| context.status.set(status as u32));
    });
    volatile("role").set_into_module(&mut module, || {
        context::with(|context| context.request(|request| request.role().name().to_owned())).unwrap_or_default()
    });
    volatile("aborted").set_into_module(&mut module, || {
        context::with(|context| context.request(fcgi_core::Request::is_aborted)).unwrap_or(false)
    });
    volatile("params").set_into_module(&mut module, variables);
    volatile("data").set_into_module(&mut module, data);
    engine.register_static_module("fcgi", module.into());
}
