//! Name-value pairs: the same as a reader made as simply as possible, and unchanged by being encoded again.
#![no_main]

use fcgi_core::Params;
use fcgi_core::protocol::params::PairsError;

const MOST: usize = 100;

/// Names and values as the specification has them; `None` when the bytes end too early.
fn simply(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        let name = length(&mut bytes)?;
        let value = length(&mut bytes)?;
        let (pair, rest) = bytes.split_at_checked(name.checked_add(value)?)?;
        pairs.push(pair.split_at(name));
        bytes = rest;
    }
    Some(pairs)
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    let (&first, rest) = bytes.split_first()?;
    if first < 128 {
        *bytes = rest;
        return Some(usize::from(first));
    }
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some((u32::from_be_bytes(*four) - 0x8000_0000) as usize)
}

fn joined(pairs: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut result: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (name, value) in pairs {
        match result.iter_mut().find(|(known, _)| known == name) {
            None => result.push((name.to_vec(), value.to_vec())),
            Some((_, old)) if *name == b"HTTP_COOKIE" => old.extend([b"; ", *value].concat()),
            Some((_, old)) if name.starts_with(b"HTTP_") => old.extend([b", ", *value].concat()),
            Some((_, old)) => *old = value.to_vec(),
        }
    }
    result
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let params = match (Params::from_stream(bytes.to_vec(), MOST), simply(bytes)) {
        (Ok(params), Some(pairs)) => {
            assert!(pairs.len() <= MOST);
            let seen: Vec<_> = params.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            assert_eq!(seen, joined(&pairs));
            params
        }
        (Err(PairsError::Truncated), None) => return,
        (Err(PairsError::TooMany(_)), pairs) => return assert!(pairs.is_none_or(|p| p.len() > MOST)),
        (got, expected) => panic!("{got:?} instead of {expected:?}"),
    };
    let mut wire = Vec::new();
    params.encode(&mut wire);
    assert_eq!(Params::from_stream(wire, MOST).as_ref(), Ok(&params));
    // Changing one leaves the others as they are.
    let names: Vec<Vec<u8>> = params.iter().map(|(n, _)| n.to_vec()).collect();
    for name in &names {
        let mut changed = params.clone();
        changed.set(name, b"another value");
        assert_eq!(changed.get(name), Some(&b"another value"[..]));
        assert!(changed.remove(name) && changed.get(name).is_none());
        assert_eq!(changed.len(), params.len() - 1);
        assert!(changed.iter().all(|(n, v)| params.get(n) == Some(v)));
    }
});
