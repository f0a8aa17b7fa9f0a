//! Any bytes as any bytes in any pieces: the first byte of an input says how many of the following are the lengths of
//! pieces, the rest is cut by them, again and again.

/// The bytes to try, and the same in pieces.
pub fn chunks(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((count, rest)) = input.split_first() else { return (&[], Vec::new()) };
    let (lengths, bytes) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let mut pieces = Vec::new();
    let mut left = bytes;
    for length in lengths.iter().cycle() {
        if left.is_empty() || pieces.len() > 1000 {
            break;
        }
        let (piece, later) = left.split_at(usize::from(*length).min(left.len()));
        pieces.push(piece);
        left = later;
    }
    pieces.push(left);
    (bytes, pieces)
}
