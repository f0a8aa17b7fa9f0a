//! Functions of Rhai's library whose result may be far larger than what they are given. Where memory is limited, these take
//! their place: they do the same, and ask first.

use std::io::{self, Write};

use rhai::{Array, Blob, Dynamic, Engine, FnPtr, FuncRegistration, INT, ImmutableString, Map};

use super::error::Failed;
use super::memory::{room, want};

/// What an element of an array takes that is a text.
const TEXT: usize = size_of::<Dynamic>() + 40;

/// Puts the functions in the place of Rhai's.
pub(super) fn add_to(engine: &mut Engine) {
    add_padding(engine);
    add_replacing(engine);
    add_splitting(engine);
    for name in ["print", "debug", "to_string", "to_debug"] {
        let show = || FuncRegistration::new(name).with_purity(true);
        show().register_into_engine(engine, |array: &mut Array| shown(|out| show_array(out, array)));
        show().register_into_engine(engine, |map: &mut Map| shown(|out| show_map(out, map)));
    }
}

fn add_padding(engine: &mut Engine) {
    let blob = |length: INT, byte: INT| -> Result<Blob, Failed> {
        let length = usize::try_from(length).unwrap_or(0);
        want(length)?;
        Ok(vec![byte as u8; length])
    };
    engine.register_fn("blob", move |length: INT| blob(length, 0));
    engine.register_fn("blob", blob);
    engine.register_fn("pad", |blob: &mut Blob, length: INT, byte: INT| -> Result<(), Failed> {
        let more = missing(length, blob.len());
        want(more)?;
        blob.resize(blob.len() + more, byte as u8);
        Ok(())
    });
    engine.register_fn("pad", |array: &mut Array, length: INT, item: Dynamic| -> Result<(), Failed> {
        let more = missing(length, array.len());
        want(more.saturating_mul(size_of::<Dynamic>()))?;
        array.reserve(more);
        for _ in 0..more {
            // What one takes is known when it is there.
            array.push(item.clone());
            want(0)?;
        }
        Ok(())
    });
    engine.register_fn("pad", |text: &mut ImmutableString, length: INT, padding: char| {
        pad(text, length, &padding.to_string())
    });
    engine.register_fn("pad", |text: &mut ImmutableString, length: INT, padding: &str| pad(text, length, padding));
}

/// What a length lacks.
fn missing(wanted: INT, length: usize) -> usize {
    usize::try_from(wanted).unwrap_or(0).saturating_sub(length)
}

/// Adds the padding, again and again, until a text has so many characters.
fn pad(text: &mut ImmutableString, length: INT, padding: &str) -> Result<(), Failed> {
    let more = missing(length, text.chars().count());
    if more == 0 || padding.is_empty() {
        return Ok(());
    }
    want(more.saturating_mul(4).max(text.len()))?;
    let mut padded = String::from(text.as_str());
    padded.extend(padding.chars().cycle().take(more));
    *text = padded.into();
    Ok(())
}

fn add_replacing(engine: &mut Engine) {
    fn replace(text: &mut ImmutableString, old: &str, new: &str) -> Result<(), Failed> {
        let longer = text.matches(old).count().saturating_mul(new.len().saturating_sub(old.len()));
        want(longer.saturating_add(text.len()))?;
        if !text.is_empty() {
            *text = text.replace(old, new).into();
        }
        Ok(())
    }
    engine.register_fn("replace", replace);
    engine.register_fn("replace", |text: &mut ImmutableString, old: &str, new: char| {
        replace(text, old, new.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn("replace", |text: &mut ImmutableString, old: char, new: &str| {
        replace(text, old.encode_utf8(&mut [0; 4]), new)
    });
}

fn add_splitting(engine: &mut Engine) {
    /// The parts of a text, as long as there is room for them.
    fn array<'a>(whole: &str, parts: impl Iterator<Item = &'a str>) -> Result<Array, Failed> {
        let mut array = Array::new();
        if whole.is_empty() {
            array.push(Dynamic::from(ImmutableString::new()));
            return Ok(array);
        }
        for part in parts {
            // The array may become twice as large.
            want(part.len() + TEXT + if array.len() == array.capacity() { array.len() * TEXT } else { 0 })?;
            array.push(part.into());
        }
        Ok(array)
    }
    let count = |segments: INT| usize::try_from(segments).unwrap_or(0).max(1);
    engine.register_fn("split", |text: &str| array(text, text.split_whitespace()));
    engine.register_fn("split", |text: &str, by: &str| array(text, text.split(by)));
    engine.register_fn("split", |text: &str, by: char| array(text, text.split(by)));
    engine.register_fn("split", move |text: &str, by: &str, most: INT| array(text, text.splitn(count(most), by)));
    engine.register_fn("split", move |text: &str, by: char, most: INT| array(text, text.splitn(count(most), by)));
    engine.register_fn("split_rev", |text: &str, by: &str| array(text, text.rsplit(by)));
    engine.register_fn("split_rev", |text: &str, by: char| array(text, text.rsplit(by)));
    engine.register_fn("split_rev", move |text: &str, by: &str, most: INT| array(text, text.rsplitn(count(most), by)));
    engine.register_fn("split_rev", move |text: &str, by: char, most: INT| array(text, text.rsplitn(count(most), by)));
    engine.register_fn("to_chars", |text: &str| -> Result<Array, Failed> {
        want(text.len().saturating_mul(2 * size_of::<Dynamic>()))?;
        Ok(text.chars().map(Dynamic::from).collect())
    });
    let to_array = FuncRegistration::new("to_array").with_purity(true);
    to_array.register_into_engine(engine, |blob: &mut Blob| -> Result<Array, Failed> {
        want(blob.len().saturating_mul(size_of::<Dynamic>()))?;
        Ok(blob.iter().map(|byte| Dynamic::from(INT::from(*byte))).collect())
    });
}

/// Bytes that may be as many as there is room for. Values share the texts in them: shown, they may be longer than all memory.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl Bounded {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), room: room() }
    }

    /// What was written, if there was room for all of it.
    pub(super) fn text<E>(written: Result<Self, E>) -> Result<ImmutableString, Failed> {
        match written {
            Ok(Self { bytes, .. }) => String::from_utf8(bytes).map(Into::into).map_err(|e| e.to_string().into()),
            Err(_) => want(usize::MAX).map(|()| ImmutableString::new()),
        }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        // The vector may become twice as long.
        if part.len() > self.room / 2 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.room -= part.len();
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What Rhai's callers make of an error is another text that has no bounds: there is none.
fn shown(show: impl FnOnce(&mut Bounded) -> io::Result<()>) -> ImmutableString {
    let mut out = Bounded::new();
    Bounded::text(show(&mut out).map(|()| out)).unwrap_or_default()
}

fn show_array(out: &mut Bounded, array: &Array) -> io::Result<()> {
    out.write_all(b"[")?;
    for (number, value) in array.iter().enumerate() {
        if number > 0 {
            out.write_all(b", ")?;
        }
        show(out, value)?;
    }
    out.write_all(b"]")
}

fn show_map(out: &mut Bounded, map: &Map) -> io::Result<()> {
    out.write_all(b"#{")?;
    for (number, (name, value)) in map.iter().enumerate() {
        if number > 0 {
            out.write_all(b", ")?;
        }
        write!(out, "{name:?}: ")?;
        show(out, value)?;
    }
    out.write_all(b"}")
}

fn show(out: &mut Bounded, value: &Dynamic) -> io::Result<()> {
    if let Some(array) = value.read_lock::<Array>() {
        show_array(out, &array)
    } else if let Some(map) = value.read_lock::<Map>() {
        show_map(out, &map)
    } else if let Some(function) = value.read_lock::<FnPtr>() {
        write!(out, "{}", *function)
    } else if value.is_char() {
        write!(out, "{value}")
    } else {
        write!(out, "{value:?}")
    }
}
