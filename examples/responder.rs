//! A FastCGI program: says who asks, and how much came along.
//!
//!     responder unix:/tmp/responder.sock
//!
//! Without an address it serves the socket that a web server, spawn-fcgi or systemd passed as descriptor 0.

use std::io::{self, Read, Write};

use fcgi_core::{Listener, Request, Server, inherit, signals};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = match std::env::args().nth(1) {
        Some(address) => Listener::bind(&address.parse()?)?,
        None => Listener::inherited(inherit::standard_input()?.ok_or("name an address such as unix:/tmp/a.sock")?)?,
    };
    let server = Server::builder().listener(listener).drain_on(signals::catch()?).start()?;
    while let Some(mut request) = server.accept()? {
        // A client that leaves is an error of its request alone.
        let status = u32::from(answer(&mut request).is_err());
        let _ = request.finish(status);
    }
    Ok(())
}

fn answer(request: &mut Request) -> io::Result<()> {
    let mut body = Vec::new();
    request.stdin().read_to_end(&mut body)?;
    let who = request.params().get_str("REMOTE_ADDR").unwrap_or("stranger").to_owned();
    write!(request.stdout(), "Content-Type: text/plain\r\n\r\nHello {who}, {} bytes.\n", body.len())
}
