//! The status for Prometheus and others that read OpenMetrics 1.0 (the text format).

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use super::Report;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A family of metrics: what it is called, its type, what it means, and its samples (further labels, value) of a pool.
type Family = (&'static str, &'static str, &'static str, fn(&Report<'_>) -> Vec<(&'static str, u64)>);

const FAMILIES: [Family; 10] = [
    ("fcgi_start_time_seconds", "gauge", "When the pool was started, in seconds since 1970.", |report| {
        let started = report.snapshot.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        vec![("", started.as_secs())]
    }),
    ("fcgi_requests", "counter", "Requests that were begun.", |report| vec![("", report.snapshot.accepted)]),
    ("fcgi_queue_connections", "gauge", "Connections that wait to be accepted.", |report| vec![("", report.queue)]),
    ("fcgi_queue_connections_max", "gauge", "The most connections that were seen to wait.", |report| {
        vec![("", report.snapshot.max_queue)]
    }),
    ("fcgi_interpreters", "gauge", "Interpreters by what they do.", |report| {
        vec![(",state=\"active\"", report.snapshot.active() as u64), (",state=\"idle\"", report.idle() as u64)]
    }),
    ("fcgi_interpreters_active_max", "gauge", "The most interpreters that were seen at work.", |report| {
        vec![("", report.snapshot.max_active)]
    }),
    ("fcgi_workers", "gauge", "Processes that serve.", |report| vec![("", report.snapshot.processes() as u64)]),
    ("fcgi_workers_failed", "counter", "Workers that ended without being told to.", |report| {
        vec![("", report.snapshot.failed_workers)]
    }),
    ("fcgi_workers_replaced", "counter", "Workers that others took the place of, by the reason.", |report| {
        let snapshot = &report.snapshot;
        vec![
            (",reason=\"crashed\"", snapshot.failed_workers.saturating_sub(snapshot.kill_after_reached)),
            (",reason=\"kill-after\"", snapshot.kill_after_reached),
            (",reason=\"max-requests\"", snapshot.max_requests_reached),
            (",reason=\"max-memory\"", snapshot.max_memory_reached),
        ]
    }),
    ("fcgi_slow_requests", "counter", "Requests that the slow log tells of.", |report| {
        vec![("", report.snapshot.slow_requests)]
    }),
];

pub(super) fn page(reports: &[Report<'_>]) -> String {
    let mut page = String::new();
    for (name, kind, help, samples) in FAMILIES {
        // Writing to a string does not fail.
        let _ = writeln!(page, "# TYPE {name} {kind}\n# HELP {name} {help}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for report in reports {
            let pool = report.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            for (labels, value) in samples(report) {
                let _ = writeln!(page, "{name}{suffix}{{pool=\"{pool}\"{labels}}} {value}");
            }
        }
    }
    page.push_str("# EOF\n");
    page
}
