//! The head of a CGI response: never a panic, always the same however the bytes are cut, and no more kept than allowed.
#![no_main]

mod chunks;

use fcgi_core::response::{BadHead, Head, HeadParser, LONGEST_HEAD, Redirect};

/// The head, or why there is none, and how many bytes were taken.
fn parse(pieces: &[&[u8]]) -> (Result<Option<Head>, BadHead>, usize) {
    let mut parser = HeadParser::new();
    let mut taken = 0;
    for &piece in pieces {
        let mut input = piece;
        let result = parser.push(&mut input);
        taken += piece.len() - input.len();
        match result {
            Ok(None) => {
                assert!(input.is_empty(), "what is needed is taken");
                assert!(taken <= LONGEST_HEAD, "{taken} bytes are kept");
            }
            Ok(head) => return (Ok(head), taken),
            Err(why) => return (Err(why), 0),
        }
    }
    (Ok(None), taken)
}

fn check(head: &Head, text: &[u8]) {
    assert!((100..1000).contains(&head.status));
    let kept: usize = head.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(kept + head.reason.len() < text.len());
    for (name, value) in &head.headers {
        assert!(!name.is_empty() && !name.contains(&b':') && !name.eq_ignore_ascii_case(b"status"));
        // Whoever hands them on must not be made to say another header.
        assert!(![&name[..], value].concat().contains(&b'\n'));
    }
    assert!(!head.reason.contains(&b'\n'));
    match &head.redirect {
        Redirect::None => assert_eq!(head.get("Location"), None),
        Redirect::Local(url) => {
            assert_eq!((head.get("Location"), head.status), (Some(&url[..]), 200));
            assert!(url.starts_with(b"/") && !url.starts_with(b"//"));
        }
        Redirect::Client(url) => assert_eq!(head.get("Location"), Some(&url[..])),
    }
}

fn check_all(bytes: &[u8], pieces: &[&[u8]]) {
    let (whole, taken) = parse(&[bytes]);
    assert_eq!((&whole, taken), (&parse(pieces).0, parse(pieces).1));
    match whole {
        Ok(Some(head)) => check(&head, &bytes[..taken]),
        // An escaped byte is four at most.
        Err(BadHead::NoColon(line) | BadHead::BadStatus(line)) => {
            assert!(line.len() <= 4 * bytes.len().min(LONGEST_HEAD))
        }
        Ok(None) | Err(_) => {}
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = chunks::chunks(input);
    check_all(bytes, &pieces);
    // The same near the longest head, which short inputs do not reach; seldom, because it takes long.
    if input.first().is_none_or(|&count| count < 240) {
        return;
    }
    let room = LONGEST_HEAD.saturating_sub(bytes.len() / 2).saturating_sub(4);
    let mut long = b"X: ".to_vec();
    long.resize(room.max(4), b'x');
    long.push(b'\n');
    let start = long.len();
    long.extend_from_slice(bytes);
    let cut: Vec<&[u8]> = std::iter::once(&long[..start]).chain(pieces.iter().copied()).collect();
    check_all(&long, &cut);
});
