//! What a server keeps of its requests for those who watch it: a line of the scoreboard for each thread that accepts, and
//! answers of its own.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::access_log::{AccessLog, Entry, usage};
use crate::protocol::Params;
use crate::request::Request;
use crate::scoreboard::{Cost, Scoreboard, Seat};
use crate::status::Desk;

/// For whom a server keeps books. Without anybody, they cost nothing.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What interpreters do is told here.
    pub scoreboard: Option<Scoreboard>,
    /// The worker's number in its pool, if its sockets are its own.
    pub place: u16,
    /// What each request cost is measured for it: some system calls for each.
    pub measures_cost: bool,
    /// Requests for it are answered at once.
    pub desk: Option<Arc<Desk>>,
    /// Has a line for each request.
    pub access_log: Option<Arc<AccessLog>>,
}

thread_local! {
    static SEAT: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

/// A thread that accepts requests.
struct Thread {
    seat: Seat,
    is_busy: bool,
    /// Processor time when its request began.
    cpu: Option<Duration>,
}

impl Books {
    /// The calling thread waits for a request: it has done with the one before.
    pub(super) fn idle(&self) {
        let Some(board) = &self.scoreboard else { return };
        SEAT.with_borrow_mut(|thread| {
            if !thread.as_ref().is_some_and(|thread| thread.seat.board().is(board)) {
                *thread = board.claim(self.place).map(|seat| Thread { seat, is_busy: false, cpu: None });
            }
            if let Some(thread) = thread.as_mut().filter(|thread| thread.is_busy) {
                thread.is_busy = false;
                let cost = thread.cpu.take().map(|before| {
                    let (now, memory) = usage();
                    Cost { cpu: (now.user + now.system).saturating_sub(before), memory }
                });
                thread.seat.end(cost);
            }
        });
    }

    /// The calling thread begins to work on a request.
    pub(super) fn begin(&self, params: &Params) {
        if self.scoreboard.is_none() {
            return;
        }
        SEAT.with_borrow_mut(|thread| {
            let Some(thread) = thread else { return };
            thread.is_busy = true;
            thread.cpu = self.measures_cost.then(|| usage().0).map(|cpu| cpu.user + cpu.system);
            thread.seat.begin(params);
        });
    }

    /// The calling thread accepts no more.
    pub(super) fn leave(&self) {
        if self.scoreboard.is_some() {
            SEAT.take();
        }
    }

    /// What the access log is to know of a request. `is_alone` says that its thread works on no other one.
    pub(super) fn entry(&self, params: &Params, is_alone: bool) -> Option<Entry> {
        self.access_log.as_ref().map(|log| Entry::new(log.clone(), params, is_alone))
    }

    /// Answers a request that is for the desk; others are given back.
    pub(super) fn answer(&self, mut request: Request) -> Option<Request> {
        let Some(answer) = self.desk.as_ref().and_then(|desk| desk.answer(request.params())) else {
            return Some(request);
        };
        // A client that has gone needs no answer.
        let _ = std::io::Write::write_all(&mut request.stdout(), &answer).and_then(|()| request.finish(0));
        None
    }
}
