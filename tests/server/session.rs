//! The protocol without sockets, with input that nobody thought of.

use fcgi_core::protocol::session::{Event, Input};
use fcgi_core::protocol::values::Values;
use fcgi_core::protocol::{Limits, Session};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::client::{ABORT, BEGIN, DATA, FILTER, GET_VALUES, KEEP, PARAMS, STDIN, Wire, pair};

const LIMITS: Limits = Limits { params_bytes: 300, params_count: 8, requests: 4 };
const VALUES: Values = Values { max_connections: 10, max_requests: 20 };

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a session made of some bytes. Neighbouring pieces of a stream count as one: how they are cut is the network's
/// business.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    said: Vec<String>,
    streams: Vec<(u16, Input, Vec<u8>)>,
    params: Vec<(u16, Pairs)>,
    out: Vec<u8>,
    bad: bool,
}

fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut session = Session::new();
    let mut outcome = Outcome::default();
    for mut chunk in chunks {
        loop {
            let before = chunk.len();
            let event = match session.receive(&mut chunk, &LIMITS, &VALUES, &mut outcome.out) {
                Ok(Some(event)) => event,
                Ok(None) => {
                    assert!(chunk.is_empty(), "bytes were left without an event");
                    break;
                }
                Err(_) => {
                    outcome.bad = true;
                    return outcome;
                }
            };
            // Otherwise it could go on for ever.
            assert!(chunk.len() < before, "an event without a byte: {event:?}");
            assert!(session.active() <= LIMITS.requests);
            note(&mut session, &mut outcome, event);
        }
    }
    outcome
}

fn note(session: &mut Session, outcome: &mut Outcome, event: Event<'_>) {
    match event {
        Event::Input { id, input, bytes } => {
            assert!(!bytes.is_empty() && session.is_active(id));
            match outcome.streams.last_mut() {
                Some((last, kind, text)) if (*last, *kind) == (id, input) => text.extend_from_slice(bytes),
                _ => outcome.streams.push((id, input, bytes.to_vec())),
            }
        }
        Event::Params { id, params } => {
            assert!(session.is_active(id) && params.len() <= LIMITS.params_count + 1);
            outcome.params.push((id, params.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect()));
        }
        // The application ends what the server no longer wants; another request has the id then.
        Event::Abort { id } => {
            assert!(session.end(id).is_some());
            outcome.said.push(format!("abort {id}"));
        }
        other => outcome.said.push(format!("{other:?}")),
    }
}

fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

/// Records that mean something often enough: few ids, known types, short contents.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let kind =
        prop_oneof![Just(BEGIN), Just(PARAMS), Just(STDIN), Just(ABORT), Just(DATA), Just(GET_VALUES), any::<u8>()];
    let pairs = prop::collection::vec(("[A-C]{0,3}", "[a-z]{0,200}"), 0..4)
        .prop_map(|pairs| pairs.iter().flat_map(|(n, v)| pair(n.as_bytes(), v.as_bytes())).collect());
    let begin = (1..5u8, any::<u8>()).prop_map(|(role, flags)| vec![0, role, flags, 0, 0, 0, 0, 0]);
    let content = prop_oneof![
        3 => Just(Vec::new()),
        3 => begin,
        3 => pairs,
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    let record = (kind, 0..6u16, content, prop_oneof![Just(0), any::<u8>()]);
    prop::collection::vec(record, 0..40).prop_map(|records| {
        let add = |wire: Wire, (kind, id, content, padding): &(u8, u16, Vec<u8>, u8)| {
            wire.padding(*padding).record(*kind, *id, content)
        };
        records.iter().fold(Wire::new(), add).bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces(
        bytes in prop::collection::vec(prop_oneof![Just(1u8), Just(0u8), any::<u8>()], 0..400),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let whole = run([&bytes[..]]);
        prop_assert_eq!(&run(cut(&bytes, &cuts)), &whole);
        prop_assert_eq!(&run(bytes.chunks(1)), &whole);
    }

    #[test]
    fn any_records_in_any_pieces(bytes in records(), cuts in prop::collection::vec(any::<Index>(), 0..20)) {
        let whole = run([&bytes[..]]);
        prop_assert!(!whole.bad);
        prop_assert_eq!(&run(cut(&bytes, &cuts)), &whole);
        prop_assert_eq!(&run(bytes.chunks(1)), &whole);
    }

    #[test]
    fn answers_are_no_larger_than_questions_allow(bytes in records()) {
        // A peer gets a bounded multiple of what it sends: nobody can be made to talk without end.
        let outcome = run([&bytes[..]]);
        prop_assert!(outcome.out.len() <= 16 * bytes.len(), "{} of {}", outcome.out.len(), bytes.len());
    }

    #[test]
    fn what_was_encoded_is_decoded(
        pairs in prop::collection::btree_map("[A-Z]{1,6}", prop::collection::vec(any::<u8>(), 0..30), 0..7),
        stdin in prop::collection::vec(any::<u8>(), 0..500),
        data in prop::collection::vec(any::<u8>(), 0..500),
        (sizes, padding) in ([1..100usize, 1..300, 1..300], any::<u8>()),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let stream: Vec<u8> = pairs.iter().flat_map(|(n, v)| pair(n.as_bytes(), v)).collect();
        let add = |wire: Wire, kind, bytes: &[u8], size| {
            bytes.chunks(size).fold(wire, |wire, part| wire.record(kind, 7, part)).end(kind, 7)
        };
        let wire = Wire::new().padding(padding).begin(7, FILTER, KEEP);
        let wire = add(add(add(wire, PARAMS, &stream, sizes[0]), STDIN, &stdin, sizes[1]), DATA, &data, sizes[2]);
        let outcome = run(cut(&wire.bytes, &cuts));
        let mut expected: Pairs = pairs.into_iter().map(|(n, v)| (n.into_bytes(), v)).collect();
        expected.push((b"FCGI_ROLE".to_vec(), b"FILTER".to_vec()));
        prop_assert_eq!(&outcome.params, &[(7, expected)]);
        let of = |which| outcome.streams.iter().filter(|s| s.1 == which).flat_map(|s| s.2.clone()).collect::<Vec<_>>();
        prop_assert_eq!((of(Input::Stdin), of(Input::Data)), (stdin, data));
        prop_assert_eq!(&outcome.said, &[
            "Begin { id: 7, role: Filter, keep_conn: true }",
            "InputEnd { id: 7, input: Stdin }",
            "InputEnd { id: 7, input: Data }",
        ].map(str::to_owned));
        prop_assert!(outcome.out.is_empty());
    }
}
