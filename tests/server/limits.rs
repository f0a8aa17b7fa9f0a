//! What one peer can make the server keep, and for how long.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;

use crate::app::{App, until};
use crate::client::{
    CLOSE, COMPLETE, Client, DATA, FILTER, GET_VALUES, KEEP, OVERLOADED, PARAMS, RESPONDER, STDIN, Wire, pair,
};

#[test]
fn parameters_over_the_limit_are_answered_with_431() {
    for app in [App::with(|c| c.limits.params_bytes = 5_000), App::tcp(|c| c.limits.params_bytes = 5_000)] {
        // Just under: taken.
        let mut client = app.connect();
        let fits = "v".repeat(5_000 - 11 - 6);
        assert_eq!(client.ask(&[("TEST", "hello"), ("L", &fits)], b"").body(), b"hello");
        let over = "v".repeat(5_000 - 11 - 6 + 1);
        let answer = client.ask(&[("TEST", "hello"), ("L", &over)], b"the body that follows");
        assert!(answer.text().starts_with("Status: 431 "), "{}", answer.text());
        assert_eq!((answer.app_status, answer.protocol_status), (0, COMPLETE));
        client.expect_alive();
        // A server that does not keep the connection sends the rest before it reads: the answer must survive that.
        let mut client = app.connect();
        let flood = vec![b'x'; 3 << 20];
        client.send(&Wire::new().begin(1, RESPONDER, CLOSE).stream(PARAMS, 1, &flood).end(PARAMS, 1));
        client.send(&Wire::new().stream(STDIN, 1, &flood).end(STDIN, 1));
        assert!(client.answer(1).text().starts_with("Status: 431 "));
        client.expect_end();
    }
}

#[test]
fn too_many_parameters_are_answered_with_431() {
    let app = App::with(|c| c.limits.params_count = 10);
    let mut client = app.connect();
    let names: Vec<String> = (0..10).map(|i| format!("N{i}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|n| (&n[..], "")).collect();
    assert_eq!(client.ask(&pairs, b"").body(), b"hello");
    let answer = client.ask(&[&pairs[..], &[("ONE", "more")]].concat(), b"");
    assert!(answer.text().starts_with("Status: 431 "), "{}", answer.text());
    client.expect_alive();
}

#[test]
fn the_requests_of_one_connection_share_a_bound_of_parameters() {
    let app = App::with(|c| c.limits.params_bytes = 10_000);
    let mut client = app.connect();
    let open = |id| Wire::new().begin(id, RESPONDER, KEEP).stream(PARAMS, id, &[b'x'; 10_000]);
    for id in 1..=4 {
        client.send(&open(id));
    }
    client.send(&open(5));
    assert!(client.answer(5).text().starts_with("Status: 431 "));
    // What has ended counts no longer.
    client.send(&Wire::new().end(crate::client::ABORT, 1));
    client.answer(1);
    client.send(&open(6));
    client.send(&Wire::new().end(crate::client::ABORT, 6));
    assert_eq!(client.answer(6).stdout.len(), 0, "it had been let in");
}

#[test]
fn too_many_requests_on_one_connection_are_refused() {
    let app = App::with(|c| c.limits.requests = 3);
    let mut client = app.connect();
    for id in 1..=3 {
        client.send(&Wire::new().head(id, KEEP, &[("TEST", "echo")]));
    }
    for id in 4..=6 {
        client.send(&Wire::new().request(id, KEEP, &[("TEST", "echo")], b"body"));
        let answer = client.answer(id);
        assert_eq!((answer.protocol_status, answer.stdout.len()), (OVERLOADED, 0));
    }
    for id in 1..=3 {
        client.send(&Wire::new().stream(STDIN, id, b"body").end(STDIN, id));
        assert_eq!(client.answer(id).body(), b"body");
    }
    client.expect_alive();
}

#[test]
fn a_body_that_cannot_be_held_back_is_refused() {
    let app = App::with(|c| c.body_buffer = 1_000);
    let mut client = app.connect();
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count")]).stream(STDIN, 1, &[b'1'; 2_000]));
    app.notes.wait("it started");
    // The only thread reads for the first request, and meets what it cannot leave: the second one's body.
    client.send(&Wire::new().request(2, KEEP, &[("TEST", "count"), ("NAME", "second")], &[b'2'; 200_000]));
    assert_eq!(client.answer(2).protocol_status, OVERLOADED);
    client.send(&Wire::new().stream(STDIN, 1, &[b'1'; 500]).end(STDIN, 1));
    assert_eq!(client.answer(1).body(), b"2500");
    assert!(!app.notes.heard("second started"));
    client.expect_alive();
}

#[test]
fn the_bodies_of_one_connection_share_a_bound() {
    // 128 KiB for a body, 2 MiB for all.
    let app = App::with(|c| c.body_buffer = 1_000);
    let mut client = app.connect();
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count")]).stream(STDIN, 1, &[b'1'; 2_000]));
    app.notes.wait("it started");
    // The only thread reads for the first request, and each of the others is small enough by itself.
    let all: Vec<u16> = (2..=26).collect();
    for id in &all {
        client.send(&Wire::new().request(*id, KEEP, &[("TEST", "count")], &vec![b'2'; 100_000]));
    }
    client.send(&Wire::new().stream(STDIN, 1, &[b'1'; 500]).end(STDIN, 1));
    let ids: Vec<u16> = (1..=26).collect();
    let mut refused = 0;
    for _ in &ids {
        let (id, answer) = client.any_answer(&ids);
        if answer.protocol_status == OVERLOADED {
            refused += 1;
        } else {
            assert_eq!(answer.body(), if id == 1 { &b"2500"[..] } else { b"100000" });
        }
    }
    assert!((1..=6).contains(&refused), "{refused} of 25 were over the bound of about 20");
    client.expect_alive();
}

#[test]
fn a_body_may_be_far_longer_than_its_buffer() {
    let app = App::with(|c| c.body_buffer = 1);
    let mut client = app.connect();
    assert_eq!(client.ask(&[("TEST", "count")], &vec![b'x'; 3 << 20]).body_text(), (3 << 20).to_string());
    let mut whole = Wire::new().request(1, KEEP, &[("TEST", "count")], &[b'x'; 40_000]).bytes;
    whole.extend(Wire::new().request(2, KEEP, &[("TEST", "count")], &[b'y'; 10_000]).bytes);
    client.send_bytes(&whole);
    let mut answers = [client.any_answer(&[1, 2]), client.any_answer(&[1, 2])];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!((answers[0].1.body(), answers[1].1.body()), (&b"40000"[..], &b"10000"[..]));
}

/// Sends a record again and again until the server has taken nothing for a while. How many were sent as a whole, and
/// what is left of the last one.
fn flood(client: &Client, record: &[u8], at_most: usize) -> (usize, Vec<u8>) {
    let many = record.repeat(1 + (64 << 10) / record.len());
    let mut sent = 0;
    while sent < at_most {
        let fd = client.fd();
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 2, tv_nsec: 0 })).unwrap() == 0 {
            let cut = sent % record.len();
            return (sent / record.len(), if cut > 0 { record[cut..].to_vec() } else { Vec::new() });
        }
        let from = sent % record.len();
        match rustix::net::send(fd, &many[from..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(e) => panic!("{e}"),
        }
    }
    panic!("the server took {sent} bytes without an end");
}

const TOO_MUCH: usize = 48 << 20;

#[test]
fn whoever_does_not_read_our_answers_is_not_read() {
    let app = App::new();
    let mut client = app.connect();
    let question = Wire::new().record(GET_VALUES, 0, &pair(b"FCGI_MPXS_CONNS", b"")).bytes;
    let (whole, rest) = flood(&client, &question, TOO_MUCH);
    app.connect().expect_alive();
    // Nothing is lost by it.
    for _ in 0..whole {
        assert_eq!(client.management().content, b"\x0f\x01FCGI_MPXS_CONNS1");
    }
    if !rest.is_empty() {
        client.send_bytes(&rest);
        client.management();
    }
    client.expect_alive();
}

#[test]
fn also_when_a_request_waits_for_its_body_meanwhile() {
    let app = App::with(|c| c.body_buffer = 10);
    let mut client = app.connect();
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count")]).stream(STDIN, 1, b"more than ten bytes"));
    app.notes.wait("it started");
    let question = Wire::new().record(GET_VALUES, 0, &pair(b"FCGI_MPXS_CONNS", b"")).bytes;
    let (whole, rest) = flood(&client, &question, TOO_MUCH);
    for _ in 0..whole {
        client.management();
    }
    if !rest.is_empty() {
        client.send_bytes(&rest);
        client.management();
    }
    client.send(&Wire::new().stream(STDIN, 1, b"!").end(STDIN, 1));
    assert_eq!(client.answer(1).body(), b"20");
}

#[test]
fn a_running_request_that_does_not_read_holds_back_its_connection() {
    let app = App::with(|c| {
        c.threads = 2;
        c.body_buffer = 1_000;
    });
    let mut client = app.connect();
    client.send(&Wire::new().head(2, KEEP, &[("TEST", "gate"), ("NAME", "lazy")]).stream(STDIN, 2, &[b'2'; 1_000]));
    app.notes.wait("lazy started");
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count"), ("NAME", "eager")]).stream(STDIN, 1, &[b'1'; 1_000]));
    app.notes.wait("eager started");
    // The eager one reads on; what it meets is all for the lazy one.
    let record = Wire::new().stream(STDIN, 2, &[b'2'; 992]).bytes;
    let (whole, rest) = flood(&client, &record, TOO_MUCH);
    app.notes.say("lazy may go on");
    let mut writer = client.writer();
    let last = Wire::new().end(STDIN, 2).end(STDIN, 1).bytes;
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &rest).and_then(|()| std::io::Write::write_all(&mut writer, &last))
    });
    let mut answers = [client.any_answer(&[1, 2]), client.any_answer(&[1, 2])];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(answers[0].1.body(), b"1000");
    let extra = answers[1].1.body().len() - 1_000;
    assert!(extra == whole * 992 || extra == (whole + 1) * 992, "{extra} bytes of {whole} records");
    sending.join().unwrap().unwrap();
}

#[test]
fn a_filter_that_leaves_its_body_unread_does_not_make_the_server_keep_it() {
    let app = App::with(|c| c.body_buffer = 1_000);
    let mut client = app.connect();
    let head = Wire::new().begin(1, FILTER, KEEP).params(1, &[("TEST", "data-only")]);
    client.send(&head.stream(STDIN, 1, &[b'x'; 400_000]).end(STDIN, 1).stream(DATA, 1, b"data").end(DATA, 1));
    app.notes.wait("it failed: Other");
    assert_eq!(client.answer(1).app_status, 1);
    client.expect_alive();
    // A small one is kept.
    let head = Wire::new().begin(1, FILTER, KEEP).params(1, &[("TEST", "data-only")]);
    client.send(&head.stream(STDIN, 1, &[b'x'; 4_000]).end(STDIN, 1).stream(DATA, 1, b"data").end(DATA, 1));
    assert_eq!(client.answer(1).body(), b"4");
}

#[test]
fn who_owes_the_rest_of_a_request_is_closed_in_time() {
    let app = App::with(|c| c.read_timeout = Some(Duration::from_secs(1)));
    let mut idle = app.connect();
    idle.expect_alive();
    let whole = Wire::new().head(1, KEEP, &[("TEST", "echo")]).stream(STDIN, 1, b"body").bytes;
    // Nothing at all, half a header, a header only, half the parameters, no body, half a body.
    let mut late: Vec<Client> = [0, 3, 8, 30, whole.len() - 12, whole.len()]
        .map(|len| {
            let mut client = app.connect();
            client.send_bytes(&whole[..len]);
            client
        })
        .into();
    for client in &mut late {
        client.expect_gone();
    }
    // Between requests nothing is owed.
    idle.expect_alive();
    assert!(!app.notes.heard("it failed: TimedOut"));
}

#[test]
fn a_body_that_does_not_come_ends_its_request() {
    let app = App::with(|c| {
        c.read_timeout = Some(Duration::from_secs(1));
        c.body_buffer = 10;
    });
    let mut client = app.connect();
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count")]).stream(STDIN, 1, b"more than ten bytes"));
    app.notes.wait("it failed: TimedOut");
    client.expect_gone();
    app.connect().expect_alive();
}

#[test]
fn idle_connections_are_closed_when_that_is_wanted() {
    let app = App::with(|c| c.keepalive_timeout = Some(Duration::from_secs(1)));
    let mut client = app.connect();
    client.expect_alive();
    client.expect_end();
}

#[test]
fn an_answer_that_is_not_read_is_given_up() {
    let app = App::with(|c| c.write_timeout = Some(Duration::from_secs(1)));
    let mut client = app.connect();
    client.send(&Wire::new().request(1, KEEP, &[("TEST", "big"), ("SIZE", "50000000")], b""));
    app.notes.wait("it failed: TimedOut");
    app.connect().expect_alive();
    client.expect_gone();
    // Answers that wait after their requests have ended, and hold no thread.
    let mut client = app.connect();
    let wire = (1..=20).fold(Wire::new(), |w, id| w.request(id, KEEP, &[("TEST", "big"), ("SIZE", "60000")], b""));
    client.send(&wire);
    assert!(until(|| app.server.connections() == 0), "{} connections are open", app.server.connections());
}

#[test]
fn further_connections_wait() {
    let app = App::with(|c| c.max_connections = 2);
    let (mut one, mut two) = (app.connect(), app.connect());
    one.expect_alive();
    two.expect_alive();
    let mut three = app.connect();
    three.send(&Wire::new().request(1, KEEP, &[("NAME", "third")], b""));
    one.expect_alive();
    assert!(!app.notes.hears("third started", Duration::from_millis(300)));
    drop(one);
    assert_eq!(three.answer(1).body(), b"hello");
    two.expect_alive();
}
