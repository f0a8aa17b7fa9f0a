//! A load generator for FastCGI servers:
//!
//!     load ADDRESS [-c CONNECTIONS] [-t SECONDS] [-b BODY_BYTES] [-s SCRIPT] [-k]
//!
//! Each of so many threads sends one request after the other, on one connection (-k) or each on a new one, and reads its
//! answer. Prints the number of requests, the seconds that they took, and the bytes of their answers. The first wrong
//! answer ends it: what is fast and wrong must not count.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fcgi_core::Address;
use fcgi_core::protocol::decoder::Decoder;
use fcgi_core::protocol::{Params, ProtocolStatus, RecordType, Role, encoder};

const ID: u16 = 1;
/// What a browser's request has, behind most web servers.
const PARAMS: usize = 30;
/// A request is written before its answer is read. Both sides would wait for each other if the buffers between them did
/// not hold a body.
const LONGEST_BODY: usize = 64 << 10;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Options {
    address: Address,
    connections: usize,
    time: Duration,
    body: usize,
    script: String,
    keep: bool,
}

#[derive(Default)]
struct Count {
    requests: u64,
    bytes: u64,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().ok_or("name an address such as unix:/tmp/a.sock")?.parse()?;
    let mut options = Options {
        address,
        connections: 16,
        time: Duration::from_secs(2),
        body: 0,
        script: "/srv/www/app".to_owned(),
        keep: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "-c" => options.connections = value()?.parse()?,
            "-t" => options.time = Duration::try_from_secs_f64(value()?.parse()?)?,
            "-b" => options.body = value()?.parse()?,
            "-s" => options.script = value()?,
            "-k" => options.keep = true,
            _ => return Err(format!("{word}: no such option").into()),
        }
    }
    if options.body > LONGEST_BODY {
        return Err(format!("a body has {LONGEST_BODY} bytes at most (-b)").into());
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let request = request(options);
    let start = Instant::now();
    let end = start + options.time;
    let counts: Vec<io::Result<Count>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..options.connections).map(|_| scope.spawn(|| requests_until(end, options, &request))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect()
    });
    let time = start.elapsed().as_secs_f64();
    let mut sum = Count::default();
    for count in counts {
        let count = count?;
        sum.requests += count.requests;
        sum.bytes += count.bytes;
    }
    println!("{} {time:.3} {}", sum.requests, sum.bytes);
    Ok(())
}

/// The records of the request that all threads send.
fn request(options: &Options) -> Vec<u8> {
    let length = options.body.to_string();
    let mut params: Params = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_METHOD", if options.body > 0 { "POST" } else { "GET" }),
        ("REQUEST_URI", "/app?a=1"),
        ("QUERY_STRING", "a=1"),
        ("SCRIPT_NAME", "/app"),
        ("SCRIPT_FILENAME", &options.script),
        ("CONTENT_LENGTH", &length),
    ]
    .into_iter()
    .collect();
    for number in params.len()..PARAMS {
        params.set(format!("HTTP_X_{number}").as_bytes(), b"a value as long as those of headers are");
    }
    let mut records = Vec::new();
    encoder::request_head(ID, Role::Responder, options.keep, &params, &mut records);
    encoder::stream(RecordType::Stdin, ID, &vec![b'x'; options.body], &mut records);
    encoder::end_stream(RecordType::Stdin, ID, &mut records);
    records
}

fn requests_until(end: Instant, options: &Options, request: &[u8]) -> io::Result<Count> {
    let mut count = Count::default();
    let mut block = vec![0; 64 << 10];
    let mut kept = None;
    while Instant::now() < end {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection { socket: connect(&options.address)?, decoder: Decoder::new() },
        };
        connection.socket.write_all(request)?;
        count.bytes += connection.read_answer(&mut block)?;
        count.requests += 1;
        if options.keep {
            kept = Some(connection);
        }
    }
    Ok(count)
}

struct Connection {
    socket: Box<dyn Socket>,
    /// Of the whole connection: padding may come with the next answer.
    decoder: Decoder,
}

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

fn connect(address: &Address) -> io::Result<Box<dyn Socket>> {
    Ok(match address {
        Address::Unix(path) => {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Box::new(socket)
        }
        Address::Tcp { host, port } => {
            let socket = TcpStream::connect((host.as_str(), *port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_nodelay(true)?;
            Box::new(socket)
        }
        Address::Fd(_) => return Err(io::Error::other("a descriptor cannot be connected to")),
    })
}

impl Connection {
    /// Reads up to END_REQUEST; gives the bytes of output.
    fn read_answer(&mut self, block: &mut [u8]) -> io::Result<u64> {
        let mut bytes = 0;
        let mut end = Vec::new();
        let mut ended = false;
        while !ended {
            let count = self.socket.read(block)?;
            if count == 0 {
                return Err(io::Error::other("the server closed the connection inside an answer"));
            }
            let mut input = &block[..count];
            while let Some(piece) = self.decoder.next(&mut input).map_err(io::Error::other)? {
                match RecordType::from_number(piece.header.kind) {
                    Some(RecordType::Stdout) => bytes += piece.content.len() as u64,
                    Some(RecordType::EndRequest) => {
                        end.extend_from_slice(piece.content);
                        ended = piece.last;
                    }
                    _ => {
                        let text = piece.content.escape_ascii();
                        return Err(io::Error::other(format!("a record of type {}: {text}", piece.header.kind)));
                    }
                }
            }
        }
        check(bytes, &end)
    }
}

fn check(bytes: u64, end: &[u8]) -> io::Result<u64> {
    let complete = end.get(..5) == Some(&[0, 0, 0, 0, ProtocolStatus::RequestComplete as u8]);
    if complete && bytes > 0 {
        return Ok(bytes);
    }
    Err(io::Error::other(format!("a request failed: END_REQUEST {end:?} behind {bytes} bytes")))
}
