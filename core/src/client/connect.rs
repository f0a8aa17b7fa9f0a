//! Sockets that are connected to an application, within a time.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

pub(super) fn unix(path: &Path, timeout: Option<Duration>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Connecting to a unix socket never is "in progress": it waits for room in the listener's queue, as long as a send.
    socket.set_write_timeout(timeout)?;
    let address = SockAddr::unix(path)?;
    loop {
        match socket.connect(&address) {
            Ok(()) => return Ok(socket.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn tcp(host: &str, port: u16, timeout: Option<Duration>) -> io::Result<OwnedFd> {
    // A server's "any" is, for its clients, this machine.
    let host = if host == "*" { "localhost" } else { host };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let result = match timeout {
            Some(timeout) => TcpStream::connect_timeout(&address, timeout),
            None => TcpStream::connect(address),
        };
        match result {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream.into());
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}
