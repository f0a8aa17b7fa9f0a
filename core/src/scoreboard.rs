//! What the interpreters of a pool are doing: a table in memory that all its processes share. Each interpreter writes its own
//! line; whoever wants to know reads all of them, without a word to those who may be busy, or wedged.
//!
//! To write costs no system call. A line that was written by a process which died in the middle of it blocks nobody.

mod demoted;
mod memory;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::protocol::Params;
pub use demoted::Full;
use memory::{Shared, TEXT_WORDS};

/// A table, as one of the processes sees it.
#[derive(Clone, Debug)]
pub struct Scoreboard {
    shared: Arc<Shared>,
}

/// What an interpreter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// It waits for a request.
    Idle = 1,
    /// It works on one.
    Running = 2,
}

impl State {
    /// Its name in status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
        }
    }
}

/// One interpreter, as it was a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The process.
    pub pid: u32,
    /// Its number in the pool, if its sockets are its own; otherwise 0.
    pub place: u16,
    /// What it does.
    pub state: State,
    /// When its process began to serve.
    pub started: SystemTime,
    /// Requests that it has begun.
    pub requests: u64,
    /// How long its request has been running, or took.
    pub duration: Duration,
    /// Processor time of the request before, if it was measured.
    pub cpu: Option<Duration>,
    /// The largest memory of its process after that request, in bytes, if it was measured.
    pub memory: Option<u64>,
    /// Bytes of its request's body, as the web server says.
    pub content_length: u64,
    /// `REQUEST_METHOD`; the beginnings of longer texts.
    pub method: Vec<u8>,
    /// `REQUEST_URI`.
    pub uri: Vec<u8>,
    /// `SCRIPT_FILENAME`.
    pub script: Vec<u8>,
    /// `REMOTE_USER`.
    pub user: Vec<u8>,
}

/// A pool, as it was a moment ago.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the table was made.
    pub started: SystemTime,
    /// Requests that were begun, also by interpreters that are no more.
    pub accepted: u64,
    /// The most interpreters that were seen at work at the same time.
    pub max_active: u64,
    /// The most connections that were seen to wait.
    pub max_queue: u64,
    /// How often there were as many workers as there may be, and more were wanted.
    pub max_workers_reached: u64,
    /// Requests that took longer than the slow log asks.
    pub slow_requests: u64,
    /// Workers that ended without being told to.
    pub failed_workers: u64,
    /// Those of them that ended because a request of theirs did not.
    pub kill_after_reached: u64,
    /// Workers that were replaced because they had served as many requests as they may.
    pub max_requests_reached: u64,
    /// Workers that were replaced because they used more memory than they may.
    pub max_memory_reached: u64,
    /// The interpreters.
    pub lines: Vec<Line>,
}

impl Snapshot {
    /// Interpreters at work.
    pub fn active(&self) -> usize {
        self.lines.iter().filter(|line| line.state == State::Running).count()
    }

    /// Processes that serve.
    pub fn processes(&self) -> usize {
        let mut pids: Vec<u32> = self.lines.iter().map(|line| line.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.len()
    }
}

/// Counters of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// See [`Snapshot::max_workers_reached`].
    MaxWorkersReached,
    /// See [`Snapshot::slow_requests`].
    SlowRequests,
    /// See [`Snapshot::failed_workers`].
    FailedWorkers,
    /// See [`Snapshot::kill_after_reached`].
    KillAfterReached,
    /// See [`Snapshot::max_requests_reached`].
    MaxRequestsReached,
    /// See [`Snapshot::max_memory_reached`].
    MaxMemoryReached,
}

impl Scoreboard {
    /// A new table with room for so many interpreters. Room that is not used costs no memory.
    ///
    /// # Errors
    /// When the system has no shared memory for it.
    pub fn create(interpreters: usize) -> io::Result<Self> {
        let shared = Shared::create(interpreters)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        shared.head().started.store(now.as_millis() as u64, Relaxed);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The table that another process made, by its descriptor.
    ///
    /// # Errors
    /// When it is none, or one of another version of this program.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared::open(fd)?) })
    }

    /// Takes a line for an interpreter of this process, whose [place](Line::place) this is; `None` when all are taken.
    pub fn claim(&self, place: u16) -> Option<Seat> {
        let pid = std::process::id();
        let free = |expected: u32| {
            self.shared.slots().iter().position(|slot| {
                slot.pid.load(Relaxed) == expected && slot.pid.compare_exchange(expected, pid, AcqRel, Relaxed).is_ok()
            })
        };
        // Nobody may have been there to tidy up behind those that have died.
        let dead = || {
            let pids = self.shared.slots().iter().map(|slot| slot.pid.load(Relaxed));
            pids.filter(|pid| *pid != 0 && !is_alive(*pid)).find_map(free)
        };
        let number = free(0).or_else(dead)?;
        let seat = Seat { board: self.clone(), number, pid };
        let slot = seat.slot();
        slot.place.store(place.into(), Relaxed);
        slot.runs_nothing();
        slot.requests.store(0, Relaxed);
        slot.cpu.store(UNKNOWN, Relaxed);
        slot.memory.store(UNKNOWN, Relaxed);
        slot.duration.store(0, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        slot.started.store(now.as_millis() as u64, Relaxed);
        slot.write(&[]);
        slot.state.store(State::Idle as u32, Release);
        Some(seat)
    }

    /// Whether both are the same, and not two copies of one descriptor.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Frees the lines of a process that has ended.
    pub fn release(&self, pid: u32) {
        for slot in self.shared.slots() {
            if slot.pid.load(Relaxed) == pid {
                slot.state.store(0, Relaxed);
                let _ = slot.pid.compare_exchange(pid, 0, AcqRel, Relaxed);
            }
        }
    }

    /// Counts one more.
    pub fn count(&self, what: Counter) {
        let head = self.shared.head();
        let counter = match what {
            Counter::MaxWorkersReached => &head.max_workers_reached,
            Counter::SlowRequests => &head.slow_requests,
            Counter::FailedWorkers => &head.failed_workers,
            Counter::KillAfterReached => &head.kill_after_reached,
            Counter::MaxRequestsReached => &head.max_requests_reached,
            Counter::MaxMemoryReached => &head.max_memory_reached,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Notes how many connections wait.
    pub fn note_queue(&self, waiting: u64) {
        self.shared.head().max_queue.fetch_max(waiting, Relaxed);
    }

    /// Processes and their interpreters: `(pid, at work, in all)`. Cheaper than a [`snapshot`](Self::snapshot).
    pub fn busy(&self) -> Vec<(u32, usize, usize)> {
        let mut processes: Vec<(u32, usize, usize)> = Vec::new();
        for slot in self.shared.slots() {
            let (pid, state) = (slot.pid.load(Relaxed), slot.state.load(Acquire));
            if pid == 0 || state == 0 {
                continue;
            }
            let running = usize::from(state == State::Running as u32);
            match processes.iter_mut().find(|(known, ..)| *known == pid) {
                Some((_, active, all)) => (*active, *all) = (*active + running, *all + 1),
                None => processes.push((pid, running, 1)),
            }
        }
        let active: usize = processes.iter().map(|(_, active, _)| active).sum();
        self.shared.head().max_active.fetch_max(active as u64, Relaxed);
        processes
    }

    /// All that is known.
    pub fn snapshot(&self) -> Snapshot {
        let head = self.shared.head();
        let lines: Vec<Line> = self.shared.slots().iter().filter_map(memory::Slot::read).collect();
        let active = lines.iter().filter(|line| line.state == State::Running).count() as u64;
        head.max_active.fetch_max(active, Relaxed);
        Snapshot {
            started: UNIX_EPOCH + Duration::from_millis(head.started.load(Relaxed)),
            accepted: self.shared.slots().iter().map(|slot| slot.total.load(Relaxed)).sum(),
            max_active: head.max_active.load(Relaxed),
            max_queue: head.max_queue.load(Relaxed),
            max_workers_reached: head.max_workers_reached.load(Relaxed),
            slow_requests: head.slow_requests.load(Relaxed),
            failed_workers: head.failed_workers.load(Relaxed),
            kill_after_reached: head.kill_after_reached.load(Relaxed),
            max_requests_reached: head.max_requests_reached.load(Relaxed),
            max_memory_reached: head.max_memory_reached.load(Relaxed),
            lines,
        }
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd()
    }
}

/// The line of one interpreter, which it alone writes. It is free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    board: Scoreboard,
    number: usize,
    pid: u32,
}

impl Seat {
    fn slot(&self) -> &memory::Slot {
        &self.board.shared.slots()[self.number]
    }

    /// The table.
    pub fn board(&self) -> &Scoreboard {
        &self.board
    }

    /// The interpreter begins to work on a request.
    pub fn begin(&self, params: &Params) {
        let slot = self.slot();
        let text = |name: &[u8]| params.get(name).unwrap_or_default();
        let length = std::str::from_utf8(text(b"CONTENT_LENGTH")).ok().and_then(|length| length.parse().ok());
        slot.content_length.store(length.unwrap_or(0), Relaxed);
        slot.write(&[
            (text(b"REQUEST_METHOD"), 16),
            (text(b"REQUEST_URI"), 256),
            (text(b"SCRIPT_FILENAME"), 128),
            (text(b"REMOTE_USER"), 32),
        ]);
        slot.since.store(now(), Relaxed);
        slot.requests.fetch_add(1, Relaxed);
        slot.total.fetch_add(1, Relaxed);
        slot.state.store(State::Running as u32, Release);
    }

    /// The interpreter has finished its request. What it cost is told where it was measured.
    pub fn end(&self, cost: Option<Cost>) {
        let slot = self.slot();
        slot.duration.store(now().saturating_sub(slot.since.load(Relaxed)), Relaxed);
        if let Some(Cost { cpu, memory }) = cost {
            slot.cpu.store(cpu.as_micros() as u64, Relaxed);
            slot.memory.store(memory, Relaxed);
        }
        slot.state.store(State::Idle as u32, Release);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A child that was forked off has a copy, and no line.
        if std::process::id() == self.pid {
            let slot = self.slot();
            slot.state.store(0, Relaxed);
            let _ = slot.pid.compare_exchange(self.pid, 0, AcqRel, Relaxed);
        }
    }
}

/// What a request cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Processor time.
    pub cpu: Duration,
    /// The most memory that its process ever had, in bytes.
    pub memory: u64,
}

/// A number that was not measured.
const UNKNOWN: u64 = u64::MAX;

/// Microseconds since some moment in the past that all processes agree on.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

fn is_alive(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid as i32);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

impl memory::Slot {
    /// Writes texts, each up to its length. Readers see all of them or none.
    fn write(&self, texts: &[(&[u8], usize)]) {
        // Odd while it is written. One that died while it wrote has left it odd.
        let sequence = self.sequence.load(Relaxed) & !1;
        self.sequence.store(sequence | 1, Relaxed);
        fence(Release);
        let mut word = 0;
        let mut bytes = [0; 8];
        let mut filled = 0;
        let mut push = |byte: u8| {
            bytes[filled] = byte;
            filled += 1;
            if filled == bytes.len() && word < TEXT_WORDS {
                self.text[word].store(u64::from_ne_bytes(bytes), Relaxed);
                (word, filled) = (word + 1, 0);
            }
        };
        for (text, longest) in texts {
            text[..text.len().min(*longest)].iter().for_each(|byte| push(if *byte == 0 { b'?' } else { *byte }));
            push(0);
        }
        // The rest of the last word, and the end of all of them.
        (0..8).for_each(|_| push(0));
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    fn read(&self) -> Option<Line> {
        let pid = self.pid.load(Relaxed);
        let state = match self.state.load(Acquire) {
            1 => State::Idle,
            2 => State::Running,
            _ => return None,
        };
        if pid == 0 {
            return None;
        }
        let since = self.since.load(Relaxed);
        let duration = match state {
            State::Running => now().saturating_sub(since),
            State::Idle => self.duration.load(Relaxed),
        };
        let known = |value: &AtomicU64| Some(value.load(Relaxed)).filter(|value| *value != UNKNOWN);
        let text = self.read_text();
        let mut texts = text.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        let mut next = || texts.next().unwrap_or_default();
        Some(Line {
            pid,
            place: self.place.load(Relaxed).try_into().unwrap_or(0),
            state,
            started: UNIX_EPOCH + Duration::from_millis(self.started.load(Relaxed)),
            requests: self.requests.load(Relaxed),
            duration: Duration::from_micros(duration),
            cpu: known(&self.cpu).map(Duration::from_micros),
            memory: known(&self.memory),
            content_length: self.content_length.load(Relaxed),
            method: next(),
            uri: next(),
            script: next(),
            user: next(),
        })
    }

    /// Nothing when it is being written all the time.
    fn read_text(&self) -> Vec<u8> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let before = self.sequence.load(Acquire);
            if before & 1 == 0 {
                let text: Vec<u8> = self.text.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
                fence(Acquire);
                if self.sequence.load(Relaxed) == before {
                    return text;
                }
            }
            std::hint::spin_loop();
        }
        Vec::new()
    }
}

/// For the layout in `memory`: what the counters are made of.
type Number = AtomicU64;
type Small = AtomicU32;

#[cfg(test)]
mod tests;
