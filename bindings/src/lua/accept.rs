//! Loops inside scripts: `while fcgi.accept() do ... end`. What stands before the loop is done once, and everything stays.
//! Without a server (as a CGI program, on a terminal) the body runs once.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::context::{self, Context};
use super::ffi::{self, lua_State};
use super::stdio;

/// Gives the next request to the script; the first one is that which the script was started for. False when there is none any
/// more.
pub(super) unsafe extern "C-unwind" fn accept(l: *mut lua_State) -> c_int {
    stdio::flush_stdout();
    let more = context::with(next_request);
    if more {
        stdio::renew();
    }
    // SAFETY: one value is pushed.
    unsafe { ffi::lua_pushboolean(l, c_int::from(more)) };
    1
}

/// Ends the request and takes the next one; whether there is one.
fn next_request(context: &Context) -> bool {
    if !context.accepted.replace(true) {
        // The script was started for this request, or is no server at all.
        context.accept.borrow_mut().iter_mut().for_each(fcgi_core::interpreter::Loop::begin);
        return true;
    }
    context.end_watch();
    context.finish(context.status.get(), b"");
    let mut accept = context.accept.borrow_mut();
    let Some(accept) = accept.as_mut() else { return false };
    let request = accept.next().unwrap_or_else(|e| {
        tracing::error!("cannot accept requests any more: {e}");
        None
    });
    let Some(request) = request else { return false };
    *context.request.borrow_mut() = Some(request);
    context.status.set(0);
    context.begin_watch();
    true
}
