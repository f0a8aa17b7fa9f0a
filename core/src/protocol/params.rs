//! Name-value pairs (section 3.4): the variables of a request, and the wire form of pairs in both directions.
//!
//! A request's pairs are kept in the block of bytes in which they arrived; an index of ranges is laid over it.
//! So a request costs two allocations however many variables it has, and a variable is found without decoding.

use std::ops::Range;

/// The variables of one request, in the order in which the server sent them. Names and values are bytes.
///
/// ```
/// let mut params = fcgi_core::Params::new();
/// params.set(b"REQUEST_METHOD", b"GET");
/// assert_eq!(params.get(b"REQUEST_METHOD"), Some(&b"GET"[..]));
/// ```
#[derive(Default)]
pub struct Params {
    bytes: Vec<u8>,
    pairs: Vec<Pair>,
}

#[derive(Clone, PartialEq)]
struct Pair {
    /// The name's fingerprint: it is looked for by this first.
    print: u32,
    name: Range<u32>,
    value: Range<u32>,
}

/// Why a block of pairs could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairsError {
    /// A length says more than there is.
    #[error("a name-value pair is longer than its stream")]
    Truncated,
    /// More pairs than the given limit.
    #[error("more than {0} name-value pairs")]
    TooMany(usize),
}

impl Params {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the whole content of a PARAMS stream.
    ///
    /// A name that comes again replaces the value before it, as it would in an environment; only request headers
    /// (`HTTP_*`) are joined to one value, as RFC 3875, section 4.1.18, asks of a server: with `; ` for cookies,
    /// with `, ` for others.
    ///
    /// # Errors
    /// [`PairsError`] when the block ends inside a pair, or holds more than `max_pairs` pairs.
    pub fn from_stream(bytes: Vec<u8>, max_pairs: usize) -> Result<Self, PairsError> {
        let mut params = Self { pairs: Vec::with_capacity(32), bytes };
        let mut at = 0;
        while at < params.bytes.len() {
            let (name_len, value_len, head) = pair_lengths(&params.bytes[at..]).ok_or(PairsError::Truncated)?;
            let name = at + head;
            let value = name.checked_add(name_len).ok_or(PairsError::Truncated)?;
            let end = value.checked_add(value_len).ok_or(PairsError::Truncated)?;
            if end > params.bytes.len() || u32::try_from(end).is_err() {
                return Err(PairsError::Truncated);
            }
            if params.pairs.len() == max_pairs {
                return Err(PairsError::TooMany(max_pairs));
            }
            let print = fingerprint(&params.bytes[name..value]);
            params.pairs.push(Pair { print, name: name as u32..value as u32, value: value as u32..end as u32 });
            at = end;
        }
        if params.has_repeated_name() {
            params = params.without_repeated_names();
        }
        Ok(params)
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Nearly every server sends each name once, so this must be quick to say no: of few names, those are compared whose
    /// fingerprints fall on the same bit; many are sorted.
    fn has_repeated_name(&self) -> bool {
        const FEW: usize = 64;
        const WORDS: usize = 32;
        let name = |at: usize| self.slice(&self.pairs[at].name);
        if self.pairs.len() <= FEW {
            let mut seen = [0u64; WORDS];
            for (at, pair) in self.pairs.iter().enumerate() {
                let word = &mut seen[pair.print as usize / 64 % WORDS];
                let bit = 1 << (pair.print % 64);
                if *word & bit != 0
                    && self.pairs[..at].iter().any(|p| p.print == pair.print && self.is_named(p, name(at)))
                {
                    return true;
                }
                *word |= bit;
            }
            return false;
        }
        let mut order: Vec<usize> = (0..self.pairs.len()).collect();
        order.sort_unstable_by(|&a, &b| name(a).cmp(name(b)));
        order.windows(2).any(|w| name(w[0]) == name(w[1]))
    }

    fn without_repeated_names(&self) -> Self {
        use std::collections::HashMap;
        let mut values: HashMap<&[u8], Vec<u8>> = HashMap::with_capacity(self.pairs.len());
        let mut order = Vec::with_capacity(self.pairs.len());
        for (name, value) in self {
            if let Some(old) = values.get_mut(name) {
                if name.starts_with(b"HTTP_") {
                    old.extend_from_slice(if name == b"HTTP_COOKIE" { b"; " } else { b", " });
                } else {
                    old.clear();
                }
                old.extend_from_slice(value);
            } else {
                values.insert(name, value.to_vec());
                order.push(name);
            }
        }
        let mut params = Self::new();
        for name in order {
            params.push(name, &values[name]);
        }
        params
    }

    /// The value of a variable; `None` when the server did not send it, which is not the same as empty.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.find(name).map(|at| self.slice(&self.pairs[at].value))
    }

    /// The value of a variable when it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name.as_bytes()).and_then(|v| std::str::from_utf8(v).ok())
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let print = fingerprint(name);
        self.pairs.iter().position(|p| p.print == print && self.is_named(p, name))
    }

    fn is_named(&self, pair: &Pair, name: &[u8]) -> bool {
        self.slice(&pair.name) == name
    }

    /// Sets a variable, in its old place when there was one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.find(name) {
            Some(at) => {
                let range = self.append(value);
                self.pairs[at].value = range;
            }
            None => self.push(name, value),
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let print = fingerprint(name);
        let name = self.append(name);
        let value = self.append(value);
        self.pairs.push(Pair { print, name, value });
    }

    fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len() as u32
    }

    /// Removes a variable; whether it was there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.find(name).map(|at| self.pairs.remove(at)).is_some()
    }

    /// Where the values differ from those of another request, as numbers of pairs; `None` when not all names are the same, in
    /// the same order. One request mostly has the names of the one before, and most of its values.
    ///
    /// ```
    /// let params = |query: &str| fcgi_core::Params::from_iter([("REQUEST_METHOD", "GET"), ("QUERY_STRING", query)]);
    /// assert_eq!(params("a").differences(&params("b")), Some(vec![1]));
    /// assert_eq!(params("a").differences(&fcgi_core::Params::new()), None);
    /// ```
    pub fn differences(&self, other: &Self) -> Option<Vec<usize>> {
        let mut different = Vec::new();
        if self.bytes == other.bytes && self.pairs == other.pairs {
            return Some(different);
        }
        if self.len() != other.len() {
            return None;
        }
        for (at, (one, another)) in self.pairs.iter().zip(&other.pairs).enumerate() {
            if self.slice(&one.name) != other.slice(&another.name) {
                return None;
            }
            if self.slice(&one.value) != other.slice(&another.value) {
                different.push(at);
            }
        }
        Some(different)
    }

    /// The name and the value of a pair, by its number. Panics when there are not as many.
    pub fn pair(&self, at: usize) -> (&[u8], &[u8]) {
        let pair = &self.pairs[at];
        (self.slice(&pair.name), self.slice(&pair.value))
    }

    /// How many variables there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|p| (self.slice(&p.name), self.slice(&p.value)))
    }

    /// Appends all pairs in their wire form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (name, value) in self {
            encode_pair(name, value, out);
        }
    }
}

impl Clone for Params {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), pairs: self.pairs.clone() }
    }

    fn clone_from(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
        self.pairs.clone_from(&other.pairs);
    }
}

impl<'a> IntoIterator for &'a Params {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;
    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Params {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let mut params = Self::new();
        for (name, value) in pairs {
            params.set(name.as_ref(), value.as_ref());
        }
        params
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(n, v)| (n.escape_ascii().to_string(), v.escape_ascii().to_string())))
            .finish()
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Appends one pair in its wire form: two lengths of one byte (up to 127) or four bytes (top bit set), then the bytes.
///
/// # Panics
/// When name or value has 2 GiB or more, which the format cannot say.
pub fn encode_pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, value] {
        if part.len() < 0x80 {
            out.push(part.len() as u8);
        } else {
            assert!(part.len() < 1 << 31, "a name or value of 2 GiB cannot be sent");
            out.extend_from_slice(&(part.len() as u32 | 1 << 31).to_be_bytes());
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Lengths of name and value of the pair at the start of `bytes`, and how many bytes the lengths take themselves.
/// `None`: the lengths are not complete yet.
pub(super) fn pair_lengths(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    // Nearly all are short.
    if let [name @ ..0x80, value @ ..0x80, ..] = *bytes {
        return Some((usize::from(name), usize::from(value), 2));
    }
    let (name, first) = length(bytes)?;
    let (value, second) = length(&bytes[first..])?;
    Some((name, value, first + second))
}

/// A number that differs for most different names: of their lengths and their first and last eight bytes.
fn fingerprint(name: &[u8]) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let print = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first).wrapping_mul(MIX) ^ u64::from_le_bytes(*last).rotate_left(32)
        }
        _ => name.iter().fold(0, |sum: u64, &byte| sum << 8 | u64::from(byte)),
    };
    ((print ^ name.len() as u64).wrapping_mul(MIX) >> 32) as u32
}

fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((usize::from(first), 1));
    }
    let four: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(((u32::from_be_bytes(four) & 0x7fff_ffff) as usize, 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn pairs(bytes: &[u8]) -> Result<Pairs, PairsError> {
        Params::from_stream(bytes.to_vec(), 100).map(|p| p.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect())
    }

    #[test]
    fn lengths_of_both_forms() {
        assert_eq!(pairs(b"\x01\x02abc"), Ok(vec![(b"a".to_vec(), b"bc".to_vec())]));
        assert_eq!(pairs(b"\x80\0\0\x01\x02abc"), Ok(vec![(b"a".to_vec(), b"bc".to_vec())]));
        assert_eq!(pairs(b"\x01\x80\0\0\x02abc"), Ok(vec![(b"a".to_vec(), b"bc".to_vec())]));
        assert_eq!(pairs(b"\0\0"), Ok(vec![(vec![], vec![])]));
        let long = vec![b'v'; 1 << 20];
        let mut wire = Vec::new();
        encode_pair(b"LONG", &long, &mut wire);
        assert_eq!(pairs(&wire), Ok(vec![(b"LONG".to_vec(), long)]));
    }

    #[test]
    fn blocks_that_end_too_early() {
        for bad in [&b"\x01"[..], b"\x80", b"\x80\0\0", b"\x01\x01a", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x05\0abc"]
        {
            assert_eq!(pairs(bad), Err(PairsError::Truncated), "{bad:?}");
        }
    }

    #[test]
    fn the_number_of_pairs_is_bounded() {
        assert_eq!(Params::from_stream(vec![0; 6], 2), Err(PairsError::TooMany(2)));
        assert_eq!(Params::from_stream(vec![0; 6], 3).map(|p| p.len()), Ok(1));
    }

    #[test]
    fn repeated_names() {
        let mut wire = Vec::new();
        for (n, v) in [
            ("A", "1"),
            ("HTTP_X", "one"),
            ("A", "2"),
            ("HTTP_COOKIE", "a=1"),
            ("HTTP_X", "two"),
            ("HTTP_COOKIE", "b=2"),
        ] {
            encode_pair(n.as_bytes(), v.as_bytes(), &mut wire);
        }
        let params = Params::from_stream(wire, 100).unwrap();
        assert_eq!(params.get_str("A"), Some("2"));
        assert_eq!(params.get_str("HTTP_X"), Some("one, two"));
        assert_eq!(params.get_str("HTTP_COOKIE"), Some("a=1; b=2"));
        assert_eq!(params.len(), 3);
    }

    #[test]
    fn set_and_remove() {
        let mut params: Params = [("A", "1"), ("B", "2")].into_iter().collect();
        params.set(b"A", b"longer");
        assert!(params.remove(b"B"));
        assert!(!params.remove(b"B"));
        assert_eq!(params.iter().collect::<Vec<_>>(), [(&b"A"[..], &b"longer"[..])]);
    }
}
