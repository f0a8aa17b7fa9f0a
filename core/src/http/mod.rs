//! An HTTP/1.1 front for development and small sites: what a web server does for a FastCGI application, in one thread of
//! the program itself.
//!
//! hyper speaks HTTP; each request becomes one FastCGI request on a connection of its own (`backend`), with all variables
//! of RFC 3875 (`variables`); the CGI response becomes an HTTP response (`head`). Bodies stream both ways, so memory
//! does not grow with them. A client that leaves closes the FastCGI connection, which tells the script.

mod backend;
mod files;
mod head;
mod variables;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use backend::{Answer, BackendError};
use head::Head;
use variables::Target;

/// A client must send its request head within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Local redirects that one request may cause: a script that redirects to itself would never end.
const REDIRECTS: usize = 10;
/// Clients that still read their answers when the front stops have so long.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

type Body = BoxBody<Bytes, io::Error>;

/// What the front serves, and from where.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unix socket of the FastCGI server.
    pub backend: PathBuf,
    /// What a URL names.
    pub site: Site,
    /// Files below this directory are served as they are, where a GET's path names one.
    pub static_dir: Option<PathBuf>,
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
        /// Extensions of scripts, without the dot. A directory's page is its `index` with the first of them.
        extensions: Vec<OsString>,
    },
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
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared { config, address });
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            if let Err(e) = runtime.block_on(serve(listener, shared, stopped)) {
                tracing::error!("the HTTP front has stopped: {e}");
            }
        })?;
        Ok(Self { thread: Some(thread), stop, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, waits until answers have been read (ten seconds at most), and ends the thread.
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
    address: SocketAddr,
}

async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    connections.spawn(serve_connection(socket, peer, shared.clone(), stopped.clone()));
                }
                Err(e) => {
                    // Out of descriptors, most likely: trying again at once would only burn the processor.
                    tracing::error!("cannot accept an HTTP connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stopped.changed() => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn serve_connection(
    socket: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = socket.set_nodelay(true);
    let local = socket.local_addr().unwrap_or(shared.address);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(request, peer, local, &shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(false)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that breaks off is its own business.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// What the access log says of a request.
#[derive(Debug)]
struct Access {
    method: Method,
    uri: String,
    peer: SocketAddr,
    start: Instant,
}

impl Access {
    fn log(&self, status: StatusCode, bytes: u64) {
        let Self { method, uri, peer, start } = self;
        tracing::info!("{} \"{method} {uri}\" {} {bytes} {:.1?}", peer.ip(), status.as_u16(), start.elapsed());
    }
}

async fn respond(request: Request<Incoming>, peer: SocketAddr, local: SocketAddr, shared: &Shared) -> Response<Body> {
    let access =
        Access { method: request.method().clone(), uri: request.uri().to_string(), peer, start: Instant::now() };
    if let Some(directory) = &shared.config.static_dir
        && let Some(response) = files::find(directory, request.method(), request.uri().path(), request.headers()).await
    {
        let bytes = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
        access.log(response.status(), bytes);
        return response;
    }
    let (parts, body) = request.into_parts();
    let connection = variables::Connection { peer, local };
    let mut method = parts.method.clone();
    let mut uri = parts.uri.clone();
    let mut body = Some(body);
    for _ in 0..=REDIRECTS {
        let target = match variables::target(&shared.config.site, uri.path()) {
            Ok(target) => target,
            Err(status) => return refuse(&access, status),
        };
        let answer = ask(&shared.config, &connection, &parts, &method, &uri, &target, body.take()).await;
        let (head, answer) = match answer {
            Ok(answer) => answer,
            Err(e) => {
                tracing::error!("{} {}: {e}", access.method, access.uri);
                return refuse(&access, e.status());
            }
        };
        let Some(location) = head.local_redirect() else { return finish(access, &parts.method, &head, answer) };
        let Ok(next) = hyper::Uri::try_from(location) else {
            tracing::error!("{} {}: a redirect to what is no URL", access.method, access.uri);
            return refuse(&access, StatusCode::BAD_GATEWAY);
        };
        // The server answers as if the client had asked for the other URL (RFC 3875, section 6.2.2).
        answer.read_to_end();
        uri = next;
        method = if method == Method::HEAD { Method::HEAD } else { Method::GET };
    }
    tracing::error!("{} {}: more than {REDIRECTS} redirects inside the site", access.method, access.uri);
    refuse(&access, StatusCode::BAD_GATEWAY)
}

async fn ask(
    config: &Config,
    connection: &variables::Connection,
    parts: &hyper::http::request::Parts,
    method: &Method,
    uri: &hyper::Uri,
    target: &Target,
    body: Option<Incoming>,
) -> Result<(Head, Answer), BackendError> {
    let params = variables::params(&config.site, connection, parts, method, uri, target, body.is_some());
    let mut answer = Answer::ask(&config.backend, &params, body).await?;
    let head = answer.head().await?;
    Ok((head, answer))
}

/// Makes an HTTP response of a CGI response.
fn finish(access: Access, method: &Method, head: &Head, mut answer: Answer) -> Response<Body> {
    let mut response = Response::builder().status(head.status);
    for (name, value) in &head.headers {
        response = response.header(name, value);
    }
    let bodiless = *method == Method::HEAD
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED
        || head.status.is_informational();
    answer.log_when_done(access, head.status);
    let body = if bodiless {
        // The script runs to its end all the same.
        answer.read_to_end();
        Empty::new().map_err(|never| match never {}).boxed()
    } else {
        answer.boxed()
    };
    response.body(body).unwrap_or_else(|_| page(StatusCode::BAD_GATEWAY))
}

fn refuse(access: &Access, status: StatusCode) -> Response<Body> {
    let response = page(status);
    access.log(status, hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0));
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
