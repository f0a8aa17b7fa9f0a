//! One connection: bytes are read and become requests; answers are queued and become bytes.
//!
//! A connection belongs to no thread. Whoever wakes for it locks it, reads what there is, and leaves the requests that
//! are complete (or have outgrown their buffer) in the hub's queue. A thread that works on a request reads the rest of
//! its input itself: it becomes the connection's *reader*, and hands on what it meets for other requests.
//!
//! What is kept is bounded: input by `Config::body_buffer` for each request (reading stops beyond it), output by one
//! output buffer for each request (a request that has more to say waits).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::hub::{self, Config};
use crate::inbox::{self, Inbox, Obstacle, Outgoing, Stage, Stream};
use crate::poll::{Interest, Token, is_hung_up, wait_for};
use crate::protocol::session::{Event, Input, Refusal};
use crate::protocol::{Params, ProtocolStatus, Role, Session, encoder};

pub(crate) type Hub = hub::Hub<Connection>;

/// Bytes read at once.
const READ_BUFFER: usize = 64 << 10;
/// A peer that sends questions and does not read our answers is no longer read when this much waits for it.
const UNREAD_ANSWERS: usize = 64 << 10;
/// How long a request that reads waits for a thread to take another one, whose body lies in the way.
const MAKE_WAY: Duration = Duration::from_millis(50);
/// How long a closing connection waits for the peer to stop sending. (Closing with unread input would reset the
/// connection, and the reset can destroy the answer on its way.)
const LINGER: Duration = Duration::from_secs(2);

const REQUEST_LATE: &str = "the rest of a request did not come in time (--read-timeout)";
const ANSWER_LATE: &str = "an answer was not read in time (--write-timeout)";

thread_local! {
    static READ: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; READ_BUFFER].into());
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    token: Token,
    tcp: bool,
    state: Mutex<State>,
    /// Told to those who wait for input while another thread is the reader.
    input_came: Condvar,
}

#[derive(Debug)]
struct State {
    session: Session,
    inboxes: Vec<Inbox>,
    out: Outgoing,
    phase: Phase,
    /// A request without FCGI_KEEP_CONN has ended: close when nothing is left to do.
    close_when_done: bool,
    /// That request's input was still coming.
    input_open: bool,
    /// A thread that works on a request is reading.
    has_reader: bool,
    /// Threads that wait for input while another one is the reader. Telling nobody would cost a system call, too.
    waiting: u32,
    registered: bool,
    armed: Interest,
    /// When something last came or went.
    last_progress: u32,
    /// Nothing has come yet. Who connects has something to say; who has been answered may idle.
    silent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The peer has ended its side, and still reads.
    HalfClosed,
    /// Our answer is complete; what the peer still sends is thrown away.
    Lingering,
    /// The connection is of no use any more.
    Gone,
}

/// What a thread takes with it when it begins to work on a request.
pub(crate) struct Started {
    pub(crate) role: Role,
    pub(crate) params: Params,
    pub(crate) stdin: Stream,
    pub(crate) data: Stream,
}

impl Connection {
    /// Takes over an accepted socket, and reads what has already come: nearly always the whole request.
    pub(crate) fn open(hub: &Hub, socket: OwnedFd, tcp: bool) {
        let state = State {
            session: Session::new(),
            inboxes: Vec::new(),
            out: Outgoing::default(),
            phase: Phase::Open,
            close_when_done: false,
            input_open: false,
            has_reader: false,
            waiting: 0,
            registered: false,
            armed: Interest::NONE,
            last_progress: now(),
            silent: true,
        };
        let connection =
            hub.open(|token| Self { socket, token, tcp, state: Mutex::new(state), input_came: Condvar::new() });
        connection.on_event(hub);
    }

    /// The poll set said that something can be read or written.
    pub(crate) fn on_event(self: &Arc<Self>, hub: &Hub) {
        let mut state = self.lock();
        if hub.poll.one_shot() {
            state.armed = Interest::NONE;
        }
        if state.phase == Phase::Gone {
            return;
        }
        if !state.out.is_empty() && self.send_queued(&mut state).is_err() {
            self.hang_up(&mut state, hub);
        }
        if state.phase == Phase::HalfClosed && is_hung_up(&self.socket) {
            self.hang_up(&mut state, hub);
        }
        if !state.has_reader {
            self.read_all(&mut state, hub);
        }
        self.settle(&mut state, hub);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---------------------------------------------------------------- bytes in

    /// Reads until nothing more has come, or no more may be kept.
    fn read_all(self: &Arc<Self>, state: &mut State, hub: &Hub) {
        while state.wants_input(&hub.config) {
            match self.read_some(state, hub) {
                Ok(READ_BUFFER) | Err(Errno::INTR) => {}
                Ok(0) => return self.on_end(state, hub),
                Ok(_) | Err(Errno::WOULDBLOCK) => return,
                Err(_) => return self.hang_up(state, hub),
            }
        }
    }

    fn read_some(self: &Arc<Self>, state: &mut State, hub: &Hub) -> Result<usize, Errno> {
        READ.with_borrow_mut(|buffer| {
            let (count, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            if count > 0 && state.phase != Phase::Lingering {
                state.silent = false;
                state.last_progress = now();
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
                if hub.is_draining() {
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

    /// Queues a request as soon as it can be worked on: complete, or with more body than is kept.
    fn queue_if_ready(self: &Arc<Self>, inbox: &mut Inbox, hub: &Hub) {
        let outgrown = inbox.params.is_some() && inbox.held() >= hub.config.body_buffer;
        if inbox.stage == Stage::Arriving && (inbox.is_complete() || outgrown) {
            inbox.stage = Stage::Queued;
            hub.request_ready(self.clone(), inbox.id);
        }
    }

    /// The peer has ended its sending side. When it has closed altogether, or one cannot tell (TCP), it wants nothing any
    /// more; otherwise it still gets the answers to complete requests.
    fn on_end(&self, state: &mut State, hub: &Hub) {
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

    /// The connection is of no use any more: requests that nobody works on are dropped, others learn it.
    fn hang_up(&self, state: &mut State, hub: &Hub) {
        state.phase = Phase::Gone;
        state.out = Outgoing::default();
        state.inboxes.retain_mut(|inbox| {
            inbox.aborted = true;
            if inbox.stage != Stage::Running {
                hub.settled();
            }
            inbox.stage == Stage::Running
        });
        self.tell_waiting(state);
    }

    // ---------------------------------------------------------------- a request's thread

    /// Takes a queued request. `None` when it is no longer wanted.
    pub(crate) fn start(self: &Arc<Self>, id: u16, hub: &Hub, has_waited: bool) -> Option<Started> {
        let mut state = self.lock();
        if has_waited && !state.has_reader {
            // Whoever waits long for an answer may have left, and nobody has looked since.
            self.read_all(&mut state, hub);
            self.settle(&mut state, hub);
        }
        let inbox = state.inbox(id).filter(|i| i.stage == Stage::Queued)?;
        inbox.stage = Stage::Running;
        let started = Started {
            role: inbox.role,
            params: inbox.params.take().unwrap_or_default(),
            stdin: std::mem::take(&mut inbox.stdin),
            data: std::mem::take(&mut inbox.data),
        };
        inbox.stdin.ended = started.stdin.ended;
        inbox.data.ended = started.data.ended;
        hub.settled();
        // There is room for more of its body now.
        self.tell_waiting(&state);
        self.settle(&mut state, hub);
        Some(started)
    }

    /// Waits for more of a running request's input and moves it to `into`.
    pub(crate) fn read(self: &Arc<Self>, id: u16, input: Input, into: &mut Stream, hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            let Some(inbox) = state.inbox(id) else { return Err(io::ErrorKind::ConnectionAborted.into()) };
            let aborted = inbox.aborted;
            let stream = inbox.stream(input);
            if !stream.bytes.is_empty() || stream.ended {
                std::mem::swap(&mut into.bytes, &mut stream.bytes);
                stream.bytes.clear();
                into.ended = stream.ended;
                self.tell_waiting(&state);
                return Ok(());
            }
            if aborted || matches!(state.phase, Phase::Gone | Phase::HalfClosed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if state.has_reader {
                state = self.wait_for_input(state, None).0;
                continue;
            }
            match inbox::obstacle(&state.inboxes, id, &hub.config) {
                None => {}
                Some(Obstacle::OtherStream) => {
                    return Err(io::Error::other("standard input is too long to be kept: read it before data"));
                }
                Some(Obstacle::Running) => {
                    state = self.wait_for_input(state, None).0;
                    continue;
                }
                Some(Obstacle::Queued) => {
                    let (woken, timed_out) = self.wait_for_input(state, Some(MAKE_WAY));
                    state = woken;
                    if !timed_out || state.has_reader {
                        continue;
                    }
                }
            }
            state = self.read_as_reader(state, hub)?;
        }
    }

    /// Waits until input has come or the time is over; gives whether it is over.
    fn wait_for_input<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.waiting += 1;
        let (mut state, timed_out) = match timeout {
            None => (self.input_came.wait(state).unwrap_or_else(PoisonError::into_inner), false),
            Some(timeout) => {
                let woken = self.input_came.wait_timeout(state, timeout);
                let (state, late) = woken.unwrap_or_else(PoisonError::into_inner);
                (state, late.timed_out())
            }
        };
        state.waiting -= 1;
        (state, timed_out)
    }

    fn tell_waiting(&self, state: &State) {
        if state.waiting > 0 {
            self.input_came.notify_all();
        }
    }

    /// Reads once, waiting for it, on behalf of everybody on this connection.
    fn read_as_reader<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        hub: &Hub,
    ) -> io::Result<MutexGuard<'a, State>> {
        state.has_reader = true;
        let mut timed_out = false;
        let unread = state.out.len() >= UNREAD_ANSWERS;
        let at_once = if unread { Err(Errno::WOULDBLOCK) } else { self.read_some(&mut state, hub) };
        let result = match at_once {
            Err(Errno::WOULDBLOCK) => {
                self.settle(&mut state, hub);
                drop(state);
                let timeout = if unread { hub.config.write_timeout } else { hub.config.read_timeout };
                let ready = wait_for(&self.socket, Interest { read: !unread, write: unread }, timeout);
                state = self.lock();
                timed_out = matches!(ready, Ok(false));
                match () {
                    () if timed_out => Err(Errno::TIMEDOUT),
                    // What can be sent now is sent when the connection is settled.
                    () if unread => Err(Errno::WOULDBLOCK),
                    () => self.read_some(&mut state, hub),
                }
            }
            other => other,
        };
        state.has_reader = false;
        match result {
            Ok(0) => self.on_end(&mut state, hub),
            Ok(_) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(_) => self.hang_up(&mut state, hub),
        }
        self.tell_waiting(&state);
        self.settle(&mut state, hub);
        if timed_out {
            tracing::warn!("connection closed: {}", if unread { ANSWER_LATE } else { REQUEST_LATE });
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(state)
    }

    /// Sends records of a running request, and waits until the socket has taken them all.
    pub(crate) fn send(&self, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        self.send_or_queue(&mut state, bytes, hub)?;
        while !state.out.is_empty() {
            drop(state);
            let ready = wait_for(&self.socket, Interest { read: false, write: true }, hub.config.write_timeout)?;
            state = self.lock();
            if state.phase == Phase::Gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if !ready {
                self.hang_up(&mut state, hub);
                tracing::warn!("connection closed: {ANSWER_LATE}");
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.send_queued(&mut state).is_err() {
                self.hang_up(&mut state, hub);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Sends the last records of a running request; what the socket does not take now is sent when it does. The request
    /// has ended.
    pub(crate) fn finish(self: &Arc<Self>, id: u16, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        let result = self.send_or_queue(&mut state, bytes, hub);
        state.inboxes.retain(|i| i.id != id);
        state.end_session_of(id);
        self.tell_waiting(&state);
        if hub.is_draining() && !state.has_reader {
            // A connection that is closed with a request unread is reset, and with it goes the answer.
            self.read_all(&mut state, hub);
        }
        self.settle(&mut state, hub);
        result
    }

    /// Whether a running request's answer is still wanted, after a look at what has come.
    pub(crate) fn is_aborted(self: &Arc<Self>, id: u16, hub: &Hub) -> bool {
        let mut state = self.lock();
        if !state.has_reader && matches!(state.phase, Phase::Open | Phase::HalfClosed) {
            if state.wants_input(&hub.config) {
                self.read_all(&mut state, hub);
                self.settle(&mut state, hub);
            } else if is_hung_up(&self.socket) {
                self.hang_up(&mut state, hub);
            }
        }
        state.inbox(id).is_none_or(|i| i.aborted)
    }

    // ---------------------------------------------------------------- bytes out

    fn send_or_queue(&self, state: &mut State, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        if state.phase == Phase::Gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut sent = 0;
        if state.out.is_empty() {
            sent = match self.send_now(bytes) {
                Ok(sent) => sent,
                Err(e) => {
                    self.hang_up(state, hub);
                    return Err(e.into());
                }
            };
        }
        if sent < bytes.len() {
            state.out.bytes.extend_from_slice(&bytes[sent..]);
        }
        state.last_progress = now();
        Ok(())
    }

    fn send_queued(&self, state: &mut State) -> Result<(), Errno> {
        let sent = self.send_now(&state.out.bytes[state.out.sent..])?;
        if sent > 0 {
            state.out.advance(sent);
            state.last_progress = now();
        }
        Ok(())
    }

    fn send_now(&self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::WOULDBLOCK) => return Ok(0),
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    // ---------------------------------------------------------------- what next

    /// Sends answers of the session, closes the connection when nothing is left to do, otherwise sees to it that the poll
    /// set watches it for the right things.
    fn settle(&self, state: &mut State, hub: &Hub) {
        if state.phase != Phase::Gone && !state.out.is_empty() && self.send_queued(state).is_err() {
            self.hang_up(state, hub);
        }
        let idle = state.session.active() == 0 && state.inboxes.is_empty() && state.out.is_empty();
        if idle && state.phase == Phase::Open && (state.close_when_done || hub.is_draining()) {
            if state.input_open {
                state.phase = Phase::Lingering;
                let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
            } else {
                state.phase = Phase::Gone;
            }
        }
        if state.phase == Phase::HalfClosed && idle {
            state.phase = Phase::Gone;
        }
        if state.phase == Phase::Gone {
            if state.inboxes.is_empty() {
                hub.close(self.token);
            }
            if state.registered {
                state.registered = false;
                hub.poll.remove(&self.socket);
            }
            return;
        }
        let wanted = Interest {
            read: !state.has_reader && state.phase != Phase::HalfClosed && state.wants_input(&hub.config),
            write: !state.out.is_empty(),
        };
        if wanted == state.armed || state.is_short_lived() {
            return;
        }
        match hub.poll.arm(&self.socket, self.token, wanted, !state.registered) {
            Ok(()) => {
                state.registered = true;
                state.armed = wanted;
            }
            Err(e) => {
                tracing::error!("connection closed: it cannot be watched: {e}");
                self.hang_up(state, hub);
                hub.close(self.token);
            }
        }
    }

    /// Closes the connection when its peer has kept it waiting for too long.
    pub(crate) fn check_time(&self, hub: &Hub) {
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.has_reader || state.phase == Phase::Gone {
            return;
        }
        let config = &hub.config;
        let running = state.inboxes.iter().any(|i| i.stage != Stage::Arriving);
        let (limit, what) = if state.phase == Phase::Lingering {
            (Some(LINGER), "")
        } else if !state.out.is_empty() {
            (config.write_timeout, ANSWER_LATE)
        } else if running {
            return;
        } else if state.silent || state.session.inside_head() || !state.inboxes.is_empty() {
            (config.read_timeout, REQUEST_LATE)
        } else {
            (config.keepalive_timeout, "")
        };
        if limit.is_some_and(|limit| u64::from(now().saturating_sub(state.last_progress)) > limit.as_secs()) {
            if !what.is_empty() {
                tracing::warn!("connection closed: {what}");
            }
            self.hang_up(&mut state, hub);
            self.settle(&mut state, hub);
        }
    }

    /// Whether the poll set is still needed for it, although its requests have been answered: not all has been sent, or
    /// the peer has not taken it.
    pub(crate) fn is_leaving(&self) -> bool {
        let state = self.lock();
        state.phase == Phase::Lingering || !state.out.is_empty()
    }

    /// The server is stopping: an idle connection is closed.
    pub(crate) fn drain(&self, hub: &Hub) {
        let mut state = self.lock();
        self.settle(&mut state, hub);
    }
}

impl State {
    fn inbox(&mut self, id: u16) -> Option<&mut Inbox> {
        self.inboxes.iter_mut().find(|i| i.id == id)
    }

    /// A waiting request is no longer to be worked on.
    fn forget(&mut self, id: u16, hub: &Hub) {
        let before = self.inboxes.len();
        self.inboxes.retain(|i| i.id != id);
        if self.inboxes.len() < before {
            hub.settled();
        }
    }

    /// Ends a request that the session had let in.
    fn refuse_begun(&mut self, id: u16, why: &dyn std::fmt::Display) {
        tracing::warn!(id, "request refused: {why}");
        encoder::end_request(id, 0, ProtocolStatus::Overloaded, &mut self.out.bytes);
        self.end_session_of(id);
    }

    fn end_session_of(&mut self, id: u16) {
        if let Some(ended) = self.session.end(id) {
            self.close_when_done |= !ended.keep_conn;
            self.input_open |= ended.input_open;
        }
    }

    /// Whether more may be read: no request holds more input than is kept, and the peer reads our answers.
    fn wants_input(&self, config: &Config) -> bool {
        match self.phase {
            Phase::Gone | Phase::HalfClosed => false,
            Phase::Lingering => true,
            Phase::Open => {
                self.out.len() < UNREAD_ANSWERS && self.inboxes.iter().all(|i| i.held() < config.body_buffer)
            }
        }
    }

    /// One complete request that will close the connection: nothing more will come that the poll set would have to
    /// tell, so it is not told about it (a system call saved for each request of most web servers).
    fn is_short_lived(&self) -> bool {
        let [inbox] = &self.inboxes[..] else { return false };
        !self.registered
            && self.out.is_empty()
            && !inbox.keep_conn
            && inbox.stdin.ended
            && inbox.data.ended
            && inbox.stage != Stage::Arriving
    }
}

/// Seconds on a clock that never goes back. Read often, and fine enough for timeouts.
fn now() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec as u32
}
