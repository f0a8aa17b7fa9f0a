//! A FastCGI program in one thread, which nobody keeps waiting: it counts what each client sends, as it comes.
//!
//!     event_loop unix:/tmp/count.sock

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use fcgi_core::request::Input;
use fcgi_core::{Event, PolledRequest, Reactor, Server, signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("name an address such as unix:/tmp/a.sock")?.parse()?;
    let server = Server::builder().listen(&address)?.drain_on(signals::catch()?).start()?;
    let mut reactor = Reactor::new(Arc::new(server));
    let mut running: HashMap<u64, Counter> = HashMap::new();
    let mut events = Vec::new();
    while reactor.turn(&mut events)? {
        for event in events.drain(..) {
            let mut counter = match event {
                Event::Request(request) => Counter { request, count: 0 },
                Event::Readable(key) | Event::Writable(key) | Event::Aborted(key) => match running.remove(&key) {
                    Some(counter) => counter,
                    None => continue,
                },
            };
            match counter.go_on() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    running.insert(counter.request.key(), counter);
                }
                // A client that leaves is an error of its request alone.
                result => drop(counter.request.finish(u32::from(result.is_err()))),
            }
        }
        let timeout = reactor.timeout().map(Timespec::try_from).transpose()?;
        let _ = poll(&mut [PollFd::new(&reactor, PollFlags::IN)], timeout.as_ref());
    }
    Ok(())
}

struct Counter {
    request: PolledRequest,
    count: usize,
}

impl Counter {
    /// Goes on until something would block.
    fn go_on(&mut self) -> io::Result<()> {
        loop {
            let count = self.request.try_fill_buf(Input::Stdin)?.len();
            if count == 0 {
                break;
            }
            self.request.consume(Input::Stdin, count);
            self.count += count;
        }
        let page = format!("Content-Type: text/plain\r\n\r\n{} bytes.\n", self.count);
        self.request.try_write(page.as_bytes())?;
        Ok(())
    }
}
