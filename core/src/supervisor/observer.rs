//! Who is told how the parent is: a service manager, say.

use std::ffi::OsString;
use std::fmt::Debug;
use std::time::Instant;

/// Is told what happens. All of it may be left out.
pub trait Observer: Debug {
    /// Workers serve: for the first time, again after a reload, or still after one that failed.
    fn serves(&mut self) {}
    /// A reload begins. Gives what the new program is told by its environment: when it is tried, and when this process becomes
    /// it, so that both see the same of what may change in between.
    fn reloads(&mut self) -> Vec<(OsString, OsString)> {
        Vec::new()
    }
    /// This process is about to become the new program.
    fn becomes_new(&mut self) {}
    /// The server begins to stop.
    fn stops(&mut self) {}
    /// The log is to be opened again.
    fn reopens_log(&mut self) {}
    /// Each time that the parent looks after its workers, of which so many are there. Gives the time to be asked again.
    fn looks(&mut self, workers: usize) -> Option<Instant> {
        let _ = workers;
        None
    }
}

/// Wants to know nothing.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Observer for Nobody {}
