//! The FastCGI 1.0 protocol without I/O: bytes in, events out; answers in, bytes out.
//!
//! No sockets, files, clocks or threads: whatever a peer can send can be tried with arrays of bytes. Nothing here trusts
//! a length, and what one connection can make it keep is bounded by [`Limits`].
//!
//! In the order of reading: [`record`] (the numbers), [`params`] (name-value pairs), [`decoder`] and [`encoder`]
//! (records, in and out), [`values`] (what the server may ask about us), [`session`] (which record is allowed when).
//!
//! Section numbers are those of the FastCGI Specification 1.0 of 29 April 1996.
#![forbid(unsafe_code)]

pub mod decoder;
pub mod encoder;
pub mod params;
pub mod record;
pub mod session;
pub mod values;

pub use params::Params;
pub use record::{ProtocolStatus, RecordType, Role};
pub use session::{Event, Limits, Refusal, Session};
