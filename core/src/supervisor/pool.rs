//! How many workers a pool should have, and when they may be started. It knows no processes: what it decides follows from
//! numbers and times alone.

use std::time::{Duration, Instant};

/// A worker that lived shorter than this failed at once.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// Pauses before workers are started again that fail at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Workers that are starting are given so long before more are started because connections wait.
const STARTING: Duration = Duration::from_millis(500);
/// When no connection has had to wait for so long, growth begins with single workers again.
const CALM: Duration = Duration::from_secs(2);

/// How many workers a pool has: always `min`; up to `max` while connections wait because all are busy. With a minimum of 0
/// nothing runs while nothing is asked for.
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
    size: Size,
    /// How many workers there should be now.
    wanted: u16,
    /// How many are added the next time: twice as many as the last time.
    step: u16,
    /// When it last grew, or began.
    grown: Instant,
    pause: Duration,
    /// None is started before.
    not_before: Option<Instant>,
}

impl Policy {
    /// A pool that is to have `wanted` workers now, or as near to it as its size allows.
    pub(super) fn new(size: Size, wanted: usize, now: Instant) -> Self {
        let wanted = u16::try_from(wanted).unwrap_or(u16::MAX).clamp(size.min, size.max);
        Self { size, wanted, step: 1, grown: now, pause: FIRST_PAUSE, not_before: None }
    }

    pub(super) fn wanted(&self) -> usize {
        usize::from(self.wanted)
    }

    /// Whether it may grow further.
    pub(super) fn can_grow(&self) -> bool {
        self.wanted < self.size.max
    }

    /// How many workers to start, when so many are there.
    pub(super) fn missing(&self, there: usize, now: Instant) -> usize {
        if self.not_before.is_some_and(|at| at > now) { 0 } else { self.wanted().saturating_sub(there) }
    }

    /// When to ask again, if nothing happens until then.
    pub(super) fn ask_again(&self, there: usize, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| there < self.wanted() && *at > now)
    }

    /// Connections wait, and all workers are busy; so many are starting. The pool may grow.
    pub(super) fn press(&mut self, starting: usize, now: Instant) {
        let since = now.saturating_duration_since(self.grown);
        if starting > 0 && since < STARTING {
            return;
        }
        if since > CALM {
            self.step = 1;
        }
        self.wanted = self.wanted.saturating_add(self.step).min(self.size.max);
        self.step = self.step.saturating_mul(2);
        self.grown = now;
    }

    /// A worker has had nothing to do for long; whether it is one too many.
    pub(super) fn lets_go(&mut self) -> bool {
        let is_too_many = self.wanted > self.size.min;
        self.wanted -= u16::from(is_too_many);
        is_too_many
    }

    /// How many workers may be replaced at a time: each of them needs memory twice meanwhile.
    pub(super) fn replaced_at_once(&self) -> usize {
        (self.wanted() / 4).max(1)
    }

    /// A worker has ended without being told to, having lived for so long. Gives the pause before another one is started, if
    /// it failed at once: a pool whose workers fail must not burn the processor.
    pub(super) fn failed(&mut self, lived: Duration, now: Instant) -> Option<Duration> {
        if lived >= TOO_SHORT {
            self.pause = FIRST_PAUSE;
            return None;
        }
        // Several that fail together have failed once.
        if self.not_before.is_none_or(|at| at <= now) {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.not_before = Some(now + self.pause);
        }
        Some(self.pause)
    }

    /// No worker could be started.
    pub(super) fn could_not_start(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Press(usize),
        LetGo,
        Fail(u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..40).prop_map(Step::Press),
            Just(Step::LetGo),
            (0u64..3000).prop_map(Step::Fail),
            (0u64..5000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_pool_keeps_its_size(min in 0u16..20, more in 0u16..40, steps in prop::collection::vec(step(), 0..60)) {
            let size = Size { min, max: min + more };
            let mut now = Instant::now();
            let mut policy = Policy::new(size, usize::from(min), now);
            for step in steps {
                let before = policy.wanted();
                match step {
                    Step::Press(starting) => {
                        policy.press(starting, now);
                        prop_assert!(policy.wanted() >= before);
                    }
                    Step::LetGo => {
                        let gone = policy.lets_go();
                        prop_assert_eq!(policy.wanted() + usize::from(gone), before);
                    }
                    Step::Fail(lived) => {
                        let pause = policy.failed(Duration::from_millis(lived), now);
                        prop_assert_eq!(pause.is_some(), lived < 1000);
                        if let Some(pause) = pause {
                            prop_assert!(pause <= LONGEST_PAUSE);
                            prop_assert_eq!(policy.missing(0, now), 0);
                            prop_assert!(policy.wanted() == 0 || policy.ask_again(0, now).is_some());
                        }
                    }
                    Step::Wait(time) => now += Duration::from_millis(time),
                }
                prop_assert!((usize::from(size.min)..=usize::from(size.max)).contains(&policy.wanted()));
                for there in 0..80 {
                    let after = there + policy.missing(there, now);
                    prop_assert!(after == there || after == policy.wanted());
                }
            }
            // However it has failed, it comes back.
            now += LONGEST_PAUSE;
            prop_assert_eq!(policy.missing(0, now), policy.wanted());
        }
    }

    #[test]
    fn it_grows_by_more_and_more_and_waits_for_those_that_start() {
        let mut now = Instant::now();
        let mut policy = Policy::new(Size { min: 0, max: 10 }, 0, now);
        let mut seen = Vec::new();
        for starting in [0, 1, 0, 0, 0] {
            policy.press(starting, now);
            seen.push(policy.wanted());
            now += Duration::from_millis(50);
        }
        assert_eq!(seen, [1, 1, 3, 7, 10]);
        now += CALM;
        assert!(policy.lets_go());
        policy.press(0, now + CALM);
        assert_eq!(policy.wanted(), 10);
    }
}
