//! What the connections of a server share: the poll set, the table of connections, the queue of requests that are ready
//! to be worked on, the limits and timeouts.

use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::affinity::Affinity;
use crate::handover::Channel;
use crate::poll::{Poll, Token};
use crate::protocol::{Limits, Params, values::Values};
use crate::queue::Queue;

/// What one connection may cost, and how long it may keep silent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that call [`Server::accept`](crate::Server::accept).
    pub threads: usize,
    /// Connections held at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Limits of the protocol.
    pub limits: Limits,
    /// A request whose body has come this far is worked on before the body is complete; by an event loop, as soon as its
    /// parameters have come. Until it is read, no more is taken from the connection.
    pub body_buffer: usize,
    /// Output is sent when this much has come together.
    pub output_buffer: usize,
    /// The rest of a request that was begun must come within this time, counted anew with each byte.
    pub read_timeout: Option<Duration>,
    /// Output must be taken within this time, counted anew with each byte.
    pub write_timeout: Option<Duration>,
    /// A connection without a request is closed after this time. `None`: it is the web server's to close.
    pub keepalive_timeout: Option<Duration>,
    /// With several threads: what belongs to one session goes to the same thread.
    pub affinity: Option<Affinity>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 1,
            max_connections: 16_384,
            limits: Limits::default(),
            body_buffer: 64 << 10,
            output_buffer: 64 << 10,
            read_timeout: Some(Duration::from_secs(60)),
            write_timeout: Some(Duration::from_secs(60)),
            keepalive_timeout: None,
            affinity: None,
        }
    }
}

impl Config {
    /// Bytes of a waiting request's body beyond which it is refused, if another request's bytes come behind them on the
    /// same connection: FastCGI cannot hold back one request alone.
    pub(crate) fn body_limit(&self) -> usize {
        // What one read brings is never too much, however small the buffer.
        const TWO_READS: usize = 128 << 10;
        self.body_buffer.saturating_mul(16).max(TWO_READS)
    }

    /// Bytes of the bodies of all waiting requests of a connection together, beyond which one more is refused.
    pub(crate) fn bodies_limit(&self) -> usize {
        self.body_limit().saturating_mul(16)
    }
}

/// Shared by all connections of type `C`.
#[derive(Debug)]
pub(crate) struct Hub<C> {
    pub(crate) config: Config,
    pub(crate) values: Values,
    pub(crate) poll: Poll,
    table: Mutex<Table<C>>,
    ready: Queue<(Arc<C>, u16)>,
    /// Requests that have begun and that no thread has taken.
    owed: AtomicUsize,
    draining: AtomicBool,
    retiring: AtomicBool,
    /// To and from other processes: connections of sockets that all workers share, and of those that are this worker's own.
    pub(crate) channels: [Option<Channel>; 2],
    /// The event loop has been woken, and has not yet looked why.
    nudged: AtomicBool,
    /// An event loop works on the requests.
    is_loop: AtomicBool,
    /// Output buffers for the next requests.
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct Table<C> {
    places: Vec<(u32, Option<Arc<C>>)>,
    free: Vec<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> Hub<C> {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        let poll = Poll::new(config.threads)?;
        let values = Values { max_connections: config.max_connections, max_requests: config.limits.requests };
        let table = Mutex::new(Table { places: Vec::new(), free: Vec::new() });
        let ready = Queue::new(config.threads, config.affinity.clone());
        Ok(Self {
            config,
            values,
            poll,
            table,
            ready,
            owed: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
            channels: [None, None],
            nudged: AtomicBool::new(false),
            is_loop: AtomicBool::new(false),
            buffers: Mutex::default(),
        })
    }

    /// From now on an event loop works on the requests, many at once.
    pub(crate) fn begin_loop(&self) {
        self.is_loop.store(true, Relaxed);
    }

    pub(crate) fn is_loop(&self) -> bool {
        self.is_loop.load(Relaxed)
    }

    /// Makes a connection with a place in the table.
    pub(crate) fn open(&self, make: impl FnOnce(Token) -> C) -> Arc<C> {
        let mut table = lock(&self.table);
        let place = table.free.pop().unwrap_or_else(|| {
            table.places.push((0, None));
            table.places.len() as u32 - 1
        });
        let (holder, slot) = &mut table.places[place as usize];
        *holder = holder.wrapping_add(1);
        let connection = Arc::new(make(Token::Connection { place, holder: *holder }));
        *slot = Some(connection.clone());
        connection
    }

    /// Gives a connection's place back.
    pub(crate) fn close(&self, token: Token) {
        let Token::Connection { place, holder } = token else { return };
        let mut table = lock(&self.table);
        if let Some((now, slot)) = table.places.get_mut(place as usize)
            && *now == holder
            && let Some(connection) = slot.take()
        {
            table.free.push(place);
            drop(table);
            drop(connection);
        }
    }

    /// The connection that an event is about, if it is still there.
    pub(crate) fn connection(&self, token: Token) -> Option<Arc<C>> {
        let Token::Connection { place, holder } = token else { return None };
        let table = lock(&self.table);
        let (now, slot) = table.places.get(place as usize)?;
        if *now == holder { slot.clone() } else { None }
    }

    pub(crate) fn connections(&self) -> Vec<Arc<C>> {
        lock(&self.table).places.iter().filter_map(|(_, slot)| slot.clone()).collect()
    }

    pub(crate) fn connection_count(&self) -> usize {
        let table = lock(&self.table);
        table.places.len() - table.free.len()
    }

    /// A request has begun that some thread will have to take.
    pub(crate) fn owe(&self) {
        self.owed.fetch_add(1, SeqCst);
    }

    /// A request was taken, or needs no thread any more.
    pub(crate) fn settled(&self) {
        self.owed.fetch_sub(1, SeqCst);
    }

    pub(crate) fn owes(&self) -> bool {
        self.owed.load(SeqCst) > 0
    }

    /// Queues a request that can be worked on, and wakes a thread for it when one waits.
    pub(crate) fn request_ready(&self, connection: Arc<C>, id: u16, params: Option<&Params>) {
        self.ready.push((connection, id), params, &self.poll);
    }

    pub(crate) fn take_ready(&self) -> Option<(Arc<C>, u16)> {
        self.ready.take(&self.poll)
    }

    /// Waits for events, or until a request is queued.
    pub(crate) fn wait(&self, tokens: &mut Vec<Token>, timeout: Option<Duration>) -> io::Result<()> {
        self.ready.wait(&self.poll, tokens, timeout)
    }

    /// Makes one waiting thread look whether the server has stopped.
    pub(crate) fn wake_one(&self) {
        self.ready.wake_one(&self.poll);
    }

    /// An event loop waits elsewhere for the poll set: what is queued meanwhile wakes it.
    pub(crate) fn rest(&self) {
        self.ready.rest();
    }

    /// The event loop has come back.
    pub(crate) fn resume(&self) {
        self.ready.resume();
        self.nudged.store(false, SeqCst);
    }

    /// Something has changed that no event tells: the event loop is to look at all connections.
    pub(crate) fn nudge(&self) {
        if !self.nudged.swap(true, SeqCst) {
            self.poll.wake_one();
        }
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    pub(crate) fn retire(&self) {
        self.retiring.store(true, SeqCst);
    }

    /// Whether connections are given to other processes as soon as they idle.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(SeqCst)
    }

    /// The channel for connections of sockets of this worker's own, or of shared ones.
    pub(crate) fn channel(&self, is_own: bool) -> Option<&Channel> {
        self.channels[usize::from(is_own)].as_ref()
    }

    /// The channels that there are, and whether they are for connections of sockets of this worker's own.
    pub(crate) fn channels(&self) -> impl Iterator<Item = (bool, &Channel)> {
        [false, true].into_iter().filter_map(|is_own| Some((is_own, self.channel(is_own)?)))
    }

    /// An empty buffer for a request's output.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_else(|| Vec::with_capacity(self.config.output_buffer + 4096))
    }

    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = lock(&self.buffers);
        if buffers.len() < self.config.threads {
            buffers.push(buffer);
        }
    }
}
