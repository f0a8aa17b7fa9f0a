//! Management records (specification, section 4): questions at any time, types that nobody knows.

use crate::app::App;
use crate::client::{
    GET_VALUES, GET_VALUES_RESULT, KEEP, PARAMS, RESPONDER, STDIN, UNKNOWN_TYPE, Wire, pair, pair_as, short_pairs,
};

fn question(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| pair(name.as_bytes(), b"")).collect()
}

#[test]
fn known_values_are_told_and_others_left_out() {
    let app = App::with(|config| {
        config.max_connections = 77;
        config.limits.requests = 33;
    });
    let mut client = app.connect();
    let all = ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"];
    let mut ask = |content: &[u8]| {
        client.send(&Wire::new().record(GET_VALUES, 0, content));
        let answer = client.management();
        assert_eq!(answer.kind, GET_VALUES_RESULT);
        let pairs = short_pairs(&answer.content);
        all.map(|name| pairs.get(name).cloned())
            .to_vec()
            .into_iter()
            .chain([Some(pairs.len().to_string())])
            .collect::<Vec<_>>()
    };
    let told = |values: [&str; 4]| values.map(|v| (!v.is_empty()).then(|| v.to_owned())).to_vec();
    assert_eq!(ask(&question(&all)), told(["77", "33", "1", "3"]));
    assert_eq!(ask(&question(&["FCGI_MPXS_CONNS"])), told(["", "", "1", "1"]));
    assert_eq!(ask(&question(&[])), told(["", "", "", "0"]));
    let strangers = ["", "FCGI", "FCGI_MAX_CONN", "FCGI_MAX_CONNSX", "FCGI_MPXS_CONNSX", "fcgi_max_reqs"];
    assert_eq!(ask(&question(&strangers)), told(["", "", "", "0"]));
    // Among strangers, asked twice, with lengths of four bytes, with values that mean nothing.
    let mixed = [
        question(&["FCGI_MAX_REQS", "A_NAME_OF_OUR_OWN", "FCGI_MAX_REQS"]),
        pair_as(b"FCGI_MAX_CONNS", b"1000", true, true),
        pair(&[b'n'; 500], &[b'v'; 500]),
        pair_as(b"FCGI_MPXS_CONNS", b"", true, false),
    ];
    assert_eq!(ask(&mixed.concat()), told(["77", "33", "1", "3"]));
    // Cut off in the middle: what is complete is answered.
    assert_eq!(ask(&[&question(&["FCGI_MAX_REQS"])[..], b"\x0e\0FCGI_MAX"].concat()), told(["", "33", "", "1"]));
    client.expect_alive();
}

#[test]
fn a_question_between_any_two_records_of_a_request() {
    let app = App::new();
    let stream = [pair(b"TEST", b"echo"), pair(b"X", b"y")].concat();
    let records = |id| {
        let record = |wire: Wire| wire.bytes;
        [
            record(Wire::new().begin(id, RESPONDER, KEEP)),
            record(Wire::new().record(PARAMS, id, &stream[..7])),
            record(Wire::new().record(PARAMS, id, &stream[7..])),
            record(Wire::new().end(PARAMS, id)),
            record(Wire::new().stream(STDIN, id, b"body")),
            record(Wire::new().end(STDIN, id)),
        ]
    };
    let ask = Wire::new().record(GET_VALUES, 0, &question(&["FCGI_MPXS_CONNS"])).bytes;
    let mut client = app.connect();
    for at in 0..=6 {
        let (before, after) = records(1).iter().enumerate().fold((vec![], vec![]), |(mut b, mut a), (i, record)| {
            if i < at {
                b.extend_from_slice(record);
            } else {
                a.extend_from_slice(record);
            }
            (b, a)
        });
        client.send_bytes(&before);
        if at == 6 {
            assert_eq!(client.answer(1).body(), b"body");
        }
        client.send_bytes(&ask);
        // At once: the server must not wait for the rest of the request.
        assert_eq!(client.management().content, b"\x0f\x01FCGI_MPXS_CONNS1", "question after {at} records");
        if at < 6 {
            client.send_bytes(&after);
            assert_eq!(client.answer(1).body(), b"body", "question after {at} records");
        }
    }
}

#[test]
fn a_question_while_a_request_runs() {
    let app = App::threads(2);
    let mut client = app.connect();
    client.send(&Wire::new().request(1, KEEP, &[("TEST", "gate")], b""));
    app.notes.wait("it started");
    client.send(&Wire::new().record(GET_VALUES, 0, &question(&["FCGI_MPXS_CONNS"])));
    assert_eq!(client.management().content, b"\x0f\x01FCGI_MPXS_CONNS1");
    app.notes.say("it may go on");
    assert_eq!(client.answer(1).body(), b"");
}

#[test]
fn unknown_management_types_are_named() {
    let app = App::new();
    let mut client = app.connect();
    for kind in (12..=255).chain([0]) {
        for content in [&b""[..], b"whatever", &[7; 65_535]] {
            client.send(&Wire::new().record(kind, 0, content));
            let answer = client.management();
            assert_eq!((answer.kind, &answer.content[..]), (UNKNOWN_TYPE, &[kind, 0, 0, 0, 0, 0, 0, 0][..]));
        }
    }
    client.expect_alive();
}

#[test]
fn types_of_requests_are_not_management() {
    let app = App::new();
    let mut client = app.connect();
    for kind in 1..=8 {
        client.send(&Wire::new().record(kind, 0, &[0, 1, 1, 0, 0, 0, 0, 0]));
        let answer = client.management();
        assert_eq!((answer.kind, answer.content[0]), (UNKNOWN_TYPE, kind));
    }
    // Answers are not answered: two of us would talk for ever.
    client.send(&Wire::new().record(GET_VALUES_RESULT, 0, b"").record(UNKNOWN_TYPE, 0, &[9; 8]));
    client.expect_alive();
}

#[test]
fn unknown_types_of_a_request_are_left_out() {
    let app = App::new();
    let mut client = app.connect();
    let wire = Wire::new().head(1, KEEP, &[("TEST", "echo")]);
    // Types that an application sends, management types with an id, and numbers that nobody knows.
    let wire = [3, 6, 7, 9, 10, 11, 12, 100, 255, 0].iter().fold(wire, |wire, kind| wire.record(*kind, 1, b"what"));
    client.send(&wire.stream(STDIN, 1, b"body").end(STDIN, 1));
    assert_eq!(client.answer(1).body(), b"body");
    client.expect_alive();
}
