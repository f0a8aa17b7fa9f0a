//! A script's own cache for each user is hit every time when requests of a session go to the same interpreter.

use std::process::Command;

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, serve};

/// Counts the requests of each user, in a module that stays loaded in its interpreter.
const CACHE: &str = "return {}";
const SCRIPT: &str = r#"
local cache = require "user_cache"
local user = (os.getenv("HTTP_COOKIE") or ""):match("sid=(%w+)") or "nobody"
cache[user] = (cache[user] or 0) + 1
print("Content-Type: text/plain\n")
print(cache[user])
"#;

fn asked(address: &str, user: &str) -> String {
    let cookie = format!("theme=dark; sid={user}");
    let text = call(address, &[("HTTP_COOKIE", cookie.as_bytes())], b"").text();
    text.lines().last().unwrap().to_owned()
}

#[test]
fn a_cache_for_each_user_is_hit_every_time() {
    let directory = Directory::new();
    directory.file("user_cache.lua", CACHE);
    let script = directory.file("app.lua", SCRIPT).display().to_string();
    let address = directory.socket("s");
    let affinity = ["--threads", "4", "--affinity", "cookie:sid", "--affinity-wait", "60", &script];
    let _runner = serve(&address, &affinity);
    // All users at once: each waits for its own interpreter only.
    std::thread::scope(|scope| {
        for user in 0..6 {
            let address = &address;
            scope.spawn(move || {
                for turn in 1..=40 {
                    assert_eq!(asked(address, &format!("user{user}")), turn.to_string());
                }
            });
        }
    });
}

#[test]
fn affinity_says_what_it_needs() {
    for (arguments, said) in [
        (&["--affinity", "cookie:sid"][..], "--threads"),
        (&["--affinity", "session", "--threads", "2"], "cookie:NAME, header:NAME or param:NAME"),
    ] {
        let directory = Directory::new();
        let script = directory.file("app.lua", "print('\\n')");
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &directory.socket("s")]).args(arguments).arg(script);
        let done = command.output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}
