//! Scripts with a function `handle(request)`: what it returns is the answer. A string is a page of HTML, a blob bytes, a map has
//! `status` (a number, or a text such as "404 Not Found"), `headers` (a map; a value may be an array) and `body`.

use rhai::{Array, Blob, Dynamic, Engine, INT, ImmutableString, Map, Scope};

use super::engine::Compiled;
use super::error::{Failed, failed};
use super::forms;
use super::functions::{variable, variables};
use super::memory::want;
use super::stdio::{self, text_or_blob};

/// What `handle` is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked;

/// Lets a script's function answer.
pub(super) fn answer(engine: &Engine, script: &Compiled, scope: &mut Scope<'static>) -> Result<(), Failed> {
    let answer: Dynamic = engine.call_fn(scope, &script.ast, "handle", (Asked,))?;
    respond(answer)
}

/// Writes an answer.
fn respond(answer: Dynamic) -> Result<(), Failed> {
    let (mut status, mut headers, body) = if answer.is_map() {
        let mut map = answer.cast::<Map>();
        let headers = map.remove("headers").unwrap_or_else(|| Map::new().into());
        let headers = headers.try_cast_result::<Map>().map_err(|_| failed("headers must be a map"))?;
        let (status, body) = (map.remove("status"), map.remove("body"));
        if let Some(name) = map.keys().next() {
            return Err(failed(format!("an answer has status, headers and body, and no '{name}'")));
        }
        (status.map(|status| status.to_string()), headers, body.unwrap_or(Dynamic::UNIT))
    } else {
        (None, Map::new(), answer)
    };
    let mut pieces = Vec::new();
    let mut is_text = true;
    gather(body, &mut pieces, &mut is_text)?;
    if !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) && (status.is_none() || !pieces.is_empty())
    {
        let kind = if is_text { "text/html; charset=utf-8" } else { "application/octet-stream" };
        headers.insert("Content-Type".into(), kind.into());
    }
    let mut head = String::new();
    if let Some(status) = status.take() {
        head.extend(["Status: ", field(&status)?, "\r\n"]);
    }
    for (name, value) in headers {
        let name = field(&name)?.to_owned();
        let values = if value.is_array() { value.cast::<Array>() } else { vec![value] };
        for value in values {
            head.extend([&*name, ": ", field(&value.to_string())?, "\r\n"]);
        }
    }
    head += "\r\n";
    stdio::write(head.as_bytes())?;
    stdio::write(&pieces)
}

/// An answer that sends the client elsewhere.
fn redirect(to: &str, status: INT) -> Result<Map, Failed> {
    if !(300..=399).contains(&status) {
        return Err(failed("a redirection's status is 301, 302, 303, 307 or 308"));
    }
    Ok(Map::from([
        ("status".into(), status.into()),
        ("headers".into(), Map::from([("Location".into(), to.into())]).into()),
    ]))
}

/// Text that may stand in a header.
fn field(text: &str) -> Result<&str, Failed> {
    if text.contains(['\r', '\n', '\0']) { Err(failed("a header has no line ends")) } else { Ok(text) }
}

fn gather(body: Dynamic, pieces: &mut Vec<u8>, is_text: &mut bool) -> Result<(), Failed> {
    if body.is_blob() {
        *is_text = false;
        add(pieces, &body.cast::<Blob>())?;
    } else if body.is_string() {
        add(pieces, body.cast::<ImmutableString>().as_bytes())?;
    } else if body.is_array() {
        for part in body.cast::<Array>() {
            gather(part, pieces, is_text)?;
        }
    } else if !body.is_unit() {
        return Err(failed(format!("handle returns a string, a blob or a map, and no {}", body.type_name())));
    }
    Ok(())
}

fn add(pieces: &mut Vec<u8>, piece: &[u8]) -> Result<(), Failed> {
    // Parts may be one and the same text, again and again.
    want(pieces.len() + piece.len())?;
    pieces.extend_from_slice(piece);
    Ok(())
}

/// The headers of the request, by their names in small letters.
fn headers() -> Map {
    let name = |variable: &str| match variable {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => Some(variable.to_lowercase().replace('_', "-")),
        _ => variable.strip_prefix("HTTP_").map(|name| name.to_lowercase().replace('_', "-")),
    };
    let named = variables().into_iter().filter_map(|(variable, value)| Some((name(&variable)?.into(), value)));
    named.filter(|(_, value)| value.as_immutable_string_ref().map_or(true, |text| !text.is_empty())).collect()
}

/// Adds the properties of what `handle` is given.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("respond", respond);
    engine.register_fn("redirect", |to: &str| redirect(to, 302));
    engine.register_fn("redirect", redirect);
    engine.register_type_with_name::<Asked>("Request");
    for (property, name) in [("method", "REQUEST_METHOD"), ("path_info", "PATH_INFO"), ("script_name", "SCRIPT_NAME")] {
        engine.register_get(property, move |_: &mut Asked| variable(name));
    }
    engine.register_get("path", |_: &mut Asked| {
        let text = |name| variable(name).into_immutable_string().unwrap_or_default();
        format!("{}{}", text("SCRIPT_NAME"), text("PATH_INFO"))
    });
    engine.register_get("params", |_: &mut Asked| variables());
    engine.register_get("headers", |_: &mut Asked| headers());
    engine.register_get("query", |_: &mut Asked| forms::query());
    engine.register_get("query_all", |_: &mut Asked| forms::query_all());
    engine.register_get("cookies", |_: &mut Asked| forms::cookies());
    engine.register_get("form", |_: &mut Asked| forms::form());
    engine.register_get("form_all", |_: &mut Asked| forms::form_all());
    engine.register_get("body", |_: &mut Asked| stdio::read_all());
    engine.register_get("text", |_: &mut Asked| stdio::read_all().map(text_or_blob));
}
