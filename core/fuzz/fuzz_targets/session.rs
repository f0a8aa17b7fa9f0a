//! A connection: any bytes in any pieces, with requests that are ended now and then, as programs do.
#![no_main]

mod chunks;

use fcgi_core::protocol::session::{Event, Input};
use fcgi_core::protocol::values::Values;
use fcgi_core::protocol::{Limits, Params, Session};

const LIMITS: Limits = Limits { params_bytes: 200, params_count: 6, requests: 3 };
const VALUES: Values = Values { max_connections: 10, max_requests: 20 };

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    said: Vec<String>,
    params: Vec<(u16, Params)>,
    /// Neighbouring pieces of one stream are one.
    streams: Vec<(u16, Input, Vec<u8>)>,
    out: Vec<u8>,
    bad: bool,
}

fn run(pieces: &[&[u8]]) -> Outcome {
    let mut session = Session::new();
    let mut outcome = Outcome::default();
    for &piece in pieces {
        let mut input = piece;
        loop {
            let before = input.len();
            match session.receive(&mut input, &LIMITS, &VALUES, &mut outcome.out) {
                Err(_) => {
                    outcome.bad = true;
                    return outcome;
                }
                Ok(None) => {
                    assert!(input.is_empty());
                    break;
                }
                Ok(Some(event)) => {
                    assert!(input.len() < before, "an event without a byte");
                    take(&mut session, &mut outcome, event);
                }
            }
            assert!(session.active() <= LIMITS.requests);
        }
    }
    outcome
}

fn take(session: &mut Session, outcome: &mut Outcome, event: Event<'_>) {
    match event {
        Event::Input { id, input, bytes } => {
            assert!(!bytes.is_empty() && session.is_active(id));
            match outcome.streams.last_mut() {
                Some((last, kind, all)) if (*last, *kind) == (id, input) => all.extend_from_slice(bytes),
                _ => outcome.streams.push((id, input, bytes.to_vec())),
            }
        }
        Event::InputEnd { id, input } => {
            assert!(session.is_active(id));
            outcome.said.push(format!("{id} {input:?} ends"));
            // As a program that answers when it has read everything, and one that does not wait for its second stream.
            if id % 2 == 0 {
                session.end(id).expect("it was active");
                assert!(!session.is_active(id) && session.end(id).is_none());
            }
        }
        Event::Params { id, params } => {
            assert!(session.is_active(id) && params.len() <= LIMITS.params_count + 1);
            assert!(params.get(b"FCGI_ROLE").is_some());
            outcome.params.push((id, params));
        }
        Event::Abort { id } => {
            assert!(session.end(id).is_some());
            outcome.said.push(format!("{id} aborted"));
        }
        Event::Begin { id, role, keep_conn } => {
            assert!(session.is_active(id) && id != 0);
            outcome.said.push(format!("{id} begins {role:?} {keep_conn}"));
        }
        Event::Refused { id, why, keep_conn } => {
            assert!(!session.is_active(id));
            outcome.said.push(format!("{id} refused {why} {keep_conn}"));
        }
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = chunks::chunks(input);
    let whole = run(&[bytes]);
    assert_eq!(run(&pieces), whole);
    assert!(whole.out.len() <= 16 * bytes.len(), "more is answered than was asked");
    // What a session says by itself is well formed.
    let mut decoder = fcgi_core::protocol::decoder::Decoder::new();
    let mut out = &whole.out[..];
    while let Some(piece) = decoder.next(&mut out).expect("our own version") {
        assert!([3, 6, 10, 11].contains(&piece.header.kind) && piece.last);
    }
    assert!(!decoder.inside_record());
});
