//! `fcgi`: what it asks, what it prints, what it says when there is no answer.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use crate::support::{Directory, Running, serve};

const FCGI: &str = env!("CARGO_BIN_EXE_fcgi");

const SHOW: &str = r#"
io.write("Content-Type: text/plain\n\n")
for name in os.getenv("SHOW"):gmatch("[%w_]+") do
    io.write(name, "=", tostring(os.getenv(name)), "\n")
end
io.write(io.read("*a"))
"#;

/// What the command printed, and its exit status.
#[derive(Debug)]
struct Said {
    out: String,
    errors: String,
    status: i32,
}

fn said(output: std::process::Output) -> Said {
    Said {
        out: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().expect("an exit status"),
    }
}

fn fcgi(directory: &Directory, arguments: &[&str]) -> Said {
    let mut command = Command::new(FCGI);
    command.args(arguments).current_dir(directory.path()).stdin(Stdio::null());
    said(command.output().unwrap())
}

/// A directory and a runner that serves the scripts that requests name.
fn served() -> (Directory, Running, String) {
    let directory = Directory::new();
    let address = directory.socket("app.sock");
    let running = serve(&address, &[]);
    (directory, running, address)
}

fn body_of(said: &Said) -> &str {
    assert_eq!((said.status, said.errors.as_str()), (0, ""));
    said.out.strip_prefix("Content-Type: text/plain\n\n").unwrap_or_else(|| panic!("{said:?}"))
}

#[test]
fn a_script_by_its_relative_name() {
    let (directory, _running, address) = served();
    let path = directory.file("show.lua", SHOW);
    let show = "SHOW=SCRIPT_FILENAME SCRIPT_NAME REQUEST_URI QUERY_STRING REQUEST_METHOD CONTENT_LENGTH X SERVER_NAME";
    let params = ["--param", show, "--param", "X=y=z", "--param", "SERVER_NAME=other"];
    let said = fcgi(&directory, &[&[&*address, "show.lua", "--query", "a=1&b"][..], &params].concat());
    let expected = format!(
        "SCRIPT_FILENAME={}\nSCRIPT_NAME=/show.lua\nREQUEST_URI=/show.lua?a=1&b\nQUERY_STRING=a=1&b\n\
         REQUEST_METHOD=GET\nCONTENT_LENGTH=nil\nX=y=z\nSERVER_NAME=other\n",
        path.display()
    );
    assert_eq!(body_of(&said), expected);
}

#[test]
fn bodies() {
    let (directory, _running, address) = served();
    directory.file("show.lua", SHOW);
    let show = "SHOW=REQUEST_METHOD CONTENT_LENGTH CONTENT_TYPE";
    let text = fcgi(&directory, &[&address, "show.lua", "--param", show, "--body", "name=Ann"]);
    let form = "CONTENT_TYPE=application/x-www-form-urlencoded";
    assert_eq!(body_of(&text), format!("REQUEST_METHOD=POST\nCONTENT_LENGTH=8\n{form}\nname=Ann"));
    let large = "0123456789abcdef".repeat(1 << 16);
    directory.file("large", &large);
    let file = ["--body-file", "large", "--method", "PUT"];
    let said = fcgi(&directory, &[&[&*address, "show.lua", "--param", show][..], &file].concat());
    let head = format!("REQUEST_METHOD=PUT\nCONTENT_LENGTH={}\nCONTENT_TYPE=application/octet-stream\n", 1 << 20);
    assert!(body_of(&said) == head + &large);
}

#[test]
fn a_body_from_a_pipe() {
    let (directory, _running, address) = served();
    let script = directory.file("show.lua", SHOW);
    let mut child = Command::new(FCGI)
        .args([OsStr::new(&address), script.as_os_str()])
        .args(["--param", "SHOW=CONTENT_LENGTH", "--body-file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"piped").unwrap();
    let said = said(child.wait_with_output().unwrap());
    assert_eq!(body_of(&said), "CONTENT_LENGTH=5\npiped");
}

#[test]
fn bytes_that_are_not_text() {
    let (directory, _running, address) = served();
    let name = OsString::from_vec(b"caf\xe9.lua".to_vec());
    let text = r#"io.write("Status: 200\n\n", os.getenv("V"), os.getenv("QUERY_STRING"), io.read("*a"))"#;
    std::fs::write(directory.path().join(&name), text).unwrap();
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let output = Command::new(FCGI)
        .args([OsString::from(&address), name, "--param".into(), bytes(b"V=\xff")])
        .args([OsString::from("--query"), bytes(b"\xfe"), "--body".into(), bytes(b"\xfd")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(output.stdout.ends_with(b"\xff\xfe\xfd"), "{output:?}");
}

#[test]
fn status_and_error_stream() {
    let (directory, _running, address) = served();
    directory.file("bad.lua", "print('Status: 500\\n') io.stderr:write('out of paper\\n') os.exit(7)");
    let said = fcgi(&directory, &[&address, "bad.lua"]);
    assert_eq!((said.status, said.errors.as_str()), (7, "out of paper\n"));
    assert_eq!(said.out, "Status: 500\n\n");
}

#[test]
fn every_record_is_shown() {
    let (directory, _running, address) = served();
    directory
        .file("hello.lua", "io.read('*a') print('Content-Type: text/plain\\n') print('hello') io.stderr:write('hm')");
    let said = fcgi(&directory, &[&address, "hello.lua", "-v", "--keep-conn", "--body", "b\n"]);
    assert_eq!((said.status, said.out.as_str()), (0, "Content-Type: text/plain\n\nhello\n"));
    let errors = &said.errors;
    let mut rest = errors.as_str();
    for line in [
        "> BEGIN_REQUEST id=1 length=8 role=RESPONDER keep_conn=1\n",
        "> PARAMS id=1 length=",
        " REQUEST_METHOD=\"POST\"",
        "> PARAMS id=1 length=0\n",
        "> STDIN id=1 length=2 \"b\\n\"\n",
        "> STDIN id=1 length=0\n",
        "< END_REQUEST id=1 length=8 app_status=0 protocol_status=0 REQUEST_COMPLETE\n",
    ] {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("no {line} in its place in {errors}")).1;
    }
    assert_eq!(rest, "");
    assert!(errors.contains("< STDOUT id=1 length=32 \"Content-Type: text/plain\\n\\nhello\\n\"\n"), "{errors}");
    assert!(errors.contains("< STDERR id=1 length=2 \"hm\"\n"), "{errors}");
}

#[test]
fn values() {
    let (directory, _running, address) = served();
    let said = fcgi(&directory, &[&address, "--values"]);
    assert_eq!((said.status, said.errors.as_str()), (0, ""));
    let names: Vec<&str> = said.out.lines().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]);
    let said = fcgi(&directory, &[&address, "--values", "-v"]);
    assert!(said.errors.starts_with("> GET_VALUES id=0 length="), "{}", said.errors);
    assert!(said.errors.contains("\n< GET_VALUES_RESULT id=0 length="), "{}", said.errors);
}

#[test]
fn roles() {
    let (directory, _running, address) = served();
    directory
        .file("role.lua", "io.write('Status: 200\\n\\n', os.getenv('FCGI_ROLE'), os.getenv('FCGI_DATA_LENGTH') or '')");
    directory.file("data", "12345");
    let ask = |arguments: &[&str]| fcgi(&directory, &[&[&*address, "role.lua"], arguments].concat());
    assert_eq!(ask(&[]).out, "Status: 200\n\nRESPONDER");
    assert_eq!(ask(&["--role", "Authorizer"]).out, "Status: 200\n\nAUTHORIZER");
    assert_eq!(ask(&["--role", "filter", "--data-file", "data"]).out, "Status: 200\n\nFILTER5");
    let said = ask(&["--role", "9"]);
    assert_eq!(said.errors, "fcgi: the application refused the request: UNKNOWN_ROLE\n");
    assert_eq!((said.status, said.out.as_str()), (2, ""));
}

#[test]
fn errors_are_one_line_and_status_2() {
    let directory = Directory::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Connections wait in its queue: nobody accepts them.
    let silent = listener.local_addr().unwrap().to_string();
    for (arguments, words) in [
        (&[][..], "<ADDRESS>"),
        (&["--no-such-option"], "--no-such-option"),
        (&["nowhere"], "'nowhere' is no address"),
        (&["fd:0"], "descriptor"),
        (&["./none.sock"], "cannot connect to unix:./none.sock"),
        (&[&silent, "--timeout", "0.1"], "neither reads nor answers for 0.1 s"),
        (&[&silent, "--timeout", "0.1", "--values"], "neither reads nor answers for 0.1 s"),
        (&[&silent, "--timeout", "soon"], "--timeout"),
        (&[&silent, "--param", "X"], "NAME=VALUE"),
        (&[&silent, "--param", "=X"], "NAME=VALUE"),
        (&[&silent, "--role", "king"], "--role"),
        (&[&silent, "--body-file", "none"], "cannot read none"),
        (&[&silent, "--body-file", "."], "cannot read ."),
        (&[&silent, "--body", "x", "--body-file", "y"], "--body-file"),
        (&[&silent, "--body", "x", "--role", "authorizer"], "authorizer"),
        (&[&silent, "--data-file", "x"], "--role filter"),
    ] {
        let said = fcgi(&directory, arguments);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{arguments:?}");
        assert!(said.errors.starts_with("fcgi: ") && said.errors.contains(words), "{arguments:?}: {}", said.errors);
        assert!(said.errors.ends_with('\n') && said.errors.lines().count() == 1, "{arguments:?}: {}", said.errors);
    }
}

/// The FastCGI specification, section 6.3. What an application sees may have been put right by its server, so it is the
/// records that are looked at.
#[test]
fn an_authorizer_is_told_of_no_script_and_no_body() {
    let (directory, _running, address) = served();
    let script = directory.file("show.lua", SHOW).display().to_string();
    let names = ["SCRIPT_NAME", "PATH_INFO", "PATH_TRANSLATED", "CONTENT_LENGTH", "REQUEST_URI", "SCRIPT_FILENAME"];
    let sent = |role: &str| {
        let said = fcgi(&directory, &["-v", "--role", role, "--param", "SHOW=", &address, &script]);
        assert_eq!(said.status, 0, "{}", said.errors);
        let params = said.errors.lines().find(|line| line.starts_with("> PARAMS")).expect("PARAMS").to_owned();
        assert_eq!(said.errors.contains("> STDIN"), role == "responder", "{}", said.errors);
        names.map(|name| params.contains(&format!(" {name}=\"")))
    };
    assert_eq!(sent("authorizer"), [false, false, false, false, true, true], "{names:?}");
    assert_eq!(sent("responder"), [true, false, false, false, true, true], "{names:?}");
}

#[test]
fn what_does_not_speak_fastcgi() {
    for (bytes, words) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak FastCGI"), (b"", "closed")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let said = fcgi(&Directory::new(), &[&address]);
        assert_eq!(said.status, 2);
        assert!(said.errors.contains(words) && said.errors.lines().count() == 1, "{}", said.errors);
        peer.join().unwrap();
    }
}

#[test]
fn help_teaches() {
    let said = fcgi(&Directory::new(), &["--help"]);
    assert_eq!((said.status, said.errors.as_str()), (0, ""));
    assert!(said.out.contains("Examples:") && said.out.contains("--body-file photo.jpg"));
}
