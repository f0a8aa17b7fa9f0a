//! The workers of one pool: started, replaced, told to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::process::Signal;

use super::Pool;
use super::control::ToWorker;
use super::pool::Policy;
use super::worker::{Stage, Worker};
use crate::scoreboard::Counter;

/// A pool, and those who work in it.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) pool: Pool,
    policy: Policy,
    workers: Vec<Worker>,
    /// Told to end: nobody is started any more.
    is_stopping: bool,
}

impl Crew {
    /// A pool whose workers are still to be started, besides those that a reload has left.
    pub(super) fn new(pool: Pool, kept: Vec<Worker>) -> Self {
        let policy = Policy::new(pool.size);
        Self { pool, policy, workers: kept, is_stopping: false }
    }

    /// Starts the first workers.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        for _ in 0..self.policy.wanted() {
            let worker = self.start_worker()?;
            self.workers.push(worker);
        }
        Ok(())
    }

    fn start_worker(&self) -> io::Result<Worker> {
        let mut descriptors: Vec<(&str, BorrowedFd<'_>)> =
            self.pool.listeners.iter().map(|listener| ("listener", listener.as_fd())).collect();
        descriptors.extend(self.pool.scoreboard.iter().map(|scoreboard| ("scoreboard", scoreboard.as_fd())));
        Worker::start(&self.pool.program, &descriptors)
    }

    /// Whether a reload is going on: workers from before have not been told to end.
    fn is_reloading(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_old && worker.stays())
    }

    /// Those that count: of this generation, working or about to.
    fn present(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.is_old && worker.stays()).count()
    }

    /// Looks who has ended or said something, and does what follows from it.
    pub(super) fn look_after(&mut self, now: Instant) {
        for worker in &mut self.workers {
            worker.listen();
        }
        self.bury(now);
        if self.is_stopping {
            return;
        }
        for _ in 0..self.policy.missing(self.present(), now) {
            match self.start_worker() {
                Ok(worker) => self.workers.push(worker),
                Err(e) => {
                    tracing::error!("cannot start a worker: {e}");
                    self.policy.could_not_start(now);
                    break;
                }
            }
        }
        self.change_generation();
    }

    /// Forgets workers that have ended.
    fn bury(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.workers.len() {
            let Some(how) = self.workers[at].ended() else {
                at += 1;
                continue;
            };
            let worker = self.workers.remove(at);
            if let Some(scoreboard) = &self.pool.scoreboard {
                scoreboard.release(worker.pid.as_raw_nonzero().get() as u32);
            }
            if !worker.stays() || self.is_stopping {
                continue;
            }
            let pid = worker.pid.as_raw_nonzero();
            if self.is_reloading() && !worker.is_old && worker.stage == Stage::Starting {
                tracing::error!("worker {pid} {how} before it served: the workers from before the reload go on");
                self.take_back();
                continue;
            }
            if let Some(scoreboard) = &self.pool.scoreboard {
                scoreboard.count(Counter::FailedWorkers);
            }
            let pause = self.policy.failed(now.duration_since(worker.started), now);
            let when = pause.map(|pause| format!(" in {pause:?}")).unwrap_or_default();
            tracing::error!("worker {pid} {how}: it is started again{when}");
        }
    }

    /// When the new workers serve, those from before may go.
    fn change_generation(&mut self) {
        let ready = self.workers.iter().filter(|worker| !worker.is_old && worker.stage == Stage::Ready).count();
        if !self.is_reloading() || ready < usize::from(self.policy.wanted()) {
            return;
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.is_old && worker.stays()) {
            worker.tell(ToWorker::Retire);
        }
        tracing::info!("reloaded: the new workers serve");
    }

    /// The new workers are of no use: those from before are the pool again.
    fn take_back(&mut self) {
        for worker in &mut self.workers {
            if worker.is_old {
                worker.is_old = false;
            } else if worker.stays() {
                worker.tell(ToWorker::Retire);
            }
        }
    }

    /// Lets workers finish what they have begun; nobody will serve afterwards.
    pub(super) fn stop(&mut self) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        // The workers have their own; what connects from now on is refused once they have closed them.
        self.pool.listeners.clear();
        for worker in &mut self.workers {
            worker.tell(ToWorker::Stop);
        }
    }

    /// Lets all workers finish and go; others serve.
    pub(super) fn retire(&mut self) {
        for worker in &mut self.workers {
            worker.tell(ToWorker::Retire);
        }
    }

    /// Whether workers from before a reload are still there.
    pub(super) fn has_old(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_old)
    }

    pub(super) fn kill(&self) {
        for worker in &self.workers {
            worker.signal(Signal::KILL);
        }
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// When it is to be looked after again, if nothing happens until then.
    pub(super) fn next_look(&self) -> Option<Instant> {
        if self.is_stopping { None } else { self.policy.ask_again(self.present()) }
    }

    pub(super) fn workers(&self) -> &[Worker] {
        &self.workers
    }
}
