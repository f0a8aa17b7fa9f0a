//! The columns of the table: what clients of a web server must find, whichever it is.

use std::io::{Read, Write};
use std::time::Duration;

use super::site::{Site, wait};
use super::ways::{Redirect, Served};
use crate::support::http::connect;

pub struct Check {
    pub name: &'static str,
    pub weight: Weight,
    pub run: fn(&mut Site) -> Result<(), String>,
}

#[derive(PartialEq, Eq)]
pub enum Weight {
    /// With every language.
    Light,
    /// With one of them: what is tested does not know the language.
    Heavy,
}

const fn light(name: &'static str, run: fn(&mut Site) -> Result<(), String>) -> Check {
    Check { name, weight: Weight::Light, run }
}

const fn heavy(name: &'static str, run: fn(&mut Site) -> Result<(), String>) -> Check {
    Check { name, weight: Weight::Heavy, run }
}

pub const CHECKS: &[Check] = &[
    light("get", get),
    light("post", post),
    light("head", head),
    light("paths", paths),
    light("redirect", redirect),
    light("local", local_redirect),
    light("cookies", cookies),
    light("204", no_content),
    light("304", not_modified),
    light("status", status),
    light("chunked", chunked),
    light("stderr", errors),
    light("pieces", pieces),
    light("slow", slow),
    light("leaves", leaves),
    light("64", many_clients),
    heavy("up", upload),
    heavy("down", download),
    light("restart", restart_program),
    heavy("server", restart_server),
];

/// Fails with both values unless they are equal.
macro_rules! same {
    ($got:expr, $expected:expr) => {{
        let (got, expected) = (&$got, &$expected);
        if got != expected {
            return Err(format!("{} is {got:?}, not {expected:?}", stringify!($got)));
        }
    }};
}

fn line(text: &str, name: &str) -> String {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or("absent").to_owned()
}

fn get(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=info&a=1%2B1", "X-Test: one\r\nAuthorization: Basic YTpi\r\n", b"")?;
    let text = answer.text();
    same!((answer.status, answer.all("content-type")), (200, vec!["text/plain"]));
    same!(line(&text, "REQUEST_METHOD"), "GET");
    same!(line(&text, "QUERY_STRING"), "do=info&a=1%2B1");
    same!(line(&text, "HTTP_X_TEST"), "one");
    same!(line(&text, "HTTP_AUTHORIZATION"), "Basic YTpi");
    // The next request finds nothing of this one.
    let answer = site.ask("GET", "/?do=info", "", b"")?;
    same!(line(&answer.text(), "HTTP_X_TEST"), "");
    Ok(())
}

fn post(site: &mut Site) -> Result<(), String> {
    for body in ["hello", ""] {
        let headers = format!("Content-Type: text/x-test\r\nContent-Length: {}\r\n", body.len());
        let answer = site.ask("POST", "/?do=echo", &headers, body.as_bytes())?;
        let text = answer.text();
        let ok = text == format!("POST text/x-test {} {body}", body.len())
            || body.is_empty() && text == "POST text/x-test  ";
        same!((answer.status, ok, &*text), (200, true, &*text));
    }
    Ok(())
}

fn head(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("HEAD", "/?do=info", "", b"")?;
    same!((answer.status, answer.all("content-type"), answer.text().len()), (200, vec!["text/plain"], 0));
    same!(site.ask("GET", "/?do=status", "", b"")?.text(), "fishing");
    Ok(())
}

fn paths(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/a%20b/%C3%A9?do=info", "", b"")?;
    let text = answer.text();
    same!(answer.status, 200);
    same!((line(&text, "SCRIPT_NAME"), &*line(&text, "PATH_INFO")), (site.base(), "/a b/é"));
    same!(line(&text, "REQUEST_URI"), format!("{}/a%20b/%C3%A9?do=info", site.base()));
    if matches!(site.way.served, Served::Directory) {
        let answer = site.ask("GET", "?do=info", "", b"")?;
        same!((answer.status, &*line(&answer.text(), "PATH_INFO")), (200, ""));
        let script = line(&answer.text(), "SCRIPT_FILENAME");
        same!((script.ends_with(&format!("/www{}", site.base())), script.starts_with('/')), (true, true));
    }
    Ok(())
}

fn redirect(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=client", "", b"")?;
    same!((answer.status, answer.all("location")), (302, vec!["http://other.example/x"]));
    Ok(())
}

fn local_redirect(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=local", "", b"")?;
    match site.way.local_redirect {
        Redirect::Server => same!((answer.status, &*line(&answer.text(), "PATH_INFO")), (200, "/there")),
        Redirect::Client => {
            // Some complete it, as HTTP once demanded.
            let location = answer.all("location").concat();
            let path =
                location.trim_start_matches("http://test.example").trim_start_matches(&format!(":{}", site.port));
            same!((answer.status, path), (302, &*format!("{}/there?do=info", site.base())));
        }
    }
    Ok(())
}

fn cookies(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=cookies", "", b"")?;
    same!((answer.status, answer.all("set-cookie"), &*answer.text()), (200, vec!["a=1", "b=2"], "cookies"));
    Ok(())
}

fn no_content(site: &mut Site) -> Result<(), String> {
    for what in ["nothing", "talkative"] {
        let answer = site.ask("GET", &format!("/?do={what}"), "", b"")?;
        same!((what, answer.status, answer.body.len()), (what, 204, 0));
    }
    Ok(())
}

fn not_modified(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=same", "", b"")?;
    same!((answer.status, answer.all("etag"), answer.body.len()), (304, vec!["\"x\""], 0));
    Ok(())
}

fn status(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=status", "", b"")?;
    let reason = if site.way.software.has_own_reasons { "Not Found" } else { "Gone Fishing" };
    same!((answer.status, &*answer.reason, &*answer.text()), (404, reason, "fishing"));
    Ok(())
}

fn chunked(site: &mut Site) -> Result<(), String> {
    let headers = "Content-Type: text/x-test\r\nTransfer-Encoding: chunked\r\n";
    let answer = site.ask("POST", "/?do=echo", headers, b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n")?;
    let text = answer.text();
    same!(answer.status, 200);
    same!((text.starts_with("POST text/x-test "), text.ends_with(" one two"), &*text), (true, true, &*text));
    Ok(())
}

fn errors(site: &mut Site) -> Result<(), String> {
    for _ in 0..3 {
        let answer = site.ask("GET", "/?do=errors", "", b"")?;
        same!((answer.status, &*answer.text()), (200, "fine"));
    }
    wait("the text in a log", || site.has_logged("to the error log") && site.has_logged("once more"))
}

fn pieces(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=pieces", "", b"")?;
    same!((answer.status, answer.all("content-type"), &*answer.text()), (200, vec!["text/plain"], "pieces"));
    Ok(())
}

fn slow(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=slow", "", b"")?;
    same!((answer.status, &*answer.text()), (200, "slept"));
    Ok(())
}

/// Clients that leave in the middle of a very long answer, or of a body, hold nobody up.
fn leaves(site: &mut Site) -> Result<(), String> {
    let head =
        |method: &str, what: &str| format!("{method} {}/?do={what} HTTP/1.1\r\nHost: test.example\r\n", site.base());
    for _ in 0..2 {
        let mut socket = connect(site.port)?;
        socket.write_all(format!("{}\r\n", head("GET", "endless")).as_bytes()).map_err(|e| e.to_string())?;
        socket.read_exact(&mut [0; 1000]).map_err(|e| format!("an endless answer: {e}"))?;
        drop(socket);
        let mut socket = connect(site.port)?;
        let text = format!("{}Content-Length: 100000\r\n\r\nhalf", head("POST", "length"));
        socket.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
        std::thread::sleep(Duration::from_millis(20));
    }
    same!(site.ask("GET", "/?do=slow", "", b"")?.text(), "slept");
    Ok(())
}

fn many_clients(site: &mut Site) -> Result<(), String> {
    let site = &*site;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|client| {
                scope.spawn(move || {
                    for turn in 0..2 {
                        let target = format!("/{client}/{turn}?do=info&client={client}-{turn}");
                        let answer = site.ask("GET", &target, "", b"")?;
                        let query = format!("do=info&client={client}-{turn}");
                        same!((answer.status, line(&answer.text(), "QUERY_STRING")), (200, query));
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap())
    })
}

fn upload(site: &mut Site) -> Result<(), String> {
    const LENGTH: usize = 50 << 20;
    let headers = format!("Content-Type: application/octet-stream\r\nContent-Length: {LENGTH}\r\n");
    let answer = site.ask("POST", "/?do=length", &headers, &vec![b'u'; LENGTH])?;
    same!((answer.status, answer.text()), (200, LENGTH.to_string()));
    Ok(())
}

fn download(site: &mut Site) -> Result<(), String> {
    let answer = site.ask("GET", "/?do=down", "", b"")?;
    same!((answer.status, answer.body.len()), (200, 100 << 20));
    same!(answer.body.chunks(16).all(|c| c == b"0123456789abcdef"), true);
    Ok(())
}

/// The program is down for a moment, and found again.
fn restart_program(site: &mut Site) -> Result<(), String> {
    site.stop_program();
    let answer = site.ask("GET", "/?do=info", "", b"")?;
    same!((answer.status >= 500, answer.status), (true, answer.status));
    site.start_program()?;
    wait("an answer after the program's restart", || {
        site.ask("GET", "/?do=info", "", b"").is_ok_and(|a| a.status == 200)
    })
}

fn restart_server(site: &mut Site) -> Result<(), String> {
    site.stop_server();
    if site.ask("GET", "/?do=info", "", b"").is_ok() {
        return Err("the web server that was stopped answers".to_owned());
    }
    site.start_server()?;
    wait("an answer after the server's restart", || {
        site.ask("GET", "/?do=info", "", b"").is_ok_and(|a| a.status == 200)
    })
}
