//! The seam to a language.

use std::path::Path;

use crate::request::Request;

/// One interpreter, which lives in one thread and serves one request after the other.
pub trait Interpreter {
    /// Runs a script for a request and finishes the request. Whatever the script did must not be seen by the next one;
    /// whatever goes wrong is said on the request's error stream and by its exit status.
    fn serve(&mut self, script: &Path, request: Request);
}
