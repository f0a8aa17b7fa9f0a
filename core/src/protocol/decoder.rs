//! Bytes in, pieces of records out. The decoder keeps a header at most: content is handed on as it arrives, so a record
//! of 64 KiB needs no buffer of 64 KiB, and it does not matter where reads and records begin and end.

use super::record::{HEADER_LEN, Header};

/// A part of a record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The record's header.
    pub header: Header,
    /// The next bytes of its content.
    pub content: &'a [u8],
    /// Whether they are the first of the record.
    pub first: bool,
    /// Whether they are the last of the record. (A record without content is one piece, first and last.)
    pub last: bool,
}

/// The first byte of a header is not version 1: what follows cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record version {0} instead of 1: the peer does not speak FastCGI")]
pub struct BadVersion(pub u8);

/// Cuts a stream of bytes into pieces of records.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    head: [u8; HEADER_LEN],
    have: u8,
    padding: u8,
    first: bool,
    content: u16,
}

impl Decoder {
    /// A decoder that expects a header.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the bytes seen so far end inside a record.
    pub fn inside_record(&self) -> bool {
        self.have > 0 || self.padding > 0
    }

    /// Takes the next piece off the front of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`BadVersion`]; the decoder is of no use afterwards.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, BadVersion> {
        let skip = usize::from(self.padding).min(input.len());
        self.padding -= skip as u8;
        *input = &input[skip..];
        if input.is_empty() {
            return Ok(None);
        }
        if usize::from(self.have) < HEADER_LEN {
            let have = usize::from(self.have);
            let take = (HEADER_LEN - have).min(input.len());
            self.head[have..have + take].copy_from_slice(&input[..take]);
            self.have += take as u8;
            *input = &input[take..];
            if self.head[0] != super::record::VERSION {
                return Err(BadVersion(self.head[0]));
            }
            if usize::from(self.have) < HEADER_LEN {
                return Ok(None);
            }
            self.content = u16::from_be_bytes([self.head[4], self.head[5]]);
            self.first = true;
            if input.is_empty() && self.content > 0 {
                return Ok(None);
            }
        }
        let header = Header::from_bytes(self.head).ok_or(BadVersion(self.head[0]))?;
        let take = usize::from(self.content).min(input.len());
        let (content, rest) = input.split_at(take);
        *input = rest;
        self.content -= take as u16;
        let piece = Piece { header, content, first: self.first, last: self.content == 0 };
        self.first = false;
        if piece.last {
            self.have = 0;
            self.padding = header.padding_len;
        }
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<(Header, Vec<u8>)> {
        let mut decoder = Decoder::new();
        let mut records: Vec<(Header, Vec<u8>)> = Vec::new();
        let mut open = false;
        for mut chunk in chunks.iter().copied() {
            while let Some(piece) = decoder.next(&mut chunk).unwrap() {
                assert_eq!(piece.first, !open);
                if piece.first {
                    records.push((piece.header, Vec::new()));
                }
                records.last_mut().unwrap().1.extend_from_slice(piece.content);
                open = !piece.last;
            }
            assert!(chunk.is_empty());
        }
        assert_eq!(open || decoder.inside_record(), decoder.inside_record());
        records
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_records(
            records in prop::collection::vec((any::<u8>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..40), any::<u8>()), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut wire = Vec::new();
            let mut expected = Vec::new();
            for (kind, id, content, padding_len) in records {
                let header = Header { kind, id, content_len: content.len() as u16, padding_len };
                wire.extend_from_slice(&header.to_bytes());
                wire.extend_from_slice(&content);
                wire.resize(wire.len() + usize::from(padding_len), 0xAA);
                expected.push((header, content));
            }
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(wire.len() + 1)).collect();
            at.push(0);
            at.push(wire.len());
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &wire[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&chunks), expected);
        }

        #[test]
        fn no_bytes_panic(mut wire in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = wire.first_mut() {
                *first = 1;
            }
            let mut decoder = Decoder::new();
            let mut input = &wire[..];
            while let Ok(Some(_)) = decoder.next(&mut input) {}
        }
    }

    #[test]
    fn another_version_is_refused_at_its_first_byte() {
        assert_eq!(Decoder::new().next(&mut &b"GET / HTTP/1.1"[..]), Err(BadVersion(b'G')));
    }
}
