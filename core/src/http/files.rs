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
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read at once.
const BLOCK: usize = 16 << 10;

/// The response for a path that names a file below the directory; `None` when it names none.
pub(super) async fn find(
    directory: &Path,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<super::Body>> {
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let (file, is_directory) = locate(directory, path)?;
    if is_directory && !path.ends_with('/') {
        return Some(super::redirect(&format!("{path}/")));
    }
    let open = tokio::fs::File::open(&file).await.ok()?;
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

/// The file that a path names, or the index of a directory: below the directory, wherever links lead, and not hidden.
fn locate(directory: &Path, path: &str) -> Option<(PathBuf, bool)> {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let relative = decoded.strip_prefix(b"/")?;
    if relative.contains(&0) || relative.split(|&b| b == b'/').any(|part| part.starts_with(b".")) {
        return None;
    }
    let mut file = directory.join(OsStr::from_bytes(relative));
    let is_directory = file.is_dir();
    if is_directory {
        file = file.join("index.html");
    }
    let real = file.canonicalize().ok()?;
    real.starts_with(directory.canonicalize().ok()?).then_some((real, is_directory))
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
