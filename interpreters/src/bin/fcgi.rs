//! `fcgi`: asks a FastCGI application for an answer, without a web server.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use fcgi_core::client::{Client, ClientError, Direction, Ended, Event, Request};
use fcgi_core::protocol::record::{Header, KEEP_CONN, RecordType};
use fcgi_core::{Address, Params, ProtocolStatus, Role};

/// The exit status when there is no answer, as the runners use it for errors of use.
const FAILED: u8 = 2;
/// Bytes of a record that are shown.
const PREVIEW: usize = 60;
/// What an application may be asked about itself (section 4.1 of the specification).
const VALUES: [&str; 3] = ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"];

const EXAMPLES: &str = "Examples:
  fcgi-lua --listen unix:/tmp/app.sock &     an application, in the background
  fcgi unix:/tmp/app.sock hello.lua          asks it to run ./hello.lua
  fcgi 127.0.0.1:9000 --query 'a=1&b=2'      an application that is one script
  fcgi :9000 form.lua --body 'name=Ann'      sends a form
  fcgi :9000 put.lua --method PUT --body-file photo.jpg --param CONTENT_TYPE=image/jpeg
  fcgi :9000 hello.lua -v                    shows what is said in both directions
  fcgi :9000 --values                        what does the application tell about itself?

The answer goes to standard output as it comes, header lines first; what the application writes to its error stream \
goes to standard error. The exit status is the application's; it is 2, with one line on standard error, when there \
is no answer.";

/// Sends one request to a FastCGI application and prints the answer
#[derive(Debug, Parser)]
#[command(name = "fcgi", version, max_term_width = 100, after_help = EXAMPLES)]
struct Options {
    /// Where the application listens: unix:PATH, HOST:PORT, [IPV6]:PORT or :PORT
    address: OsString,

    /// The script that the application is asked to run
    script_filename: Option<PathBuf>,

    /// Send this variable, in place of the one that would be sent (repeatable)
    #[arg(long = "param", value_name = "NAME=VALUE", allow_hyphen_values = true)]
    params: Vec<OsString>,

    /// Request method [default: GET; POST with a body]
    #[arg(long)]
    method: Option<OsString>,

    /// Query string, without its question mark
    #[arg(long, value_name = "STRING", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    query: OsString,

    /// Send this request body
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    body: Option<OsString>,

    /// Send this file as the request body; "-" is standard input, which is read to its end first
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,

    /// The file that a filter is to transform
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,

    /// What the application is asked to be: responder, authorizer, filter, or a number
    #[arg(long, default_value = "responder", value_parser = role)]
    role: u16,

    /// Ask the application to leave the connection open
    #[arg(long)]
    keep_conn: bool,

    /// Seconds in which something must be sent or received; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,

    /// Ask what the application tells about itself; no request is sent
    #[arg(long, conflicts_with_all = ["script_filename", "body", "body_file", "data_file"])]
    values: bool,

    /// Show each record on standard error: > was sent, < was received
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(e) if e.use_stderr() => return fail(&usage(&e.to_string())),
        Err(e) => {
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
    };
    match run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(e) => fail(&format!("{e:#}")),
    }
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "fcgi: {why}");
    ExitCode::from(FAILED)
}

/// The first paragraph of what clap says, on one line.
fn usage(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let text = lines.join(" ");
    format!("{}; see fcgi --help", text.strip_prefix("error: ").unwrap_or(&text))
}

fn run(options: &Options) -> anyhow::Result<u8> {
    if options.values {
        return ask_values(options);
    }
    let role = Role::from_number(options.role);
    if role.is_some_and(|r| !r.has_data()) && options.data_file.is_some() {
        bail!("--data-file is for --role filter");
    }
    if role.is_some_and(|r| !r.has_stdin()) && (options.body.is_some() || options.body_file.is_some()) {
        bail!("an authorizer is sent no body");
    }
    let mut body = body(options)?;
    let mut data = options.data_file.as_deref().map(Input::open).transpose()?;
    let params = params(options, body.as_ref(), data.as_ref())?;
    let mut empty = io::empty();
    let request = Request {
        id: 1,
        role: options.role,
        keep_conn: options.keep_conn,
        params: &params,
        stdin: body.as_mut().map_or(&mut empty, |b| &mut b.reader),
        data: data.as_mut().map(|d| &mut d.reader as &mut dyn Read),
    };
    let ended = connect(options)?.request(request, &mut print).map_err(|e| explain(e, options))?;
    status(ended)
}

fn ask_values(options: &Options) -> anyhow::Result<u8> {
    let values = connect(options)?.values(&VALUES).map_err(|e| match e {
        ClientError::UnexpectedRecord { kind, id: 0 } if kind == RecordType::UnknownType as u8 => {
            anyhow!("the application cannot tell anything about itself")
        }
        e => explain(e, options),
    })?;
    let lines: Vec<u8> = values.iter().flat_map(|(name, value)| [name, b"=", value, b"\n"].concat()).collect();
    io::stdout().write_all(&lines).context("cannot write")?;
    Ok(0)
}

fn connect(options: &Options) -> anyhow::Result<Client> {
    let address = address(&options.address)?;
    let timeout = (!options.timeout.is_zero()).then_some(options.timeout);
    let mut client = Client::connect(&address, timeout)
        .map_err(|e| anyhow!("cannot connect to {address}: {e}{}", advice(e.kind())))?;
    if options.verbose {
        client.observe(Box::new(|direction, header, content| show(direction, *header, content)));
    }
    Ok(client)
}

/// What to look at when nobody can be reached.
fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; is the application running?",
        io::ErrorKind::PermissionDenied => "; may this user write to the socket?",
        io::ErrorKind::TimedOut => "; --timeout allows it more time",
        _ => "",
    }
}

fn explain(error: ClientError, options: &Options) -> anyhow::Error {
    match error {
        ClientError::TimedOut => {
            anyhow!("{error} for {} s; --timeout allows it more time", options.timeout.as_secs_f64())
        }
        ClientError::Closed => anyhow!("{error}; its log may say why"),
        ClientError::BadVersion(_) => anyhow!("{error}; is this the address of a web server?"),
        error => error.into(),
    }
}

fn status(ended: Ended) -> anyhow::Result<u8> {
    match ProtocolStatus::from_number(ended.protocol_status) {
        Some(ProtocolStatus::RequestComplete) => Ok(u8::try_from(ended.app_status).unwrap_or(u8::MAX)),
        _ => bail!("the application refused the request: {}", status_name(ended.protocol_status)),
    }
}

fn status_name(number: u8) -> &'static str {
    match ProtocolStatus::from_number(number) {
        Some(ProtocolStatus::RequestComplete) => "REQUEST_COMPLETE",
        Some(ProtocolStatus::CantMultiplex) => "CANT_MPX_CONN",
        Some(ProtocolStatus::Overloaded) => "OVERLOADED",
        Some(ProtocolStatus::UnknownRole) => "UNKNOWN_ROLE",
        None => "for a reason that the specification does not know",
    }
}

fn print(event: Event<'_>) {
    let result = match event {
        Event::Stdout(bytes) => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Event::Stderr(bytes) => io::stderr().write_all(bytes),
    };
    if let Err(e) = result {
        // An answer may be endless, so one that nobody reads is not waited for.
        fail(&format!("cannot write the answer: {e}"));
        std::process::exit(FAILED.into());
    }
}

/// A socket's path may be any bytes; the other forms of an address are text.
fn address(text: &OsStr) -> anyhow::Result<Address> {
    if let Some(text) = text.to_str() {
        return Ok(text.parse()?);
    }
    let bytes = text.as_bytes();
    let path = bytes.strip_prefix(b"unix:").or_else(|| bytes.starts_with(b"/").then_some(bytes));
    let path = path.with_context(|| format!("'{}' is no address", text.display()))?;
    Ok(Address::Unix(OsStr::from_bytes(path).into()))
}

fn role(text: &str) -> Result<u16, String> {
    let number = Role::from_name(text).map(|r| r as u16).or_else(|| text.parse().ok());
    number.ok_or_else(|| "write responder, authorizer, filter or a number".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .and_then(|n| Duration::try_from_secs_f64(n).ok())
        .ok_or_else(|| "write a number of seconds such as 10 or 0.5".to_owned())
}

/// Something to send, whose length the application is told beforehand.
struct Input {
    reader: Box<dyn Read>,
    len: u64,
    /// Seconds since 1970, of a file.
    modified: Option<u64>,
}

impl Input {
    fn bytes(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len() as u64, reader: Box::new(io::Cursor::new(bytes)), modified: None }
    }

    fn open(path: &Path) -> anyhow::Result<Self> {
        Self::read(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        if path == Path::new("-") {
            io::stdin().read_to_end(&mut bytes)?;
            return Ok(Self::bytes(bytes));
        }
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            // The length of a pipe is known when it has been read.
            file.read_to_end(&mut bytes)?;
            return Ok(Self::bytes(bytes));
        }
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let len = metadata.len();
        // A file that grows must not become longer than was said.
        Ok(Self { reader: Box::new(file.take(len)), len, modified: modified.map(|t| t.as_secs()) })
    }
}

fn body(options: &Options) -> anyhow::Result<Option<Input>> {
    match (&options.body, &options.body_file) {
        (Some(text), _) => Ok(Some(Input::bytes(text.clone().into_vec()))),
        (None, Some(path)) => Input::open(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The variables that a web server would send, and those that were asked for.
fn params(options: &Options, body: Option<&Input>, data: Option<&Input>) -> anyhow::Result<Params> {
    let mut params: Params = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", concat!("fcgi/", env!("CARGO_PKG_VERSION"))),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "0"),
        ("HTTP_HOST", "localhost"),
        ("REQUEST_METHOD", if body.is_some() { "POST" } else { "GET" }),
    ]
    .into_iter()
    .collect();
    if let Some(method) = &options.method {
        params.set(b"REQUEST_METHOD", method.as_bytes());
    }
    set_script(&mut params, options)?;
    if options.role == Role::Authorizer as u16 {
        // It guards a URL, not a script (section 6.3).
        params.remove(b"SCRIPT_NAME");
    }
    if let Some(body) = body {
        let kind =
            if options.body.is_some() { "application/x-www-form-urlencoded" } else { "application/octet-stream" };
        params.set(b"CONTENT_TYPE", kind.as_bytes());
        params.set(b"CONTENT_LENGTH", body.len.to_string().as_bytes());
    }
    if let Some(data) = data {
        params.set(b"FCGI_DATA_LENGTH", data.len.to_string().as_bytes());
        params.set(b"FCGI_DATA_LAST_MOD", data.modified.unwrap_or(0).to_string().as_bytes());
    }
    for param in &options.params {
        let bytes = param.as_bytes();
        let equals = bytes.iter().position(|b| *b == b'=').filter(|at| *at > 0);
        let equals = equals.with_context(|| format!("--param {}: write NAME=VALUE", param.display()))?;
        params.set(&bytes[..equals], &bytes[equals + 1..]);
    }
    Ok(params)
}

/// Where the script is, and the address at which a web server would have it.
fn set_script(params: &mut Params, options: &Options) -> anyhow::Result<()> {
    let mut uri = b"/".to_vec();
    if let Some(script) = &options.script_filename {
        // The application's working directory is not ours.
        let path = std::path::absolute(script).context("SCRIPT_FILENAME")?;
        uri.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
        params.set(b"SCRIPT_FILENAME", path.as_os_str().as_bytes());
    }
    params.set(b"SCRIPT_NAME", &uri);
    params.set(b"QUERY_STRING", options.query.as_bytes());
    if !options.query.is_empty() {
        uri.push(b'?');
        uri.extend_from_slice(options.query.as_bytes());
    }
    params.set(b"REQUEST_URI", &uri);
    Ok(())
}

/// One line for one record.
fn show(direction: Direction, header: Header, content: &[u8]) {
    let arrow = if direction == Direction::Sent { '>' } else { '<' };
    let kind = RecordType::from_number(header.kind);
    let name = kind.map_or_else(|| format!("type {}", header.kind), |k| type_name(k).to_owned());
    let said = describe(kind, content);
    let _ = writeln!(io::stderr(), "{arrow} {name} id={} length={}{said}", header.id, content.len());
}

fn describe(kind: Option<RecordType>, content: &[u8]) -> String {
    match (kind, content) {
        (_, []) => String::new(),
        (Some(RecordType::BeginRequest), &[high, low, flags, ..]) => {
            let number = u16::from_be_bytes([high, low]);
            let role = Role::from_number(number).map_or_else(|| number.to_string(), |r| r.name().to_owned());
            format!(" role={role} keep_conn={}", flags & KEEP_CONN)
        }
        (Some(RecordType::EndRequest), &[a, b, c, d, status, ..]) => {
            let app_status = u32::from_be_bytes([a, b, c, d]);
            format!(" app_status={app_status} protocol_status={status} {}", status_name(status))
        }
        (Some(RecordType::UnknownType), &[kind, ..]) => format!(" type={kind}"),
        (Some(RecordType::Params | RecordType::GetValues | RecordType::GetValuesResult), _) => {
            pairs(content).unwrap_or_else(|| preview(content))
        }
        _ => preview(content),
    }
}

/// `None` for a stream of pairs that was cut into records.
fn pairs(content: &[u8]) -> Option<String> {
    let params = Params::from_stream(content.to_vec(), usize::MAX).ok()?;
    let text = |(name, value): (&[u8], &[u8])| format!(" {}=\"{}\"", name.escape_ascii(), value.escape_ascii());
    Some(params.iter().map(text).collect::<Vec<_>>().concat())
}

fn preview(content: &[u8]) -> String {
    let shown = content[..content.len().min(PREVIEW)].escape_ascii();
    format!(" \"{shown}\"{}", if content.len() > PREVIEW { "..." } else { "" })
}

/// As the specification writes it, without `FCGI_`.
fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::BeginRequest => "BEGIN_REQUEST",
        RecordType::AbortRequest => "ABORT_REQUEST",
        RecordType::EndRequest => "END_REQUEST",
        RecordType::Params => "PARAMS",
        RecordType::Stdin => "STDIN",
        RecordType::Stdout => "STDOUT",
        RecordType::Stderr => "STDERR",
        RecordType::Data => "DATA",
        RecordType::GetValues => "GET_VALUES",
        RecordType::GetValuesResult => "GET_VALUES_RESULT",
        RecordType::UnknownType => "UNKNOWN_TYPE",
    }
}
