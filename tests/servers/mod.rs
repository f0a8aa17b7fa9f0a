//! Every web server, in every way of being started, with every language: one table, which the test prints (`--nocapture`).
//!
//! * `ways`: how servers are configured and programs started, and what a way cannot do; one row for each
//! * `software`: the servers themselves, each with a main configuration of the test's own
//! * `site`: a way and a language, running
//! * `checks`: what clients must find; one column for each
//! * `authorizer`: another role, behind the servers that know it
//! * `sessions`: balancers that send a session to one worker
//!
//! The configurations are those of `examples/servers` as they stand, but for paths and ports, or those that `--print-config` prints.
//! `FCGI_TEST_WAYS=apache` runs the rows whose name has that word.

mod authorizer;
mod checks;
mod print_config;
mod sessions;
mod site;
mod software;
mod ways;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Instant;

use checks::{CHECKS, Check, Weight};
use site::Site;
use ways::{Program, WAYS, Way};

use crate::support::{FCGI_LUA, FCGI_PYTHON, FCGI_RHAI};

/// A language, as examples name it.
#[derive(Clone, Copy, Debug)]
pub struct Language {
    pub name: &'static str,
    pub extension: &'static str,
    pub runner: &'static str,
    probe: &'static str,
}

const LANGUAGES: [Language; 3] = [
    Language { name: "lua", extension: "lua", runner: FCGI_LUA, probe: include_str!("probe.lua") },
    Language { name: "python", extension: "py", runner: FCGI_PYTHON, probe: include_str!("probe.py") },
    Language { name: "rhai", extension: "rhai", runner: FCGI_RHAI, probe: include_str!("probe.rhai") },
];

/// A cell of the table: `ok`, `-` for what a way cannot do or is seen with another language, or what went wrong.
type Row = BTreeMap<&'static str, Result<&'static str, String>>;

#[test]
fn every_server_in_every_way_with_every_language() {
    let wanted = std::env::var("FCGI_TEST_WAYS").unwrap_or_default();
    let start = Instant::now();
    let jobs: Vec<(usize, &Way, Language)> = WAYS
        .iter()
        .filter(|way| way.name.contains(&wanted))
        .flat_map(|way| LANGUAGES.map(|language| (way, language)))
        .enumerate()
        .map(|(number, (way, language))| (number, way, language))
        .collect();
    let waiting = Mutex::new(jobs.iter());
    let rows = Mutex::new(BTreeMap::new());
    // Much of it is waiting.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(&(number, way, language)) = waiting.lock().unwrap().next() else { return };
                    let row = run(way, language);
                    eprintln!("{:>5.1?} {}, {}", start.elapsed(), way.name, language.name);
                    rows.lock().unwrap().insert(number, (way, language, row));
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    let mut failures = String::new();
    println!("{}", table(rows.values(), &mut failures));
    println!("{} rows in {:.0?}", rows.len(), start.elapsed());
    assert!(failures.is_empty(), "\n{failures}");
}

fn run(way: &'static Way, language: Language) -> Row {
    let mut site = match Site::start(way, language) {
        Ok(site) => site,
        Err(e) => return Row::from([("get", Err(e))]),
    };
    let mut row = Row::new();
    for check in CHECKS {
        let cell =
            if cannot(way, check).is_some() || check.weight == Weight::Heavy && language.name != LANGUAGES[0].name {
                Ok("-")
            } else {
                (check.run)(&mut site).map(|()| "ok")
            };
        row.insert(check.name, cell);
    }
    if let Some(cell) = row.values_mut().find(|cell| cell.is_err()) {
        *cell = cell.clone().map_err(|e| format!("{e}{}", site.logs()));
    }
    row
}

fn cannot(way: &Way, check: &Check) -> Option<&'static str> {
    let is_there = matches!(way.program, Program::ByServer) && check.name == "restart";
    let theirs = is_there.then_some("the server starts the program");
    way.cannot.iter().find(|(name, _)| *name == check.name).map(|(_, why)| *why).or(theirs)
}

fn table<'a>(rows: impl Iterator<Item = &'a (&'static Way, Language, Row)>, failures: &mut String) -> String {
    let mut text = format!("{:<32} {:<7}", "server and way", "");
    for check in CHECKS {
        let _ = write!(text, " {}", check.name);
    }
    let mut notes = String::new();
    for (way, language, row) in rows {
        let _ = write!(text, "\n{:<32} {:<7}", way.name, language.name);
        for check in CHECKS {
            let cell = match row.get(check.name) {
                Some(Ok(cell)) => cell,
                Some(Err(e)) => {
                    let _ = writeln!(failures, "{}, {}, {}: {e}", way.name, language.name, check.name);
                    "BAD"
                }
                None => "?",
            };
            let _ = write!(text, " {cell:<0$}", check.name.len());
        }
        if language.name == LANGUAGES[0].name {
            for check in CHECKS {
                if let Some(why) = cannot(way, check) {
                    let _ = writeln!(notes, "- {}, {}: {why}", way.name, check.name);
                }
            }
        }
    }
    format!("{text}\n\n- heavy bodies are seen with one language\n{notes}")
}
