//! How many connections wait to be accepted. It takes some system calls to find out: it is asked by who looks at a status
//! page, never on the way of a request.

use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::fstat;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use socket2::SockRef;

/// Connections that the system has accepted for a listening socket, and that no process has taken.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn waiting(listener: impl AsFd) -> io::Result<u64> {
    let inode = fstat(&listener)?.st_ino;
    let socket = SockRef::from(&listener);
    match socket.local_addr()?.as_socket() {
        Some(address) => waiting_tcp(address.is_ipv6(), inode),
        None => waiting_unix(inode),
    }
}

/// The table of TCP sockets has it in the place where others have unread bytes: `tx_queue:rx_queue`, in the fifth column; the
/// tenth is the inode.
fn waiting_tcp(ipv6: bool, inode: u64) -> io::Result<u64> {
    let mut table = String::new();
    let path = if ipv6 { "/proc/self/net/tcp6" } else { "/proc/self/net/tcp" };
    std::fs::File::open(path)?.read_to_string(&mut table)?;
    let of_line = |line: &str| -> Option<u64> {
        let mut columns = line.split_whitespace();
        let queues = columns.nth(4)?;
        let number: u64 = columns.nth(4)?.parse().ok()?;
        (number == inode).then(|| u64::from_str_radix(queues.split_once(':')?.1, 16).ok())?
    };
    table.lines().find_map(of_line).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The kernel's table of unix sockets does not show it, but its diagnosis does: `sock_diag(7)`.
fn waiting_unix(inode: u64) -> io::Result<u64> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const UDIAG_SHOW_RQLEN: u32 = 0x10;
    const UNIX_DIAG_RQLEN: u16 = 4;
    const HEADER: usize = 16;
    const MESSAGE: usize = 16;
    let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::NotFound)?;

    let mut question = Vec::with_capacity(HEADER + 24);
    question.extend(40u32.to_ne_bytes());
    question.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question.extend(NLM_F_REQUEST.to_ne_bytes());
    question.extend([0; 8]); // sequence, port
    question.extend([AddressFamily::UNIX.as_raw() as u8, 0, 0, 0]);
    question.extend(u32::MAX.to_ne_bytes()); // any state
    question.extend(inode.to_ne_bytes());
    question.extend(UDIAG_SHOW_RQLEN.to_ne_bytes());
    question.extend([0xff; 8]); // no cookie

    let protocol = Some(netlink::SOCK_DIAG);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    sendto(&socket, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1024];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if kind != Some(SOCK_DIAG_BY_FAMILY) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut attributes = answer.get(HEADER + MESSAGE..).unwrap_or_default();
    while let Some(&[a, b, c, d]) = attributes.first_chunk::<4>() {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        if let (UNIX_DIAG_RQLEN, Some(&[a, b, c, d])) = (kind, attributes.get(4..).and_then(<[u8]>::first_chunk::<4>)) {
            return Ok(u64::from(u32::from_ne_bytes([a, b, c, d])));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn connections_that_nobody_accepts_are_counted() {
        let path = std::env::temp_dir().join(format!("fcgi-queue-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp6 = TcpListener::bind("[::1]:0").unwrap();
        assert_eq!((waiting(&unix).unwrap(), waiting(&tcp).unwrap(), waiting(&tcp6).unwrap()), (0, 0, 0));
        let _clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let _others = [
            TcpStream::connect(tcp.local_addr().unwrap()).unwrap(),
            TcpStream::connect(tcp6.local_addr().unwrap()).unwrap(),
        ];
        assert_eq!((waiting(&unix).unwrap(), waiting(&tcp).unwrap(), waiting(&tcp6).unwrap()), (3, 1, 1));
        unix.accept().unwrap();
        assert_eq!(waiting(&unix).unwrap(), 2);
        std::fs::remove_file(path).unwrap();
    }
}
