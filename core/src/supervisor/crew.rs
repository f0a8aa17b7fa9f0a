//! The workers of one pool: started, replaced, told to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::control::ToWorker;
use super::entrance::Entrance;
use super::pool::Policy;
use super::worker::{End, Named, Stage, Worker};
use super::{Pool, QUICK};
use crate::demotion;
use crate::handover::Channel;
use crate::scoreboard::Counter;

/// How often the memory of workers is looked at.
const MEMORY_TICK: Duration = Duration::from_secs(1);

/// A pool, and those who work in it.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) pool: Pool,
    policy: Policy,
    workers: Vec<Worker>,
    /// For all workers; behind it, for the workers of places that have sockets of their own.
    pub(super) entrances: Vec<Entrance>,
    /// How long a worker that is told to end may take.
    patience: Duration,
    memory_looked_at: Instant,
    /// What workers are forked from, if they are.
    template: Option<Worker>,
    /// Where workers give the requests of scripts that are demoted.
    elsewhere: Option<OwnedFd>,
    /// Told to end: nobody is started any more.
    is_stopping: bool,
}

impl Crew {
    /// A pool whose workers are still to be started, besides those that a reload has left. `channel` gives what it has left for
    /// a place.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn new(
        mut pool: Pool,
        mut kept: Vec<Worker>,
        mut channel: impl FnMut(u16) -> Option<Channel>,
        patience: Duration,
    ) -> io::Result<Self> {
        let policy = Policy::new(pool.size, kept.iter().filter(|worker| worker.stays()).count(), Instant::now());
        let listeners = [std::mem::take(&mut pool.listeners)].into_iter().chain(std::mem::take(&mut pool.own));
        let entrances = (0..).zip(listeners).map(|(place, listeners)| Entrance::new(place, listeners, channel(place)));
        let entrances = entrances.collect::<io::Result<Vec<_>>>()?;
        if let Some(desk) = pool.reception.as_mut().and_then(|reception| Arc::get_mut(&mut reception.desk)) {
            desk.counts(entrances.iter().map(Entrance::channel));
        }
        // Their sockets may be no more.
        for worker in kept.iter_mut().filter(|worker| entrances.iter().all(|entrance| entrance.place != worker.place)) {
            worker.place = 0;
        }
        Ok(Self {
            policy,
            workers: kept,
            entrances,
            patience,
            memory_looked_at: Instant::now(),
            template: None,
            elsewhere: None,
            is_stopping: false,
            pool,
        })
    }

    /// Lets its workers give requests to another pool's: this is where.
    pub(super) fn give_to(&mut self, other: OwnedFd) {
        self.elsewhere = Some(other);
    }

    /// Where its workers take what others give them.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn givers_end(&self) -> io::Result<OwnedFd> {
        let entrance = self.entrances.first().ok_or_else(|| io::Error::other("a pool without an entrance"))?;
        entrance.givers_end()
    }

    /// Starts the first workers.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if self.pool.is_preloaded {
            // Workers that a template forks become children of this process.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        for _ in 0..self.policy.wanted() {
            let worker = self.start_worker()?;
            self.workers.extend(worker);
        }
        Ok(())
    }

    /// Starts a worker; `None` while what it is to be forked from is not ready, or when there is no place for it.
    fn start_worker(&mut self) -> io::Result<Option<Worker>> {
        let Some(place) = self.free_place() else { return Ok(None) };
        if let Some(template) = &self.template {
            let is_ready = template.stage == Stage::Ready;
            let forked = is_ready.then(|| template.fork(place)).transpose();
            if forked.is_err() {
                template.signal(Signal::KILL);
            }
            return forked;
        }
        // Whom a template forks takes its place's.
        let entrances = self.entrances.iter().filter(|entrance| self.pool.is_preloaded || entrance.is_for(place));
        let mut descriptors: Vec<Named<'_>> = entrances.flat_map(Entrance::passed).collect();
        let scoreboard = self.pool.scoreboard.iter();
        descriptors.extend(scoreboard.map(|scoreboard| ("scoreboard".to_owned(), scoreboard.as_fd())));
        descriptors.extend(self.elsewhere.iter().map(|end| (super::ELSEWHERE.to_owned(), end.as_fd())));
        let numbers = if self.pool.forks_requests { vec![(super::FORKS.to_owned(), 1)] } else { Vec::new() };
        let program = &self.pool.program;
        if !self.pool.is_preloaded {
            return Worker::start(program, descriptors, place, numbers).map(Some);
        }
        self.template = Some(Worker::start_template(program, descriptors)?);
        Ok(None)
    }

    /// The place of the worker that is to be started next: one that nobody fills, and first of all one where nobody is. `None`
    /// when all are filled; 0 in a pool without places.
    fn free_place(&self) -> Option<u16> {
        let at = |place: u16| self.workers.iter().filter(move |worker| worker.place == place);
        let places = self.entrances.iter().map(|entrance| entrance.place).filter(|place| *place > 0);
        let mut free = places.filter(|place| !at(*place).any(Worker::counts)).peekable();
        if self.entrances.len() == 1 {
            return Some(0);
        }
        let first = free.peek().copied();
        free.find(|place| !at(*place).any(Worker::stays)).or(first)
    }

    /// Whether a reload is going on: workers from before have not been told to end.
    fn is_reloading(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_old && worker.stays())
    }

    /// Those that count: of this generation, working or about to, and not to be replaced.
    fn present(&self) -> usize {
        self.workers.iter().filter(|worker| worker.counts()).count()
    }

    /// Looks who has ended or said something, and does what follows from it.
    pub(super) fn look_after(&mut self, now: Instant) {
        let mut somebody_is_new = false;
        for worker in self.workers.iter_mut().chain(&mut self.template) {
            let stage = worker.stage;
            worker.listen();
            somebody_is_new |= stage != worker.stage;
        }
        self.bury(now);
        self.hurry(now);
        self.bury_template(now);
        if self.is_stopping {
            return;
        }
        self.look_at_memory(now);
        self.let_idle_go(now);
        if somebody_is_new {
            self.put_back();
        }
        let can_grow = self.policy.can_grow();
        let mut waits = false;
        for entrance in &mut self.entrances {
            let nobody = nobody_at(&self.workers, entrance);
            waits |= entrance.look(self.pool.reception.as_ref(), nobody, can_grow, now);
        }
        if waits && can_grow {
            let starting = self.workers.iter().filter(|worker| worker.stage == Stage::Starting).count();
            self.policy.press(starting, now);
            if let (false, Some(scoreboard)) = (self.policy.can_grow(), &self.pool.scoreboard) {
                scoreboard.count(Counter::MaxWorkersReached);
            }
        }
        self.start_missing(now);
        self.replace_spent(now);
        self.change_generation(now);
    }

    fn start_missing(&mut self, now: Instant) {
        let spent = self.workers.iter().filter(|worker| worker.is_spent && worker.stays() && !worker.is_old).count();
        // Those that ask to be replaced still work: not all of them are replaced at the same time.
        let there = self.present() + spent.saturating_sub(self.policy.replaced_at_once());
        for _ in 0..self.policy.missing(there, now) {
            match self.start_worker() {
                Ok(Some(worker)) => self.workers.push(worker),
                Ok(None) => break,
                Err(e) => {
                    tracing::error!("cannot start a worker: {e}");
                    self.policy.could_not_start(now);
                    break;
                }
            }
        }
    }

    /// Forgets workers that have ended.
    fn bury(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.workers.len() {
            let Some(how) = self.workers[at].ended() else {
                at += 1;
                continue;
            };
            let mut worker = self.workers.remove(at);
            self.take_trust_back(&worker, &how);
            if let Some(scoreboard) = &self.pool.scoreboard {
                scoreboard.release(worker.pid.as_raw_nonzero().get() as u32);
                // Its last word may have come since.
                worker.listen();
                if worker.is_late {
                    scoreboard.count(Counter::FailedWorkers);
                    scoreboard.count(Counter::KillAfterReached);
                }
            }
            if !worker.stays() || self.is_stopping {
                continue;
            }
            let pid = worker.pid.as_raw_nonzero();
            if self.is_reloading() && !worker.is_old && worker.stage == Stage::Starting {
                tracing::error!("worker {pid} {how} before it served: the workers from before the reload go on");
                self.take_back(now);
                continue;
            }
            if let Some(scoreboard) = self.pool.scoreboard.as_ref().filter(|_| !worker.is_late) {
                scoreboard.count(Counter::FailedWorkers);
            }
            let pause = self.policy.failed(now.duration_since(worker.started), now);
            let when = pause.map(|pause| format!(" in {pause:?}")).unwrap_or_default();
            tracing::error!("worker {pid} {how}: it is started again{when}");
        }
    }

    /// A script that has ended its worker is not trusted with another one.
    fn take_trust_back(&self, worker: &Worker, how: &End) {
        let Some(board) = self.pool.scoreboard.as_ref().filter(|_| how.is_its_own && self.elsewhere.is_some()) else {
            return;
        };
        let pid = worker.pid.as_raw_nonzero().get() as u32;
        if let Some(script) = board.script_of(pid) {
            demotion::demoted(board.demote_what_runs(pid), &script, &format!("worker {pid} {how} while it ran this"));
        }
    }

    /// Workers that were told to end and do not.
    fn hurry(&mut self, now: Instant) {
        let patience = self.patience;
        for worker in self.workers.iter_mut().filter(|worker| worker.leave_by.is_some_and(|at| at <= now)) {
            let pid = worker.pid.as_raw_nonzero();
            if worker.is_hurried {
                tracing::warn!(
                    "worker {pid} is still busy {patience:?} after it was to end: it is killed (--shutdown-timeout)"
                );
                worker.leave_by = None;
                worker.signal(Signal::KILL);
            } else {
                // No request that begins now is answered any more.
                worker.is_hurried = true;
                worker.tell(ToWorker::Stop, now + QUICK);
            }
        }
    }

    fn look_at_memory(&mut self, now: Instant) {
        let Some(limit) = self.pool.max_memory else { return };
        if now.saturating_duration_since(self.memory_looked_at) < MEMORY_TICK {
            return;
        }
        self.memory_looked_at = now;
        for worker in self.workers.iter_mut().filter(|worker| worker.counts()) {
            if let Some(used) = worker.memory().filter(|used| *used > limit) {
                let pid = worker.pid.as_raw_nonzero();
                tracing::info!("worker {pid} uses {} KiB: it is replaced (--max-memory)", used >> 10);
                worker.is_spent = true;
                if let Some(scoreboard) = &self.pool.scoreboard {
                    scoreboard.count(Counter::MaxMemoryReached);
                }
            }
        }
    }

    fn let_idle_go(&mut self, now: Instant) {
        let deadline = now + self.patience;
        for worker in &mut self.workers {
            if std::mem::take(&mut worker.is_idle) && worker.counts() && self.policy.lets_go() {
                worker.tell(ToWorker::Retire, deadline);
            }
        }
    }

    /// Lets those go that asked to be replaced, when others serve in their place.
    fn replace_spent(&mut self, now: Instant) {
        let deadline = now + self.patience;
        let serving = |worker: &&Worker| worker.counts() && worker.stage == Stage::Ready;
        let mut ready = self.workers.iter().filter(serving).count();
        let spent = |worker: &Worker| worker.is_spent && worker.stays() && !worker.is_old;
        let mut there = self.workers.iter().filter(|worker| spent(worker)).count() + ready;
        // Those that fill the pool's number; all others may go.
        ready = ready.min(self.policy.wanted());
        for worker in self.workers.iter_mut().filter(|worker| spent(worker) && worker.place == 0) {
            if there <= self.policy.wanted() || ready == 0 {
                return;
            }
            there -= 1;
            worker.tell(ToWorker::Retire, deadline);
        }
        // Where there are places, each waits for its own successor, and goes as soon as that is there.
        let taken = self.places_of(serving);
        for worker in self.workers.iter_mut().filter(|worker| spent(worker) && taken.contains(&worker.place)) {
            worker.tell(ToWorker::Retire, deadline);
        }
    }

    /// The places of some workers, where there are places.
    fn places_of(&self, which: impl Fn(&&Worker) -> bool) -> Vec<u16> {
        self.workers.iter().filter(which).map(|worker| worker.place).filter(|place| *place > 0).collect()
    }

    fn bury_template(&mut self, now: Instant) {
        let Some(how) = self.template.as_ref().and_then(Worker::ended) else { return };
        let Some(template) = self.template.take() else { return };
        let pid = template.pid.as_raw_nonzero();
        let pause = self.policy.failed(now.duration_since(template.started), now);
        if self.is_reloading() && template.stage == Stage::Starting {
            tracing::error!(
                "process {pid}, which loads what workers share, {how}: the workers from before the reload go on"
            );
            self.take_back(now);
            return;
        }
        let when = pause.map(|pause| format!(", in {pause:?} at the earliest")).unwrap_or_default();
        tracing::error!(
            "process {pid}, which loads what workers share, {how}: it is started again when one is wanted{when}"
        );
    }

    /// Nobody will be forked any more.
    pub(super) fn dismiss_template(&mut self) {
        let Some(mut template) = self.template.take() else { return };
        if template.stage == Stage::Starting {
            // It loads, and does not listen.
            template.signal(Signal::KILL);
        }
        template.tell(ToWorker::Stop, Instant::now() + QUICK);
        self.workers.push(template);
    }

    /// Whether requests are served: by one worker at least, where there are to be any; after a reload by a new one.
    pub(super) fn serves(&self) -> bool {
        let is_ready = |worker: &Worker| worker.stage == Stage::Ready && !worker.is_old;
        self.policy.wanted() == 0 || self.workers.iter().any(is_ready)
    }

    /// When the new workers serve, those from before may go. Where there are places, each as soon as its successor serves: what
    /// comes by a socket of their own would meet now one, now the other.
    fn change_generation(&mut self, now: Instant) {
        if !self.is_reloading() {
            return;
        }
        let ready = |worker: &&Worker| !worker.is_old && worker.stage == Stage::Ready;
        let all_are_ready = self.workers.iter().filter(ready).count() >= self.policy.wanted();
        let taken = self.places_of(ready);
        for worker in self.workers.iter_mut().filter(|worker| worker.is_old && worker.stays()) {
            if all_are_ready || taken.contains(&worker.place) {
                worker.tell(ToWorker::Retire, now + self.patience);
            }
        }
        if !self.is_reloading() {
            tracing::info!("reloaded: the new workers serve");
        }
    }

    /// The new workers are of no use: those from before are the pool again.
    fn take_back(&mut self, now: Instant) {
        let taken = self.places_of(|worker| worker.is_old && worker.stays());
        for worker in &mut self.workers {
            if worker.is_old {
                worker.is_old = false;
            // Where the one from before has gone, the new one is all that there is.
            } else if worker.stays() && (worker.place == 0 || taken.contains(&worker.place)) {
                worker.tell(ToWorker::Retire, now + self.patience);
            }
        }
    }

    /// Lets workers finish what they have begun; nobody will serve afterwards.
    pub(super) fn stop(&mut self, deadline: Instant) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        // It holds copies of the sockets, to count what waits there.
        self.pool.reception = None;
        self.entrances.iter_mut().for_each(Entrance::close);
        self.dismiss_template();
        for worker in &mut self.workers {
            worker.tell(ToWorker::Stop, deadline);
            worker.leave_by = None;
        }
    }

    /// Lets all workers finish and go; others serve.
    pub(super) fn retire(&mut self) {
        let deadline = Instant::now() + self.patience;
        self.dismiss_template();
        for worker in &mut self.workers {
            worker.tell(ToWorker::Retire, deadline);
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
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let leaving = self.workers.iter().filter_map(|worker| worker.leave_by).min();
        if self.is_stopping {
            return leaving;
        }
        let memory = self.pool.max_memory.map(|_| self.memory_looked_at + MEMORY_TICK);
        let looks = self.entrances.iter().filter_map(Entrance::next_look).min();
        let times = [leaving, memory, looks, self.policy.ask_again(self.present(), now)];
        times.into_iter().flatten().min()
    }

    /// What the parent waits for on behalf of this pool.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        // Those that leave say nothing any more, and their end is a signal.
        let saying = self.workers.iter().chain(&self.template).filter(|worker| worker.stays() && !worker.is_deaf);
        let mut all: Vec<BorrowedFd<'_>> = saying.map(|worker| worker.control().as_fd()).collect();
        if !self.is_stopping {
            let waiting = |entrance| Entrance::descriptors(entrance, nobody_at(&self.workers, entrance));
            all.extend(self.entrances.iter().flat_map(waiting));
        }
        all
    }

    pub(super) fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// What is in the parent's hands goes back to the workers' channel, to be found there by the next program.
    pub(super) fn put_back(&mut self) {
        self.entrances.iter_mut().for_each(Entrance::somebody_serves);
    }

    /// Whether a process is one of the pool's.
    pub(super) fn has(&self, pid: i32) -> bool {
        self.workers.iter().chain(&self.template).any(|worker| worker.pid.as_raw_nonzero().get() == pid)
    }
}

/// Whether no worker serves an entrance.
fn nobody_at(workers: &[Worker], entrance: &Entrance) -> bool {
    !workers.iter().any(|worker| worker.stays() && entrance.is_for(worker.place))
}
