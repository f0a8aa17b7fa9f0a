//! Sends what streaming applications have given while they make the next part: a block is not held back (PEP 3333,
//! "Buffering and Streaming"), and an application that is quick does not pay for a send with each block.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fcgi_core::Request;

/// How long a block waits for others to go with.
const PAUSE: Duration = Duration::from_millis(2);

/// A thread that sends, started when it is first needed.
#[derive(Default)]
pub(super) struct Flusher {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    streams: Vec<Arc<Stream>>,
    runs: bool,
    sleeps: bool,
}

/// The answer of one request that is being made.
struct Stream {
    request: Arc<Mutex<Request>>,
    /// Something was written since it was last sent.
    pending: AtomicBool,
    /// It could not be sent: nobody reads it.
    failed: AtomicBool,
}

impl Flusher {
    pub(super) fn start() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after an answer until what it gives goes.
    pub(super) fn stream(self: &Arc<Self>, request: &Arc<Mutex<Request>>) -> Streaming {
        let stream = Arc::new(Stream {
            request: request.clone(),
            pending: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        Streaming { flusher: self.clone(), stream, known: std::cell::Cell::new(false) }
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            while state.streams.is_empty() {
                state.sleeps = true;
                state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.sleeps = false;
            let streams = state.streams.clone();
            drop(state);
            std::thread::sleep(PAUSE);
            for stream in streams {
                if !stream.pending.swap(false, AcqRel) {
                    continue;
                }
                // One who writes just now will be looked at again.
                match stream.request.try_lock() {
                    Ok(mut request) => stream.failed.store(request.stdout().flush().is_err(), Release),
                    Err(_) => stream.pending.store(true, Release),
                }
            }
            state = self.lock();
        }
    }
}

/// An answer that is being made.
pub(super) struct Streaming {
    flusher: Arc<Flusher>,
    stream: Arc<Stream>,
    known: std::cell::Cell<bool>,
}

impl Streaming {
    /// A block was written.
    ///
    /// # Errors
    /// When those before it could not be sent.
    pub(super) fn written(&self) -> io::Result<()> {
        if self.stream.failed.load(Acquire) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.stream.pending.store(true, Release);
        if self.known.replace(true) {
            return Ok(());
        }
        let mut state = self.flusher.lock();
        state.streams.push(self.stream.clone());
        if !state.runs {
            let flusher = self.flusher.clone();
            state.runs = std::thread::Builder::new().name("flusher".to_owned()).spawn(move || flusher.run()).is_ok();
            if !state.runs {
                // Hosts that allow one thread send with each block.
                drop(state);
                self.known.set(false);
                return self.stream.request.lock().unwrap_or_else(PoisonError::into_inner).stdout().flush();
            }
        } else if state.sleeps {
            self.flusher.woken.notify_one();
        }
        Ok(())
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if self.known.get() {
            self.flusher.lock().streams.retain(|stream| !Arc::ptr_eq(stream, &self.stream));
        }
    }
}
