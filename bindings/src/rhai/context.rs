//! What the functions of the engine reach of the request that runs. One engine lives in one thread, and so does its context.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::rc::Rc;

use fcgi_core::interpreter::Loop;
use fcgi_core::{Params, Request};

use super::forms::Fields;
use super::timeout::Timeout;

#[derive(Default)]
pub(super) struct Context {
    request: RefCell<Option<Request>>,
    pub(super) arguments: RefCell<Vec<OsString>>,
    /// Where more requests for the script that runs come from.
    pub(super) accept: RefCell<Option<Loop>>,
    /// `accept` has been called: it has given the request that the script was started for.
    pub(super) accepted: Cell<bool>,
    /// The exit status of the request, unless the script ends otherwise.
    pub(super) status: Cell<u32>,
    /// Somebody watches what is written: it is sent line by line.
    pub(super) interactive: Cell<bool>,
    /// No web server asks: a script that fails owes nobody a page.
    pub(super) is_plain: Cell<bool>,
    /// Interrupts requests that run too long.
    pub(super) timeout: RefCell<Timeout>,
    /// Nobody reads what the script writes.
    pub(super) gone: Rc<Cell<bool>>,
    /// Bytes of the body that were read with those before them.
    pub(super) unread: RefCell<Vec<u8>>,
    /// What a form in the body was found to be, for it can be read only once.
    pub(super) form: RefCell<Option<Fields>>,
}

thread_local! {
    static CONTEXT: Context = Context::default();
}

/// Calls `f` with this thread's context.
pub(super) fn with<R>(f: impl FnOnce(&Context) -> R) -> R {
    CONTEXT.with(f)
}

impl Context {
    /// Begins a request.
    pub(super) fn begin(&self, request: Request) {
        self.request.replace(Some(request));
        self.status.set(0);
        self.gone.set(false);
        self.unread.borrow_mut().clear();
        self.form.take();
        self.timeout.borrow().begin();
    }

    /// Does something with the request; nothing when there is none.
    pub(super) fn request<R>(&self, f: impl FnOnce(&mut Request) -> R) -> Option<R> {
        self.request.borrow_mut().as_mut().map(f)
    }

    /// Does something with the request's parameters, unless it is in use.
    pub(super) fn with_params(&self, f: impl FnOnce(&Params)) {
        if let Ok(request) = self.request.try_borrow()
            && let Some(request) = &*request
        {
            f(request.params());
        }
    }

    /// Ends the request: an empty answer gets a page, all is sent. One that was interrupted because it took too long gets a
    /// page that says so, if nothing has left.
    pub(super) fn finish(&self, status: u32, interrupted: bool, details: &str) {
        let late = self.timeout.borrow().end() && interrupted;
        let Some(mut request) = self.request.take() else { return };
        if late && !request.is_finished() {
            request.discard();
        }
        if !self.is_plain.get() {
            let page = if late { "504 Gateway Timeout" } else { "500 Internal Server Error" };
            request.answer_with_error(page, details.as_bytes());
        }
        let _ = request.finish(status);
    }

    /// Forgets what belongs to one run of a script.
    pub(super) fn reset(&self) {
        self.accept.take();
        self.accepted.set(false);
    }
}
