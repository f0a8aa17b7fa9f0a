//! What a service manager is told (sd_notify(3)): that the server is ready, reloads, stops; how it is; that it lives.
//!
//! The socket is opened once, so that it can be reached from below `--chroot`, and its name is taken out of the environment,
//! so that no script can speak for the server. To the parent of one pool among several, the [master](crate::master) is the
//! service manager, by a socket that has no name.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use fcgi_core::inherit;
use rustix::io::FdFlags;
use sd_notify::NotifyState;

/// Set by a master: the number of its process, and of the descriptor that leads to it.
pub(crate) const MASTER: &str = "FCGI_MASTER";
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// How often the state is told.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that the server lives.
    alive_every: Option<Duration>,
    next: Option<Instant>,
    told: String,
    /// The process of the master that is told, if it is one.
    master: Option<i32>,
    variables: Vec<(OsString, OsString)>,
}

impl Notifier {
    /// Takes what the environment says. Called while the process has one thread.
    pub(crate) fn take() -> Self {
        let mut notifier = Self::default();
        let mut variable = |name: &str| {
            let value = inherit::variable(name)?;
            notifier.variables.push((name.into(), value.clone()));
            Some(value)
        };
        let master = variable(MASTER);
        let master = master.as_ref().and_then(|numbers| numbers.to_str()?.split_once(' '));
        let master = master.and_then(|(pid, number)| Some((pid.parse().ok()?, number.parse().ok()?)));
        let socket = variable(SOCKET);
        let period = variable(WATCHDOG).and_then(|period| period.to_str()?.parse().ok()).map(Duration::from_micros);
        let is_ours = variable(WATCHDOG_PID).is_none_or(|pid| pid == *std::process::id().to_string());
        let taken: Option<(i32, OwnedFd)> = master.and_then(|(pid, number)| Some((pid, inherit::take(number).ok()?)));
        notifier.socket = match taken {
            Some((pid, socket)) => {
                notifier.master = Some(pid);
                Some(socket.into())
            }
            None => socket.and_then(|name| connect(name.as_bytes()).ok()),
        };
        // Twice as often as it must be, as sd_watchdog_enabled(3) advises.
        notifier.alive_every = period.filter(|period| is_ours && !period.is_zero()).map(|period| period / 2);
        notifier
    }

    /// The process of the master that is told, if it is none of a service manager's.
    pub(crate) fn master(&self) -> Option<i32> {
        self.master
    }

    /// Lets the program that this one becomes find its way to the master.
    pub(crate) fn becomes_new(&self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.master.is_some()) {
            let _ = rustix::io::fcntl_setfd(socket, FdFlags::empty());
        }
    }

    /// The variables as they were, for a program that this one becomes.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        self.variables.clone()
    }

    /// How often it must be said that the server lives.
    pub(crate) fn alive_every(&self) -> Option<Duration> {
        self.alive_every.filter(|_| self.socket.is_some())
    }

    /// Another end, for a thread that tells that the server lives.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn pulse(&self) -> std::io::Result<Self> {
        let socket = self.socket.as_ref().map(UnixDatagram::try_clone).transpose()?;
        Ok(Self { socket, ..Self::default() })
    }

    pub(crate) fn ready(&self) {
        self.say(&[NotifyState::Ready]);
    }

    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now]),
            Err(_) => self.say(&[NotifyState::Reloading]),
        }
    }

    pub(crate) fn stopping(&self) {
        self.say(&[NotifyState::Stopping]);
    }

    pub(crate) fn alive(&self) {
        self.say(&[NotifyState::Watchdog]);
    }

    /// Tells state and life when it is time to; gives the next time.
    pub(crate) fn tell(&mut self, state: impl FnOnce() -> String) -> Option<Instant> {
        self.socket.as_ref()?;
        let now = Instant::now();
        if self.next.is_none_or(|next| next <= now) {
            let state = state();
            if state != self.told {
                self.say(&[NotifyState::Status(&state)]);
                self.told = state;
            }
            if self.alive_every.is_some() {
                self.alive();
            }
            self.next = Some(now + self.alive_every.unwrap_or(STATUS_EVERY).min(STATUS_EVERY));
        }
        self.next
    }

    fn say(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        // A manager that does not listen is not a reason to stop.
        let _ = socket.send(text.as_bytes());
    }
}

fn connect(name: &[u8]) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(std::ffi::OsStr::from_bytes(name))?,
    }
    Ok(socket)
}
