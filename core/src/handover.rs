//! Connections that one process gives to another: through a socket that all workers of a pool share, whoever is idle takes
//! the next one, as from a listener.
//!
//! A connection is given while it idles: nothing of a request has been read that the other process would lack.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::inherit::{Passed, numbered};

/// What goes with a connection: whether it is TCP.
const UNIX: u8 = b'u';
const TCP: u8 = b't';

/// Both ends of the socket: every worker gives, and every worker takes.
#[derive(Debug)]
pub(crate) struct Channel {
    give: OwnedFd,
    take: OwnedFd,
}

/// A connection on its way.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) socket: OwnedFd,
    pub(crate) is_tcp: bool,
}

impl Channel {
    /// A new one.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (give, take) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self { give, take })
    }

    /// The one that a parent has passed: of the worker with this number alone, or (0) of all.
    ///
    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn passed(passed: &mut Passed, number: u16) -> io::Result<Option<Self>> {
        let give = passed.descriptor(&numbered("give", number))?;
        let take = passed.descriptor(&numbered("take", number))?;
        Ok(give.zip(take).map(|(give, take)| Self { give, take }))
    }

    /// The giver's end, for processes that give and never take.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn copy_of_givers_end(&self) -> io::Result<OwnedFd> {
        self.give.try_clone()
    }

    /// Its ends, by the names under which they are passed.
    pub(crate) fn ends(&self) -> [(&'static str, BorrowedFd<'_>); 2] {
        [("give", self.give.as_fd()), ("take", self.take.as_fd())]
    }

    /// From its ends.
    pub(crate) fn from_ends(give: OwnedFd, take: OwnedFd) -> Self {
        Self { give, take }
    }

    /// Readable when there is something to take.
    pub(crate) fn takers_end(&self) -> BorrowedFd<'_> {
        self.take.as_fd()
    }

    /// How many connections are on their way: each is a message of one byte.
    pub(crate) fn waiting(takers_end: impl AsFd) -> u64 {
        rustix::io::ioctl_fionread(takers_end).unwrap_or(0)
    }

    /// Writable when there is room.
    pub(crate) fn givers_end(&self) -> BorrowedFd<'_> {
        self.give.as_fd()
    }

    /// Gives a connection. The caller's own descriptor stays open.
    ///
    /// # Errors
    /// `WOULDBLOCK` when nobody takes fast enough.
    pub(crate) fn give(&self, socket: BorrowedFd<'_>, is_tcp: bool) -> Result<(), Errno> {
        give(self.give.as_fd(), socket, is_tcp)
    }

    /// Takes a connection, if one is there.
    pub(crate) fn take(&self) -> Option<Given> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut kind = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.take, &mut [IoSliceMut::new(&mut kind)], &mut ancillary, flags).ok()?;
        let sockets = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if got.flags.contains(ReturnFlags::CTRUNC) {
            tracing::error!("a connection is lost: the process is out of descriptors");
        }
        sockets.map(|socket| Given { socket, is_tcp: kind[0] == TCP })
    }
}

/// Gives a connection into a giver's end. The caller's own descriptor stays open.
///
/// # Errors
/// `WOULDBLOCK` when nobody takes fast enough.
pub(crate) fn give(end: BorrowedFd<'_>, socket: BorrowedFd<'_>, is_tcp: bool) -> Result<(), Errno> {
    let fds = [socket];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let kind = [if is_tcp { TCP } else { UNIX }];
    rustix::net::sendmsg(end, &[IoSlice::new(&kind)], &mut ancillary, flags).map(drop)
}
