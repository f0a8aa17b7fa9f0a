//! Records: never a panic, never without an end, and always the same however the bytes are cut.
#![no_main]

mod chunks;

use fcgi_core::protocol::decoder::{BadVersion, Decoder};
use fcgi_core::protocol::record::{HEADER_LEN, Header};

type Records = (Vec<(Header, Vec<u8>)>, bool, Option<BadVersion>);

fn decode(pieces: &[&[u8]]) -> Records {
    let mut decoder = Decoder::new();
    let mut records: Vec<(Header, Vec<u8>)> = Vec::new();
    let mut open = false;
    for &piece in pieces {
        let mut input = piece;
        loop {
            let before = input.len();
            match decoder.next(&mut input) {
                Err(bad) => return (records, open, Some(bad)),
                Ok(None) => {
                    assert!(input.is_empty());
                    break;
                }
                Ok(Some(part)) => {
                    assert!(input.len() < before);
                    assert_eq!(part.first, !open);
                    if part.first {
                        records.push((part.header, Vec::new()));
                    }
                    let (header, content) = records.last_mut().expect("a first piece");
                    assert_eq!(*header, part.header);
                    content.extend_from_slice(part.content);
                    assert_eq!(part.last, content.len() == usize::from(header.content_len));
                    open = !part.last;
                }
            }
        }
    }
    assert!(!open || decoder.inside_record());
    (records, open, None)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = chunks::chunks(input);
    let (whole, open, bad) = decode(&[bytes]);
    // A record whose header alone has come is told as soon as there is content, or none is due; so its first piece may
    // be empty, and that is all that cutting changes.
    let (cut, _, bad_cut) = decode(&pieces);
    assert_eq!((&whole, bad), (&cut, bad_cut));
    // What was decoded is what stands there.
    let mut at = 0;
    for (index, (header, content)) in whole.iter().enumerate() {
        assert_eq!(bytes[at..at + 7], header.to_bytes()[..7]);
        assert_eq!(&bytes[at + HEADER_LEN..at + HEADER_LEN + content.len()], content);
        if index + 1 < whole.len() || !open {
            at += HEADER_LEN + usize::from(header.content_len) + usize::from(header.padding_len);
        }
    }
});
