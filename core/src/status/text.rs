//! The status as text, one figure a line.

use std::fmt::Write;

use super::{Report, cpu_share, date, shown};

pub(super) fn page(reports: &[Report<'_>]) -> String {
    let mut page = String::new();
    for report in reports {
        for (name, value) in figures(report) {
            line(&mut page, name, &value);
        }
        for worker in report.lines() {
            page.push_str("\n************************\n");
            for (name, value) in of_line(report, worker) {
                line(&mut page, name, &value);
            }
        }
        page.push('\n');
    }
    page
}

fn line(page: &mut String, name: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "{:<22}{value}", format!("{name}:"));
}

/// The figures of a pool, by php-fpm's names.
pub(super) fn figures(report: &Report<'_>) -> Vec<(&'static str, String)> {
    let snapshot = &report.snapshot;
    let (active, idle) = (snapshot.active(), report.idle());
    vec![
        ("pool", report.name.to_owned()),
        ("process manager", report.manager.to_owned()),
        ("start time", date(snapshot.started)),
        ("start since", report.since(snapshot.started).as_secs().to_string()),
        ("accepted conn", snapshot.accepted.to_string()),
        ("listen queue", report.queue.to_string()),
        ("max listen queue", snapshot.max_queue.to_string()),
        ("idle processes", idle.to_string()),
        ("active processes", active.to_string()),
        ("total processes", (active + idle).to_string()),
        ("max active processes", snapshot.max_active.to_string()),
        ("max children reached", snapshot.max_workers_reached.to_string()),
        ("slow requests", snapshot.slow_requests.to_string()),
        ("failed workers", snapshot.failed_workers.to_string()),
        ("kill after reached", snapshot.kill_after_reached.to_string()),
        ("max requests reached", snapshot.max_requests_reached.to_string()),
        ("max memory reached", snapshot.max_memory_reached.to_string()),
    ]
}

/// The figures of an interpreter, by php-fpm's names.
pub(super) fn of_line(report: &Report<'_>, line: &crate::scoreboard::Line) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("pid", line.pid.to_string()),
        ("state", line.state.name().to_owned()),
        ("start time", date(line.started)),
        ("start since", report.since(line.started).as_secs().to_string()),
        ("requests", line.requests.to_string()),
        ("request duration", line.duration.as_micros().to_string()),
        ("request method", shown(&line.method).into_owned()),
        ("request uri", shown(&line.uri).into_owned()),
        ("content length", line.content_length.to_string()),
        ("user", if line.user.is_empty() { "-".to_owned() } else { shown(&line.user).into_owned() }),
        ("script", shown(&line.script).into_owned()),
        ("last request cpu", format!("{:.2}", cpu_share(line))),
        ("last request memory", line.memory.unwrap_or(0).to_string()),
    ];
    figures.extend(report.socket(line).map(|socket| ("socket", socket.to_owned())));
    figures
}
