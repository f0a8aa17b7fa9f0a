//! What a script knows of its request: variables, arguments, and how it ends itself.

use std::os::unix::ffi::OsStringExt;

use rhai::{Array, Dynamic, Engine, EvalAltResult, INT, Map};

use super::context;
use super::error::{Failed, ended};
use super::stdio::{Stdin, text_or_blob};

/// All variables whose names are text.
pub(super) fn variables() -> Map {
    let pairs = |request: &mut fcgi_core::Request| {
        let pairs = request.params().iter();
        pairs.filter_map(|(name, value)| Some((str::from_utf8(name).ok()?.into(), self::value(value)))).collect()
    };
    context::with(|context| context.request(pairs)).unwrap_or_default()
}

/// The value of a variable; `()` when it is not set.
pub(super) fn variable(name: &str) -> Dynamic {
    let value = |request: &mut fcgi_core::Request| request.params().get(name.as_bytes()).map(value);
    context::with(|context| context.request(value)).flatten().unwrap_or(Dynamic::UNIT)
}

/// Text where bytes are text, otherwise a blob.
fn value(bytes: &[u8]) -> Dynamic {
    str::from_utf8(bytes).map_or_else(|_| Dynamic::from_blob(bytes.to_vec()), Into::into)
}

/// The end of a request that a script asks for; nothing that it does can stop it.
#[derive(Clone, Copy, Debug)]
struct Exit(u32);

fn exit(status: u32) -> Result<(), Failed> {
    Err(ended(Dynamic::from(Exit(status))))
}

/// The status of a program that SIGPIPE has killed, as shells report it.
const CLIENT_GONE: u32 = 128 + 13;

/// What ends a script whose answer nobody reads.
pub(super) fn client_gone() -> Dynamic {
    Dynamic::from(Exit(CLIENT_GONE))
}

/// The exit status, when it was `exit` that ended a script.
pub(super) fn exit_status(error: &EvalAltResult) -> Option<u32> {
    match error.unwrap_inner() {
        EvalAltResult::ErrorTerminated(value, _) => value.clone().try_cast::<Exit>().map(|exit| exit.0),
        _ => None,
    }
}

/// Adds the functions of this file.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("env", |name: &str| variable(name));
    engine.register_fn("env", variables);
    engine.register_fn("env_names", || {
        let names = |request: &mut fcgi_core::Request| {
            // As in a map, and so in order.
            let mut names: Vec<_> = request.params().iter().filter_map(|(name, _)| str::from_utf8(name).ok()).collect();
            names.sort_unstable();
            names.into_iter().map(Into::into).collect::<Array>()
        };
        context::with(|context| context.request(names)).unwrap_or_default()
    });
    engine.register_fn("args", || {
        let arguments = context::with(|context| context.arguments.borrow().clone());
        arguments.into_iter().map(|argument| text_or_blob(argument.into_vec())).collect::<Array>()
    });
    engine.register_fn("exit", || exit(context::with(|context| context.status.get())));
    engine.register_fn("exit", |status: INT| exit((status & 0xFF) as u32));
    engine.register_fn("exit", |succeeded: bool| exit(u32::from(!succeeded)));
    // Functions see no variables of the script; this name they do.
    #[expect(deprecated, reason = "not deprecated but subject to change")]
    engine.on_var(|name, _, context| {
        let is_ours = name == "stdin" && !context.scope().contains("stdin");
        Ok(is_ours.then(|| Dynamic::from(Stdin)))
    });
}
