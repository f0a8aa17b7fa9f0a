//! A request's life (specification, section 5): begun, aborted at every stage, ended; ids, roles, and whether the
//! connection stays.

use crate::app::App;
use crate::client::{
    ABORT, AUTHORIZER, CLOSE, COMPLETE, Client, GET_VALUES, KEEP, PARAMS, RESPONDER, STDIN, UNKNOWN_ROLE, Wire, pair,
};

/// The server has handled everything that was sent before.
fn sync(client: &mut Client) {
    client.send(&Wire::new().end(GET_VALUES, 0));
    client.management();
}

#[test]
fn keep_conn_decides_whether_the_connection_stays() {
    for app in [App::new(), App::tcp(|_| ())] {
        let mut client = app.connect();
        for _ in 0..3 {
            client.expect_alive();
        }
        // Reserved flags mean nothing, in either case.
        client.send(&Wire::new().request(1, KEEP | 0xFE, &[("TEST", "hello")], b""));
        assert_eq!(client.answer(1).body(), b"hello");
        client.send(&Wire::new().request(1, 0xFE, &[("TEST", "hello")], b""));
        assert_eq!(client.answer(1).body(), b"hello");
        client.expect_end();
    }
}

#[test]
fn the_connection_closes_after_the_last_of_several_requests() {
    let app = App::new();
    let mut client = app.connect();
    let wire = Wire::new().head(1, KEEP, &[("TEST", "echo")]).request(2, CLOSE, &[("TEST", "hello")], b"");
    client.send(&wire);
    assert_eq!(client.answer(2).body(), b"hello");
    client.send(&Wire::new().stream(STDIN, 1, b"late").end(STDIN, 1));
    assert_eq!(client.answer(1).body(), b"late");
    client.expect_end();
}

#[test]
fn an_unread_body_does_not_destroy_the_answer() {
    for app in [App::new(), App::tcp(|_| ())] {
        for (flags, read) in [(CLOSE, "0"), (CLOSE, "10"), (KEEP, "0"), (KEEP, "10")] {
            let mut client = app.connect();
            let body = vec![b'b'; 3 << 20];
            client.send(&Wire::new().request(1, flags, &[("TEST", "partial-read"), ("READ", read)], &body));
            assert_eq!(client.answer(1).body().len(), read.parse::<usize>().unwrap());
            if flags == KEEP {
                client.expect_alive();
            } else {
                client.expect_end();
            }
        }
    }
}

#[test]
fn the_end_is_told_before_the_rest_has_come() {
    let app = App::tcp(|_| ());
    // The connection lingers for seconds; only a very slow machine misses that every time.
    let told = (0..5).any(|_| {
        let mut client = app.connect();
        let head = Wire::new().head(1, CLOSE, &[("TEST", "partial-read"), ("READ", "0")]);
        client.send(&head.stream(STDIN, 1, &vec![b'x'; 100_000]));
        assert_eq!(client.answer(1).body(), b"");
        client.expect_end();
        app.server.connections() == 1
    });
    assert!(told, "a client that waits for the end has to wait until the server gives up");
}

#[test]
fn unknown_roles_are_refused() {
    let app = App::new();
    let mut client = app.connect();
    for role in [0, 5, 99, 0x0101, 0xFFFF] {
        let wire =
            Wire::new().begin(1, role, KEEP).params(1, &[("TEST", "hello")]).stream(STDIN, 1, b"x").end(STDIN, 1);
        client.send(&wire);
        let answer = client.answer(1);
        assert_eq!((answer.protocol_status, answer.stdout.len()), (UNKNOWN_ROLE, 0));
        client.expect_alive();
    }
    client.send(&Wire::new().begin(1, 99, CLOSE).params(1, &[("TEST", "hello")]).end(STDIN, 1));
    assert_eq!(client.answer(1).protocol_status, UNKNOWN_ROLE);
    client.expect_end();
}

#[test]
fn abort_before_the_parameters_are_complete() {
    let app = App::new();
    let mut client = app.connect();
    client.send(&Wire::new().begin(1, RESPONDER, KEEP).end(ABORT, 1));
    let half = &pair(b"TEST", b"hello")[..5];
    client.send(&Wire::new().begin(2, RESPONDER, KEEP).record(PARAMS, 2, half).end(ABORT, 2));
    for id in [1, 2] {
        let answer = client.answer(id);
        assert_eq!((answer.protocol_status, answer.stdout.len()), (COMPLETE, 0));
    }
    // What was still on its way for them is left out.
    client.send(&Wire::new().record(PARAMS, 2, &pair(b"TEST", b"hello")).end(PARAMS, 2).end(STDIN, 2));
    client.expect_alive();
    client.send(&Wire::new().begin(3, RESPONDER, CLOSE).end(ABORT, 3));
    client.answer(3);
    client.expect_end();
}

#[test]
fn abort_while_the_body_is_incomplete() {
    let app = App::new();
    let mut client = app.connect();
    let head = Wire::new().head(1, KEEP, &[("TEST", "echo"), ("NAME", "half")]);
    client.send(&head.stream(STDIN, 1, b"half a").end(ABORT, 1));
    let answer = client.answer(1);
    assert_eq!((answer.protocol_status, answer.stdout.len()), (COMPLETE, 0));
    client.expect_alive();
    assert!(!app.notes.heard("half started"), "the program never learnt of the request");
}

#[test]
fn abort_while_the_request_waits_for_a_thread() {
    let app = App::new();
    let mut busy = app.connect();
    busy.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "busy")], b""));
    app.notes.wait("busy started");
    let mut client = app.connect();
    let wire = Wire::new().request(1, KEEP, &[("NAME", "waiting")], b"").end(ABORT, 1);
    client.send(&wire.request(2, KEEP, &[("NAME", "other")], b""));
    app.notes.say("busy may go on");
    busy.answer(1);
    let mut answers = [client.any_answer(&[1, 2]), client.any_answer(&[1, 2])];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!((answers[0].1.protocol_status, answers[0].1.stdout.len()), (COMPLETE, 0));
    assert_eq!(answers[1].1.body(), b"hello");
    assert!(app.notes.heard("other started") && !app.notes.heard("waiting started"));
}

#[test]
fn abort_while_the_request_runs() {
    for threads in [1, 3] {
        let app = App::threads(threads);
        let mut client = app.connect();
        client.send(&Wire::new().request(1, KEEP, &[("TEST", "abort-wait")], b""));
        app.notes.wait("it started");
        assert!(!app.notes.heard("it aborted"));
        client.send(&Wire::new().end(ABORT, 1));
        app.notes.wait("it aborted");
        // The program's own exit status tells how it ended.
        assert_eq!(client.answer(1).app_status, 3);
        client.expect_alive();
    }
}

#[test]
fn abort_while_the_request_reads_its_body() {
    let app = App::with(|config| config.body_buffer = 10);
    let mut client = app.connect();
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count")]).stream(STDIN, 1, b"more than ten bytes"));
    app.notes.wait("it started");
    client.send(&Wire::new().end(ABORT, 1));
    app.notes.wait("it failed: ConnectionAborted");
    assert_eq!(client.answer(1).app_status, 1);
    client.expect_alive();
}

#[test]
fn abort_after_the_end_and_of_strangers_is_ignored() {
    let app = App::new();
    let mut client = app.connect();
    client.expect_alive();
    let strangers = Wire::new().end(ABORT, 1).end(ABORT, 9).end(ABORT, 65_535);
    client.send(
        &strangers.record(PARAMS, 9, &pair(b"TEST", b"panic")).end(PARAMS, 9).stream(STDIN, 9, b"x").end(STDIN, 1),
    );
    sync(&mut client);
    client.expect_alive();
}

#[test]
fn ids_are_used_again_at_once() {
    let app = App::threads(2);
    let mut client = app.connect();
    for round in 0..200 {
        let body = format!("round {round}");
        assert_eq!(client.ask(&[("TEST", "echo")], body.as_bytes()).body(), body.as_bytes());
    }
    for id in [1, 2, 255, 256, 257, 32_768, 65_535] {
        client.send(&Wire::new().request(id, KEEP, &[("TEST", "hello")], b""));
        assert_eq!(client.answer(id).body(), b"hello");
    }
}

#[test]
fn requests_may_stand_behind_each_other() {
    let app = App::new();
    let mut client = app.connect();
    let wire = (1..=50)
        .fold(Wire::new(), |wire, id| wire.request(id, KEEP, &[("TEST", "echo")], format!("number {id}").as_bytes()));
    client.send(&wire);
    let mut open: Vec<u16> = (1..=50).collect();
    while !open.is_empty() {
        let (id, answer) = client.any_answer(&open);
        assert_eq!(answer.body_text(), format!("number {id}"));
        open.retain(|o| *o != id);
    }
}

#[test]
fn begin_with_an_active_id_does_not_disturb_the_first() {
    let app = App::threads(2);
    let mut client = app.connect();
    let again = |wire: Wire| wire.begin(1, AUTHORIZER, CLOSE);
    // While parameters, while the body, while it runs.
    let stream = pair(b"TEST", b"gate");
    let wire = again(Wire::new().begin(1, RESPONDER, KEEP).record(PARAMS, 1, &stream[..3]));
    let wire = again(wire.record(PARAMS, 1, &stream[3..]).end(PARAMS, 1).stream(STDIN, 1, b"bo"));
    client.send(&wire.stream(STDIN, 1, b"dy").end(STDIN, 1));
    app.notes.wait("it started");
    client.send(&again(Wire::new()));
    sync(&mut client);
    app.notes.say("it may go on");
    assert_eq!(client.answer(1).body(), b"body");
    client.expect_alive();
}

#[test]
fn errors_have_a_stream_only_when_there_are_any() {
    let app = App::new();
    let mut client = app.connect();
    assert!(!client.ask(&[("TEST", "hello")], b"").stderr_used);
    let answer = client.ask(&[("TEST", "stderr")], b"");
    assert_eq!(answer.stderr, b"a complaint");
    assert_eq!(answer.body(), b"");
}

#[test]
fn exit_status_is_told() {
    let app = App::new();
    let mut client = app.connect();
    for status in [0, 1, 7, 255, u32::MAX] {
        assert_eq!(client.ask(&[("TEST", "exit"), ("STATUS", &status.to_string())], b"").app_status, status);
    }
}

#[test]
fn an_answer_without_output_is_one() {
    let app = App::new();
    let mut client = app.connect();
    let answer = client.ask(&[("TEST", "silent")], b"");
    assert_eq!((answer.app_status, answer.protocol_status, answer.stdout.len()), (0, COMPLETE, 0));
    // Some servers take only an answer whose STDOUT was ended.
    assert_eq!(answer.stdout_records, 1);
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let app = App::new();
    let mut client = app.connect();
    let answer = client.ask(&[("TEST", "panic")], b"");
    assert!(answer.text().starts_with("Status: 500 "), "{}", answer.text());
    assert_eq!((answer.app_status, answer.protocol_status), (1, COMPLETE));
    client.expect_alive();
}

#[test]
fn what_is_flushed_is_sent_before_the_end() {
    let app = App::new();
    let mut client = app.connect();
    client.send(&Wire::new().request(1, KEEP, &[("TEST", "flush")], b""));
    assert_eq!(client.next().unwrap().content, b"Content-Type: text/plain\r\n\r\n");
    app.notes.say("it may go on");
    assert_eq!(client.answer(1).stdout, b"after");
}

#[test]
fn what_there_is_room_for_is_written_without_sending() {
    for size in [600, 64 << 10, 200 << 10] {
        let app = App::with(|config| config.output_buffer = size);
        assert_eq!(app.connect().ask(&[("TEST", "room")], b"").stdout.len(), 3 * size);
    }
}

#[test]
fn an_answer_that_breaks_off_has_no_end() {
    for app in [App::new(), App::threads(2)] {
        for flags in [KEEP, CLOSE] {
            let mut client = app.connect();
            client.send(&Wire::new().request(1, flags, &[("TEST", "break-off")], b""));
            assert_eq!(client.next().unwrap().content, b"Content-Type: text/plain\r\n\r\n");
            client.expect_end();
        }
        app.connect().expect_alive();
    }
}

#[test]
fn small_answers_leave_in_one_record() {
    let app = App::new();
    let mut client = app.connect();
    // One with the text, one that ends the stream.
    assert_eq!(client.ask(&[("TEST", "hello")], b"").stdout_records, 2);
}
