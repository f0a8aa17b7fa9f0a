//! Workers that are forked from a process which has loaded what they are to have in common: the template. It is started like
//! a worker, runs the program's code so that the parent need not, and takes no requests.
//!
//! The parent asks it for a worker and sends the worker's end of the connection between the two along. The template forks
//! twice, and the process in the middle ends at once: the worker becomes a child of the parent, as others are, which has
//! said that such orphans are its own.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::unistd::{ForkResult, fork};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, getppid, waitid};

use super::Link;
use super::control::FORK;
use crate::fork::Moment;

/// How long a template may take to fork. What a program does about forks is its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a worker looks whether it is its parent's.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// The parent's side: asks a template for the worker of a place, which is to have one end of a connection.
///
/// # Errors
/// When the template does not answer in time, or has no process for us.
pub(super) fn ask(mut template: &UnixStream, theirs: OwnedFd, place: u16) -> io::Result<Pid> {
    let fds = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let [high, low] = place.to_be_bytes();
    sendmsg(template, &[IoSlice::new(&[FORK, high, low])], &mut ancillary, SendFlags::NOSIGNAL)?;
    drop(theirs);
    let mut answer = [0; 4];
    template.set_nonblocking(false)?;
    template.set_read_timeout(Some(PATIENCE))?;
    let read = template.read_exact(&mut answer);
    template.set_nonblocking(true)?;
    read?;
    let pid = Pid::from_raw(i32::from_ne_bytes(answer));
    let pid = pid.ok_or_else(|| io::Error::other("the template has no process for it"))?;
    // It runs foreign code: only what is a child of ours is believed.
    match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT) {
        Ok(_) => Ok(pid),
        Err(e) => Err(io::Error::other(format!("the template gave what is no worker of ours ({e})"))),
    }
}

/// The template's side: forks workers until it is told to end. Gives a worker its connection to the parent, and `None` to
/// the template itself, at its end. `around` is called for each fork.
///
/// # Errors
/// When the parent cannot be understood.
pub fn fork_workers(link: Link, around: impl Fn(Moment)) -> io::Result<Option<Link>> {
    let parent = getppid();
    let mut control = UnixStream::from(link.told()?);
    loop {
        let Some((theirs, place)) = next_order(&control)? else { return Ok(None) };
        match give_birth(parent, &around) {
            Ok(Born::Worker) => {
                return Ok(Some(link.of_worker(theirs.into(), place)));
            }
            Ok(Born::Elsewhere(pid)) => control.write_all(&pid.to_ne_bytes())?,
            Err(e) => {
                tracing::error!("cannot fork a worker: {e}");
                control.write_all(&0_i32.to_ne_bytes())?;
            }
        }
    }
}

/// Waits until the parent wants a worker; gives the worker's end of their connection, and its place. `None` when it is to end.
fn next_order(control: &UnixStream) -> io::Result<Option<(OwnedFd, u16)>> {
    loop {
        let mut said = [0; 3];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        match recvmsg(control, &mut [IoSliceMut::new(&mut said)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let [FORK, high, low] = said else { return Ok(None) };
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        return fd
            .map(|fd| Some((fd, u16::from_be_bytes([high, low]))))
            .ok_or_else(|| io::Error::other("a worker is wanted, and no connection to it is given"));
    }
}

enum Born {
    /// This process is the worker.
    Worker,
    /// This one is not: the worker has this number.
    Elsewhere(i32),
}

fn give_birth(parent: Option<Pid>, around: &impl Fn(Moment)) -> io::Result<Born> {
    let (mut heard, mut told) = UnixStream::pair()?;
    around(Moment::Before);
    // SAFETY: what goes on in the child is this thread, in a program that is made for it (`around`).
    let middle = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            let middle = getpid();
            // SAFETY: as above; the process in the middle does nothing more that could be another thread's.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => {
                    become_worker(parent, middle);
                    around(Moment::InChild);
                    return Ok(Born::Worker);
                }
                Ok(ForkResult::Parent { child }) => drop(told.write_all(&child.as_raw().to_ne_bytes())),
                Err(_) => {}
            }
            // SAFETY: no handler of the template's exit may run here.
            unsafe { nix::libc::_exit(0) }
        }
        Err(e) => {
            around(Moment::InParent);
            return Err(e.into());
        }
    };
    around(Moment::InParent);
    drop(told);
    let mut pid = [0; 4];
    let read = heard.read_exact(&mut pid);
    // Once it has ended, the worker is the parent's.
    nix::sys::wait::waitpid(middle, None)?;
    read?;
    Ok(Born::Elsewhere(i32::from_ne_bytes(pid)))
}

/// Waits until this process is a child of the parent, and no longer of the process in the middle.
fn become_worker(parent: Option<Pid>, middle: Pid) {
    loop {
        // Asked once: it may change at any moment.
        let now = getppid();
        if now == parent {
            break;
        }
        if now != Some(middle) {
            // The parent is gone, and nobody wants this worker.
            std::process::abort();
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = rustix::process::setpgid(None, None);
}
