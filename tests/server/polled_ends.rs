//! How requests end that an event loop works on: clients that leave, answers that break off, timeouts, a server that stops.

use std::time::Duration;

use fcgi_core::Server;

use crate::app::{Folder, until};
use crate::client::{ABORT, CLOSE, Client, KEEP, STDIN, Wire};
use crate::polled_app::Polled;

#[test]
fn a_request_learns_that_it_is_not_wanted() {
    for app in [Polled::new(), Polled::tcp(|_| ())] {
        for flags in [KEEP, CLOSE] {
            // Taken back.
            let mut client = app.connect();
            let name = format!("back {flags}");
            client.send(&Wire::new().request(1, flags, &[("TEST", "abort-wait"), ("NAME", &name)], b""));
            app.notes.wait(&format!("{name} started"));
            client.send(&Wire::new().end(ABORT, 1));
            assert_eq!(client.answer(1).app_status, 3);
            app.notes.wait(&format!("{name} aborted"));
            // Gone: while it waits for just that, for its body, for room, for something else.
            for (test, body) in [("abort-wait", ""), ("echo", "unfinished"), ("big", ""), ("gate", "unfinished")] {
                let mut client = app.connect();
                let name = format!("gone {test} {flags}");
                let pairs = [("TEST", test), ("NAME", &name), ("SIZE", "1000000000")];
                let head = Wire::new().head(1, flags, &pairs).stream(STDIN, 1, body.as_bytes());
                // Parts of a body do not start a request.
                client.send(&if body.is_empty() {
                    head.end(STDIN, 1)
                } else {
                    head.stream(STDIN, 1, &[b'x'; 1 << 16])
                });
                app.notes.wait(&format!("{name} started"));
                app.connect().expect_alive();
                drop(client);
                app.notes.wait(&format!("{name} aborted"));
                app.notes.say(format!("{name} may go on"));
            }
        }
        // One that asks for nothing is told when it is noticed.
        let mut client = app.connect();
        client.send(&Wire::new().request(1, KEEP, &[("TEST", "told"), ("NAME", "told")], b""));
        app.notes.wait("told started");
        drop(client);
        app.notes.wait("told aborted");
        app.connect().expect_alive();
    }
}

#[test]
fn a_client_that_stops_sending_and_then_leaves_is_noticed() {
    let app = Polled::new();
    // With so much of a body, its end is seen together with the request.
    for (flags, body) in [(KEEP, 0), (CLOSE, 0), (CLOSE, 65_000), (CLOSE, 200_000)] {
        let mut client = app.connect();
        let name = format!("{flags} {body}");
        let pairs = [("TEST", "abort-wait"), ("NAME", &name)];
        client.send(&Wire::new().request(1, flags, &pairs, &vec![b'x'; body]));
        client.half_close();
        app.notes.wait(&format!("{name} started"));
        app.connect().expect_alive();
        if body < 65_536 {
            assert!(!app.notes.heard(&format!("{name} aborted")), "it still reads");
        }
        drop(client);
        app.notes.wait(&format!("{name} aborted"));
    }
}

#[test]
fn all_requests_of_a_connection_learn_that_it_is_gone() {
    let app = Polled::new();
    let mut client = app.connect();
    let pairs = |name| [("TEST", "abort-wait"), ("NAME", name)];
    client.send(&Wire::new().request(1, KEEP, &pairs("one"), b"").request(2, KEEP, &pairs("two"), b""));
    client.send(&Wire::new().request(3, KEEP, &[("TEST", "big"), ("SIZE", "1000000000")], b""));
    app.notes.wait("it started");
    // By now it waits for its client to read.
    app.connect().expect_alive();
    drop(client);
    for name in ["one", "two", "it"] {
        app.notes.wait(&format!("{name} aborted"));
    }
    app.connect().expect_alive();
}

#[test]
fn a_client_that_only_stops_sending_gets_its_answer() {
    let app = Polled::new();
    for flags in [KEEP, CLOSE] {
        let mut client = app.connect();
        client.send(&Wire::new().request(1, flags, &[("TEST", "big"), ("SIZE", "2000000")], b""));
        client.half_close();
        assert_eq!(client.answer(1).body().len(), 2_000_000);
        client.expect_end();
    }
}

#[test]
fn an_answer_that_breaks_off_has_no_end() {
    let app = Polled::new();
    for flags in [KEEP, CLOSE] {
        let mut client = app.connect();
        client.send(&Wire::new().request(1, flags, &[("TEST", "break-off")], b""));
        assert_eq!(client.next().unwrap().content, b"Content-Type: text/plain\r\n\r\n");
        client.expect_end();
    }
    // Others do not suffer.
    let mut client = app.connect();
    client.send(&Wire::new().request(1, KEEP, &[("TEST", "flush"), ("NAME", "other")], b""));
    assert_eq!(client.next().unwrap().id, 1);
    client.send(&Wire::new().request(2, KEEP, &[("TEST", "break-off")], b""));
    assert_eq!(client.answer(2).app_status, 1);
    app.notes.say("other may go on");
    assert_eq!(client.answer(1).stdout, b"after");
}

#[test]
fn a_request_that_is_dropped_is_answered() {
    let app = Polled::new();
    let mut client = app.connect();
    let answer = client.ask(&[("TEST", "dropped")], b"");
    assert_eq!(answer.app_status, 1);
    assert!(answer.text().starts_with("Status: 500"), "{}", answer.text());
    let answer = client.ask(&[("TEST", "dropped"), ("SIZE", "1")], b"");
    assert_eq!((answer.app_status, &answer.stdout[..]), (1, &b"Content-Type: text/plain\r\n\r\n"[..]));
}

#[test]
fn peers_that_keep_silent_do_not_stay() {
    let second = Some(Duration::from_secs(1));
    let app = Polled::with(|c| (c.read_timeout, c.write_timeout) = (second, second));
    // Half a header, a body that does not go on, an answer that is not read.
    let mut head = app.connect();
    head.send_bytes(&[1, 1, 0]);
    let mut body = app.connect();
    let pairs = [("TEST", "echo"), ("NAME", "body")];
    body.send(&Wire::new().head(1, KEEP, &pairs).stream(STDIN, 1, &[b'x'; 70_000]));
    let mut answer = app.connect();
    let pairs = [("TEST", "big"), ("NAME", "answer"), ("SIZE", "1000000000")];
    answer.send(&Wire::new().request(1, KEEP, &pairs, b""));
    // Whoever waits for us has all the time.
    let mut gate = app.connect();
    gate.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "gate")], b""));
    app.notes.wait("body aborted");
    app.notes.wait("answer aborted");
    for client in [&mut head, &mut body, &mut answer] {
        client.expect_gone();
    }
    app.notes.say("gate may go on");
    assert_eq!(gate.answer(1).body(), b"");
}

#[test]
fn a_drain_lets_requests_end() {
    let mut app = Polled::new();
    let mut idle = app.connect();
    idle.expect_alive();
    let mut clients: Vec<(Client, String)> = [KEEP, CLOSE]
        .map(|flags| {
            let name = format!("flags {flags}");
            let mut client = app.connect();
            client.send(&Wire::new().request(1, flags, &[("TEST", "gate"), ("NAME", &name)], b"body"));
            app.notes.wait(&format!("{name} started"));
            (client, name)
        })
        .into();
    let mut slow = app.connect();
    let pairs = [("TEST", "big"), ("SIZE", "3000000"), ("NAME", "slow")];
    slow.send(&Wire::new().request(1, KEEP, &pairs, b""));
    app.notes.wait("slow started");
    app.server.drain();
    idle.expect_end();
    assert!(until(|| Client::try_connect(&app.address).is_err()), "it still listens");
    for (client, name) in &mut clients {
        app.notes.say(format!("{name} may go on"));
        assert_eq!(client.answer(1).body(), b"body");
        client.expect_end();
    }
    assert_eq!(slow.answer(1).body().len(), 3_000_000);
    slow.expect_end();
    app.expect_stopped();
}

#[test]
fn a_descriptor_stops_it() {
    let (stop, other_end) = std::os::unix::net::UnixStream::pair().unwrap();
    let folder = Folder::new();
    let builder = Server::builder().listen(&folder.socket()).unwrap().drain_on(stop.into());
    let mut app = Polled::start(builder, folder, |_| ());
    let mut client = app.connect();
    client.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "gate")], b"body"));
    app.notes.wait("gate started");
    drop(other_end);
    assert!(until(|| Client::try_connect(&app.address).is_err()), "it still listens");
    app.notes.say("gate may go on");
    assert_eq!(client.answer(1).body(), b"body");
    app.expect_stopped();
}
