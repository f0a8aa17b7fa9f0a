//! A worker's end of what it and its parent tell each other.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::control::FromWorker;
use crate::inherit::Passed;

/// A worker's connection to its parent.
#[derive(Debug)]
pub struct Link {
    control: UnixStream,
}

impl Link {
    /// Takes what the parent passed.
    ///
    /// # Errors
    /// When that is not a connection to it.
    pub fn new(passed: &mut Passed) -> io::Result<Self> {
        let control = passed.descriptor("control")?;
        let control = control.ok_or_else(|| io::Error::other("a worker without a connection to its parent"))?;
        Ok(Self { control: control.into() })
    }

    /// Becomes readable when the parent tells the worker to end, or is no more.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn told(&self) -> io::Result<OwnedFd> {
        Ok(self.control.try_clone()?.into())
    }

    /// Tells the parent that this worker serves.
    pub fn say_ready(&self) {
        // A parent that has gone is noticed elsewhere.
        let _ = (&self.control).write_all(&[FromWorker::Ready as u8]);
    }
}
