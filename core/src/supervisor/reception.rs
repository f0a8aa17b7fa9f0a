//! What the parent itself answers while all workers are busy: requests for the status pages and for `ping`. What it has accepted
//! for that and is for nobody but a script goes to the workers, unread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};

use crate::address::Address;
use crate::handover::Channel;
use crate::listener::{AllowList, Listener};
use crate::protocol::session::Event;
use crate::protocol::values::Values;
use crate::protocol::{Limits, Params, ProtocolStatus, RecordType, Session, encoder};
use crate::status::Desk;

/// Connections that are looked at together.
const MOST: usize = 64;
/// What is looked at of a request: no web server asks for a status with more.
const LONGEST: usize = 16 << 10;
/// So long a request may take to come before its connection goes to the workers.
const PATIENCE: Duration = Duration::from_millis(100);

/// Who is asked for answers, and who may ask.
#[derive(Clone, Debug)]
pub struct Reception {
    /// Answers.
    pub desk: Arc<Desk>,
    /// Peers that may connect.
    pub allowed: AllowList,
}

/// A connection whose request is still to be seen.
#[derive(Debug)]
pub(super) struct Guest {
    socket: OwnedFd,
    is_tcp: bool,
    since: Instant,
}

impl Guest {
    /// Sends it to the workers; whether that could be done.
    pub(super) fn leave(&self, channel: &Channel) -> bool {
        channel.give(self.socket.as_fd(), self.is_tcp).is_ok()
    }
}

impl Reception {
    /// Lets in who waits at the listeners, if there is room.
    pub(super) fn let_in(&self, guests: &mut Vec<Guest>, listeners: &[Listener], now: Instant) {
        for listener in listeners {
            let is_tcp = matches!(listener.address(), Address::Tcp { .. });
            while guests.len() < MOST {
                let Ok(Some(socket)) = listener.accept(&self.allowed) else { break };
                guests.push(Guest { socket, is_tcp, since: now });
            }
        }
    }

    /// Answers those that ask for what the parent knows; all others go to the workers.
    pub(super) fn attend(&self, guests: &mut Vec<Guest>, channel: &Channel, now: Instant) {
        guests.retain(|guest| {
            let mut buffer = vec![0; LONGEST];
            let seen = match rustix::net::recv(&guest.socket, &mut buffer[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((count, _)) => &buffer[..count],
                Err(_) => &[],
            };
            let is_early = now.saturating_duration_since(guest.since) < PATIENCE;
            match asked(seen) {
                None if is_early => true,
                Some((id, params)) if self.answer(guest, id, &params) => false,
                _ => !guest.leave(channel),
            }
        });
    }

    fn answer(&self, guest: &Guest, id: u16, params: &Params) -> bool {
        let Some(page) = self.desk.answer(params) else { return false };
        let mut out = Vec::new();
        encoder::stream(RecordType::Stdout, id, &page, &mut out);
        encoder::end_stream(RecordType::Stdout, id, &mut out);
        encoder::end_request(id, 0, ProtocolStatus::RequestComplete, &mut out);
        // Closed with something unread, a connection is reset, and with it goes the answer.
        let mut buffer = [0; 4096];
        while rustix::net::recv(&guest.socket, &mut buffer[..], RecvFlags::DONTWAIT).is_ok_and(|(count, _)| count > 0) {
        }
        let _ = rustix::net::send(&guest.socket, &out, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        true
    }
}

/// The first request in these bytes, if its parameters are complete.
fn asked(mut bytes: &[u8]) -> Option<(u16, Params)> {
    let (limits, values) = (Limits::default(), Values { max_connections: 1, max_requests: 1 });
    let (mut session, mut out) = (Session::new(), Vec::new());
    while let Ok(Some(event)) = session.receive(&mut bytes, &limits, &values, &mut out) {
        if let Event::Params { id, params } = event {
            return Some((id, params));
        }
    }
    None
}
