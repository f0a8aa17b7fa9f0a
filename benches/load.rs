//! A load of requests for `benches/run`: so many connections, each in a thread of its own, one request after the other.
//!
//!     load ADDRESS CONNECTIONS SECONDS keep|conn BODY_BYTES
//!
//! Prints the number of answers and the seconds that they took. An answer without a body, or with an error, ends it.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fcgi_core::client::{Client, Event, Request};
use fcgi_core::{Address, Params};

fn variables(body: usize) -> Params {
    let mut params = Params::new();
    let length = if body > 0 { body.to_string() } else { String::new() };
    for (name, value) in [
        ("SCRIPT_FILENAME", "/srv/www/site/app"),
        ("QUERY_STRING", "page=3&order=asc"),
        ("REQUEST_METHOD", if body > 0 { "POST" } else { "GET" }),
        ("CONTENT_TYPE", if body > 0 { "application/octet-stream" } else { "" }),
        ("CONTENT_LENGTH", &length),
        ("SCRIPT_NAME", "/app"),
        ("REQUEST_URI", "/app?page=3&order=asc"),
        ("DOCUMENT_URI", "/app"),
        ("DOCUMENT_ROOT", "/srv/www/site"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "https"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "nginx/1.22.1"),
        ("REMOTE_ADDR", "192.0.2.77"),
        ("REMOTE_PORT", "51124"),
        ("SERVER_ADDR", "192.0.2.1"),
        ("SERVER_PORT", "443"),
        ("SERVER_NAME", "www.example.org"),
        ("HTTP_HOST", "www.example.org"),
        ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
        ("HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd"),
        ("HTTP_COOKIE", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ] {
        params.set(name.as_bytes(), value.as_bytes());
    }
    params
}

fn client(address: &Address) -> Result<Client, String> {
    Client::connect(address, Some(Duration::from_secs(10))).map_err(|e| format!("cannot connect: {e}"))
}

fn one(address: &Address, keep: bool, body: &[u8], stop: &AtomicBool, count: &AtomicU64) -> Result<(), String> {
    let params = variables(body.len());
    let mut kept = None;
    while !stop.load(Relaxed) {
        let mut client = match kept.take() {
            Some(client) => client,
            None => client(address)?,
        };
        let mut bytes = 0;
        let mut stdin = body;
        let request = Request { id: 1, role: 1, keep_conn: keep, params: &params, stdin: &mut stdin, data: None };
        let ended = client.request(request, &mut |event| {
            if let Event::Stdout(piece) = event {
                bytes += piece.len();
            }
        });
        match ended {
            Ok(ended) if ended.app_status == 0 && bytes > 0 => count.fetch_add(1, Relaxed),
            Ok(ended) => return Err(format!("{bytes} bytes, exit status {}", ended.app_status)),
            Err(e) => return Err(e.to_string()),
        };
        kept = keep.then_some(client);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, seconds, mode, body] = &arguments[..] else {
        return Err("usage: load ADDRESS CONNECTIONS SECONDS keep|conn BODY_BYTES".into());
    };
    let (address, body) = (address.parse::<Address>()?, vec![b'x'; body.parse()?]);
    let (connections, seconds): (usize, f64) = (connections.parse()?, seconds.parse()?);
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| one(&address, mode == "keep", &body, &stop, &count))).collect();
        while begun.elapsed().as_secs_f64() < seconds && !threads.iter().any(std::thread::ScopedJoinHandle::is_finished)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Relaxed);
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    println!("{} {:.3}", count.load(Relaxed), begun.elapsed().as_secs_f64());
    Ok(())
}
