//! The memory that processes share. Everything in it is an atomic number, so whatever another process does to it, reading and
//! writing here is sound.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{Number, Small};

/// Changes with the layout: tables are passed on to newer versions of the program.
const MAGIC: u64 = u64::from_ne_bytes(*b"fcgi-sb3");

/// Texts of a line, in words of eight bytes.
pub(super) const TEXT_WORDS: usize = 60;
/// The path of a script, in such words.
pub(super) const PATH_WORDS: usize = 32;
/// Scripts that can be demoted.
const DEMOTED: usize = 512;

/// Figures of the whole pool.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Head {
    magic: Number,
    slots: Number,
    pub(super) started: Number,
    pub(super) max_active: Number,
    pub(super) max_queue: Number,
    pub(super) max_workers_reached: Number,
    pub(super) slow_requests: Number,
    pub(super) failed_workers: Number,
    pub(super) max_requests_reached: Number,
    pub(super) max_memory_reached: Number,
    pub(super) kill_after_reached: Number,
    /// Hashes of the paths of scripts that are demoted; the first 0 ends them.
    pub(super) demoted: [Number; DEMOTED],
}

/// One interpreter.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) pid: Small,
    pub(super) state: Small,
    pub(super) sequence: Small,
    /// Stands where tables of earlier versions have nothing.
    pub(super) place: Small,
    pub(super) started: Number,
    pub(super) since: Number,
    pub(super) requests: Number,
    /// Also those of processes that had this line before.
    pub(super) total: Number,
    pub(super) duration: Number,
    pub(super) cpu: Number,
    pub(super) memory: Number,
    pub(super) content_length: Number,
    pub(super) text: [Number; TEXT_WORDS],
    /// The hash of the path of the script whose request runs, and of the one whose path is noted.
    pub(super) script: Number,
    pub(super) last_script: Number,
    pub(super) path: [Number; PATH_WORDS],
}

/// The mapped table.
#[derive(Debug)]
pub(super) struct Shared {
    fd: OwnedFd,
    start: NonNull<Head>,
    slots: usize,
}

// SAFETY: all that the mapping holds are atomic numbers.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

fn length(slots: usize) -> usize {
    size_of::<Head>() + slots * size_of::<Slot>()
}

impl Shared {
    pub(super) fn create(slots: usize) -> io::Result<Self> {
        let fd = memfd_create("fcgi-scoreboard", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, length(slots) as u64)?;
        let shared = Self::map(fd, slots)?;
        shared.head().slots.store(slots as u64, Relaxed);
        shared.head().magic.store(MAGIC, Relaxed);
        Ok(shared)
    }

    pub(super) fn open(fd: OwnedFd) -> io::Result<Self> {
        let size = usize::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        let slots = size.saturating_sub(size_of::<Head>()) / size_of::<Slot>();
        let is_none = || io::Error::new(io::ErrorKind::InvalidData, "this is no scoreboard");
        if size == 0 || size != length(slots) {
            return Err(is_none());
        }
        let shared = Self::map(fd, slots)?;
        let head = shared.head();
        if head.magic.load(Relaxed) != MAGIC || head.slots.load(Relaxed) != slots as u64 {
            return Err(is_none());
        }
        Ok(shared)
    }

    fn map(fd: OwnedFd, slots: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address that the system chooses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), length(slots), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)?
        };
        let start = NonNull::new(start.cast::<Head>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, start, slots })
    }

    pub(super) fn head(&self) -> &Head {
        // SAFETY: the mapping begins with a head, is aligned to pages, lives as long as `self`, and holds atomic numbers,
        // for which any bytes are a value. Its file is never made shorter.
        unsafe { self.start.as_ref() }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        // SAFETY: as above; the slots lie behind the head, whose size is a multiple of their alignment.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(1).cast::<Slot>(), self.slots) }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody borrows from it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), length(self.slots)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Shared::open(file.into()).is_err());
    }
}
