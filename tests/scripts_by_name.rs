//! No script on the command line: each request names its own, and is kept inside the root.

use crate::support::client::{Reply, call};
use crate::support::{Directory, serve};

const SHOW: &str = "print('Content-Type: text/plain\\n') print(os.getenv('SCRIPT_NAME'), os.getenv('PATH_INFO'), os.getenv('SCRIPT_FILENAME'):match('[^/]*$'))";

fn ask(address: &str, filename: &str, name: &str) -> Reply {
    call(address, &[("SCRIPT_FILENAME", filename.as_bytes()), ("SCRIPT_NAME", name.as_bytes())], b"")
}

#[test]
fn inside_the_root_and_nowhere_else() {
    let directory = Directory::new();
    directory.file("root/app.lua", SHOW);
    directory.file("root/sub/other.lua", SHOW);
    directory.file("root/notes.txt", "not a script");
    directory.file("outside.lua", SHOW);
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::os::unix::fs::symlink(at("outside.lua"), at("root/link.lua")).unwrap();
    std::os::unix::fs::symlink(at("root/app.lua"), at("root/inner.lua")).unwrap();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &at("root")]);
    let says = |text: &str| format!("Content-Type: text/plain\n\n{text}\n");
    for (file, name, expected) in [
        ("root/app.lua", "/app.lua", says("/app.lua\tnil\tapp.lua")),
        ("root/sub/other.lua", "/sub/other.lua", says("/sub/other.lua\tnil\tother.lua")),
        // The server did not split the path.
        ("root/app.lua/more/path", "/app.lua/more/path", says("/app.lua\t/more/path\tapp.lua")),
        ("root/inner.lua", "/inner.lua", says("/inner.lua\tnil\tinner.lua")),
        ("root/sub/../app.lua", "/app.lua", says("/app.lua\tnil\tapp.lua")),
    ] {
        assert_eq!(ask(&address, &at(file), name).text(), expected, "{file}");
    }
    for (file, status) in [
        ("root/missing.lua", "404"),
        ("root", "404"),
        ("root/sub", "404"),
        ("root/notes.txt", "403"),
        ("root/link.lua", "403"),
        ("outside.lua", "403"),
        ("root/../outside.lua", "403"),
        ("root/sub/../../outside.lua", "403"),
        ("root/notes.txt/x.lua", "403"),
    ] {
        let reply = ask(&address, &at(file), "/x");
        assert!(reply.text().starts_with(&format!("Status: {status} ")), "{file}: {}", reply.text());
    }
    let reply = call(&address, &[("SCRIPT_NAME", b"/x")], b"");
    assert!(reply.text().starts_with("Status: 404 ") && reply.errors().contains("SCRIPT_FILENAME"));
    // Apache's prefix, and bytes that are no text.
    let file = format!("proxy:fcgi://127.0.0.1:9000{}", at("root/app.lua"));
    assert!(ask(&address, &file, "/app.lua").text().ends_with("app.lua\n"));
    assert!(call(&address, &[("SCRIPT_FILENAME", b"/\xff\xfe.lua")], b"").text().starts_with("Status: 404 "));
}

#[test]
fn each_script_runs_in_its_own_directory() {
    let directory = Directory::new();
    let text = "print('Content-Type: text/plain\\n') print(require('name'), io.popen('pwd'):read():match('[^/]*$'))";
    let one = directory.file("one/a.lua", text).display().to_string();
    let two = directory.file("two/a.lua", text).display().to_string();
    directory.file("one/name.lua", "return os.getenv('SCRIPT_FILENAME') and 'module of one'");
    directory.file("two/name.lua", "return os.getenv('SCRIPT_FILENAME') and 'module of two'");
    for threads in ["1", "3"] {
        let address = directory.socket(threads);
        let _runner = serve(&address, &["--threads", threads]);
        for _ in 0..10 {
            for (script, of) in [(&one, "one"), (&two, "two")] {
                let expected = format!("Content-Type: text/plain\n\nmodule of {of}\t./name.lua\t{of}\n");
                let got = ask(&address, script, "/a.lua").text();
                assert!(got == expected || got == expected.replace("\t./name.lua", ""), "{got}");
            }
        }
    }
}

#[test]
fn other_extensions_by_option() {
    let directory = Directory::new();
    let script = directory.file("app.cgi", SHOW).display().to_string();
    let (closed, open) = (directory.socket("closed"), directory.socket("open"));
    let _one = serve(&closed, &[]);
    let _two = serve(&open, &["--extensions", "lua,cgi"]);
    assert!(ask(&closed, &script, "/app.cgi").text().starts_with("Status: 403 "));
    assert!(ask(&open, &script, "/app.cgi").text().contains("app.cgi"));
}
