//! Questions: the same answer however they are cut, which names only what was asked for and is known.
#![no_main]

mod chunks;

use fcgi_core::protocol::Params;
use fcgi_core::protocol::record::HEADER_LEN;
use fcgi_core::protocol::values::{Question, Values};

const VALUES: Values = Values { max_connections: 12_345, max_requests: 678 };

fn answer(pieces: &[&[u8]]) -> Vec<u8> {
    let mut question = Question::default();
    for piece in pieces {
        question.receive(piece);
    }
    let mut out = Vec::new();
    question.answer(&VALUES, &mut out);
    out
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = chunks::chunks(input);
    let out = answer(&[bytes]);
    assert_eq!(answer(&pieces), out);
    assert_eq!(out[..4], [1, 10, 0, 0]);
    assert_eq!(usize::from(u16::from_be_bytes([out[4], out[5]])), out.len() - HEADER_LEN);
    let told = Params::from_stream(out[HEADER_LEN..].to_vec(), 3).expect("an answer is well formed");
    for (name, value) in told.iter() {
        let expected = match name {
            b"FCGI_MAX_CONNS" => "12345",
            b"FCGI_MAX_REQS" => "678",
            b"FCGI_MPXS_CONNS" => "1",
            _ => panic!("{} is none of ours", name.escape_ascii()),
        };
        assert_eq!(value, expected.as_bytes());
        assert!(bytes.windows(name.len()).any(|w| w == name), "nobody asked");
    }
    // A question that is well formed gets all that it asks for.
    if let Ok(asked) = Params::from_stream(bytes.to_vec(), usize::MAX) {
        for name in [&b"FCGI_MAX_CONNS"[..], b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS"] {
            assert_eq!(told.get(name).is_some(), asked.get(name).is_some());
        }
    }
});
