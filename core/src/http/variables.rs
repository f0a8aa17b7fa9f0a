//! CGI variables of an HTTP request (RFC 3875, section 4.1).

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri, Version};
use percent_encoding::percent_decode_str;

use super::Site;
use crate::protocol::Params;

/// Both ends of a client's connection.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// The script that a URL names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) script: PathBuf,
    pub(super) name: Vec<u8>,
    pub(super) path_info: Vec<u8>,
}

/// Finds the script of a URL's path.
pub(super) fn target(site: &Site, path: &str) -> Result<Target, StatusCode> {
    let path: Vec<u8> = percent_decode_str(path).collect();
    if path.contains(&0) || !path.starts_with(b"/") {
        return Err(StatusCode::BAD_REQUEST);
    }
    // Also in what follows the script: PATH_TRANSLATED is a file name made of it. Browsers never send it.
    if path.split(|&b| b == b'/').any(|part| part == b"..") {
        return Err(StatusCode::NOT_FOUND);
    }
    match site {
        Site::Script(script) => Ok(one_script(script, &path)),
        Site::Directory { root, extensions } => script_in(root, extensions, &path).ok_or(StatusCode::NOT_FOUND),
    }
}

fn one_script(script: &Path, path: &[u8]) -> Target {
    let file = script.file_name().unwrap_or_default().as_bytes();
    let named = path[1..].strip_prefix(file).filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
    let (name, path_info) = match named {
        Some(rest) => (&path[..=file.len()], rest),
        None => (&b""[..], path),
    };
    Target { script: script.to_owned(), name: name.to_vec(), path_info: path_info.to_vec() }
}

/// The shortest beginning of the path that is a file decides: nothing can lie below a file.
fn script_in(root: &Path, extensions: &[OsString], path: &[u8]) -> Option<Target> {
    let is_script = |file: &Path| has_extension(file, extensions) && file.is_file();
    let mut script = root.to_owned();
    let mut name = Vec::new();
    let mut rest = path;
    while let Some(part) = next_part(&mut rest) {
        if part.starts_with(b".") {
            return None;
        }
        // Part by part: a name that began with a slash would take the place of the root.
        script.push(OsStr::from_bytes(part));
        name.push(b'/');
        name.extend_from_slice(part);
        if is_script(&script) {
            return Some(Target { script, name, path_info: rest.to_vec() });
        }
    }
    let index = Path::new("index").with_extension(extensions.first()?);
    script.push(&index);
    name.push(b'/');
    name.extend_from_slice(index.as_os_str().as_bytes());
    is_script(&script).then_some(Target { script, name, path_info: Vec::new() })
}

/// Takes the next part of a path, and the slashes before it.
fn next_part<'a>(path: &mut &'a [u8]) -> Option<&'a [u8]> {
    let start = path.iter().position(|&b| b != b'/')?;
    let from = &path[start..];
    let (part, rest) = from.split_at(from.iter().position(|&b| b == b'/').unwrap_or(from.len()));
    *path = rest;
    Some(part)
}

/// Without a list, any extension will do.
fn has_extension(file: &Path, extensions: &[OsString]) -> bool {
    file.extension().is_some_and(|e| extensions.is_empty() || extensions.iter().any(|x| x == e))
}

impl Site {
    /// Whether a file is a script, or may be part of one.
    pub(super) fn may_be_script(&self, file: &Path) -> bool {
        let is_in = |root: &Path| root.canonicalize().is_ok_and(|root| file.starts_with(root));
        match self {
            Self::Script(script) => is_in(script) || script.extension().is_some_and(|e| file.extension() == Some(e)),
            Self::Directory { root, extensions } => {
                has_extension(file, extensions) && (!extensions.is_empty() || is_in(root))
            }
        }
    }
}

/// All variables of a request.
pub(super) fn params(
    site: &Site,
    connection: &Connection,
    parts: &Parts,
    method: &Method,
    uri: &Uri,
    target: &Target,
    with_body: bool,
) -> Params {
    let mut params = Params::new();
    let mut set = |name: &str, value: &[u8]| params.set(name.as_bytes(), value);
    let root = match site {
        Site::Script(script) => script.parent().unwrap_or(Path::new("/")),
        Site::Directory { root, .. } => root,
    };
    set("GATEWAY_INTERFACE", b"CGI/1.1");
    set("SERVER_SOFTWARE", concat!("fcgi-interpreters/", env!("CARGO_PKG_VERSION")).as_bytes());
    set("SERVER_PROTOCOL", if parts.version == Version::HTTP_10 { b"HTTP/1.0" } else { b"HTTP/1.1" });
    set(
        "SERVER_NAME",
        server_name(&parts.headers, uri).unwrap_or_else(|| connection.local.ip().to_canonical().to_string()).as_bytes(),
    );
    set("SERVER_ADDR", connection.local.ip().to_canonical().to_string().as_bytes());
    set("SERVER_PORT", connection.local.port().to_string().as_bytes());
    set("REMOTE_ADDR", connection.peer.ip().to_canonical().to_string().as_bytes());
    set("REMOTE_PORT", connection.peer.port().to_string().as_bytes());
    set("REQUEST_METHOD", method.as_str().as_bytes());
    set("REQUEST_SCHEME", b"http");
    set("REQUEST_URI", parts.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
    set("QUERY_STRING", uri.query().unwrap_or_default().as_bytes());
    set("DOCUMENT_ROOT", root.as_os_str().as_bytes());
    set("SCRIPT_FILENAME", target.script.as_os_str().as_bytes());
    set("SCRIPT_NAME", &target.name);
    if !target.path_info.is_empty() {
        set("PATH_INFO", &target.path_info);
        set("PATH_TRANSLATED", &[root.as_os_str().as_bytes(), &target.path_info].concat());
    }
    if with_body {
        for (name, header) in [("CONTENT_LENGTH", CONTENT_LENGTH), ("CONTENT_TYPE", CONTENT_TYPE)] {
            if let Some(value) = parts.headers.get(header) {
                set(name, value.as_bytes());
            }
        }
    }
    headers(&parts.headers, &mut params);
    params
}

/// Those variables that an Authorizer gets (FastCGI, section 6.3): it is asked about the request, and is not what the request
/// is for.
pub(super) fn for_authorizer(mut params: Params) -> Params {
    for name in ["CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME"] {
        params.remove(name.as_bytes());
    }
    params
}

/// The host that the client asked for, without its port.
fn server_name(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let host = uri.host().or_else(|| headers.get(HOST).and_then(|h| h.to_str().ok()))?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    (!name.is_empty()).then(|| name.to_owned())
}

/// Request headers as `HTTP_*`. Those with an underscore are left out: they would pass for those with a hyphen. So are
/// those with signs that no shell takes in the name of a variable.
fn headers(headers: &HeaderMap, params: &mut Params) {
    const NOT_FOR_SCRIPTS: [&str; 4] = ["proxy", "content-length", "content-type", "transfer-encoding"];
    for name in headers.keys() {
        let is_plain = name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_plain || NOT_FOR_SCRIPTS.contains(&name.as_str()) {
            continue;
        }
        let separator: &[u8] = if name == hyper::header::COOKIE { b"; " } else { b", " };
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(hyper::header::HeaderValue::as_bytes).collect();
        let variable = format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_"));
        params.set(variable.as_bytes(), &values.join(separator));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_script_for_all() {
        let site = Site::Script("/srv/app.lua".into());
        for (path, name, info) in [
            ("/", "", "/"),
            ("/a/b%20c", "", "/a/b c"),
            ("/app.lua", "/app.lua", ""),
            ("/app.lua/x", "/app.lua", "/x"),
            ("/app.luax", "", "/app.luax"),
        ] {
            let target = target(&site, path).unwrap();
            assert_eq!((&target.name[..], &target.path_info[..]), (name.as_bytes(), info.as_bytes()), "{path}");
        }
        assert_eq!(target(&site, "/a%00b"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(target(&site, "*"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(target(&site, "/app.lua/%2e./x"), Err(StatusCode::NOT_FOUND));
    }

    #[test]
    fn scripts_in_a_directory() {
        let root = std::env::temp_dir().join(format!("fcgi-variables-{}", std::process::id()));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        for file in ["a.lua", "sub/index.lua", "notes.txt"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let site = Site::Directory { root: root.clone(), extensions: vec!["lua".into()] };
        for (path, found) in [
            ("/a.lua", Some(("/a.lua", ""))),
            ("/a.lua/more/x", Some(("/a.lua", "/more/x"))),
            ("/sub/", Some(("/sub/index.lua", ""))),
            ("/sub", Some(("/sub/index.lua", ""))),
            ("/%61.lua", Some(("/a.lua", ""))),
            ("//sub//index.lua//x/.y", Some(("/sub/index.lua", "//x/.y"))),
            ("/sub//", Some(("/sub/index.lua", ""))),
            ("/sub/other", None),
            ("/notes.txt", None),
            ("/", None),
            ("/sub/../a.lua", None),
            ("/..%2fetc/passwd", None),
            ("/.hidden", None),
            (&format!("/{}/a.lua", root.display()), None),
        ] {
            let got = target(&site, path).ok();
            let got = got
                .as_ref()
                .map(|t| (std::str::from_utf8(&t.name).unwrap(), std::str::from_utf8(&t.path_info).unwrap()));
            assert_eq!(got, found, "{path}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn request_headers() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("x-a", "1"),
            ("x-a", "2"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("proxy", "http://evil/"),
            ("x_under", "no"),
            ("x.dot", "no"),
            ("authorization", "Basic eA=="),
        ] {
            map.append(name, value.parse().unwrap());
        }
        let mut params = Params::new();
        headers(&map, &mut params);
        let expected: Params =
            [("HTTP_X_A", "1, 2"), ("HTTP_COOKIE", "a=1; b=2"), ("HTTP_AUTHORIZATION", "Basic eA==")]
                .into_iter()
                .collect();
        assert_eq!(params, expected);
    }
}
