//! The accept loop: listeners and connections go in, requests come out.
//!
//! Requests, not connections, are what is scheduled. Every thread that wants work calls [`Server::accept`]; the thread
//! that the poll set wakes reads and parses, and works on what it found. A connection that idles, stutters or reads
//! slowly has no thread.

mod books;
pub mod reactor;
mod retiring;
mod running;
mod steward;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::address::Address;
use crate::clock;
use crate::connection::{Connection, Hub};
use crate::exchange::Exchange;
use crate::hub::{self, Config};
use crate::listener::{AllowList, ListenError, Listener};
use crate::poll::{self, Interest, Token};
use crate::request::Request;
use crate::scoreboard::Counter;
use crate::supervisor::Link;
use crate::supervisor::control::FromWorker;
pub use books::Books;
use running::Running;

/// A request that has been read this long ago may have lost its client since. About: the clock is no finer than that.
const STALE: Duration = Duration::from_millis(5);
/// How often timeouts are looked at.
const TICK: Duration = Duration::from_secs(1);

thread_local! {
    /// When this thread last went to work on a request. What it finds afterwards may have lain in its socket as long.
    static BUSY_SINCE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// What a server is made of. See [`Server::builder`].
#[derive(Debug, Default)]
pub struct Builder {
    listeners: Vec<Listener>,
    allowed: AllowList,
    config: Config,
    drain_on: Option<OwnedFd>,
    parent: Option<Link>,
    books: Books,
}

impl Builder {
    /// Listens on an address, besides those given before.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(mut self, address: &Address) -> Result<Self, ListenError> {
        self.listeners.push(Listener::bind(address)?);
        Ok(self)
    }

    /// Takes over a listener.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Lets only these TCP peers connect.
    #[must_use]
    pub fn allow(mut self, allowed: AllowList) -> Self {
        self.allowed = allowed;
        self
    }

    /// Sets limits, timeouts and the number of threads.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Stops gracefully when this descriptor becomes readable, as by [`Server::drain`].
    #[must_use]
    pub fn drain_on(mut self, fd: OwnedFd) -> Self {
        self.drain_on = Some(fd);
        self
    }

    /// Serves as a worker of this parent, which learns when it serves.
    #[must_use]
    pub fn parent(mut self, parent: Link) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Keeps books for those who watch the server.
    #[must_use]
    pub fn books(mut self, books: Books) -> Self {
        self.books = books;
        self
    }

    /// Starts to serve: connections are accepted as soon as somebody calls [`Server::accept`].
    ///
    /// # Errors
    /// When the system has no poll set or event for us.
    pub fn start(self) -> io::Result<Server> {
        let mut hub = Hub::new(self.config)?;
        let mut parent = self.parent;
        let mut listeners = self.listeners;
        if let Some(parent) = &mut parent {
            hub.channels = parent.take_channels();
            listeners.extend(parent.take_own_listeners());
        }
        for (number, listener) in listeners.iter().enumerate() {
            hub.poll.add_listener(listener, Token::Listener(number as u32))?;
        }
        let mut books = self.books;
        if let Some(desk) = books.desk.as_mut().and_then(Arc::get_mut) {
            desk.counts(hub.channels().map(|(_, channel)| channel));
        }
        for (is_own, channel) in hub.channels() {
            hub.poll.add_listener(channel.takers_end(), Token::Given { is_own })?;
        }
        if let Some(fd) = &self.drain_on {
            hub.poll.add_signal(fd, Token::Drain)?;
        }
        Ok(Server {
            hub: Arc::new(hub),
            listeners: Mutex::new(listeners),
            allowed: self.allowed,
            drain_on: Mutex::new(self.drain_on),
            events: Mutex::default(),
            eager: Mutex::new(None),
            resting: AtomicBool::new(false),
            last_tick: AtomicU32::new(clock::seconds()),
            is_unready: AtomicBool::new(parent.is_some()),
            turns: AtomicU64::new(0),
            at_work: AtomicUsize::new(0),
            is_spent: AtomicBool::new(false),
            running: Running::new(parent.as_ref().and_then(|parent| parent.kill_after)),
            parent,
            books,
        })
    }
}

/// A FastCGI server. Threads share it by reference and call [`accept`](Self::accept) each.
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    listeners: Mutex<Vec<Listener>>,
    allowed: AllowList,
    drain_on: Mutex<Option<OwnedFd>>,
    /// Events that came in one batch and have not been handled.
    events: Mutex<VecDeque<Token>>,
    /// The listener to be asked again before the next wait.
    eager: Mutex<Option<Eager>>,
    /// No connections are accepted for the moment: descriptors are short.
    resting: AtomicBool,
    last_tick: AtomicU32,
    books: Books,
    parent: Option<Link>,
    /// The parent does not know that this worker serves.
    is_unready: AtomicBool,
    /// Requests that have been begun.
    turns: AtomicU64,
    /// Threads that work on requests; requests that an event loop works on.
    at_work: AtomicUsize,
    /// The parent knows that this worker asks to be replaced.
    is_spent: AtomicBool,
    running: Running,
}

/// A listener that has just had a connection.
#[derive(Debug)]
struct Eager {
    listener: u32,
    /// How often it is asked again.
    left: u8,
}

/// How often a listener is asked before everything else is looked at again.
const EAGERNESS: u8 = 8;

impl Server {
    /// Begins to describe a server.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The next request, waiting for it. `None` when the server has been told to stop and nothing is left to do.
    ///
    /// # Errors
    /// When the system fails us; a peer cannot cause one.
    pub fn accept(&self) -> io::Result<Option<Request>> {
        self.say_ready();
        self.books.idle();
        let busy_since = self.leave_work();
        let was_busy = busy_since.is_some_and(|since| clock::since(since) > STALE);
        let mut read_at = None;
        loop {
            if let Some(request) = self.take_ready(read_at.filter(|_| !was_busy)) {
                let Some(request) = self.books.answer(request) else { continue };
                self.books.begin(request.params());
                BUSY_SINCE.set(Some(clock::now()));
                self.at_work.fetch_add(1, Relaxed);
                self.count_turn();
                self.running.begin_in_thread(request.params());
                return Ok(Some(request));
            }
            if self.has_finished() {
                self.hub.wake_one();
                self.books.leave();
                return Ok(None);
            }
            match self.next_event()? {
                Some(token) => {
                    read_at = Some(clock::now());
                    self.handle(token);
                }
                None => self.tick(),
            }
        }
    }

    /// Somebody asks for requests: this process serves.
    fn say_ready(&self) {
        if self.is_unready.load(Relaxed)
            && self.is_unready.swap(false, SeqCst)
            && let Some(parent) = &self.parent
        {
            parent.say_ready();
        }
    }

    /// Whether the server has been told to stop, or to make way for others, and nothing is left to do.
    fn has_finished(&self) -> bool {
        let has_stopped = self.hub.is_draining() && !self.is_still_sending();
        let has_retired = self.hub.is_retiring() && self.hub.connection_count() == 0;
        (has_stopped || has_retired) && !self.hub.owes()
    }

    /// Lets a thread of its own do what the parent says, if this is a worker.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn attend_parent(self: &Arc<Self>) -> io::Result<()> {
        if self.parent.is_some() { steward::start(self) } else { Ok(()) }
    }

    /// Counts a request; the one that makes a worker's number full lets it be replaced.
    fn count_turn(&self) {
        let turn = self.turns.fetch_add(1, Relaxed) + 1;
        if self.parent.as_ref().is_some_and(|parent| parent.max_requests.is_some_and(|limit| turn >= limit))
            && self.ask_to_be_replaced()
            && let Some(board) = &self.books.scoreboard
        {
            board.count(Counter::MaxRequestsReached);
        }
    }

    /// Whether a script's requests are to run elsewhere.
    pub(crate) fn is_demoted(&self, script: &Path) -> bool {
        self.books.scoreboard.as_ref().is_some_and(|board| board.is_demoted(script))
    }

    /// Asks the parent, once, for another process in the place of this one; whether this was the time.
    pub(crate) fn ask_to_be_replaced(&self) -> bool {
        let Some(parent) = self.parent.as_ref().filter(|_| !self.is_spent.swap(true, Relaxed)) else { return false };
        parent.say(FromWorker::Spent);
        true
    }

    /// The calling thread no longer works on its request, if it had one; since when it did.
    fn leave_work(&self) -> Option<Duration> {
        let busy_since = BUSY_SINCE.take();
        if busy_since.is_some() {
            self.at_work.fetch_sub(1, Relaxed);
            self.running.end_in_thread();
        }
        busy_since
    }

    /// Stops gracefully: nothing new is accepted, idle connections are closed, requests that have begun are answered;
    /// then every [`accept`](Self::accept) gives `None`.
    pub fn drain(&self) {
        self.take_all_given();
        // What has come already counts as begun.
        for connection in self.hub.connections() {
            connection.on_event(&self.hub);
        }
        self.hub.drain();
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.drain(..) {
            self.hub.poll.remove(&listener);
        }
        drop(listeners);
        for connection in self.hub.connections() {
            connection.drain(&self.hub);
        }
        self.hub.wake_one();
    }

    /// Whether the server has been told to stop.
    pub fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// Whether the server has been told to stop, or is as soon as somebody asks it for requests. It costs a system call.
    pub fn is_to_drain(&self) -> bool {
        let signal = self.drain_on.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |fd| {
            poll::wait_for(fd, Interest { read: true, write: false }, Some(Duration::ZERO)).is_ok_and(|there| there)
        };
        self.is_draining() || signal.as_ref().is_some_and(is_there)
    }

    /// Whether answers that no request's thread waits for are still on their way.
    fn is_still_sending(&self) -> bool {
        self.hub.connections().iter().any(|connection| connection.is_leaving())
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.hub.connection_count()
    }

    /// The numbers of the connections' descriptors, which a child process of one request must not hold.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.hub.connections().iter().map(|connection| connection.descriptor().as_raw_fd()).collect()
    }

    /// Where the server listens.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|l| l.address().clone()).collect()
    }

    /// Takes a request that is ready. `read_at` is when this thread saw it come; without, it has lain somewhere.
    fn take_ready(&self, read_at: Option<Duration>) -> Option<Request> {
        while let Some((connection, id)) = self.hub.take_ready() {
            let has_waited = read_at.is_none_or(|t| clock::since(t) > STALE);
            if let Some(mut started) = connection.start(id, &self.hub, has_waited) {
                let mut exchange = Exchange::new(self.hub.clone(), connection, id, &mut started);
                exchange.log(self.books.entry(&started.params, true));
                return Some(Request::new(started.role, started.params, Box::new(exchange)));
            }
        }
        None
    }

    /// The next event, waiting for it; `None` when it is time to look at timeouts.
    fn next_event(&self) -> io::Result<Option<Token>> {
        let batched = || self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(token) = batched() {
            return Ok(Some(token));
        }
        // Where a connection came, another one often waits: asking costs less than waiting for the word of it.
        if let Some(eager) = self.eager.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            && eager.left > 0
        {
            eager.left -= 1;
            return Ok(Some(Token::Listener(eager.listener)));
        }
        let timeout = self.needs_tick().then_some(TICK);
        let mut tokens = Vec::with_capacity(64);
        self.hub.wait(&mut tokens, timeout)?;
        self.be_eager(tokens.last().copied());
        let mut tokens = tokens.into_iter();
        let first = tokens.next();
        if tokens.len() > 0 {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).extend(tokens);
        }
        let second = clock::seconds();
        if self.last_tick.swap(second, SeqCst) != second {
            self.tick();
        }
        Ok(first)
    }

    /// Looks at a listener again before it waits, if its word came last, and a few times only: others wait as well. With
    /// several threads, another one may wait for that listener.
    fn be_eager(&self, last: Option<Token>) {
        let eager = match last {
            Some(Token::Listener(listener)) if self.hub.config.threads == 1 => {
                Some(Eager { listener, left: EAGERNESS })
            }
            _ => None,
        };
        *self.eager.lock().unwrap_or_else(PoisonError::into_inner) = eager;
    }

    fn handle(&self, token: Token) {
        match token {
            Token::Listener(number) => self.accept_connection(number),
            Token::Connection { .. } => {
                if let Some(connection) = self.hub.connection(token) {
                    connection.on_event(&self.hub);
                }
            }
            Token::Given { is_own } => self.take_given(is_own),
            Token::Wake => self.hub.poll.woken(),
            Token::Drain => {
                if let Some(fd) = self.drain_on.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    self.hub.poll.remove(&fd);
                    self.drain();
                }
            }
        }
    }

    /// Accepts one connection. One at a time: another process that shares the listener may be idle, and what this one
    /// accepts it must also serve.
    fn accept_connection(&self, number: u32) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listener) = listeners.get(number as usize) else { return };
        if self.hub.connection_count() >= self.hub.config.max_connections {
            tracing::warn!("{} connections are open: no more for now (--max-connections)", self.hub.connection_count());
            self.rest(&listeners);
            return;
        }
        let (tcp, is_own) = (matches!(listener.address(), Address::Tcp { .. }), listener.is_own);
        match listener.accept(&self.allowed) {
            Ok(Some(socket)) => {
                drop(listeners);
                Connection::open(&self.hub, socket, tcp, is_own);
            }
            Ok(None) => self.be_eager(None),
            Err(e) => {
                self.be_eager(None);
                tracing::error!("cannot accept connections for now: {e}");
                self.rest(&listeners);
            }
        }
    }

    /// No more connections for now.
    fn rest_for_connections(&self) {
        tracing::warn!("{} connections are open: no more for now (--max-connections)", self.hub.connection_count());
        self.rest(&self.listeners.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks away from the listeners until the next tick.
    fn rest(&self, listeners: &[Listener]) {
        if !self.resting.swap(true, SeqCst) {
            for listener in listeners {
                self.hub.poll.remove(listener);
            }
            for (_, channel) in self.hub.channels() {
                self.hub.poll.remove(channel.takers_end());
            }
        }
    }

    /// Whether there is something that time could change.
    fn needs_tick(&self) -> bool {
        self.hub.connection_count() > 0 || self.resting.load(SeqCst)
    }

    fn tick(&self) {
        if self.resting.swap(false, SeqCst) {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, listener) in listeners.iter().enumerate() {
                if let Err(e) = self.hub.poll.add_listener(listener, Token::Listener(number as u32)) {
                    tracing::error!("cannot listen on {} any more: {e}", listener.address());
                }
            }
            let takes = !self.hub.is_retiring() && !self.hub.is_draining();
            for (is_own, channel) in self.hub.channels().filter(|_| takes) {
                let _ = self.hub.poll.add_listener(channel.takers_end(), Token::Given { is_own });
            }
        }
        for connection in self.hub.connections() {
            connection.check_time(&self.hub);
        }
    }
}

/// The configuration's type, for the documentation of [`Builder::config`].
pub type ServerConfig = hub::Config;
