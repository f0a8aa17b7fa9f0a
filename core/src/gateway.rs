//! What web servers get wrong about CGI variables, put right once for all languages.
//!
//! | server | what it sends | what the program sees |
//! | --- | --- | --- |
//! | all | `HTTP_PROXY`, from the client's `Proxy:` header (httpoxy) | nothing |
//! | Apache mod_proxy_fcgi | `SCRIPT_FILENAME` `proxy:fcgi://host:port/path?query` | `/path` |
//! | the same by ProxyPass | the same with `%20` for a space | the path as `SCRIPT_NAME` has it |
//! | HAProxy | no `SCRIPT_NAME` when it is empty | the empty one |
//! | nginx unbuffered, Apache, Caddy | a chunked body with `CONTENT_LENGTH` empty, missing or `-1` | the length when it is known, else nothing |
//!
//! What they get wrong about answers: see `answer`.
//!
//! The split of a path into script and `PATH_INFO` needs the file system: see [`split_script_path`].

pub(crate) mod answer;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::protocol::Params;

/// What `SCRIPT_FILENAME` begins with under mod_proxy_fcgi.
const PROXY_PREFIX: &[u8] = b"proxy:";

/// Puts the variables of a request right. `body_length` is the body's length when all of it has come.
pub fn put_right(params: &mut Params, body_length: Option<usize>) {
    params.remove(b"HTTP_PROXY");
    if let Some(path) = params.get(b"SCRIPT_FILENAME").and_then(without_proxy_prefix) {
        let mut path = path.to_vec();
        // A URL, or a file's name? The end that both have in common tells.
        if let Some(name) = params.get(b"SCRIPT_NAME")
            && !path.ends_with(name)
        {
            let decoded = percent_decoded(&path);
            if decoded.ends_with(name) {
                path = decoded;
            }
        }
        params.set(b"SCRIPT_FILENAME", &path);
    }
    if params.get(b"SCRIPT_NAME").is_none() && params.get(b"PATH_INFO").is_some() {
        params.set(b"SCRIPT_NAME", b"");
    }
    let known = params.get(b"CONTENT_LENGTH").is_some_and(|v| !v.is_empty() && v.iter().all(u8::is_ascii_digit));
    if !known {
        match body_length {
            Some(length) if length > 0 => params.set(b"CONTENT_LENGTH", length.to_string().as_bytes()),
            // nginx sends an empty value with every GET, which plain CGI programs know as well.
            _ if params.get(b"CONTENT_LENGTH").is_some_and(|v| !v.is_empty()) || body_length.is_none() => {
                params.remove(b"CONTENT_LENGTH");
            }
            _ => {}
        }
    }
}

/// The path in a `SCRIPT_FILENAME` of Apache's mod_proxy_fcgi; `None` when it has no such prefix.
fn without_proxy_prefix(value: &[u8]) -> Option<&[u8]> {
    let rest = value.strip_prefix(PROXY_PREFIX)?;
    let scheme = [&b"fcgi://"[..], b"balancer://"].into_iter().find_map(|s| {
        // A unix socket stands before the scheme: proxy:unix:/run/app.sock|fcgi://localhost/path
        rest.windows(s.len()).position(|w| w == s).map(|at| at + s.len())
    })?;
    let rest = &rest[scheme..];
    let path = &rest[rest.iter().position(|&b| b == b'/')?..];
    Some(&path[..path.iter().position(|&b| b == b'?').unwrap_or(path.len())])
}

/// The bytes of a URL's part in which some are written as `%` and two digits. What is no such digit stays.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = std::str::from_utf8(behind.get(..2).unwrap_or_default()).ok().filter(|_| first == b'%');
        let byte =
            digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|d| u8::from_str_radix(d, 16).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    out
}

/// Finds the script in a path that goes on behind it: the longest beginning of `SCRIPT_FILENAME` that is a file. What
/// follows becomes `PATH_INFO`, and `SCRIPT_NAME` loses it, as RFC 3875 (sections 4.1.5 and 4.1.13) has it; a server that
/// was not told to split paths sends neither. `None` when no part of it is a file.
pub fn split_script_path(params: &mut Params) -> Option<PathBuf> {
    let full = params.get(b"SCRIPT_FILENAME")?.to_vec();
    let as_path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let mut end = full.len();
    loop {
        let path = as_path(&full[..end]);
        if path.is_file() {
            if end < full.len() {
                move_to_path_info(params, &full[..end], &full[end..]);
            }
            return Some(path);
        }
        if Path::new(&path).is_dir() {
            return None;
        }
        end = full[..end].iter().rposition(|&b| b == b'/').filter(|&at| at > 0)?;
    }
}

fn move_to_path_info(params: &mut Params, script: &[u8], rest: &[u8]) {
    params.set(b"SCRIPT_FILENAME", script);
    if params.get(b"PATH_INFO").is_none_or(<[u8]>::is_empty) {
        params.set(b"PATH_INFO", rest);
        if let Some(root) = params.get(b"DOCUMENT_ROOT") {
            let translated = [root, rest].concat();
            params.set(b"PATH_TRANSLATED", &translated);
        }
    }
    if let Some(name) = params.get(b"SCRIPT_NAME").and_then(|n| n.strip_suffix(rest)).filter(|n| !n.is_empty()) {
        let name = name.to_vec();
        params.set(b"SCRIPT_NAME", &name);
    }
}
