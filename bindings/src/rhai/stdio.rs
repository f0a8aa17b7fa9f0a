//! The streams of the request: `stdin`, `print`, `write`, `debug`, `flush`.

use std::io::{Read, Write};

use rhai::{Array, Blob, Dynamic, Engine, INT, ImmutableString, Position};

use super::error::{Failed, failed};
use super::{context, memory};

/// The request body, as `stdin`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stdin;

/// Bytes that are asked for at once: as many as have come, but no less and no more.
const PIECE: (usize, usize) = (16 << 10, 64 << 10);

/// Text where bytes are text, otherwise a blob.
pub(super) fn text_or_blob(bytes: Vec<u8>) -> Dynamic {
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(e) => Dynamic::from_blob(e.into_bytes()),
    }
}

/// Writes to the answer.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failed> {
    write_all(&[bytes])
}

/// Writes parts to the answer. When nobody reads it, a script that does not loop ends.
fn write_all(parts: &[&[u8]]) -> Result<(), Failed> {
    context::with(|context| {
        let written = context.request(|request| {
            parts.iter().try_for_each(|part| request.stdout().write_all(part))?;
            if context.interactive.get() { request.stdout().flush() } else { Ok(()) }
        });
        written.unwrap_or(Ok(())).map_err(|e| {
            context.gone.set(!context.accepted.get());
            failed(e)
        })
    })
}

/// Writes to the error stream.
pub(super) fn write_error(text: &str) {
    // Who cannot be told of an error is not told.
    context::with(|context| context.request(|request| request.stderr().write_all(text.as_bytes())));
}

/// The next bytes of the body: at most so many, or up to the end of a line, or all.
fn read(until: &Until) -> Result<Vec<u8>, Failed> {
    context::with(|context| {
        let unread = &mut *context.unread.borrow_mut();
        let mut searched = 0;
        loop {
            let end = match until {
                Until::Count(count) => (unread.len() >= *count).then_some(*count),
                Until::Line => unread[searched..].iter().position(|b| *b == b'\n').map(|at| searched + at + 1),
                Until::End => None,
            };
            if let Some(end) = end {
                let rest = unread.split_off(end);
                return Ok(std::mem::replace(unread, rest));
            }
            searched = unread.len();
            if context.request(|request| read_piece(&mut request.stdin(), unread)).unwrap_or(Ok(0))? == 0 {
                return Ok(std::mem::take(unread));
            }
        }
    })
}

/// Reads what there is behind the bytes that have been read; gives how many came.
fn read_piece(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<usize, Failed> {
    let length = bytes.len();
    // The vector may become twice as large.
    let piece = length.clamp(PIECE.0, PIECE.1);
    memory::want(length.max(piece))?;
    bytes.resize(length + piece, 0);
    let came = stream.read(&mut bytes[length..]);
    bytes.truncate(length + *came.as_ref().unwrap_or(&0));
    came.map_err(failed)
}

/// All of the file that a Filter transforms.
pub(super) fn read_data() -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let mut read = || {
        context::with(|context| context.request(|request| read_piece(&mut request.data(), &mut bytes))).unwrap_or(Ok(0))
    };
    while read()? > 0 {}
    Ok(bytes)
}

enum Until {
    Count(usize),
    Line,
    End,
}

/// All that is left of the body.
pub(super) fn read_all() -> Result<Vec<u8>, Failed> {
    read(&Until::End)
}

fn line() -> Result<Dynamic, Failed> {
    let mut line = read(&Until::Line)?;
    if line.is_empty() {
        return Ok(Dynamic::UNIT);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(text_or_blob(line))
}

fn lines() -> Result<Array, Failed> {
    let mut lines = Array::new();
    loop {
        let line = line()?;
        memory::want(0)?;
        if line.is_unit() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

/// Adds the functions of this file.
pub(super) fn add_to(engine: &mut Engine) {
    engine.on_print(|text| {
        // Rhai's own function has no errors.
        let _ = write_all(&[text.as_bytes(), b"\n"]);
    });
    engine.on_debug(|text, source, position| {
        let place = match (source, position) {
            (None, Position::NONE) => String::new(),
            (None, position) => format!("{position:?} | "),
            (Some(source), Position::NONE) => format!("{source} | "),
            (Some(source), position) => format!("{source} @ {position:?} | "),
        };
        write_error(&format!("{place}{text}\n"));
    });
    engine.register_type_with_name::<Stdin>("Stdin");
    engine.register_fn("write", |text: ImmutableString| write(text.as_bytes()));
    engine.register_fn("write", |bytes: Blob| write(&bytes));
    engine.register_fn("flush", || {
        context::with(|context| context.request(|request| request.stdout().flush()).unwrap_or(Ok(()))).map_err(failed)
    });
    engine.register_fn("read", |_: Stdin| read_all().map(text_or_blob));
    engine.register_fn("read_blob", |_: Stdin| read_all());
    engine.register_fn("read_blob", |_: Stdin, count: INT| read(&Until::Count(usize::try_from(count).unwrap_or(0))));
    engine.register_fn("read_line", |_: Stdin| line());
    engine.register_fn("lines", |_: Stdin| lines());
}
