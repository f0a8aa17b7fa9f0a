//! Sockets that listen: bound by us or inherited, unix or TCP; and who may connect to them.

pub(crate) mod queue;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::Address;

/// Connections that may wait to be accepted; the system cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody answers there.
    #[error("{0} is in use by a running server: stop it, or listen elsewhere")]
    InUse(Address),
    /// There is a file, and it is no socket.
    #[error("{0} exists and is not a socket: remove it, or listen elsewhere")]
    NotASocket(Address),
    /// The host has no address.
    #[error("{0}: no such host")]
    NoHost(Address),
    /// The inherited descriptor is not a listening socket.
    #[error("{0} is not a listening socket")]
    NotListening(Address),
    /// Its owner or permissions cannot be set.
    #[error("cannot set owner and permissions of {0}: {1}; only root can give a socket to another user")]
    Access(Address, #[source] io::Error),
    /// The system says no.
    #[error("cannot listen on {0}: {1}")]
    System(Address, #[source] io::Error),
}

/// Who may connect to a unix socket: whoever may write to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// Its permissions; without, the umask decides.
    pub mode: Option<u32>,
    /// Number of its user.
    pub user: Option<u32>,
    /// Number of its group.
    pub group: Option<u32>,
}

impl Access {
    fn apply(&self, path: &Path) -> io::Result<()> {
        if self.user.is_some() || self.group.is_some() {
            std::os::unix::fs::chown(path, self.user, self.group)?;
        }
        match self.mode {
            Some(mode) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

/// A socket that listens. A unix socket that was bound here is removed from the file system when the listener goes.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: Address,
    /// By which a later generation of the process finds it again.
    name: String,
    bound_file: Option<BoundFile>,
    /// It is this worker's alone: others of its pool do not listen on it.
    pub(crate) is_own: bool,
}

#[derive(Debug)]
struct BoundFile {
    path: PathBuf,
    inode: (u64, u64),
    owner: u32,
}

impl Listener {
    /// Binds an address, or takes over an inherited descriptor (`fd:N`). A stale unix socket, one that nobody answers
    /// on, is replaced.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        Self::bind_for(address, &Access::default())
    }

    /// As [`bind`](Self::bind); a unix socket is made so that only those can connect that may.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind_for(address: &Address, access: &Access) -> Result<Self, ListenError> {
        let system = |e: io::Error| ListenError::System(address.clone(), e);
        match address {
            Address::Unix(path) => {
                make_way(address, path)?;
                let listener = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None).map_err(system)?;
                let name = SockAddr::unix(path).map_err(system)?;
                listener.bind(&name).map_err(|e| match e.kind() {
                    io::ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
                    _ => system(e),
                })?;
                // Nobody can connect before it listens.
                access.apply(path).map_err(|e| {
                    let _ = std::fs::remove_file(path);
                    ListenError::Access(address.clone(), e)
                })?;
                listener.listen(BACKLOG).map_err(system)?;
                let inode = inode(path).map_err(system)?;
                let bound_file = Some(BoundFile { path: path.clone(), inode, owner: std::process::id() });
                Self::new(listener.into(), address.clone(), bound_file).map_err(system)
            }
            Address::Tcp { host, port } => {
                let socket = bind_tcp(address, host, *port)?;
                let asked = address.to_string();
                let address = local_address(&socket).unwrap_or_else(|| address.clone());
                let listener = Self::new(socket.into(), address.clone(), None);
                listener.map(|l| l.named(&asked)).map_err(|e| ListenError::System(address, e))
            }
            Address::Fd(number) => {
                let fd = crate::inherit::take(*number).map_err(system)?;
                if !crate::inherit::is_listening(&fd) {
                    return Err(ListenError::NotListening(address.clone()));
                }
                Self::inherited(fd).map(|l| l.named(&address.to_string())).map_err(system)
            }
        }
    }

    /// A socket that listens already.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn inherited(fd: OwnedFd) -> io::Result<Self> {
        let address = Socket::from(fd.try_clone()?);
        let address = local_address(&address).unwrap_or(Address::Fd(fd.as_raw_fd()));
        Self::new(fd, address, None)
    }

    fn new(fd: OwnedFd, address: Address, bound_file: Option<BoundFile>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let name = address.to_string();
        Ok(Self { fd, address, name, bound_file, is_own: false })
    }

    /// Takes over a socket that an earlier generation of this process opened under a name, and whose file it removes when
    /// `owner` is this process.
    pub(crate) fn kept(fd: OwnedFd, name: &str, owner: Option<u32>) -> io::Result<Self> {
        let mut listener = Self::inherited(fd)?;
        if let (Some(owner), Address::Unix(path)) = (owner, &listener.address) {
            listener.bound_file = inode(path).ok().map(|inode| BoundFile { path: path.clone(), inode, owner });
        }
        Ok(listener.named(name))
    }

    /// Gives it a name, by which it is found again when the process is reloaded: by default the address that was asked for.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// As a worker has it that alone listens on it.
    pub(crate) fn owned(self) -> Self {
        Self { is_own: true, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that is to remove the socket's file.
    pub(crate) fn owner(&self) -> Option<u32> {
        self.bound_file.as_ref().map(|file| file.owner)
    }

    /// Where it listens. The port is the real one when 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The next connection; `None` when nobody waits, or when whoever waited may not connect or has left.
    ///
    /// # Errors
    /// When the process is out of descriptors, or the system out of memory.
    pub(crate) fn accept(&self, allowed: &AllowList) -> io::Result<Option<OwnedFd>> {
        use rustix::io::Errno;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // The peer's address costs the kernel's copying of it, so it is asked for only when it matters.
        let accepted = if allowed.is_everybody() {
            accept_with(&self.fd, flags).map(|fd| (fd, None))
        } else {
            rustix::net::acceptfrom_with(&self.fd, flags)
        };
        match accepted {
            Ok((fd, None)) => Ok(Some(fd)),
            Ok((fd, Some(peer))) => match SocketAddr::try_from(peer) {
                Ok(peer) if !allowed.allows(peer.ip()) => {
                    tracing::warn!(%peer, "connection refused: not among the allowed addresses (--allow, FCGI_WEB_SERVER_ADDRS)");
                    Ok(None)
                }
                _ => Ok(Some(fd)),
            },
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                Err(io::Error::from(accepted.err().unwrap_or(Errno::MFILE)))
            }
            // Not ready, interrupted, or an error of that one connection: there is nothing to accept now.
            Err(_) => Ok(None),
        }
    }
}

/// The socket alone: a file that was bound here goes.
impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.fd
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for BoundFile {
    fn drop(&mut self) {
        // Not in a forked child, and not when another server has taken the name.
        if self.owner == std::process::id() && inode(&self.path).is_ok_and(|now| now == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

/// Removes a socket file that nobody listens on.
fn make_way(address: &Address, path: &Path) -> Result<(), ListenError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(address.clone()));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|e| ListenError::System(address.clone(), e))
        }
        Ok(_) => Err(ListenError::InUse(address.clone())),
        Err(e) => Err(ListenError::System(address.clone(), e)),
    }
}

fn bind_tcp(address: &Address, host: &str, port: u16) -> Result<Socket, ListenError> {
    let candidates: Vec<SocketAddr> = if host == "*" {
        // One IPv6 socket that takes IPv4 too, where the system has IPv6.
        vec![SocketAddr::from(([0u16; 8], port)), SocketAddr::from(([0u8; 4], port))]
    } else {
        (host, port).to_socket_addrs().map_err(|_| ListenError::NoHost(address.clone()))?.collect()
    };
    let mut last = None;
    for candidate in candidates {
        match try_bind_tcp(candidate, host == "*") {
            Ok(socket) => return Ok(socket),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(ListenError::InUse(address.clone())),
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or_else(|| ListenError::NoHost(address.clone()), |e| ListenError::System(address.clone(), e)))
}

fn try_bind_tcp(at: SocketAddr, any: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if any && at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit this: answers are written whole, so waiting for more to send only delays them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> Option<Address> {
    let local = socket.local_addr().ok()?;
    if let Some(tcp) = local.as_socket() {
        return Some(Address::Tcp { host: tcp.ip().to_string(), port: tcp.port() });
    }
    local.as_pathname().map(|path| Address::Unix(path.to_owned()))
}

/// TCP peers that may connect. Peers on unix sockets are the file system's business.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Option<Vec<IpNet>>);

/// The text is no list of addresses.
#[derive(Debug, Clone, thiserror::Error)]
#[error("'{0}' is no IP address and no network such as 10.0.0.0/8")]
pub struct BadNetwork(String);

impl AllowList {
    /// Everybody.
    pub fn everybody() -> Self {
        Self::default()
    }

    /// Adds networks or addresses, separated by commas, as in `FCGI_WEB_SERVER_ADDRS` (specification, section 3.2).
    /// From the first on, whoever is not listed is refused.
    ///
    /// # Errors
    /// [`BadNetwork`] names the first part that is neither.
    pub fn add(&mut self, list: &str) -> Result<(), BadNetwork> {
        let nets = self.0.get_or_insert_default();
        for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let net = part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
            nets.push(net.map_err(|_| BadNetwork(part.to_owned()))?);
        }
        Ok(())
    }

    fn is_everybody(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a peer may connect. An IPv4 address that arrives on an IPv6 socket is looked at as IPv4.
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_list() {
        let mut list = AllowList::everybody();
        assert!(list.allows("8.8.8.8".parse().unwrap()));
        list.add("127.0.0.1, 10.1.0.0/16").unwrap();
        list.add("::1").unwrap();
        for (ip, allowed) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::2", false),
        ] {
            assert_eq!(list.allows(ip.parse().unwrap()), allowed, "{ip}");
        }
        assert_eq!(
            list.add("localhost").unwrap_err().to_string(),
            "'localhost' is no IP address and no network such as 10.0.0.0/8"
        );
    }
}
