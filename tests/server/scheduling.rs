//! Which thread does what: whoever idles, stutters or has gone must not delay the others.

use std::time::Duration;

use crate::app::App;
use crate::client::{CLOSE, Client, KEEP, STDIN, Wire};

#[test]
fn idle_connections_hold_no_thread() {
    let app = App::new();
    let mut idle: Vec<Client> = (0..200).map(|_| app.connect()).collect();
    idle.iter_mut().for_each(Client::expect_alive);
    let mut busy = app.connect();
    for _ in 0..50 {
        busy.expect_alive();
    }
    idle.iter_mut().for_each(Client::expect_alive);
}

#[test]
fn slow_clients_delay_nobody() {
    for app in [App::new(), App::tcp(|_| ())] {
        let whole = Wire::new().head(1, KEEP, &[("TEST", "echo")]).stream(STDIN, 1, b"body").end(STDIN, 1).bytes;
        // Cut in the header, behind it, in the parameters, in the body, before its end; and silence.
        let mut slow: Vec<(Client, usize)> = [0, 3, 8, 20, whole.len() - 18, whole.len() - 8]
            .map(|len| {
                let mut client = app.connect();
                client.send_bytes(&whole[..len]);
                (client, len)
            })
            .into();
        let mut unread = app.connect();
        unread.send(&Wire::new().request(1, KEEP, &[("TEST", "hello")], b""));
        app.connect().expect_alive();
        // A byte now and then, with others in between.
        let mut trickle = app.connect();
        for byte in &whole {
            trickle.send_bytes(std::slice::from_ref(byte));
            app.connect().expect_alive();
        }
        assert_eq!(trickle.answer(1).body(), b"body");
        // They were not forgotten either.
        for (client, sent) in &mut slow {
            client.send_bytes(&whole[*sent..]);
            assert_eq!(client.answer(1).body(), b"body");
        }
        assert_eq!(unread.answer(1).body(), b"hello");
    }
}

#[test]
fn answers_that_nobody_reads_hold_no_thread() {
    let app = App::new();
    let mut slow = app.connect();
    // More than a socket holds, in answers that are small one by one.
    let wire = (1..=30).fold(Wire::new(), |w, id| w.request(id, KEEP, &[("TEST", "big"), ("SIZE", "60000")], b""));
    slow.send(&wire);
    app.connect().expect_alive();
    let mut open: Vec<u16> = (1..=30).collect();
    while !open.is_empty() {
        let (id, answer) = slow.any_answer(&open);
        assert_eq!(answer.body().len(), 60_000);
        open.retain(|o| *o != id);
    }
    slow.expect_alive();
}

#[test]
fn requests_of_one_connection_run_at_the_same_time() {
    let app = App::threads(4);
    let mut client = app.connect();
    // Each waits until the next has started, the last for the first.
    let names = ["one", "two", "three", "four"];
    let wire = (0..4).fold(Wire::new(), |wire, at| {
        let (name, other) = (names[at], names[(at + 1) % 4]);
        wire.request(at as u16 + 1, KEEP, &[("TEST", "meet"), ("NAME", name), ("OTHER", other)], b"")
    });
    client.send(&wire);
    let mut open = vec![1, 2, 3, 4];
    while !open.is_empty() {
        let (id, answer) = client.any_answer(&open);
        assert_eq!(answer.body(), b"met");
        open.retain(|o| *o != id);
    }
}

#[test]
fn requests_of_several_connections_run_at_the_same_time() {
    let app = App::threads(4);
    let names = ["one", "two", "three", "four"];
    let mut clients: Vec<Client> = (0..4)
        .map(|at| {
            let mut client = app.connect();
            let pairs = [("TEST", "meet"), ("NAME", names[at]), ("OTHER", names[(at + 1) % 4])];
            client.send(&Wire::new().request(1, CLOSE, &pairs, b""));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.answer(1).body(), b"met");
        client.expect_end();
    }
}

#[test]
fn two_requests_of_one_connection_stream_their_bodies() {
    let app = App::threads(2);
    let mut client = app.connect();
    let mut wire = Wire::new().head(1, KEEP, &[("TEST", "count")]).head(2, KEEP, &[("TEST", "count")]);
    for _ in 0..200 {
        wire = wire.stream(STDIN, 1, &[b'1'; 30_000]).stream(STDIN, 2, &[b'2'; 60_000]);
    }
    client.send(&wire.end(STDIN, 2).end(STDIN, 1));
    let mut answers = [client.any_answer(&[1, 2]), client.any_answer(&[1, 2])];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!((answers[0].1.body(), answers[1].1.body()), (&b"6000000"[..], &b"12000000"[..]));
}

#[test]
fn a_closed_connection_takes_its_waiting_request_along() {
    for app in [App::new(), App::tcp(|_| ())] {
        let mut busy = app.connect();
        busy.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "busy")], b""));
        app.notes.wait("busy started");
        for (name, flags) in [("left-1", CLOSE), ("left-2", KEEP)] {
            app.connect().send(&Wire::new().request(1, flags, &[("NAME", name)], b""));
        }
        let mut last = app.connect();
        last.send(&Wire::new().request(1, KEEP, &[("NAME", "last")], b""));
        // Longer than a request may lie before somebody looks whether it is still wanted.
        std::thread::sleep(Duration::from_millis(20));
        app.notes.say("busy may go on");
        assert_eq!(busy.answer(1).body(), b"");
        assert_eq!(last.answer(1).body(), b"hello");
        // One that came later, because nothing says in which order connections are served.
        app.connect().expect_alive();
        assert!(!app.notes.heard("left-1 started") && !app.notes.heard("left-2 started"));
    }
}

#[test]
fn a_running_request_learns_that_its_client_has_gone() {
    for flags in [CLOSE, KEEP] {
        for app in [App::new(), App::threads(2), App::tcp(|_| ())] {
            let mut client = app.connect();
            client.send(&Wire::new().request(1, flags, &[("TEST", "abort-wait")], b""));
            app.notes.wait("it started");
            assert!(!app.notes.heard("it aborted"));
            drop(client);
            app.notes.wait("it aborted");
            app.connect().expect_alive();
        }
    }
}

#[test]
fn a_request_that_writes_learns_that_its_client_has_gone() {
    let app = App::new();
    let mut client = app.connect();
    client.send(&Wire::new().request(1, CLOSE, &[("TEST", "big"), ("SIZE", "1000000000")], b""));
    app.notes.wait("it started");
    drop(client);
    app.notes.wait("it failed: BrokenPipe");
    app.connect().expect_alive();
}

#[test]
fn a_request_that_reads_learns_that_its_client_has_gone() {
    for app in [App::with(|c| c.body_buffer = 10), App::tcp(|c| c.body_buffer = 10)] {
        for half in [false, true] {
            let mut client = app.connect();
            let name = format!("half {half}");
            let head = Wire::new().head(1, KEEP, &[("TEST", "count"), ("NAME", &name)]);
            client.send(&head.stream(STDIN, 1, b"more than ten bytes"));
            app.notes.wait(&format!("{name} started"));
            if half {
                client.half_close();
            }
            let client = half.then_some(client);
            app.notes.wait(&format!("{name} failed: ConnectionAborted"));
            drop(client);
        }
        app.connect().expect_alive();
    }
}

#[test]
fn a_client_that_only_stops_sending_gets_its_answer() {
    for threads in [1, 2] {
        let app = App::threads(threads);
        for flags in [CLOSE, KEEP] {
            // The end comes together with the request, while it runs, or while a long answer is on its way.
            let mut client = app.connect();
            client.send(&Wire::new().request(1, flags, &[("TEST", "big"), ("SIZE", "2000000")], b""));
            client.half_close();
            assert_eq!(client.answer(1).body().len(), 2_000_000);
            client.expect_end();
            let name = format!("gate {threads} {flags}");
            let mut client = app.connect();
            let pairs = [("TEST", "gate"), ("NAME", &name)];
            client.send(&Wire::new().request(1, flags, &pairs, b"body").request(2, flags, &pairs, b"other"));
            app.notes.wait(&format!("{name} started"));
            client.half_close();
            // Others are served meanwhile, where there is a thread for them.
            app.notes.say(format!("{name} may go on"));
            let mut answers = [client.any_answer(&[1, 2]), client.any_answer(&[1, 2])];
            answers.sort_by_key(|(id, _)| *id);
            assert_eq!((answers[0].1.body(), answers[1].1.body()), (&b"body"[..], &b"other"[..]));
            client.expect_end();
        }
    }
}

#[test]
fn a_request_whose_body_breaks_off_is_aborted() {
    let app = App::with(|c| c.body_buffer = 10);
    let mut client = app.connect();
    let head = Wire::new().head(1, KEEP, &[("TEST", "abort-wait")]);
    client.send(&head.stream(STDIN, 1, b"more than ten bytes"));
    app.notes.wait("it started");
    client.half_close();
    // It does not read: the end must be seen behind what it has left unread.
    app.notes.wait("it aborted");
    assert_eq!(client.answer(1).app_status, 3);
    client.expect_end();
}

#[test]
fn a_client_that_stops_sending_and_then_leaves_is_noticed() {
    for threads in [1, 2] {
        let app = App::threads(threads);
        let mut client = app.connect();
        client.send(&Wire::new().request(1, KEEP, &[("TEST", "abort-wait")], b""));
        app.notes.wait("it started");
        client.half_close();
        // It must have been seen that the client still reads before it no longer does.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!app.notes.heard("it aborted"));
        drop(client);
        app.notes.wait("it aborted");
        app.connect().expect_alive();
    }
}

#[test]
fn work_is_shared_by_all_threads() {
    let app = App::threads(4);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let app = &app;
            scope.spawn(move || {
                for round in 0..100 {
                    let mut client = app.connect();
                    let body = format!("{worker} {round}");
                    client.send(&Wire::new().request(1, (round % 2) as u8, &[("TEST", "echo")], body.as_bytes()));
                    assert_eq!(client.answer(1).body(), body.as_bytes());
                    if round % 2 == 1 {
                        assert_eq!(client.ask(&[("TEST", "echo")], b"again").body(), b"again");
                    }
                }
            });
        }
    });
}
