//! Status pages: what a pool does, for people (text, HTML) and for programs (JSON with the names that php-fpm gives, so that
//! what watches php-fpm watches this as well; OpenMetrics for Prometheus). And `ping`, which says that somebody answers.
//!
//! The pages are made of the [scoreboard](crate::scoreboard), so any process can answer for all.

mod html;
mod json;
mod openmetrics;
mod text;
pub mod window;

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use crate::handover::Channel;
use crate::listener::queue;
use crate::protocol::Params;
use crate::scoreboard::{Line, Scoreboard, Snapshot};

/// Answers for the program itself, in place of a script.
#[derive(Debug, Default)]
pub struct Desk {
    /// The path of the status pages.
    pub status: Option<String>,
    /// The path that is answered with [`pong`](Self::pong).
    pub ping: Option<String>,
    /// What `ping` is answered with.
    pub pong: String,
    /// What the status tells of.
    pub pools: Vec<Pool>,
}

/// A pool, for its status.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `static`, `dynamic`, `ondemand`, or `none` for a process without workers.
    pub manager: &'static str,
    /// What its interpreters do.
    pub scoreboard: Scoreboard,
    /// Its listening sockets.
    pub listeners: Vec<OwnedFd>,
    /// What the sockets of each worker are called, where workers have some of their own.
    pub own: Vec<String>,
    /// Where its processes give connections to each other, which wait there as they do at a listener. A parent and its
    /// workers fill it in.
    pub handed_over: Vec<OwnedFd>,
}

/// What is told of a pool.
struct Report<'a> {
    name: &'a str,
    manager: &'static str,
    queue: u64,
    own: &'a [String],
    snapshot: Snapshot,
    now: SystemTime,
    /// With a line for each interpreter.
    full: bool,
}

impl Desk {
    /// Counts those who wait in channels as well.
    pub(crate) fn counts<'a>(&mut self, channels: impl Iterator<Item = &'a Channel>) {
        // It tells of the one pool that they belong to.
        if let Some(pool) = self.pools.first_mut() {
            pool.handed_over = channels.filter_map(|channel| channel.takers_end().try_clone_to_owned().ok()).collect();
        }
    }
}

impl Pool {
    fn report(&self, full: bool) -> Report<'_> {
        let queue: u64 = self.listeners.iter().map(|listener| queue::waiting(listener).unwrap_or(0)).sum();
        let queue = queue + self.handed_over.iter().map(Channel::waiting).sum::<u64>();
        self.scoreboard.note_queue(queue);
        let snapshot = self.scoreboard.snapshot();
        Report {
            name: &self.name,
            manager: self.manager,
            queue,
            own: &self.own,
            snapshot,
            now: SystemTime::now(),
            full,
        }
    }
}

impl Report<'_> {
    /// For how long something has been so.
    fn since(&self, time: SystemTime) -> Duration {
        self.now.duration_since(time).unwrap_or_default()
    }

    /// Interpreters that wait for requests.
    fn idle(&self) -> usize {
        self.snapshot.lines.len() - self.snapshot.active()
    }

    /// The sockets of an interpreter's own, where workers have some.
    fn socket(&self, line: &Line) -> Option<&str> {
        let at = usize::from(line.place).checked_sub(1);
        (!self.own.is_empty()).then(|| at.and_then(|at| self.own.get(at)).map_or("-", |name| name))
    }

    fn lines(&self) -> &[Line] {
        if self.full { &self.snapshot.lines } else { &[] }
    }
}

/// The share of a processor that a request took, in percent.
fn cpu_share(line: &Line) -> f64 {
    let cpu = line.cpu.unwrap_or_default().as_secs_f64();
    // While another request runs, the duration is that one's.
    if line.duration.is_zero() { 0.0 } else { (cpu / line.duration.as_secs_f64() * 100.0).min(100.0) }
}

/// As logs of web servers have it: `28/Nov/2026:09:15:04 +0000`.
fn date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(jiff::tz::TimeZone::system());
    time.strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

impl Desk {
    /// Whether there is anything that it could answer.
    pub fn is_open(&self) -> bool {
        self.status.is_some() || self.ping.is_some()
    }

    /// The answer to a request (a whole CGI response), if the request is for the desk.
    pub fn answer(&self, params: &Params) -> Option<Vec<u8>> {
        if self.ping.as_deref().is_some_and(|path| is_for(params, path)) {
            let head = "Content-Type: text/plain\r\nCache-Control: no-cache, no-store\r\n\r\n";
            return Some([head.as_bytes(), self.pong.as_bytes()].concat());
        }
        let path = self.status.as_deref()?;
        is_for(params, path).then(|| self.page(params.get(b"QUERY_STRING").unwrap_or_default()))
    }

    /// The status page that a query asks for: `json`, `html` or `openmetrics`, otherwise text; `full` has a line for each
    /// interpreter.
    pub fn page(&self, query: &[u8]) -> Vec<u8> {
        let has = |word: &str| query.split(|b| *b == b'&').any(|part| part == word.as_bytes());
        let reports: Vec<_> = self.pools.iter().map(|pool| pool.report(has("full"))).collect();
        let (kind, page) = if has("json") {
            ("application/json", json::page(&reports))
        } else if has("html") {
            ("text/html; charset=utf-8", html::page(&reports))
        } else if has("openmetrics") {
            (openmetrics::CONTENT_TYPE, openmetrics::page(&reports))
        } else {
            ("text/plain; charset=utf-8", text::page(&reports))
        };
        let head = format!("Content-Type: {kind}\r\nCache-Control: no-cache, no-store\r\n\r\n");
        [head.into_bytes(), page.into_bytes()].concat()
    }
}

/// Whether a request is for this path. Web servers name it in different variables.
fn is_for(params: &Params, path: &str) -> bool {
    let path = path.as_bytes();
    let variable = |name: &[u8]| params.get(name).unwrap_or_default();
    let uri = variable(b"REQUEST_URI");
    let uri = &uri[..uri.iter().position(|b| *b == b'?').unwrap_or(uri.len())];
    let (name, info) = (variable(b"SCRIPT_NAME"), variable(b"PATH_INFO"));
    uri == path || (uri.is_empty() && [name, info].concat() == path)
}

/// Bytes of a request, as text.
fn shown(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> (Desk, crate::scoreboard::Seat) {
        let scoreboard = Scoreboard::create(4).unwrap();
        let seat = scoreboard.claim(2).unwrap();
        let params = [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/<a>?\"b\""), ("SCRIPT_FILENAME", "/srv/a.lua")];
        seat.begin(&params.into_iter().collect());
        let own = vec!["unix:a-1".to_owned(), "unix:a-2".to_owned()];
        let pool = Pool {
            name: "w\"w".to_owned(),
            manager: "static",
            scoreboard,
            listeners: Vec::new(),
            own,
            handed_over: Vec::new(),
        };
        let status = Some("/status".to_owned());
        (Desk { status, ping: Some("/ping".to_owned()), pong: "pong".to_owned(), pools: vec![pool] }, seat)
    }

    fn ask(desk: &Desk, pairs: &[(&str, &str)]) -> Option<String> {
        let params: Params = pairs.iter().copied().collect();
        desk.answer(&params).map(|answer| String::from_utf8(answer).unwrap())
    }

    #[test]
    fn paths() {
        let (desk, _seat) = desk();
        for (pairs, is_answered) in [
            (&[("REQUEST_URI", "/ping")][..], true),
            (&[("REQUEST_URI", "/ping?x")], true),
            (&[("REQUEST_URI", "/pingx"), ("SCRIPT_NAME", "/ping")], false),
            (&[("SCRIPT_NAME", "/ping")], true),
            (&[("SCRIPT_NAME", "/pi"), ("PATH_INFO", "ng")], true),
            (&[("SCRIPT_NAME", "/a"), ("PATH_INFO", "/ping")], false),
            (&[], false),
        ] {
            let answer = ask(&desk, pairs);
            assert_eq!(answer.is_some(), is_answered, "{pairs:?}");
            assert!(answer.is_none_or(|text| text.ends_with("\r\n\r\npong")));
        }
    }

    #[test]
    fn pages() {
        let (desk, _seat) = desk();
        let page = |query: &str| ask(&desk, &[("REQUEST_URI", "/status"), ("QUERY_STRING", query)]).unwrap();
        let text = page("");
        assert!(text.contains("pool:                 w\"w\n"), "{text}");
        assert!(text.contains("active processes:     1\n") && !text.contains("request uri"), "{text}");
        assert!(page("full").contains("request uri:          /<a>?\"b\"\n"), "{}", page("full"));
        assert!(page("html&full").contains("/&lt;a&gt;?&quot;b&quot;"), "{}", page("html&full"));
        let json = page("full&json");
        let json: serde_json::Value = serde_json::from_str(json.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((&json["pool"], &json["accepted conn"]), (&"w\"w".into(), &1.into()));
        assert_eq!(json["processes"][0]["request uri"], "/<a>?\"b\"");
        assert_eq!(json["processes"][0]["socket"], "unix:a-2");
        assert!(page("full").contains("socket:               unix:a-2\n"), "{}", page("full"));
        let metrics = page("openmetrics");
        assert!(metrics.contains("fcgi_interpreters{pool=\"w\\\"w\",state=\"active\"} 1\n"), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"));
    }
}
