//! The status as JSON: an object for a pool, with php-fpm's names; an array of them when there are several pools.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Report, cpu_share, shown};

pub(super) fn page(reports: &[Report<'_>]) -> String {
    let mut pools: Vec<Value> = reports.iter().map(pool).collect();
    let value = if pools.len() == 1 { pools.remove(0) } else { Value::Array(pools) };
    format!("{value}\n")
}

fn pool(report: &Report<'_>) -> Value {
    let snapshot = &report.snapshot;
    let (active, idle) = (snapshot.active(), report.idle());
    let mut pool = json!({
        "pool": report.name,
        "process manager": report.manager,
        "start time": seconds(snapshot.started),
        "start since": report.since(snapshot.started).as_secs(),
        "accepted conn": snapshot.accepted,
        "listen queue": report.queue,
        "max listen queue": snapshot.max_queue,
        "idle processes": idle,
        "active processes": active,
        "total processes": active + idle,
        "max active processes": snapshot.max_active,
        "max children reached": snapshot.max_workers_reached,
        "slow requests": snapshot.slow_requests,
        "failed workers": snapshot.failed_workers,
        "kill after reached": snapshot.kill_after_reached,
        "max requests reached": snapshot.max_requests_reached,
        "max memory reached": snapshot.max_memory_reached,
    });
    if report.full {
        let lines = report.lines().iter().map(|line| {
            let mut figures = json!({
                "pid": line.pid,
                "state": line.state.name(),
                "start time": seconds(line.started),
                "start since": report.since(line.started).as_secs(),
                "requests": line.requests,
                "request duration": line.duration.as_micros() as u64,
                "request method": shown(&line.method),
                "request uri": shown(&line.uri),
                "content length": line.content_length,
                "user": shown(&line.user),
                "script": shown(&line.script),
                "last request cpu": (cpu_share(line) * 100.0).round() / 100.0,
                "last request memory": line.memory.unwrap_or(0),
            });
            if let Some(socket) = report.socket(line) {
                figures["socket"] = socket.into();
            }
            figures
        });
        pool["processes"] = lines.collect();
    }
    pool
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
