//! What a client sends besides the body itself: query, form, cookies; and the cookies that it is sent.

use std::convert::Infallible;

use cookie::time::{Duration, OffsetDateTime};
use cookie::{Cookie, SameSite};
use futures_util::stream;
use rhai::{Array, Dynamic, Engine, INT, Identifier, ImmutableString, Map};

use super::context;
use super::error::Failed;
use super::functions::variable;
use super::memory::want;
use super::stdio::{read_all, text_or_blob};

/// Names and what came with them, in the order in which they came.
pub(super) type Fields = Vec<(Identifier, Dynamic)>;

/// A variable's text; empty when it is not set.
fn text(name: &str) -> String {
    variable(name).into_string().unwrap_or_default()
}

fn decoded(encoded: &[u8]) -> Result<Fields, Failed> {
    let mut fields = Fields::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        // The list may become twice as long.
        want(name.len() + value.len() + size_of_val(&*fields) + 64)?;
        fields.push((name.into(), value.into_owned().into()));
    }
    Ok(fields)
}

/// What came with each name; of a name that came again, the last.
fn last(fields: &Fields) -> Map {
    fields.iter().cloned().collect()
}

/// All that came with each name, in an array.
fn all(fields: &Fields) -> Map {
    let mut map = Map::new();
    for (name, value) in fields {
        let values = map.entry(name.clone()).or_insert_with(|| Array::new().into());
        if let Some(mut values) = values.write_lock::<Array>() {
            values.push(value.clone());
        }
    }
    map
}

fn asked() -> Result<Fields, Failed> {
    decoded(text("QUERY_STRING").as_bytes())
}

/// The query string's values, by their names.
pub(super) fn query() -> Result<Map, Failed> {
    asked().map(|fields| last(&fields))
}

/// All of them.
pub(super) fn query_all() -> Result<Map, Failed> {
    asked().map(|fields| all(&fields))
}

/// Does something with the form in the body. The body is read the first time.
fn with_form(f: impl FnOnce(&Fields) -> Map) -> Result<Map, Failed> {
    if context::with(|context| context.form.borrow().is_none()) {
        let body = read_all()?;
        let fields = match multer::parse_boundary(text("CONTENT_TYPE")) {
            Ok(boundary) => multipart(body, boundary)?,
            Err(_) => decoded(&body)?,
        };
        context::with(|context| context.form.replace(Some(fields)));
    }
    Ok(context::with(|context| context.form.borrow().as_ref().map(f)).unwrap_or_default())
}

/// The fields of the form: texts, and for files maps of `filename`, `content_type` and `data`.
pub(super) fn form() -> Result<Map, Failed> {
    with_form(last)
}

/// All of them, in arrays.
pub(super) fn form_all() -> Result<Map, Failed> {
    with_form(all)
}

fn multipart(body: Vec<u8>, boundary: String) -> Result<Fields, Failed> {
    // It is copied twice: to be taken apart, and into the values.
    want(body.len().saturating_mul(2))?;
    let whole = stream::iter([Ok::<_, Infallible>(body)]);
    let read = async {
        let mut form = multer::Multipart::new(whole, boundary);
        let mut fields = Fields::new();
        while let Some(field) = form.next_field().await? {
            let name = field.name().unwrap_or_default().into();
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
            fields.push((name, value));
        }
        Ok::<_, multer::Error>(fields)
    };
    futures_executor::block_on(read).map_err(|e| format!("the form cannot be read: {e}").into())
}

/// The cookies that the client sent.
pub(super) fn cookies() -> Map {
    let sent = text("HTTP_COOKIE");
    let cookies = Cookie::split_parse_encoded(&sent).filter_map(Result::ok);
    cookies.map(|cookie| (cookie.name().into(), cookie.value().to_owned().into())).collect()
}

/// The value of a header `Set-Cookie`. Without other wishes the cookie is for all of the site and for no script of the page,
/// does not come with requests that other sites have their pages send, and stays on encrypted connections if it was set on
/// one.
fn cookie(name: &str, value: &str, mut wishes: Map) -> Result<String, Failed> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("this is no name of a cookie: '{name}'").into());
    }
    let mut cookie = Cookie::build((name, value)).build();
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Lax);
    cookie.set_secure(!matches!(&*text("HTTPS").to_ascii_lowercase(), "" | "off" | "0"));
    for (wish, value) in std::mem::take(&mut wishes) {
        let wrong = || Failed::from(format!("a cookie's {wish} cannot be {value}"));
        let text = || value.as_immutable_string_ref().ok().filter(|text| !text.contains([';', '\r', '\n', '\0']));
        match &*wish {
            "path" if value.is_unit() => cookie.unset_path(),
            "path" => cookie.set_path(text().ok_or_else(wrong)?.to_string()),
            "domain" => cookie.set_domain(text().ok_or_else(wrong)?.to_string()),
            "max_age" => cookie.set_max_age(Duration::seconds(value.as_int().map_err(|_| wrong())?)),
            "expires" => {
                let seconds = value.as_int().or_else(|_| value.as_float().map(|seconds| seconds as INT));
                let time = OffsetDateTime::from_unix_timestamp(seconds.map_err(|_| wrong())?);
                cookie.set_expires(time.map_err(|_| wrong())?);
            }
            "secure" => cookie.set_secure(value.as_bool().map_err(|_| wrong())?),
            "http_only" => cookie.set_http_only(value.as_bool().map_err(|_| wrong())?),
            "same_site" => match text().as_deref().map(ImmutableString::as_str) {
                Some("Strict") => cookie.set_same_site(SameSite::Strict),
                Some("Lax") => cookie.set_same_site(SameSite::Lax),
                Some("None") => cookie.set_same_site(SameSite::None),
                _ => return Err("a cookie's same_site is \"Strict\", \"Lax\" or \"None\"".into()),
            },
            _ => {
                let known = "path, domain, max_age, expires, secure, http_only and same_site";
                return Err(format!("a cookie has no '{wish}': there are {known}").into());
            }
        }
    }
    Ok(cookie.encoded().to_string())
}

/// Adds the functions of this file.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("query", query);
    engine.register_fn("query_all", query_all);
    engine.register_fn("form", form);
    engine.register_fn("form_all", form_all);
    engine.register_fn("cookies", cookies);
    engine.register_fn("cookie", |name: &str, value: &str| cookie(name, value, Map::new()));
    engine.register_fn("cookie", cookie);
    let line = |name: &str, value: &str, wishes: Map| cookie(name, value, wishes).map(|c| format!("Set-Cookie: {c}"));
    engine.register_fn("set_cookie", move |name: &str, value: &str| line(name, value, Map::new()));
    engine.register_fn("set_cookie", line);
}
