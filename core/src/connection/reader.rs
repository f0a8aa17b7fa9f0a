//! Bytes in: they become events of the session, and those become requests with their input.

use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::state::{Connection, Hub, Phase, State};
use crate::clock;
use crate::inbox::{self, Awaited, Inbox, Stage, Stream};
use crate::poll::is_hung_up;
use crate::protocol::session::{Event, Refusal};
use crate::protocol::{ProtocolStatus, encoder};

/// Bytes read at once.
const READ_BUFFER: usize = 64 << 10;

thread_local! {
    static READ: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; READ_BUFFER].into());
}

impl Connection {
    /// Reads until nothing more has come, or no more may be kept.
    pub(super) fn read_all(self: &Arc<Self>, state: &mut State, hub: &Hub) {
        while state.wants_input(&hub.config) {
            match self.read_some(state, hub) {
                Ok(READ_BUFFER) | Err(Errno::INTR) => {}
                Ok(0) => return self.on_end(state, hub),
                Ok(_) | Err(Errno::WOULDBLOCK) => return,
                Err(_) => return self.hang_up(state, hub),
            }
        }
    }

    pub(super) fn read_some(self: &Arc<Self>, state: &mut State, hub: &Hub) -> Result<usize, Errno> {
        READ.with_borrow_mut(|buffer| {
            let (count, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            if count > 0 && state.phase != Phase::Lingering {
                state.silent = false;
                state.last_progress = clock::seconds();
                self.receive(state, &buffer[..count], hub);
            }
            Ok(count)
        })
    }

    /// Hands bytes to the session and does what its events say.
    fn receive(self: &Arc<Self>, state: &mut State, mut bytes: &[u8], hub: &Hub) {
        let limits = &hub.config.limits;
        loop {
            match state.session.receive(&mut bytes, limits, &hub.values, &mut state.out.bytes) {
                Ok(Some(event)) => self.on_session_event(state, event, hub),
                Ok(None) => return,
                Err(bad) => {
                    tracing::warn!("connection closed: {bad}");
                    return self.hang_up(state, hub);
                }
            }
        }
    }

    fn on_session_event(self: &Arc<Self>, state: &mut State, event: Event<'_>, hub: &Hub) {
        match event {
            Event::Begin { id, role, keep_conn } => {
                let is_first = std::mem::replace(&mut state.is_new, false);
                if hub.is_draining() && !is_first {
                    return state.refuse_begun(id, &"the server is stopping");
                }
                if state.inboxes.is_empty() {
                    state.inboxes.reserve_exact(1);
                }
                state.inboxes.push(Inbox {
                    id,
                    role,
                    keep_conn,
                    params: None,
                    stdin: Stream { bytes: Vec::new(), ended: !role.has_stdin() },
                    data: Stream { bytes: Vec::new(), ended: !role.has_data() },
                    stage: Stage::Arriving,
                    aborted: false,
                    awaited: Awaited::default(),
                });
                hub.owe();
            }
            Event::Params { id, params } => {
                if let Some(inbox) = state.inbox(id) {
                    inbox.params = Some(params);
                    self.queue_if_ready(inbox, hub);
                }
            }
            Event::Input { id, input, bytes } => {
                let all_held = inbox::held_waiting(&state.inboxes);
                let Some(inbox) = state.inbox(id) else { return };
                let is_too_much = inbox.held() + bytes.len() > hub.config.body_limit()
                    || all_held + bytes.len() > hub.config.bodies_limit();
                if inbox.stage != Stage::Running && is_too_much {
                    state.forget(id, hub);
                    return state.refuse_begun(id, &"its body came before it could be worked on (--body-buffer)");
                }
                inbox.stream(input).bytes.extend_from_slice(bytes);
                self.queue_if_ready(inbox, hub);
            }
            Event::InputEnd { id, input } => {
                if let Some(inbox) = state.inbox(id) {
                    inbox.stream(input).ended = true;
                    self.queue_if_ready(inbox, hub);
                }
            }
            Event::Abort { id } => match state.inbox(id) {
                Some(inbox) if inbox.stage == Stage::Running => inbox.aborted = true,
                _ => {
                    state.forget(id, hub);
                    encoder::end_request(id, 0, ProtocolStatus::RequestComplete, &mut state.out.bytes);
                    state.end_session_of(id);
                }
            },
            Event::Refused { id, why, keep_conn } => {
                if why == Refusal::Aborted {
                    tracing::debug!(id, "{why}");
                } else {
                    tracing::warn!(id, "request refused: {why}");
                }
                state.forget(id, hub);
                state.close_when_done |= !keep_conn;
                // The server may have sent the rest before it reads our answer.
                state.input_open = true;
            }
        }
    }

    /// Queues a request as soon as it can be worked on: complete, or with more body than is kept. An event loop can do
    /// something else while it waits for the rest.
    fn queue_if_ready(self: &Arc<Self>, inbox: &mut Inbox, hub: &Hub) {
        let can_begin = inbox.params.is_some() && (hub.is_loop() || inbox.held() >= hub.config.body_buffer);
        if inbox.stage == Stage::Arriving && (inbox.is_complete() || can_begin) {
            inbox.stage = Stage::Queued;
            hub.request_ready(self.clone(), inbox.id, inbox.params.as_ref());
        }
    }

    /// An event loop begins: it takes requests whose bodies have not come, too.
    pub(crate) fn queue_begun(self: &Arc<Self>, hub: &Hub) {
        for inbox in &mut self.lock().inboxes {
            self.queue_if_ready(inbox, hub);
        }
    }

    /// The peer has ended its sending side. When it has closed altogether, or one cannot tell (TCP), it wants nothing any
    /// more; otherwise it still gets the answers to complete requests.
    pub(super) fn on_end(&self, state: &mut State, hub: &Hub) {
        if state.phase == Phase::Lingering || self.tcp || is_hung_up(&self.socket) {
            return self.hang_up(state, hub);
        }
        state.phase = Phase::HalfClosed;
        let broken_off: Vec<u16> =
            state.inboxes.iter().filter(|i| i.stage != Stage::Running && !i.is_complete()).map(|i| i.id).collect();
        for id in broken_off {
            state.forget(id, hub);
            state.session.end(id);
        }
        for inbox in &mut state.inboxes {
            inbox.aborted |= !inbox.is_complete();
        }
        self.tell_waiting(state);
    }
}
