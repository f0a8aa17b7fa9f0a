//! Loops inside scripts: `while fcgi::accept() { ... }`. What stands before the loop is done once, and variables stay. Without
//! a server (as a CGI program, on a terminal) the body runs once.

use std::io;

use fcgi_core::interpreter::Loop;

use super::context;

/// Gives the next request to the script; the first one is that which the script was started for. False when there is none any
/// more.
pub(super) fn accept() -> io::Result<bool> {
    context::with(|context| {
        if !context.accepted.replace(true) {
            context.accept.borrow_mut().iter_mut().for_each(Loop::begin);
            return Ok(true);
        }
        context.finish(context.status.get(), false, "");
        let mut accept = context.accept.borrow_mut();
        let Some(accept) = accept.as_mut() else { return Ok(false) };
        let next = accept.next()?;
        let found = next.is_some();
        if let Some(request) = next {
            context.begin(request);
        }
        Ok(found)
    })
}
