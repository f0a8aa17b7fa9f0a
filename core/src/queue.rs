//! Requests that are ready to be worked on, and the threads that want them.
//!
//! Usually any thread takes any request: all of them wait on the poll set, and whoever wakes takes what is there. With
//! [affinity](crate::affinity), a certain thread may be wanted. Then one idle thread, the leader, waits on the poll set, the
//! others each wait for a word of their own: that a request for them has come, or that they are to lead.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::affinity::{Affinity, Homes, Session};
use crate::poll::{Poll, Token};
use crate::protocol::Params;

/// The queue of a server whose requests are known as `R`.
#[derive(Debug)]
pub(crate) enum Queue<R> {
    /// Any thread takes any request.
    Shared(Shared<R>),
    /// Some requests have a thread of their own.
    Affine(Box<Affine<R>>),
}

impl<R> Queue<R> {
    /// With one thread there is nothing to choose.
    pub(crate) fn new(threads: usize, affinity: Option<Affinity>) -> Self {
        match affinity {
            Some(affinity) if threads > 1 => Self::Affine(Box::new(Affine::new(affinity))),
            _ => Self::Shared(Shared::default()),
        }
    }

    /// Queues a request, and wakes a thread for it when one waits.
    pub(crate) fn push(&self, request: R, params: Option<&Params>, poll: &Poll) {
        match self {
            Self::Shared(queue) => queue.push(request, poll),
            Self::Affine(queue) => queue.push(request, params, poll),
        }
    }

    /// A request that the calling thread may work on.
    pub(crate) fn take(&self, poll: &Poll) -> Option<R> {
        match self {
            Self::Shared(queue) => lock(&queue.requests).pop_front(),
            Self::Affine(queue) => queue.take(poll),
        }
    }

    /// Waits for events, or until there is something to take.
    pub(crate) fn wait(&self, poll: &Poll, tokens: &mut Vec<Token>, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Shared(queue) => queue.wait(poll, tokens, timeout),
            Self::Affine(queue) => queue.wait(poll, tokens, timeout),
        }
    }

    /// Makes a waiting thread look at the server again; it sees to it that the next one does.
    pub(crate) fn wake_one(&self, poll: &Poll) {
        match self {
            Self::Shared(_) => poll.wake_one(),
            Self::Affine(queue) => queue.wake_one(poll),
        }
    }

    /// A thread waits for the poll set elsewhere: what is queued meanwhile wakes it.
    pub(crate) fn rest(&self) {
        match self {
            Self::Shared(queue) => {
                queue.idle.fetch_add(1, SeqCst);
            }
            Self::Affine(queue) => lock(&queue.office).lead(true),
        }
    }

    /// That thread has come back.
    pub(crate) fn resume(&self) {
        match self {
            Self::Shared(queue) => {
                queue.idle.fetch_sub(1, SeqCst);
            }
            Self::Affine(queue) => lock(&queue.office).lead(false),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared<R> {
    requests: Mutex<VecDeque<R>>,
    /// Threads that wait for events.
    idle: AtomicUsize,
}

impl<R> Default for Shared<R> {
    fn default() -> Self {
        Self { requests: Mutex::default(), idle: AtomicUsize::new(0) }
    }
}

impl<R> Shared<R> {
    fn push(&self, request: R, poll: &Poll) {
        lock(&self.requests).push_back(request);
        if self.idle.load(SeqCst) > 0 {
            poll.wake_one();
        }
    }

    /// The queue is looked at again once this thread counts as idle, so that a request which came in between is not left
    /// lying.
    fn wait(&self, poll: &Poll, tokens: &mut Vec<Token>, timeout: Option<Duration>) -> io::Result<()> {
        self.idle.fetch_add(1, SeqCst);
        let waiting = lock(&self.requests).is_empty();
        let result = if waiting { poll.wait(tokens, timeout) } else { Ok(()) };
        self.idle.fetch_sub(1, SeqCst);
        result
    }
}

#[derive(Debug)]
pub(crate) struct Affine<R> {
    affinity: Affinity,
    office: Mutex<Office<R>>,
}

#[derive(Debug)]
struct Office<R> {
    waiting: VecDeque<Ticket<R>>,
    homes: Homes,
    seats: Vec<Seat>,
    /// The thread that looks after the poll set: it waits on it, or handles what came.
    leader: Option<u16>,
    /// The leader waits.
    polling: bool,
}

#[derive(Debug)]
struct Ticket<R> {
    request: R,
    session: Option<Session>,
    /// Until then it waits for its session's home.
    patient_until: Instant,
}

/// A thread.
#[derive(Debug)]
struct Seat {
    thread: ThreadId,
    word: Arc<Condvar>,
    /// It waits for its word.
    idle: bool,
}

impl<R> Affine<R> {
    fn new(affinity: Affinity) -> Self {
        let office =
            Office { waiting: VecDeque::new(), homes: Homes::new(), seats: Vec::new(), leader: None, polling: false };
        Self { affinity, office: Mutex::new(office) }
    }

    fn push(&self, request: R, params: Option<&Params>, poll: &Poll) {
        let mut office = lock(&self.office);
        let name = params.and_then(|params| self.affinity.source.session(params));
        let session = name.map(|name| office.homes.session(name));
        let home = session.and_then(|session| office.homes.of(session));
        office.waiting.push_back(Ticket { request, session, patient_until: Instant::now() + self.affinity.patience });
        match home {
            Some(home) => office.wake_home(home, poll),
            None => office.wake_any(poll),
        }
    }

    fn take(&self, poll: &Poll) -> Option<R> {
        let mut office = lock(&self.office);
        let me = office.seat();
        let at = office.first_for(me)?;
        let ticket = office.waiting.remove(at)?;
        if let Some(session) = ticket.session {
            office.homes.set(session, me);
        }
        office.leave(me, poll);
        Some(ticket.request)
    }

    fn wait(&self, poll: &Poll, tokens: &mut Vec<Token>, timeout: Option<Duration>) -> io::Result<()> {
        let mut office = lock(&self.office);
        let me = office.seat();
        if office.first_for(me).is_some() {
            return Ok(());
        }
        if office.leader.is_some_and(|leader| leader != me) {
            let seat = &mut office.seats[usize::from(me)];
            seat.idle = true;
            let word = seat.word.clone();
            let mut office = word.wait(office).unwrap_or_else(PoisonError::into_inner);
            office.seats[usize::from(me)].idle = false;
            return Ok(());
        }
        office.lead(true);
        // A request whose home is busy is not left to it for ever.
        let patient = office.waiting.iter().map(|ticket| ticket.patient_until).min();
        let patient = patient.map(|until| until.saturating_duration_since(Instant::now()));
        drop(office);
        let result = poll.wait(tokens, [timeout, patient].into_iter().flatten().min());
        lock(&self.office).lead(false);
        result
    }

    fn wake_one(&self, poll: &Poll) {
        let mut office = lock(&self.office);
        let me = office.seat();
        office.leave(me, poll);
        office.wake_any(poll);
    }
}

impl<R> Office<R> {
    /// The calling thread's.
    fn seat(&mut self) -> u16 {
        let thread = thread::current().id();
        let known = self.seats.iter().position(|seat| seat.thread == thread);
        known.unwrap_or_else(|| {
            self.seats.push(Seat { thread, word: Arc::default(), idle: false });
            self.seats.len() - 1
        }) as u16
    }

    /// The first request that this thread may take: it is at home here, or has no home, or has waited for it long enough.
    fn first_for(&self, me: u16) -> Option<usize> {
        self.waiting.iter().position(|ticket| {
            let home = ticket.session.and_then(|session| self.homes.of(session));
            home.is_none_or(|home| home == me) || ticket.patient_until <= Instant::now()
        })
    }

    /// The calling thread looks after the poll set.
    fn lead(&mut self, polling: bool) {
        self.leader = Some(self.seat());
        self.polling = polling;
    }

    /// This thread goes to work: the poll set, and what is queued, is left to another one.
    fn leave(&mut self, me: u16, poll: &Poll) {
        if self.leader == Some(me) {
            self.leader = None;
        }
        if self.leader.is_none() {
            self.wake_any(poll);
        }
    }

    /// Wakes the thread that a request is for. If it is busy, the leader learns how long the request can wait.
    fn wake_home(&mut self, home: u16, poll: &Poll) {
        if let Some(seat) = self.seats.get_mut(usize::from(home)).filter(|seat| seat.idle) {
            seat.call();
        } else if self.leader.is_some() && self.polling {
            poll.wake_one();
        }
    }

    /// Wakes a thread for what is queued, unless one is about to look.
    fn wake_any(&mut self, poll: &Poll) {
        if self.leader.is_some() && !self.polling {
            return;
        }
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.idle) {
            seat.call();
        } else if self.leader.is_some() {
            poll.wake_one();
        }
    }
}

impl Seat {
    fn call(&mut self) {
        self.idle = false;
        self.word.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
