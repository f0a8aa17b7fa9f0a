//! What the functions of the engine reach of the request that runs. One engine lives in one thread, and so does its context.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use fcgi_core::Request;
use fcgi_core::interpreter::Requests;
use fcgi_core::script::Watch;

#[derive(Default)]
pub(super) struct Context {
    request: RefCell<Option<Request>>,
    pub(super) arguments: RefCell<Vec<OsString>>,
    /// The script that runs, and where more requests for it come from.
    pub(super) accept: RefCell<Option<Accept>>,
    /// The exit status of the request, unless the script ends otherwise.
    pub(super) status: Cell<u32>,
    /// Somebody watches what is written: it is sent line by line.
    pub(super) interactive: Cell<bool>,
    /// Bytes of the body that were read with those before them.
    pub(super) unread: RefCell<Vec<u8>>,
    /// What a form in the body was found to be, for it can be read only once.
    pub(super) form: RefCell<Option<rhai::Map>>,
}

/// What an accept loop needs.
pub(super) struct Accept {
    pub(super) script: PathBuf,
    /// Watches the script once it loops.
    pub(super) watch: Option<Watch>,
    pub(super) requests: Rc<RefCell<Requests>>,
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
        self.unread.borrow_mut().clear();
        self.form.take();
    }

    /// Does something with the request; nothing when there is none.
    pub(super) fn request<R>(&self, f: impl FnOnce(&mut Request) -> R) -> Option<R> {
        self.request.borrow_mut().as_mut().map(f)
    }

    /// Ends the request: an empty answer gets a page, all is sent. A late one gets a page that says so, if nothing has left.
    pub(super) fn finish(&self, status: u32, late: bool, details: &str) {
        let Some(mut request) = self.request.take() else { return };
        if late && !request.is_finished() {
            request.discard();
        }
        if !self.interactive.get() {
            let page = if late { "504 Gateway Timeout" } else { "500 Internal Server Error" };
            request.answer_with_error(page, details.as_bytes());
        }
        let _ = request.finish(status);
    }
}
