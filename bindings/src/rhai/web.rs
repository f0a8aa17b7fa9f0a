//! What a page needs: escaping, JSON, base64, random numbers.

use std::io::Write;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rhai::packages::Package;
use rhai::{Blob, Dynamic, Engine, FuncRegistration, INT, ImmutableString, Map};
use rustix::rand::{GetRandomFlags, getrandom};

use super::bounded::Bounded;
use super::error::{Failed, failed};
use super::memory::want;
use super::stdio::text_or_blob;

/// What a value within others takes, at most, besides its text.
const VALUE: usize = 96;

fn html_escape(text: &str) -> Result<ImmutableString, Failed> {
    let mut out = Bounded::new();
    Bounded::text(html_escape::encode_quoted_attribute_to_writer(text, &mut out).map(|()| out))
}

fn url_encode(text: &str) -> Result<ImmutableString, Failed> {
    let mut out = Bounded::new();
    Bounded::text(write!(out, "{}", utf8_percent_encode(text, NON_ALPHANUMERIC)).map(|()| out))
}

fn base64_encode(bytes: &[u8]) -> Result<String, Failed> {
    want(bytes.len() / 3 * 4 + 4)?;
    Ok(BASE64_STANDARD.encode(bytes))
}

fn to_json(value: &Dynamic) -> Result<ImmutableString, Failed> {
    let mut out = Bounded::new();
    match serde_json::to_writer(&mut out, value) {
        Err(e) if !e.is_io() => Err(e.to_string().into()),
        written => Bounded::text(written.map(|()| out)),
    }
}

/// Any value, not only an object; and what is wrong can be caught, as it cannot be with Rhai's own function of this name.
fn parse_json(text: &str) -> Result<Dynamic, Failed> {
    let values = text.bytes().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    want(values.saturating_mul(VALUE).saturating_add(text.len()))?;
    serde_json::from_str(text).map_err(|e| format!("this is no JSON: {e}").into())
}

/// Random bytes that nobody can guess.
fn random(count: INT) -> Result<Vec<u8>, Failed> {
    let count = usize::try_from(count).unwrap_or(0);
    // A token becomes a third longer.
    want(count.saturating_mul(3))?;
    let mut bytes = vec![0; count];
    let mut filled = 0;
    while filled < count {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).map_err(|e| e.to_string())?;
    }
    Ok(bytes)
}

/// A text of random bytes that nobody can guess, of letters, digits, `-` and `_`.
fn random_token(count: INT) -> Result<String, Failed> {
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random(count)?))
}

/// Adds the functions of this file.
pub(super) fn add_to(engine: &mut Engine) {
    rhai_rand::RandomPackage::new().register_into_engine(engine);
    engine.register_fn("html_escape", html_escape);
    engine.register_fn("url_encode", url_encode);
    engine.register_fn("url_decode", |text: &str| text_or_blob(percent_decode_str(text).collect()));
    engine.register_fn("to_json", |value: Dynamic| to_json(&value));
    // Rhai's own is for maps only, and cannot show all values.
    FuncRegistration::new("to_json").with_purity(true).register_into_engine(engine, |map: &mut Map| {
        let value = Dynamic::from_map(std::mem::take(map));
        let text = to_json(&value);
        *map = value.cast();
        text
    });
    engine.register_fn("parse_json", parse_json);
    engine.register_fn("base64_encode", |text: &str| base64_encode(text.as_bytes()));
    engine.register_fn("base64_encode", |bytes: Blob| base64_encode(&bytes));
    engine.register_fn("random_blob", random);
    engine.register_fn("random_token", || random_token(16));
    engine.register_fn("random_token", random_token);
    engine.register_fn("base64_decode", |text: &str| BASE64_STANDARD.decode(text).map_err(failed));
}
