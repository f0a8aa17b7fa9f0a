//! How many workers a pool should have, and when they may be started. It knows no processes: what it decides follows from
//! numbers and times alone.

use std::time::{Duration, Instant};

/// A worker that lived shorter than this failed at once.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// Pauses before workers are started again that fail at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// How many workers a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// At least.
    pub min: u16,
    /// At most.
    pub max: u16,
}

impl Size {
    /// Always the same number.
    pub fn fixed(count: u16) -> Self {
        Self { min: count, max: count }
    }
}

/// The state of one pool.
#[derive(Debug)]
pub(super) struct Policy {
    /// How many workers there should be now.
    wanted: u16,
    pause: Duration,
    /// None is started before.
    not_before: Option<Instant>,
}

impl Policy {
    pub(super) fn new(size: Size) -> Self {
        Self { wanted: size.min, pause: FIRST_PAUSE, not_before: None }
    }

    pub(super) fn wanted(&self) -> u16 {
        self.wanted
    }

    /// How many workers to start, when so many are there.
    pub(super) fn missing(&self, there: usize, now: Instant) -> usize {
        if self.not_before.is_some_and(|at| at > now) {
            return 0;
        }
        usize::from(self.wanted).saturating_sub(there)
    }

    /// When to ask again, if nothing happens until then.
    pub(super) fn ask_again(&self, there: usize) -> Option<Instant> {
        self.not_before.filter(|_| there < usize::from(self.wanted))
    }

    /// A worker has ended without being told to, having lived for so long. Gives the pause before it is started again, if
    /// it failed at once: a pool whose workers fail must not burn the processor.
    pub(super) fn failed(&mut self, lived: Duration, now: Instant) -> Option<Duration> {
        if lived >= TOO_SHORT {
            self.pause = FIRST_PAUSE;
            return None;
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.not_before = Some(now + self.pause);
        Some(self.pause)
    }

    /// No worker could be started.
    pub(super) fn could_not_start(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause);
    }
}
