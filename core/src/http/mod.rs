//! An HTTP/1.1 front for development and small sites: what a web server does for a FastCGI application, in one thread of
//! the program itself.
//!
//! hyper speaks HTTP; each request becomes one FastCGI request on a connection of its own (`backend`), with all variables
//! of RFC 3875 (`variables`); the CGI response becomes an HTTP response (`head`). Bodies stream both ways, so memory
//! does not grow with them. A client that leaves closes the FastCGI connection, which tells the script.
//!
//! Scripts may have other roles than to answer: one that lets requests in, some that transform files, one that takes the log
//! (`roles`, `logger`).
//!
//! Each request is one line of the log, of target `access` and level INFO (`access`); what scripts write to their error
//! stream is logged as errors.

mod access;
mod backend;
mod files;
mod head;
mod logger;
mod roles;
mod timed;
mod variables;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

use access::{Access, Logged};
use backend::{Answer, BackendError, Question, Stdin};
use head::Head;
use roles::Authorized;
use timed::Timed;

pub use roles::{BadFilter, Filter, Roles};

use crate::protocol::{Params, Role};

/// Local redirects that one request may cause: a script that redirects to itself would never end.
const REDIRECTS: usize = 10;
/// How long a stopping front waits for the first request of a connection: one may be on its way, and browsers open
/// connections that they never use.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Connections that have come and not been accepted when the front stops; further ones are refused.
const BACKLOG: usize = 1024;

type Body = BoxBody<Bytes, io::Error>;

/// What the front serves, and from where.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unix socket of the FastCGI server.
    pub backend: PathBuf,
    /// What a URL names.
    pub site: Site,
    /// Files below this directory are served as they are, where a GET's path names one. Never served are hidden files,
    /// files that links lead out to, and files with a script's extension: their source is nobody's business.
    pub static_dir: Option<PathBuf>,
    /// Scripts that do something else than answer.
    pub roles: Roles,
}

/// What a URL names.
#[derive(Clone, Debug)]
pub enum Site {
    /// One script for all URLs: `SCRIPT_NAME` is empty and `PATH_INFO` the whole path, unless the path begins with the
    /// script's name.
    Script(PathBuf),
    /// Scripts in a directory: the longest beginning of the path that is a script; the rest is `PATH_INFO`.
    Directory {
        /// The directory.
        root: PathBuf,
        /// Extensions of scripts, without the dot; none of them for any. A directory's page is its `index` with the
        /// first of them.
        extensions: Vec<OsString>,
    },
}

/// How long the front waits; `None` is without end.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a client's request head, and on a kept connection for the next one: 30 seconds by default.
    pub head: Option<Duration>,
    /// For the rest of a request's body, counted anew with each part that comes; then the client is answered with status
    /// 408. 60 seconds by default.
    pub body: Option<Duration>,
    /// For a client to read its answer, counted anew with each part that it takes: 60 seconds by default.
    pub write: Option<Duration>,
    /// For an application that neither reads the request nor begins to answer; then the client is answered with status
    /// 504. By default without end: the application's own server knows better what takes long.
    pub answer: Option<Duration>,
    /// For requests that are in progress when the front stops: 10 seconds by default.
    pub stop: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Some(Duration::from_secs(30)),
            body: Some(Duration::from_secs(60)),
            write: Some(Duration::from_secs(60)),
            answer: None,
            stop: Duration::from_secs(10),
        }
    }
}

/// A running front.
#[derive(Debug)]
pub struct Front {
    thread: Option<std::thread::JoinHandle<()>>,
    stop: watch::Sender<bool>,
    address: SocketAddr,
}

impl Front {
    /// Starts a thread that serves HTTP on a listening socket.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be started.
    pub fn start(listener: std::net::TcpListener, config: Config) -> io::Result<Self> {
        Self::start_with(listener, config, Timeouts::default())
    }

    /// Starts as [`start`](Self::start) does, with other timeouts.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with(listener: std::net::TcpListener, config: Config, timeouts: Timeouts) -> io::Result<Self> {
        Self::launch(listener, config, timeouts, None, None)
    }

    /// Starts as [`start_with`](Self::start_with) does, ahead of a server that is to stop after the front: the front
    /// stops when `stop_on`, a stream socket, becomes readable (see [`signals::catch`](crate::signals::catch)), and when it has, the
    /// descriptor that is returned becomes readable. As the server's
    /// [`Builder::drain_on`](crate::server::Builder::drain_on) it lets no request of the front meet a stopping server.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_ahead(
        listener: std::net::TcpListener,
        config: Config,
        timeouts: Timeouts,
        stop_on: OwnedFd,
    ) -> io::Result<(Self, OwnedFd)> {
        let (has_stopped, told) = StdUnixStream::pair()?;
        let front = Self::launch(listener, config, timeouts, Some(stop_on), Some(told))?;
        Ok((front, has_stopped.into()))
    }

    fn launch(
        listener: std::net::TcpListener,
        config: Config,
        timeouts: Timeouts,
        stop_on: Option<OwnedFd>,
        told: Option<StdUnixStream>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let (unfinished, all_finished) = mpsc::channel(1);
        let (log, logger) = logger::of(&config, unfinished.clone());
        let shared = Arc::new(Shared { config, timeouts, address, unfinished, log });
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            if let Some(logger) = logger {
                runtime.spawn(logger.run());
            }
            if let Err(e) = runtime.block_on(serve(listener, shared, stopped, stop_on, all_finished)) {
                tracing::error!("the HTTP front has stopped: {e}");
            }
            // With what is left of its requests, which the scripts learn before their server stops.
            drop(runtime);
            drop(told);
        })?;
        Ok(Self { thread: Some(thread), stop, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, waits until answers have been read ([`Timeouts::stop`] at most), and ends the thread.
    pub fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    config: Config,
    timeouts: Timeouts,
    address: SocketAddr,
    /// Held by what goes on behind an answer that has been sent.
    unfinished: mpsc::Sender<()>,
    /// Where a line for each request goes.
    log: Option<logger::Log>,
}

async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    stop_on: Option<OwnedFd>,
    mut all_finished: mpsc::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stop_on = stop_on.map(watched).transpose()?;
    // Dropped to tell the connections.
    let (leave, leaving) = watch::channel(());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    connections.spawn(serve_connection(socket, peer, shared.clone(), leaving.clone()));
                }
                Err(e) => {
                    // Out of descriptors, most likely: trying again at once would only burn the processor.
                    tracing::error!("cannot accept an HTTP connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stopped.changed() => break,
            () = readable(stop_on.as_ref()) => break,
        }
    }
    // Who has been connected by the system may have sent a request; closing would reset it.
    let listener = listener.into_std()?;
    for (socket, peer) in std::iter::from_fn(|| listener.accept().ok()).take(BACKLOG) {
        socket.set_nonblocking(true)?;
        connections.spawn(serve_connection(TcpStream::from_std(socket)?, peer, shared.clone(), leaving.clone()));
    }
    drop(listener);
    drop(leave);
    let patience = shared.timeouts.stop;
    drop(shared);
    let rest = async {
        while connections.join_next().await.is_some() {}
        // Ends when nobody holds the other side any more.
        all_finished.recv().await;
    };
    let _ = tokio::time::timeout(patience, rest).await;
    Ok(())
}

/// A socket is what the event loop can watch safely; it is never read.
fn watched(fd: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn readable(socket: Option<&UnixStream>) {
    match socket {
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

async fn serve_connection(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>, mut leaving: watch::Receiver<()>) {
    let _ = socket.set_nodelay(true);
    let local = socket.local_addr().unwrap_or(shared.address);
    let Timeouts { head, write, .. } = shared.timeouts;
    let begun = Arc::new(AtomicBool::new(false));
    let has_begun = begun.clone();
    let service = service_fn(move |request| {
        has_begun.store(true, Relaxed);
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(request, peer, local, &shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .half_close(false)
        .serve_connection(TokioIo::new(Timed::new(socket, write)), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that breaks off is its own business.
        _ = connection.as_mut() => return,
        _ = leaving.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    if !begun.load(Relaxed) {
        let finished = tokio::time::timeout(FIRST_REQUEST, connection.as_mut()).await.is_ok();
        if finished || !begun.load(Relaxed) {
            return;
        }
    }
    let _ = connection.await;
}

async fn respond(request: Request<Incoming>, peer: SocketAddr, local: SocketAddr, shared: &Shared) -> Response<Logged> {
    let access = Access::new(&request, peer, shared.log.clone());
    let connection = variables::Connection { peer, local };
    let (parts, body) = request.into_parts();
    let asked = Asked { parts, body: Mutex::new(Some(body)), connection, access: &access, shared };
    let response = match roles::authorize(&asked).await {
        Authorized::With(variables) => asked.answer(&variables).await,
        Authorized::Not(refusal) => refusal,
    };
    drop(asked);
    let (parts, body) = response.into_parts();
    let body = access.answered(parts.status, body);
    Response::from_parts(parts, body)
}

/// What a client asks, and of whom.
struct Asked<'a> {
    parts: Parts,
    /// Sent to the first script that may read it.
    body: Mutex<Option<Incoming>>,
    connection: variables::Connection,
    access: &'a Access,
    shared: &'a Shared,
}

impl Asked<'_> {
    /// Has a file, a filter or a script answer; `variables` are the authorizer's.
    async fn answer(&self, variables: &Params) -> Response<Body> {
        if let Some(response) = roles::filter(self, variables).await {
            return response;
        }
        if let Some(directory) = &self.shared.config.static_dir {
            let Parts { method, uri, headers, .. } = &self.parts;
            if let Some(response) = files::find(directory, &self.shared.config.site, method, uri, headers).await {
                return response;
            }
        }
        self.run(variables).await.unwrap_or_else(page)
    }

    /// Has the script answer, or says with which status the front answers by itself.
    async fn run(&self, variables: &Params) -> Result<Response<Body>, StatusCode> {
        let mut method = self.parts.method.clone();
        let mut uri = self.parts.uri.clone();
        for _ in 0..=REDIRECTS {
            let target = variables::target(&self.shared.config.site, uri.path())?;
            let params = self.params(&method, &uri, &target, variables);
            let (mut head, answer) =
                self.ask(Role::Responder, &params, None).await.map_err(|why| self.failed(&why).status())?;
            let Some(location) = head.local_redirect.take() else {
                return Ok(finish(&self.parts.method, head, answer, self.shared));
            };
            // The server answers as if the client had asked for the other URL (RFC 3875, section 6.2.2).
            answer.discard(self.shared.unfinished.clone());
            uri = hyper::Uri::try_from(location).map_err(|e| {
                self.complain(&format_args!("a redirect to what is no URL: {e}"));
                StatusCode::BAD_GATEWAY
            })?;
            method = if method == Method::HEAD { Method::HEAD } else { Method::GET };
        }
        self.complain(&format_args!("more than {REDIRECTS} redirects inside the site"));
        Err(StatusCode::BAD_GATEWAY)
    }

    /// The variables of a request for a script, of which the authorizer has given some.
    fn params(&self, method: &Method, uri: &hyper::Uri, target: &variables::Target, authorized: &Params) -> Params {
        let has_body = self.body().is_some();
        let site = &self.shared.config.site;
        let mut params = variables::params(site, &self.connection, &self.parts, method, uri, target, has_body);
        for (name, value) in authorized {
            params.set(name, value);
        }
        params
    }

    /// Asks a script, which gets the client's body if nobody had it before.
    async fn ask(
        &self,
        role: Role,
        params: &Params,
        data: Option<tokio::fs::File>,
    ) -> Result<(Head, Answer), BackendError> {
        let stdin = self.body().take().map_or(Stdin::None, Stdin::Client);
        let question = Question { role, params, stdin, data, body_timeout: self.shared.timeouts.body };
        let mut answer = Answer::ask(&self.shared.config.backend, question).await?;
        let head = answer.head(self.shared.timeouts.answer).await?;
        Ok((head, answer))
    }

    fn body(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer where there is none.
    fn failed(&self, why: &BackendError) -> Response<Body> {
        self.complain(why);
        page(why.status())
    }

    fn complain(&self, why: &dyn std::fmt::Display) {
        tracing::error!("{} {}: {why}", self.access.method, self.access.uri);
    }
}

/// Makes an HTTP response of a CGI response.
fn finish(method: &Method, head: Head, answer: Answer, shared: &Shared) -> Response<Body> {
    let bodiless =
        *method == Method::HEAD || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
    let body = if bodiless {
        // The script may run to its end all the same.
        answer.discard(shared.unfinished.clone());
        Empty::new().map_err(|never| match never {}).boxed()
    } else {
        answer.boxed()
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(reason) = head.reason {
        response.extensions_mut().insert(reason);
    }
    response
}

/// A page that says no more than its status.
fn page(status: StatusCode) -> Response<Body> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A redirect to another URL of this server.
fn redirect(location: &str) -> Response<Body> {
    let mut response = page(StatusCode::MOVED_PERMANENTLY);
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}
