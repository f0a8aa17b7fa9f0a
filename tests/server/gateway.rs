//! Variables as web servers send them, and as a program should see them.

use fcgi_core::Params;
use fcgi_core::gateway::{put_right, split_script_path};

use crate::app::Folder;

fn params(pairs: &[(&str, &str)]) -> Params {
    pairs.iter().copied().collect()
}

#[test]
fn script_filename_of_apache() {
    for (sent, seen) in [
        ("/srv/www/a.lua", "/srv/www/a.lua"),
        ("proxy:fcgi://127.0.0.1:9000/srv/www/a.lua", "/srv/www/a.lua"),
        ("proxy:fcgi://localhost/srv/www/a.lua", "/srv/www/a.lua"),
        ("proxy:fcgi://[::1]:9000/srv/www/a.lua", "/srv/www/a.lua"),
        ("proxy:fcgi://127.0.0.1:9000/srv/www/a.lua?x=/1", "/srv/www/a.lua"),
        ("proxy:fcgi://127.0.0.1:9000//srv/www/a.lua", "//srv/www/a.lua"),
        ("proxy:unix:/run/app.sock|fcgi://localhost/srv/www/a.lua", "/srv/www/a.lua"),
        ("proxy:unix:/run/app.sock|fcgi://localhost:8000/srv/www/a.lua?q", "/srv/www/a.lua"),
        ("proxy:balancer://group/srv/www/a.lua", "/srv/www/a.lua"),
        ("proxy:balancer://group/srv/www/a.lua/info", "/srv/www/a.lua/info"),
        // Nothing that could be a path: left as it is.
        ("proxy:fcgi://127.0.0.1:9000", "proxy:fcgi://127.0.0.1:9000"),
        ("proxy:http://example/a.lua", "proxy:http://example/a.lua"),
        ("/srv/proxy:fcgi://x/a.lua", "/srv/proxy:fcgi://x/a.lua"),
        ("", ""),
    ] {
        let mut params = params(&[("SCRIPT_FILENAME", sent)]);
        put_right(&mut params, Some(0));
        assert_eq!(params.get_str("SCRIPT_FILENAME"), Some(seen), "{sent}");
    }
}

#[test]
fn script_filename_of_apache_that_is_a_url() {
    for (sent, name, seen) in [
        ("proxy:fcgi://app/srv/a%20b.lua/%C3%A9", "/a b.lua/\u{e9}", "/srv/a b.lua/\u{e9}"),
        ("proxy:fcgi://app/srv/a%20b.lua", "/a%20b.lua", "/srv/a%20b.lua"),
        ("proxy:fcgi://app/srv/a%2", "/b", "/srv/a%2"),
        ("proxy:fcgi://app/srv/a%20b.lua", "", "/srv/a%20b.lua"),
        ("/srv/a%20b.lua", "/a b.lua", "/srv/a%20b.lua"),
    ] {
        let mut params = params(&[("SCRIPT_FILENAME", sent), ("SCRIPT_NAME", name)]);
        put_right(&mut params, Some(0));
        assert_eq!(params.get_str("SCRIPT_FILENAME"), Some(seen), "{sent}");
    }
}

#[test]
fn script_name_is_there_where_path_info_is() {
    let mut split = params(&[("PATH_INFO", "/a")]);
    put_right(&mut split, Some(0));
    assert_eq!(split.get_str("SCRIPT_NAME"), Some(""));
    let mut bare = params(&[("REQUEST_METHOD", "GET")]);
    put_right(&mut bare, Some(0));
    assert_eq!(bare.get_str("SCRIPT_NAME"), None);
}

#[test]
fn content_length_is_right_or_missing() {
    for (sent, body, seen) in [
        (Some("5"), Some(5), Some("5")),
        (Some("0"), Some(0), Some("0")),
        // What the server says counts, also when less has come: the program can see that the upload broke off.
        (Some("10"), Some(5), Some("10")),
        (Some("10"), None, Some("10")),
        // Chunked uploads.
        (None, Some(5), Some("5")),
        (Some(""), Some(5), Some("5")),
        (Some("-1"), Some(5), Some("5")),
        (None, None, None),
        (Some(""), None, None),
        (Some("-1"), None, None),
        (Some("5x"), None, None),
        // No body at all. nginx sends an empty value then, as plain CGI programs know it.
        (None, Some(0), None),
        (Some(""), Some(0), Some("")),
        (Some("-1"), Some(0), None),
    ] {
        let mut params: Params = sent.map(|value| ("CONTENT_LENGTH", value)).into_iter().collect();
        put_right(&mut params, body);
        assert_eq!(params.get_str("CONTENT_LENGTH"), seen, "{sent:?} {body:?}");
    }
}

#[test]
fn the_proxy_header_of_a_client_is_dropped() {
    let mut params = params(&[("HTTP_PROXY", "http://evil/"), ("HTTP_PROXY_X", "kept"), ("http_proxy", "kept")]);
    put_right(&mut params, Some(0));
    assert_eq!(params.get(b"HTTP_PROXY"), None);
    assert_eq!(params.len(), 2);
}

#[test]
fn a_request_sees_them_put_right() {
    let app = crate::app::App::new();
    let mut client = app.connect();
    let body = client.ask(&[("TEST", "env"), ("HTTP_PROXY", "evil"), ("CONTENT_LENGTH", "-1")], b"12345").body_text();
    assert!(body.contains("14+1:CONTENT_LENGTH5") && !body.contains("HTTP_PROXY"), "{body}");
}

/// Splits a request's path in a folder with the script `app.lua`, and gives script, `SCRIPT_FILENAME`, `SCRIPT_NAME`,
/// `PATH_INFO`, `PATH_TRANSLATED`, with the folder as `$`.
fn split(pairs: &[(&str, &str)]) -> [Option<String>; 5] {
    let folder = Folder::new();
    let root = folder.0.to_str().unwrap().to_owned();
    std::fs::create_dir_all(folder.0.join("sub.lua/deep")).unwrap();
    std::fs::write(folder.0.join("app.lua"), "").unwrap();
    std::fs::write(folder.0.join("sub.lua/deep/app.lua"), "").unwrap();
    let mut params: Params = pairs.iter().map(|(name, value)| (*name, value.replace('$', &root))).collect();
    let script = split_script_path(&mut params).map(|path| path.to_str().unwrap().to_owned());
    let get = |name: &str| params.get_str(name).map(str::to_owned);
    [script, get("SCRIPT_FILENAME"), get("SCRIPT_NAME"), get("PATH_INFO"), get("PATH_TRANSLATED")]
        .map(|text| text.map(|text| text.replace(&root, "$")))
}

#[test]
fn paths_that_servers_split_already() {
    let [script, filename, name, info, translated] = split(&[
        ("SCRIPT_FILENAME", "$/app.lua"),
        ("SCRIPT_NAME", "/app.lua"),
        ("PATH_INFO", "/a/b"),
        ("DOCUMENT_ROOT", "$"),
    ]);
    assert_eq!(script.as_deref(), Some("$/app.lua"));
    assert_eq!((filename.as_deref(), name.as_deref()), (Some("$/app.lua"), Some("/app.lua")));
    assert_eq!((info.as_deref(), translated.as_deref()), (Some("/a/b"), None));
}

#[test]
fn paths_that_servers_leave_to_us() {
    // nginx without fastcgi_split_path_info: name and file with what follows, no PATH_INFO.
    for info in [None, Some(("PATH_INFO", ""))] {
        let pairs = [("SCRIPT_FILENAME", "$/app.lua/a/b"), ("SCRIPT_NAME", "/app.lua/a/b"), ("DOCUMENT_ROOT", "$")];
        let split = split(&pairs.into_iter().chain(info).collect::<Vec<_>>());
        let expected = ["$/app.lua", "$/app.lua", "/app.lua", "/a/b", "$/a/b"];
        assert_eq!(split, expected.map(|text| Some(text.to_owned())));
    }
    // Apache's ProxyPass: the file with what follows, PATH_INFO right already.
    let [script, filename, name, info, _] =
        split(&[("SCRIPT_FILENAME", "$/app.lua/a/b"), ("SCRIPT_NAME", "/app.lua"), ("PATH_INFO", "/a/b")]);
    assert_eq!((script.as_deref(), filename.as_deref()), (Some("$/app.lua"), Some("$/app.lua")));
    assert_eq!((name.as_deref(), info.as_deref()), (Some("/app.lua"), Some("/a/b")));
}

#[test]
fn paths_that_are_unlike_others() {
    let script = |path| split(&[("SCRIPT_FILENAME", path)])[0].clone();
    let info = |path| split(&[("SCRIPT_FILENAME", path)])[3].clone();
    // A folder whose name looks like a script's; a slash at the end; slashes in a row; dots.
    assert_eq!(script("$/sub.lua/deep/app.lua/x").as_deref(), Some("$/sub.lua/deep/app.lua"));
    assert_eq!(info("$/sub.lua/deep/app.lua/x").as_deref(), Some("/x"));
    assert_eq!(info("$/app.lua/").as_deref(), Some("/"));
    assert_eq!(info("$/app.lua//x").as_deref(), Some("//x"));
    assert_eq!(info("$/app.lua/../x").as_deref(), Some("/../x"));
    // Nothing there.
    for nothing in ["$/none.lua", "$/none.lua/a", "$", "$/", "$/sub.lua", "$/sub.lua/none/a", "/", "", "relative/none"]
    {
        assert_eq!(script(nothing), None, "{nothing}");
    }
    assert_eq!(split(&[]), [const { None }; 5]);
}
