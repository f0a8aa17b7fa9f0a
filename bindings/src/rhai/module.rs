//! The module `fcgi`: what a script can ask of its requests.
//!
//! | function | what it does |
//! | --- | --- |
//! | `fcgi::accept()` | ends the request before and waits for the next; false when there are no more. Everything that the script did stays. As a CGI program, or on a terminal, it is true once. |
//! | `fcgi::finish()`, `fcgi::finish(status)` | ends the request now: the answer is sent, the script goes on |
//! | `fcgi::set_exit_status(status)` | the exit status that the request will have |
//! | `fcgi::role()` | `"RESPONDER"`, `"AUTHORIZER"`, `"FILTER"` or `"LOGGER"` |
//! | `fcgi::data()` | what a Filter is to transform: text, or a blob where it is no text |
//! | `fcgi::aborted()` | whether nobody waits for the answer any more |
//! | `fcgi::params()` | the request's variables, a map |

use rhai::{Dynamic, Engine, FuncRegistration, INT, Module};

use super::accept::accept;
use super::context;
use super::error::{Failed, failed};
use super::functions::variables;
use super::stdio::{read_data, text_or_blob};

/// Sends the answer; the script goes on, and nobody hears of what it says until it accepts the next request.
fn finish(status: u32) {
    context::with(|context| {
        context.status.set(status);
        context.timeout.borrow().end();
        // A client that has gone needs no answer.
        context.request(|request| request.finish(status));
    });
}

fn data() -> Result<Dynamic, Failed> {
    read_data().map(text_or_blob)
}

/// Adds the module.
pub(super) fn add_to(engine: &mut Engine) {
    let mut module = Module::new();
    let volatile = |name: &str| FuncRegistration::new(name).with_volatility(true);
    volatile("accept").set_into_module(&mut module, || accept().map_err(failed));
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
