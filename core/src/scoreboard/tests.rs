use super::*;

fn params(uri: &str) -> Params {
    [("REQUEST_METHOD", "GET"), ("REQUEST_URI", uri), ("SCRIPT_FILENAME", "/srv/a.lua"), ("CONTENT_LENGTH", "7")]
        .into_iter()
        .collect()
}

#[test]
fn lines_are_claimed_written_and_freed() {
    let board = Scoreboard::create(2).unwrap();
    let other = Scoreboard::open(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let seat = board.claim(0).unwrap();
    let second = other.claim(3).unwrap();
    assert!(board.claim(0).is_none());
    seat.begin(&params("/a?b"));
    let snapshot = other.snapshot();
    assert_eq!((snapshot.active(), snapshot.processes(), snapshot.lines.len()), (1, 1, 2));
    assert_eq!(snapshot.lines.iter().map(|line| line.place).collect::<Vec<_>>(), [0, 3]);
    let line = &snapshot.lines[0];
    assert_eq!((line.pid, line.state, line.requests), (std::process::id(), State::Running, 1));
    assert_eq!((&line.method[..], &line.uri[..]), (&b"GET"[..], &b"/a?b"[..]));
    assert_eq!((&line.script[..], &line.user[..], line.content_length), (&b"/srv/a.lua"[..], &b""[..], 7));
    assert_eq!((line.cpu, line.memory), (None, None));
    assert_eq!(other.busy(), [(std::process::id(), 1, 2)]);
    let cost = Cost { cpu: Duration::from_micros(5), memory: 4096 };
    seat.end(Some(cost));
    let line = &other.snapshot().lines[0];
    assert_eq!((line.state, line.cpu, line.memory), (State::Idle, Some(cost.cpu), Some(4096)));
    drop(seat);
    drop(second);
    assert!(other.snapshot().lines.is_empty());
    // What was counted stays.
    assert_eq!((other.snapshot().accepted, other.snapshot().max_active), (1, 1));
    board.count(Counter::FailedWorkers);
    board.note_queue(3);
    let snapshot = other.snapshot();
    assert_eq!((snapshot.failed_workers, snapshot.max_queue, snapshot.slow_requests), (1, 3, 0));
}

#[test]
fn lines_of_the_dead_are_found() {
    let board = Scoreboard::create(1).unwrap();
    let seat = board.claim(0).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    seat.slot().pid.store(child.id(), Relaxed);
    std::mem::forget(seat);
    child.wait().unwrap();
    assert!(board.claim(0).is_some());
}

#[test]
fn long_texts_are_cut() {
    let board = Scoreboard::create(1).unwrap();
    let seat = board.claim(0).unwrap();
    let mut params = params(&format!("/{}", "x".repeat(1000)));
    params.set(b"REMOTE_USER", b"an\0na");
    params.set(b"SCRIPT_FILENAME", &[b'/'; 500]);
    seat.begin(&params);
    let line = &board.snapshot().lines[0];
    assert_eq!((line.uri.len(), line.script.len(), &line.user[..]), (256, 128, &b"an?na"[..]));
}

#[test]
fn no_reader_sees_half_of_a_text() {
    let board = Scoreboard::create(1).unwrap();
    let seat = board.claim(0).unwrap();
    let (short, long) = (params("/"), params(&format!("/{}", "y".repeat(200))));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..20_000 {
                seat.begin(&short);
                seat.begin(&long);
            }
        });
        while !writer.is_finished() {
            let line = &board.snapshot().lines[0];
            let uri = &line.uri;
            let whole = uri.is_empty() || uri == b"/" || (uri.len() == 201 && uri[1..].iter().all(|b| *b == b'y'));
            assert!(whole, "{}", uri.escape_ascii());
        }
    });
}
