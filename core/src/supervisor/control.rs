//! What a parent and its workers tell each other: single bytes on a socket between the two. When the parent is gone, its
//! workers read the end of it, and stop.
//!
//! A parent talks to workers that a program of another version started, when it was replaced: what a byte means never
//! changes.

/// What a parent says to a [template](super::template): fork a worker. Behind it stands the worker's place in the pool, in two
/// bytes, and its end of the connection to the parent comes along; the answer is its number, or 0, in four bytes.
pub(super) const FORK: u8 = b'f';

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FromWorker {
    /// It serves.
    Ready = b'r',
    /// It has done what it was meant for: it asks to be replaced, and serves until it is told to retire.
    Spent = b's',
    /// It has had no request for as long as a worker may idle.
    Idle = b'i',
    /// It is about to end itself, with a request that does not end.
    Late = b'l',
}

/// What a parent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ToWorker {
    /// Take no more connections, give those that idle to other workers, finish what has begun, and end.
    Retire = b'g',
    /// Nobody will serve any more: as above, but close what idles.
    Stop = b'q',
}

impl FromWorker {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ready, Self::Spent, Self::Idle, Self::Late].into_iter().find(|known| *known as u8 == byte)
    }
}

impl ToWorker {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Retire, Self::Stop].into_iter().find(|known| *known as u8 == byte)
    }
}
