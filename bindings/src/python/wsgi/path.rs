//! Which part of a URL's path leads to an application, and which is a path inside of it.

use fcgi_core::Params;
use fcgi_core::gateway::percent_decoded;

/// Puts `SCRIPT_NAME` and `PATH_INFO` right where the application has a URL and all below it for itself (`file` is its script's
/// name, empty when it has none). Web servers that know of scripts only call all of the path the script's name.
///
/// | server | what it sends | what the application sees |
/// | --- | --- | --- |
/// | nginx, its `fastcgi_params` alone | `SCRIPT_NAME` `/a/b` | the same as `PATH_INFO` |
/// | the same with `PATH_INFO $fastcgi_script_name` | both `/a/b` | the same as `PATH_INFO` |
/// | nginx, `fastcgi_split_path_info ^(/a)(.*)$` | `SCRIPT_NAME` `/a`, `PATH_INFO` empty or `/b` | just that |
/// | lighttpd, a program for `/a` | `SCRIPT_NAME` `/a`, no `PATH_INFO` or `/b` | just that |
/// | Apache, `ProxyPass "/a/" "fcgi://app/"` | `SCRIPT_NAME` `/a/b`, `SCRIPT_FILENAME` `/b` | `/a` and `/b` |
pub(in crate::python) fn put_right(params: &mut Params, file: Option<&[u8]>) {
    name_server(params);
    let Some(file) = file else { return };
    let name = params.get(b"SCRIPT_NAME").unwrap_or_default();
    if name.is_empty() {
        return;
    }
    match params.get(b"PATH_INFO") {
        Some(info) if !info.is_empty() => {
            if info == name && path_of_uri(params).is_some_and(|path| path == info) {
                params.set(b"SCRIPT_NAME", b"");
            }
            return;
        }
        // It was told how to split a path, and there is nothing behind.
        Some(_) => return,
        None => {}
    }
    let is_script = !file.is_empty() && name.rsplit(|b| *b == b'/').next() == Some(file);
    if is_script || params.get(b"SERVER_SOFTWARE").is_some_and(|server| server.starts_with(b"lighttpd")) {
        return;
    }
    let at = place_of_proxy(params, name);
    let (name, info) = (name[..at].to_vec(), name[at..].to_vec());
    params.set(b"SCRIPT_NAME", &name);
    params.set(b"PATH_INFO", &info);
}

/// `SERVER_NAME` is never empty (PEP 3333, "environ Variables"): nginx without a `server_name` has none. It is what the client calls
/// the server, or else its address.
fn name_server(params: &mut Params) {
    if params.get(b"SERVER_NAME").is_some_and(|name| !name.is_empty()) {
        return;
    }
    let host = params.get(b"HTTP_HOST").unwrap_or_default();
    let port = host.iter().rposition(|b| *b == b':').filter(|at| host[at + 1..].iter().all(u8::is_ascii_digit));
    let host = &host[..port.unwrap_or(host.len())];
    let name = [host, params.get(b"SERVER_ADDR").unwrap_or_default()].into_iter().find(|name| !name.is_empty());
    let name = name.unwrap_or(b"localhost").to_vec();
    params.set(b"SERVER_NAME", &name);
}

/// How long the part of a path is that mod_proxy_fcgi has for the application: what stands before the path of the URL to which
/// it is mapped.
fn place_of_proxy(params: &Params, name: &[u8]) -> usize {
    let Some(mapped) = params.get(b"SCRIPT_FILENAME").filter(|mapped| mapped.first() == Some(&b'/')) else { return 0 };
    if mapped == b"/" && !name.ends_with(b"/") {
        return name.len();
    }
    // It is a part of a URL, with `%20` for a space.
    let mapped = percent_decoded(mapped);
    name.strip_suffix(&mapped[..]).map_or(0, <[u8]>::len)
}

/// The path of the URL that the client asked for.
fn path_of_uri(params: &Params) -> Option<Vec<u8>> {
    let uri = params.get(b"REQUEST_URI")?;
    uri.split(|b| *b == b'?').next().map(percent_decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_has_a_name() {
        for (pairs, name) in [
            (&[("SERVER_NAME", "a.example"), ("HTTP_HOST", "b.example")][..], "a.example"),
            (&[("SERVER_NAME", ""), ("HTTP_HOST", "b.example:81")], "b.example"),
            (&[("SERVER_NAME", ""), ("HTTP_HOST", "[::1]"), ("SERVER_ADDR", "::1")], "[::1]"),
            (&[("SERVER_NAME", ""), ("HTTP_HOST", ""), ("SERVER_ADDR", "192.0.2.1")], "192.0.2.1"),
            (&[], "localhost"),
        ] {
            let mut params = Params::new();
            for (name, value) in pairs {
                params.set(name.as_bytes(), value.as_bytes());
            }
            put_right(&mut params, None);
            assert_eq!(params.get(b"SERVER_NAME"), Some(name.as_bytes()), "{pairs:?}");
        }
    }

    #[test]
    fn the_application_has_a_part_of_the_path() {
        for (pairs, name, info) in [
            // nginx
            (&[("SCRIPT_NAME", "/a/b")][..], "", "/a/b"),
            (&[("SCRIPT_NAME", "/a"), ("PATH_INFO", "")], "/a", ""),
            (&[("SCRIPT_NAME", "/a"), ("PATH_INFO", "/b")], "/a", "/b"),
            (&[("SCRIPT_NAME", ""), ("PATH_INFO", "/b")], "", "/b"),
            (&[("SCRIPT_NAME", "/a b"), ("PATH_INFO", "/a b"), ("REQUEST_URI", "/a%20b?c")], "", "/a b"),
            (&[("SCRIPT_NAME", "/a"), ("PATH_INFO", "/a"), ("REQUEST_URI", "/a/a")], "/a", "/a"),
            (&[("SCRIPT_NAME", "/a/b"), ("SCRIPT_FILENAME", "/srv/www/a/b")], "", "/a/b"),
            // lighttpd
            (&[("SCRIPT_NAME", "/a"), ("SERVER_SOFTWARE", "lighttpd/1.4.69")], "/a", ""),
            // Apache
            (&[("SCRIPT_NAME", "/a b"), ("SCRIPT_FILENAME", "/a b")], "", "/a b"),
            (&[("SCRIPT_NAME", "/a/b c"), ("SCRIPT_FILENAME", "/b%20c")], "/a", "/b c"),
            (&[("SCRIPT_NAME", "/a/"), ("SCRIPT_FILENAME", "/")], "/a", "/"),
            (&[("SCRIPT_NAME", "/a"), ("SCRIPT_FILENAME", "/")], "/a", ""),
            (&[("SCRIPT_NAME", "/"), ("SCRIPT_FILENAME", "/")], "", "/"),
            // A script that has the file's name.
            (&[("SCRIPT_NAME", "/a/app.py")], "/a/app.py", ""),
        ] {
            let mut params = Params::new();
            for (name, value) in pairs {
                params.set(name.as_bytes(), value.as_bytes());
            }
            put_right(&mut params, Some(b"app.py"));
            let get = |name: &str| String::from_utf8(params.get(name.as_bytes()).unwrap_or_default().to_vec()).unwrap();
            assert_eq!((get("SCRIPT_NAME"), get("PATH_INFO")), (name.to_owned(), info.to_owned()), "{pairs:?}");
        }
    }
}
