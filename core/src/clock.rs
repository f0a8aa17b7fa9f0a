//! A clock that is read several times a request. It never goes back, and stands still for some milliseconds at a time:
//! reading it costs a fraction of what a finer one does, and nothing here is to be measured, only found old.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since some moment in the past.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long ago an earlier [`now`] was.
pub(crate) fn since(earlier: Duration) -> Duration {
    now().saturating_sub(earlier)
}

/// Whole seconds since that moment.
pub(crate) fn seconds() -> u32 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec as u32
}
