//! Scripts that change on disk, and scripts that are broken.

use std::time::{Duration, Instant};

use crate::support::client::call;
use crate::support::{Directory, serve};

/// Asks until the answer is as expected: a file is looked at once a second.
fn until(address: &str, expected: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let text = call(address, &[], b"").text();
        if expected(&text) {
            return text;
        }
        assert!(Instant::now() < end, "still {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_changed_script_is_compiled_again_and_a_broken_one_recovers() {
    let directory = Directory::new();
    let page = |text: &str| format!("print('Content-Type: text/plain\\n\\n{text}')");
    let script = directory.file("app.lua", page("first"));
    let address = directory.socket("s");
    let _runner = serve(&address, &[script.to_str().unwrap()]);
    assert!(call(&address, &[], b"").text().ends_with("first\n"));
    directory.file("app.lua", page("second, longer"));
    until(&address, |text| text.ends_with("second, longer\n"));
    directory.file("app.lua", "print('Content-Type: text/plain\\n') local x = = 1");
    until(&address, |text| text.starts_with("Status: 500 "));
    let reply = call(&address, &[], b"");
    assert_eq!(reply.app_status, 1);
    assert!(reply.errors().contains("app.lua:1: unexpected symbol near '='"), "{}", reply.errors());
    assert!(!reply.text().contains("unexpected symbol"), "details stay in the log");
    directory.file("app.lua", page("mended"));
    until(&address, |text| text.ends_with("mended\n"));
    std::fs::remove_file(&script).unwrap();
    until(&address, |text| text.starts_with("Status: 500 "));
    directory.file("app.lua", page("back"));
    until(&address, |text| text.ends_with("back\n"));
}

#[test]
fn details_of_errors_on_the_page_only_when_asked_for() {
    let directory = Directory::new();
    let script = directory.file("app.lua", "error('secret detail')");
    let script = script.to_str().unwrap();
    for (arguments, shown) in [(&[script][..], false), (&["--display-errors", script], true)] {
        let address = directory.socket(if shown { "shown" } else { "hidden" });
        let _runner = serve(&address, arguments);
        let reply = call(&address, &[], b"");
        assert!(reply.text().starts_with("Status: 500 Internal Server Error\r\nContent-Type: text/plain"));
        assert_eq!(reply.text().contains("secret detail"), shown);
        assert!(reply.errors().contains("app.lua:1: secret detail\nstack traceback:\n\t[C]: in "));
    }
}
