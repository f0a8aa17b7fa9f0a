//! Files that are served as they are.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, LAST_MODIFIED};
use hyper::{Method, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use rustix::fs::OFlags;
use tokio::io::{AsyncRead, ReadBuf};

use super::Site;

/// Bytes read at once.
const BLOCK: usize = 16 << 10;

/// The response for a path that names a file below the directory; `None` when it names none, or a script.
pub(super) async fn find(
    directory: &Path,
    site: &Site,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Response<super::Body>> {
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let Found { file, at } = locate(directory, uri.path())?;
    // Its source is nobody's business, wherever a careless command line puts the directory.
    if site.may_be_script(&file) {
        return None;
    }
    if at == At::IndexWithoutSlash {
        // Two slashes would begin the name of another host.
        let path = uri.path().trim_start_matches('/');
        let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        return Some(super::redirect(&format!("/{path}/{query}")));
    }
    let open = open(&file).await.ok()?;
    let meta = open.metadata().await.ok().filter(std::fs::Metadata::is_file)?;
    let modified = meta.modified().ok();
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    if let Some(modified) = modified
        && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(modified))
    {
        response.headers_mut().insert(LAST_MODIFIED, value);
    }
    if is_unchanged(modified, headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    let kind = mime_guess::from_path(&file).first_or_octet_stream();
    if let Ok(value) = HeaderValue::try_from(kind.as_ref()) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(meta.len()));
    if *method == Method::GET {
        *response.body_mut() = FileBody { file: open, left: meta.len() }.boxed();
    }
    Some(response)
}

/// The file that a path names, and its name without links; `None` when it names none, or a script.
pub(super) async fn open_below(directory: &Path, site: &Site, path: &str) -> Option<(PathBuf, tokio::fs::File)> {
    let Found { file, at } = locate(directory, path)?;
    if at == At::IndexWithoutSlash || site.may_be_script(&file) {
        return None;
    }
    let open = open(&file).await.ok()?;
    Some((file, open))
}

/// Never waits, as it would for a pipe's other end, and follows no link that was not there a moment ago.
async fn open(file: &Path) -> io::Result<tokio::fs::File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    tokio::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(file).await
}

struct Found {
    file: PathBuf,
    at: At,
}

#[derive(PartialEq, Eq)]
enum At {
    /// The path is the file's, or its directory's with a slash at the end.
    Path,
    /// The path is that of the file's directory, but relative links in the page would lead astray.
    IndexWithoutSlash,
}

/// The file that a path names, or the index of a directory: below the directory, wherever links lead, and not hidden.
fn locate(directory: &Path, path: &str) -> Option<Found> {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if decoded.contains(&0) {
        return None;
    }
    let mut file = directory.to_owned();
    // Part by part: a name that began with a slash would take the place of the directory.
    for part in decoded.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
        if part.starts_with(b".") {
            return None;
        }
        file.push(OsStr::from_bytes(part));
    }
    let mut at = At::Path;
    if file.is_dir() {
        file.push("index.html");
        at = if decoded.ends_with(b"/") { At::Path } else { At::IndexWithoutSlash };
    } else if decoded.ends_with(b"/") {
        return None;
    }
    let real = file.canonicalize().ok()?;
    real.starts_with(directory.canonicalize().ok()?).then_some(Found { file: real, at })
}

fn is_unchanged(modified: Option<SystemTime>, headers: &HeaderMap) -> bool {
    let since =
        headers.get(IF_MODIFIED_SINCE).and_then(|v| v.to_str().ok()).and_then(|v| httpdate::parse_http_date(v).ok());
    // HTTP dates have no fractions of a second.
    matches!((modified, since), (Some(modified), Some(since)) if modified < since + Duration::from_secs(1))
}

/// A file that is read as the client takes it.
struct FileBody {
    file: tokio::fs::File,
    left: u64,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let mut block = [0; BLOCK];
        let want = usize::try_from(body.left).unwrap_or(BLOCK).min(BLOCK);
        let mut buffer = ReadBuf::new(&mut block[..want]);
        ready!(Pin::new(&mut body.file).poll_read(context, &mut buffer))?;
        let bytes = Bytes::copy_from_slice(buffer.filled());
        if bytes.is_empty() {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        body.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
