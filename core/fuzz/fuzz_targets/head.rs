//! The head of an answer: whatever an application says, in whatever pieces it comes, it means the same.
#![no_main]

use fcgi_core::response::{BadHead, Head, HeadParser, LONGEST_HEAD};

/// What came of it: the head or why it is none, and how many bytes belong to it.
fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Option<Result<Head, BadHead>>, usize) {
    let mut parser = HeadParser::new();
    let mut taken = 0;
    for mut piece in pieces {
        let before = piece.len();
        let result = parser.push(&mut piece);
        taken += before - piece.len();
        match result {
            Ok(Some(head)) => return (Some(Ok(head)), taken),
            Ok(None) => assert!(piece.is_empty(), "what is not taken is the body"),
            Err(e) => return (Some(Err(e)), 0),
        }
    }
    (None, taken)
}

libfuzzer_sys::fuzz_target!(|data: (Vec<u8>, Vec<u8>)| {
    let (bytes, sizes) = data;
    let whole = parse(std::iter::once(&bytes[..]));
    let mut rest = &bytes[..];
    let mut sizes = sizes.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let size = usize::from(*sizes.next().unwrap_or(&1) % 7) + 1;
        let (piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(parse(pieces), whole);
    if let (Some(Ok(head)), taken) = &whole {
        assert!((100..=999).contains(&head.status) && *taken <= LONGEST_HEAD + 4);
    }
});
