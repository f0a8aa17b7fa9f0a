//! What a page needs: query, forms, cookies, escaping, JSON, base64.

use std::convert::Infallible;
use std::io::Write;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rhai::{Array, Blob, Dynamic, Engine, EvalAltResult, FuncRegistration, ImmutableString, Map};

use super::bounded::Bounded;
use super::context;
use super::functions::variable;
use super::memory::want;
use super::stdio::{read_all, text_or_blob};

type Failed = Box<EvalAltResult>;

/// What a value within others takes, at most, besides its text.
const VALUE: usize = 96;

/// A variable's text; empty when it is not set.
fn text(name: &str) -> String {
    variable(name).into_string().unwrap_or_default()
}

/// Pairs by their names: the last one of a name.
fn by_name(encoded: &[u8]) -> Map {
    form_urlencoded::parse(encoded).map(|(name, value)| (name.into_owned().into(), value.into_owned().into())).collect()
}

/// The query string's values, by their names; the last one of each name.
pub(super) fn query() -> Map {
    by_name(text("QUERY_STRING").as_bytes())
}

/// All values of the query string, by their names: an array for each.
fn query_all() -> Map {
    let mut all = Map::new();
    for (name, value) in form_urlencoded::parse(text("QUERY_STRING").as_bytes()) {
        let values = all.entry(name.into_owned().into()).or_insert_with(|| Array::new().into());
        if let Some(mut values) = values.write_lock::<Array>() {
            values.push(value.into_owned().into());
        }
    }
    all
}

/// The cookies that the client sent.
pub(super) fn cookies() -> Map {
    let sent = text("HTTP_COOKIE");
    let cookies = cookie::Cookie::split_parse_encoded(&sent).filter_map(Result::ok);
    cookies.map(|cookie| (cookie.name().into(), cookie.value().to_owned().into())).collect()
}

/// The form in the body, by the names of its fields: texts, and for files maps of `filename`, `content_type` and `data`.
pub(super) fn form() -> Result<Map, Failed> {
    if let Some(form) = context::with(|context| context.form.borrow().clone()) {
        return Ok(form);
    }
    let body = read_all()?;
    let kind = text("CONTENT_TYPE");
    let form = match multer::parse_boundary(&kind) {
        Ok(boundary) => multipart(body, boundary)?,
        Err(_) => by_name(&body),
    };
    context::with(|context| context.form.replace(Some(form.clone())));
    Ok(form)
}

fn multipart(body: Vec<u8>, boundary: String) -> Result<Map, Failed> {
    let whole = stream::iter([Ok::<_, Infallible>(body)]);
    let read = async {
        let mut form = multer::Multipart::new(whole, boundary);
        let mut fields = Map::new();
        while let Some(field) = form.next_field().await? {
            let name = field.name().unwrap_or_default().to_owned();
            let file = field.file_name().map(str::to_owned);
            let kind = field.content_type().map(ToString::to_string);
            let data = field.bytes().await?.to_vec();
            let value = match file {
                None => text_or_blob(data),
                Some(file) => {
                    let kind = kind.unwrap_or_else(|| "application/octet-stream".to_owned());
                    let data = Dynamic::from_blob(data);
                    Map::from([
                        ("filename".into(), file.into()),
                        ("content_type".into(), kind.into()),
                        ("data".into(), data),
                    ])
                    .into()
                }
            };
            fields.insert(name.into(), value);
        }
        Ok::<_, multer::Error>(fields)
    };
    futures_executor::block_on(read).map_err(|e| format!("the form cannot be read: {e}").into())
}

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

/// Adds the functions of this file.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("query", query);
    engine.register_fn("query_all", query_all);
    engine.register_fn("cookies", cookies);
    engine.register_fn("form", form);
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
    engine.register_fn("base64_decode", |text: &str| {
        BASE64_STANDARD.decode(text).map_err(|e| Failed::from(e.to_string()))
    });
}
