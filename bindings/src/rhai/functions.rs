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
        pairs
            .filter_map(|(name, value)| Some((str::from_utf8(name).ok()?.into(), text_or_blob(value.to_vec()))))
            .collect()
    };
    context::with(|context| context.request(pairs)).unwrap_or_default()
}

/// The value of a variable; `()` when it is not set.
pub(super) fn variable(name: &str) -> Dynamic {
    let value = context::with(|context| {
        context.request(|request| request.params().get(name.as_bytes()).map(<[u8]>::to_vec)).flatten()
    });
    value.map_or(Dynamic::UNIT, text_or_blob)
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
        variables().into_keys().map(|name| Dynamic::from(name.to_string())).collect::<Array>()
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
