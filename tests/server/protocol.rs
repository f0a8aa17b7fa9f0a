//! Records, streams and name-value pairs (specification, sections 3.3 and 3.4), in every shape they may have.

use std::time::Duration;

use crate::app::{App, listed};
use crate::client::{
    AUTHORIZER, BEGIN, COMPLETE, DATA, FILTER, GET_VALUES, KEEP, PARAMS, RESPONDER, STDIN, STDOUT, Wire, pair, pair_as,
};

const ENV: (&str, &str) = ("TEST", "env");

#[test]
fn one_request_on_each_kind_of_socket() {
    for app in [App::new(), App::tcp(|_| ())] {
        let mut client = app.connect();
        client.send(&Wire::new().request(1, 0, &[("TEST", "hello")], b""));
        let answer = client.answer(1);
        assert_eq!(answer.text(), "Content-Type: text/plain\r\n\r\nhello");
        assert_eq!((answer.app_status, answer.protocol_status), (0, COMPLETE));
        client.expect_end();
    }
}

#[test]
fn pairs_of_every_length() {
    let app = App::new();
    let mut client = app.connect();
    for name_len in [0, 1, 126, 127, 128, 129, 300] {
        for value_len in [0, 1, 127, 128, 255, 256, 65_535, 65_536, 70_000] {
            let (name, value) = (vec![b'N'; name_len], vec![0xA5; value_len]);
            let stream = [pair(b"TEST", b"env"), pair(&name, &value)].concat();
            let wire = Wire::new().begin(1, RESPONDER, KEEP).stream(PARAMS, 1, &stream).end(PARAMS, 1).end(STDIN, 1);
            client.send(&wire);
            assert!(contains(client.answer(1).body(), &listed(&name, &value)), "{name_len} {value_len}");
        }
    }
}

#[test]
fn short_lengths_may_take_four_bytes() {
    let app = App::new();
    let mut client = app.connect();
    for (long_name, long_value) in [(false, true), (true, false), (true, true)] {
        let stream = [pair(b"TEST", b"env"), pair_as(b"NAME", b"value", long_name, long_value)].concat();
        client.send(&Wire::new().begin(1, RESPONDER, KEEP).stream(PARAMS, 1, &stream).end(PARAMS, 1).end(STDIN, 1));
        assert!(contains(client.answer(1).body(), b"4+5:NAMEvalue"));
    }
}

#[test]
fn a_value_of_a_mebibyte() {
    let app = App::new();
    let mut client = app.connect();
    let value: String = ('a'..='z').cycle().take(1 << 20).collect();
    let answer = client.ask(&[ENV, ("LONG", &value)], b"");
    assert!(contains(answer.body(), &listed(b"LONG", value.as_bytes())));
}

#[test]
fn the_last_of_repeated_names_counts() {
    let app = App::new();
    let mut client = app.connect();
    let body = client.ask(&[ENV, ("A", "first"), ("A", "second")], b"").body_text();
    assert!(body.contains("1+6:Asecond") && !body.contains("first"), "{body}");
}

#[test]
fn pairs_split_over_two_records_at_every_byte() {
    let app = App::new();
    let mut client = app.connect();
    let long = [b'v'; 140];
    let stream = [pair(b"TEST", b"env"), pair(b"", b""), pair(b"LONG", &long), pair(&long, b"x")].concat();
    let whole = Wire::new().begin(1, RESPONDER, KEEP).stream(PARAMS, 1, &stream).end(PARAMS, 1).end(STDIN, 1);
    client.send(&whole);
    let expected = client.answer(1).body().to_vec();
    assert!(contains(&expected, &listed(b"LONG", &long)) && contains(&expected, &listed(&long, b"x")));
    for at in 1..stream.len() {
        let wire = Wire::new().begin(1, RESPONDER, KEEP).record(PARAMS, 1, &stream[..at]);
        client.send(&wire.record(PARAMS, 1, &stream[at..]).end(PARAMS, 1).end(STDIN, 1));
        assert_eq!(client.answer(1).body(), expected, "split at {at}");
    }
    // And a record for each byte.
    let begin = Wire::new().begin(1, RESPONDER, KEEP);
    let bytes = stream.chunks(1).fold(begin, |wire, byte| wire.record(PARAMS, 1, byte));
    client.send(&bytes.end(PARAMS, 1).end(STDIN, 1));
    assert_eq!(client.answer(1).body(), expected);
}

#[test]
fn writes_may_end_anywhere() {
    let app = App::new();
    let mut client = app.connect();
    let wire = Wire::new().padding(3).request(1, KEEP, &[("TEST", "echo"), ("X", "y")], b"body").record(
        GET_VALUES,
        0,
        &pair(b"FCGI_MPXS_CONNS", b""),
    );
    for at in 1..wire.bytes.len() {
        client.send_bytes(&wire.bytes[..at]);
        // Time for the server to read the first part alone; when it does not, the case is tried less hard.
        std::thread::sleep(Duration::from_millis(1));
        client.send_bytes(&wire.bytes[at..]);
        // The question comes behind the request, and either may be answered first.
        let mut answer = Vec::new();
        let (mut ended, mut asked) = (false, false);
        while !(ended && asked) {
            let record = client.next().expect("an answer");
            match (record.kind, record.id) {
                (STDOUT, 1) => answer.extend_from_slice(&record.content),
                (crate::client::END, 1) => ended = true,
                (_, id) => asked = id == 0,
            }
        }
        assert!(answer.ends_with(b"\r\n\r\nbody"), "split at {at}");
    }
}

#[test]
fn padding_of_every_length_on_every_type() {
    let app = App::new();
    let mut client = app.connect();
    for padding in 0..=255 {
        client.send(&Wire::new().padding(padding).request(1, KEEP, &[("TEST", "echo")], b"the body"));
        assert_eq!(client.answer(1).body(), b"the body", "padding {padding}");
        let filter = Wire::new().padding(padding).begin(2, FILTER, KEEP).params(2, &[("TEST", "filter")]);
        let filter = filter.stream(STDIN, 2, b"in").end(STDIN, 2).stream(DATA, 2, b"data").end(DATA, 2);
        // Behind them: an abort of a request that has ended, an unknown type, an empty question.
        client.send(&filter);
        assert_eq!(client.answer(2).body(), b"in|data", "padding {padding}");
        client
            .send(&Wire::new().padding(padding).end(crate::client::ABORT, 2).record(77, 0, b"abc").end(GET_VALUES, 0));
        let (unknown, values) = (client.management(), client.management());
        assert_eq!(unknown.content, [77, 0, 0, 0, 0, 0, 0, 0], "padding {padding}");
        assert_eq!(
            (values.kind, &values.content[..]),
            (crate::client::GET_VALUES_RESULT, &[][..]),
            "padding {padding}"
        );
    }
}

#[test]
fn streams_of_many_records() {
    let app = App::new();
    let mut client = app.connect();
    let body: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    for size in [1_000, 8_192, 32_768, 65_535] {
        let head = Wire::new().head(1, KEEP, &[("TEST", "echo")]);
        let wire = body.chunks(size).fold(head, |wire, part| wire.record(STDIN, 1, part)).end(STDIN, 1);
        let mut writer = client.writer();
        // Beside the reading: an echo would not take what is not read.
        let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &wire.bytes));
        assert_eq!(client.answer(1).body(), body, "records of {size}");
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn what_comes_after_the_end_of_a_stream_is_left_out() {
    let app = App::new();
    let mut client = app.connect();
    let wire = Wire::new().begin(1, RESPONDER, KEEP).params(1, &[("TEST", "gate")]);
    let wire = wire.record(PARAMS, 1, &pair(b"TEST", b"panic")).end(PARAMS, 1);
    client.send(&wire.stream(STDIN, 1, b"body").end(STDIN, 1).stream(STDIN, 1, b"more").end(STDIN, 1));
    app.notes.say("it may go on");
    assert_eq!(client.answer(1).body(), b"body");
    client.expect_alive();
}

#[test]
fn a_stream_that_the_role_does_not_have_is_left_out() {
    let app = App::new();
    let mut client = app.connect();
    let data = Wire::new().head(1, KEEP, &[("TEST", "echo")]).stream(DATA, 1, b"data").end(DATA, 1);
    client.send(&data.stream(STDIN, 1, b"body").end(STDIN, 1));
    assert_eq!(client.answer(1).body(), b"body");
}

#[test]
fn an_authorizer_needs_no_body() {
    let app = App::new();
    let mut client = app.connect();
    client.send(&Wire::new().begin(1, AUTHORIZER, KEEP).params(1, &[("TEST", "role")]));
    assert_eq!(client.answer(1).text(), "Status: 200\r\nVariable-USER: me\r\n\r\nAUTHORIZER");
    client.send(&Wire::new().begin(1, AUTHORIZER, KEEP).params(1, &[("TEST", "env")]));
    assert!(client.answer(1).body_text().contains("9+10:FCGI_ROLEAUTHORIZER"));
    // Some server may end a body that it has not sent.
    client.send(&Wire::new().begin(1, AUTHORIZER, KEEP).params(1, &[("TEST", "role")]).end(STDIN, 1));
    assert!(client.answer(1).text().ends_with("AUTHORIZER"));
    client.expect_alive();
}

#[test]
fn a_filter_reads_two_streams() {
    let app = App::new();
    let mut client = app.connect();
    let head = || Wire::new().begin(1, FILTER, KEEP).params(1, &[("TEST", "filter")]);
    client.send(&head().stream(STDIN, 1, b"form").end(STDIN, 1).stream(DATA, 1, b"file").end(DATA, 1));
    assert_eq!(client.answer(1).body(), b"form|file");
    // Mixed, and with nothing in one of them.
    let mixed = head().stream(DATA, 1, b"fi").stream(STDIN, 1, b"form").stream(DATA, 1, b"le").end(DATA, 1);
    client.send(&mixed.end(STDIN, 1));
    assert_eq!(client.answer(1).body(), b"form|file");
    client.send(&head().end(STDIN, 1).end(DATA, 1));
    assert_eq!(client.answer(1).body(), b"|");
    // It may answer without reading either, and is not begun before both are complete or long.
    client.send(&Wire::new().begin(1, FILTER, KEEP).params(1, &[("TEST", "role"), ("NAME", "f")]).end(STDIN, 1));
    client.send(&Wire::new().end(GET_VALUES, 0));
    client.management();
    assert!(!app.notes.heard("f started"));
    client.send(&Wire::new().end(DATA, 1));
    assert!(client.answer(1).text().ends_with("FILTER"));
}

#[test]
fn begin_request_of_a_wrong_length() {
    let app = App::new();
    let mut client = app.connect();
    // Too short to say what it wants: left out, and so is what follows for its id. Too long: the rest says nothing.
    client.send(&Wire::new().record(BEGIN, 1, &[0, 1, 1]).params(1, &[("TEST", "hello")]).end(STDIN, 1));
    client.send(&Wire::new().record(BEGIN, 2, &[0, 1, 1, 0, 0, 0, 0, 0, 9, 9, 9]).params(2, &[("TEST", "hello")]));
    client.send(&Wire::new().end(STDIN, 2));
    assert_eq!(client.answer(2).body(), b"hello");
    client.expect_alive();
}

#[test]
fn malformed_parameters_are_answered_with_400() {
    let app = App::new();
    let mut client = app.connect();
    for bad in [&b"\x05\x05abc"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80\0\0"] {
        client.send(&Wire::new().begin(1, RESPONDER, KEEP).stream(PARAMS, 1, bad).end(PARAMS, 1).end(STDIN, 1));
        let answer = client.answer(1);
        assert!(answer.text().starts_with("Status: 400 "), "{bad:?}: {}", answer.text());
        assert_eq!(answer.protocol_status, COMPLETE);
    }
    client.expect_alive();
}

#[test]
fn a_wrong_version_closes_its_connection_only() {
    let app = App::new();
    let mut good = app.connect();
    good.send(&Wire::new().head(1, KEEP, &[("TEST", "echo")]));
    for version in [0, 2, b'G', 255] {
        let mut bad = app.connect();
        bad.send_bytes(&[version, 1, 0, 1, 0, 0, 0, 0]);
        bad.expect_gone();
        // Also after a good request.
        let mut later = app.connect();
        later.expect_alive();
        later.send_bytes(&[version, 1, 0, 1, 0, 0, 0, 0]);
        later.expect_gone();
    }
    good.send(&Wire::new().stream(STDIN, 1, b"still here").end(STDIN, 1));
    assert_eq!(good.answer(1).body(), b"still here");
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}
