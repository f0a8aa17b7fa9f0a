//! What a child tells its parent: names, in memory that both have. It needs no descriptor, which a script would see.
#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Bytes of all names together. What does not fit is not told.
const ROOM: usize = 32 << 10;

#[repr(C)]
struct Shared {
    /// Bytes that have been written.
    length: AtomicUsize,
    bytes: [u8; ROOM],
}

/// A place for names that a child writes and its parent reads when the child is no more.
pub struct Report(NonNull<Shared>);

impl Report {
    /// An empty one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the memory is new, of this size, and all zeros, which is an empty report.
        let memory = unsafe {
            mmap_anonymous(ptr::null_mut(), size_of::<Shared>(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?
        };
        NonNull::new(memory.cast()).map(Self).ok_or_else(|| io::Error::other("no memory"))
    }

    fn length(&self) -> &AtomicUsize {
        // SAFETY: the memory lives as long as the report, and an atomic is all that is ever referred to there.
        unsafe { &(*self.0.as_ptr()).length }
    }

    /// Forgets what was told.
    pub(super) fn clear(&self) {
        self.length().store(0, Ordering::Relaxed);
    }

    /// Tells a name, which has no line end. One for which there is no room is not told.
    pub fn add(&self, name: &[u8]) {
        let length = self.length().load(Ordering::Relaxed).min(ROOM);
        if name.is_empty() || name.contains(&b'\n') || length + name.len() + 1 > ROOM {
            return;
        }
        // SAFETY: the bytes lie inside of the memory, as was just seen; no reference to them exists.
        unsafe {
            let place = (&raw mut (*self.0.as_ptr()).bytes).cast::<u8>().add(length);
            ptr::copy_nonoverlapping(name.as_ptr(), place, name.len());
            place.add(name.len()).write(b'\n');
        }
        self.length().store(length + name.len() + 1, Ordering::Release);
    }

    /// What has been told. A child that has gone astray may have written anything.
    pub(super) fn read(&self) -> Vec<Vec<u8>> {
        let length = self.length().load(Ordering::Acquire).min(ROOM);
        let mut bytes = vec![0; length];
        // SAFETY: so many bytes lie there; they are copied without a reference to them.
        unsafe {
            ptr::copy_nonoverlapping((&raw const (*self.0.as_ptr()).bytes).cast::<u8>(), bytes.as_mut_ptr(), length);
        }
        bytes.split(|byte| *byte == b'\n').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: the memory is of this size, and nobody refers to it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_as_they_were_told() {
        let report = Report::new().unwrap();
        assert_eq!(report.read(), Vec::<Vec<u8>>::new());
        for name in [&b"json"[..], b"", b"two\nlines", b"a.b"] {
            report.add(name);
        }
        assert_eq!(report.read(), [b"json".to_vec(), b"a.b".to_vec()]);
        report.clear();
        assert!(report.read().is_empty());
        report.add(&vec![b'x'; ROOM]);
        assert!(report.read().is_empty(), "what has no room is not told");
        report.add(&vec![b'x'; ROOM - 1]);
        report.add(b"y");
        assert_eq!(report.read(), [vec![b'x'; ROOM - 1]]);
    }
}
