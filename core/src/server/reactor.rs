//! A server for one thread with an event loop of its own: many requests at once, and nothing waits.
//!
//! The loop watches [`Reactor`]'s descriptor for reading. When it becomes readable, and when [`Reactor::timeout`] is over,
//! it calls [`Reactor::turn`], which does all that can be done without waiting, and tells what there is to do for
//! requests.
//!
//! A loop that answers each request at once:
//!
//! ```no_run
//! use std::sync::Arc;
//! use fcgi_core::{Event, Reactor, Server};
//! # fn wait_until_readable(_: impl std::os::fd::AsFd, _: Option<std::time::Duration>) {}
//!
//! let server = Server::builder().listen(&"unix:/tmp/hello.sock".parse()?)?.start()?;
//! let mut reactor = Reactor::new(Arc::new(server));
//! let mut events = Vec::new();
//! while reactor.turn(&mut events)? {
//!     for event in events.drain(..) {
//!         if let Event::Request(mut request) = event {
//!             request.try_write(b"Content-Type: text/plain\r\n\r\nHello world!")?;
//!             request.finish(0)?;
//!         }
//!     }
//!     wait_until_readable(&reactor, reactor.timeout());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A request for which something "would block" is told of in a later turn, once: as [`Event::Readable`] or
//! [`Event::Writable`], or as [`Event::Aborted`] if there is no more sense in waiting.

mod request;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::running::Work;
use super::{Server, TICK};
use crate::connection::{Change, Connection};
use crate::exchange::Exchange;
use crate::poll::Token;
use crate::request::Request;
pub use request::PolledRequest;

/// What a turn has found. Numbers are those that [`PolledRequest::key`] gives; they may be of requests that have been
/// finished meanwhile.
#[derive(Debug)]
pub enum Event {
    /// A new request.
    Request(PolledRequest),
    /// Input has come that a request did not find, or has ended.
    Readable(u64),
    /// There is room for output that a request could not write.
    Writable(u64),
    /// A request is no longer wanted: the server took it back, its connection is gone or came to nothing for too long.
    /// Told once; no other event need follow.
    Aborted(u64),
}

/// A [`Server`] in the hands of an event loop. Nobody else may call the server's [`accept`](Server::accept);
/// [`drain`](Server::drain) may be called by anybody.
#[derive(Debug)]
pub struct Reactor {
    server: Arc<Server>,
    tokens: Vec<Token>,
    last_key: u64,
    last_tick: Instant,
}

impl Reactor {
    /// Takes a server that has been started, and has `ServerConfig::threads` 1.
    pub fn new(server: Arc<Server>) -> Self {
        server.hub.rest();
        server.hub.begin_loop();
        for connection in server.hub.connections() {
            connection.queue_begun(&server.hub);
        }
        Self { server, tokens: Vec::new(), last_key: 0, last_tick: Instant::now() }
    }

    /// Takes a request that the server gave by [`accept`](Server::accept): whoever began to work on it has found that it is
    /// for the event loop. What has been read and written stays so.
    ///
    /// # Errors
    /// The request, when it is none of a FastCGI connection, or has been finished.
    pub fn adopt(&mut self, request: Request) -> Result<PolledRequest, Request> {
        let (role, params, exchange, written) = request.into_parts::<Exchange>()?;
        self.last_key += 1;
        exchange.adopt(self.last_key);
        self.server.leave_work();
        let work = Work::begin(&self.server, self.last_key, &params);
        Ok(PolledRequest::new(self.last_key, role, params, exchange, written, work))
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Does what can be done now: takes connections, reads, sends, looks at timeouts once a second. What there is to do for
    /// requests is appended to `events`. False when the server has been told to stop and nothing is left to do.
    ///
    /// It does a bounded amount of work; if more is there, the descriptor stays readable.
    ///
    /// # Errors
    /// When the system fails us; a peer cannot cause one.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        self.server.say_ready();
        if self.server.at_work.load(Relaxed) == 0 {
            self.server.books.idle();
        }
        self.server.hub.resume();
        let result = self.turn_now(events);
        self.server.hub.rest();
        result?;
        let server = &self.server;
        if server.hub.is_retiring() && server.has_finished() {
            return Ok(false);
        }
        let is_done = server.hub.is_draining() && !server.hub.owes();
        Ok(!is_done || server.hub.connections().iter().any(|connection| connection.is_serving()))
    }

    /// How long the loop may wait for the descriptor before it calls [`turn`](Self::turn) all the same, to have timeouts
    /// looked at: a second at most. `None` when there is nothing that time could end.
    pub fn timeout(&self) -> Option<Duration> {
        self.server.needs_tick().then(|| TICK.saturating_sub(self.last_tick.elapsed()))
    }

    fn turn_now(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.server.hub.poll.wait(&mut self.tokens, Some(Duration::ZERO))?;
        let mut look_at_all = false;
        let mut tokens = std::mem::take(&mut self.tokens);
        for token in tokens.drain(..) {
            self.server.handle(token);
            self.take_requests(events);
            match token {
                Token::Connection { .. } => {
                    if let Some(connection) = self.server.hub.connection(token) {
                        self.tell(&connection, events);
                    }
                }
                // What has woken us, and a drain, may have changed any connection.
                Token::Wake | Token::Drain => look_at_all = true,
                Token::Listener(_) | Token::Given { .. } => {}
            }
        }
        self.tokens = tokens;
        if self.last_tick.elapsed() >= TICK {
            self.last_tick = Instant::now();
            self.server.tick();
            look_at_all = true;
        }
        if look_at_all {
            self.take_requests(events);
            for connection in self.server.hub.connections() {
                self.tell(&connection, events);
            }
        }
        Ok(())
    }

    /// Starts all requests that are ready.
    fn take_requests(&mut self, events: &mut Vec<Event>) {
        while let Some((connection, id)) = self.server.hub.take_ready() {
            let key = self.last_key + 1;
            let Some(mut started) = connection.start_polled(id, key, &self.server.hub) else { continue };
            self.last_key = key;
            self.server.count_turn();
            let mut exchange = Exchange::polled(self.server.hub.clone(), connection, id, &mut started);
            exchange.log(self.server.books.entry(&started.params, false));
            let request = Request::new(started.role, started.params, Box::new(exchange));
            let Some(request) = self.server.books.answer(request) else { continue };
            self.server.books.begin(request.params());
            let Ok((role, params, exchange, _)) = request.into_parts::<Exchange>() else { continue };
            let work = Work::begin(&self.server, key, &params);
            events.push(Event::Request(PolledRequest::new(key, role, params, exchange, 0, work)));
        }
    }

    fn tell(&self, connection: &Connection, events: &mut Vec<Event>) {
        connection.changes(&self.server.hub, |key, change| {
            events.push(match change {
                Change::Readable => Event::Readable(key),
                Change::Writable => Event::Writable(key),
                Change::Aborted => Event::Aborted(key),
            });
        });
    }
}

/// The server can be asked for requests again.
impl Drop for Reactor {
    fn drop(&mut self) {
        self.server.hub.resume();
    }
}

/// Becomes readable when there is something to do: an epoll descriptor, which may itself be watched by `epoll`, `poll` or
/// `select`. It must not be read.
impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.hub.poll.as_fd()
    }
}
