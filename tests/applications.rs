//! Scripts that give an application: a function, or a table with `run`, called by the rules of WSAPI.

use std::io::{Read, Write};
use std::process::Command;

use crate::support::client::{Reply, call, connect, read_reply, request};
use crate::support::{Directory, FCGI_LUA, serve};

const FUNCTION: &str = r#"
local count = 0
return function(env)
  count = count + 1
  local path = env.PATH_INFO
  if path == "/error" then io.write("half an answer"); error("no luck") end
  if path == "/exit" then os.exit(3) end
  if path == "/late" then
    local first = true
    return 200, { ["Content-Length"] = "9" }, function()
      if not first then error("in the body") end
      first = false
      return "a piece"
    end
  end
  if path == "/split" then return 200, { ["X-Split"] = "a\r\nSet-Cookie: b" }, "" end
  if path == "/status" then return { "no status" } end
  if path == "/plain" then return nil, nil, 12 end
  if path == "/cookies" then return "201 Made", { ["Set-Cookie"] = { "a=1", "b=2" } } end
  local body = env.input:read()
  env.error:write("asked for ", path, "\n")
  local pieces = { tostring(count), "|", path, "|", env.QUERY_STRING, "|", env.NOWHERE, "|", body or "no body", "|" }
  pieces[#pieces + 1] = env.headers.QUERY_STRING or "none"
  local at = 0
  return 200, { ["Content-Type"] = "text/plain" }, function() at = at + 1; return pieces[at] end
end
"#;

/// The answer to a request for a path.
fn ask(address: &str, path: &str) -> Reply {
    call(address, &[("PATH_INFO", path.as_bytes())], b"")
}

const OK: &str = "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n";
const FAILED: &str = "Status: 500 Internal Server Error\r\n";

#[test]
fn a_function_answers_and_keeps_its_state() {
    let directory = Directory::new();
    let script = directory.file("app.lua", FUNCTION).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    for number in 1..=3 {
        let reply = call(&address, &[("QUERY_STRING", b"q=1"), ("CONTENT_LENGTH", b"4")], b"body");
        assert_eq!(reply.text(), format!("{OK}{number}|/|q=1||body|q=1"));
        assert_eq!(reply.errors(), "asked for /\n");
    }
    assert_eq!(ask(&address, "/a/b").text(), format!("{OK}4|/a/b|||no body|none"));
    assert_eq!(ask(&address, "/cookies").text(), "Status: 201 Made\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n");
    assert_eq!(ask(&address, "/plain").text(), "Status: 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n12");
}

#[test]
fn what_goes_wrong_costs_one_answer() {
    let directory = Directory::new();
    let script = directory.file("app.lua", FUNCTION).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    for (path, says) in [
        ("/error", "app.lua:6: no luck\nstack traceback:"),
        ("/late", "app.lua:11: in the body"),
        ("/split", "header X-Split has a line break"),
        ("/status", "status is neither"),
    ] {
        let reply = ask(&address, path);
        assert!(reply.text().starts_with(FAILED), "{path}: {}", reply.text());
        assert!(!reply.text().contains("half an answer") && !reply.text().contains("a piece"), "{}", reply.text());
        assert!(reply.errors().contains(says), "{path}: {}", reply.errors());
        assert_eq!(reply.app_status, 1);
    }
    // It is the same application still.
    assert_eq!(ask(&address, "/x").text(), format!("{OK}5|/x|||no body|none"));
    // Leaving ends it, as it ends a process; the next request finds a new one.
    assert_eq!(ask(&address, "/exit").app_status, 3);
    assert_eq!(ask(&address, "/x").text(), format!("{OK}1|/x|||no body|none"));
}

#[test]
fn tables_modules_and_what_is_no_application() {
    let directory = Directory::new();
    let root = directory.path().display().to_string();
    let script = |name: &str, text: &str| directory.file(name, text).display().to_string();
    let table =
        script("table.lua", "local M = {} function M.run(env) return 200, {A = 1}, env.SCRIPT_FILENAME end return M");
    let module = script("app.ws", "return require 'shared'");
    directory
        .file("shared.lua", "local n = 0 return { run = function() n = n + 1 return 200, {A = 1}, tostring(n) end }");
    let named = script("named.lua", "package.loaded.named = { run = function() return 200, {A = 1}, 'named' end }");
    let writes = script(
        "writes.lua",
        "print('A: 1\\n') print(count or 'fresh') count = 1 return function() error('not me') end",
    );
    let other = script("other.lua", "return { no = 'application' }");
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &root, "--extensions", "lua,ws"]);
    let ask = |script: &str| call(&address, &[("SCRIPT_FILENAME", script.as_bytes())], b"");
    for round in 1..=3 {
        assert_eq!(ask(&table).text(), format!("Status: 200 OK\r\nA: 1\r\n\r\n{table}"));
        assert_eq!(ask(&module).text(), format!("Status: 200 OK\r\nA: 1\r\n\r\n{round}"));
        assert_eq!(ask(&named).text(), "Status: 200 OK\r\nA: 1\r\n\r\nnamed");
        assert_eq!(ask(&writes).text(), "A: 1\n\nfresh\n");
        assert!(ask(&other).text().starts_with(FAILED), "{}", ask(&other).text());
    }
}

/// Each application has its Lua state for itself, and no script sees what one of them sets.
#[test]
fn applications_do_not_meet() {
    let directory = Directory::new();
    let root = directory.path().display().to_string();
    let text = "name = (name or '') .. 'NAME' string.upper = nil return function() hits = (hits or 0) + 1 \
                return 200, {A = 1}, name .. hits end";
    let a = directory.file("a.lua", text.replace("NAME", "a")).display().to_string();
    let b = directory.file("b.lua", text.replace("NAME", "b")).display().to_string();
    let c = directory.file("c.lua", "print('A: 1\\n') print(name, hits, ('x'):upper())").display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &root]);
    for round in 1..=5 {
        for (script, answer) in [
            (&a, format!("Status: 200 OK\r\nA: 1\r\n\r\na{round}")),
            (&c, "A: 1\n\nnil\tnil\tX\n".into()),
            (&b, format!("Status: 200 OK\r\nA: 1\r\n\r\nb{round}")),
        ] {
            assert_eq!(call(&address, &[("SCRIPT_FILENAME", script.as_bytes())], b"").text(), answer);
        }
    }
}

/// What an application looked at or set is no business of the next script's state, nor of the process.
#[test]
fn what_an_application_touches_stays_its_own() {
    let directory = Directory::new();
    let root = directory.path().display().to_string();
    let text = "return function() debug.getregistry().mark = 1 os.setlocale('C.UTF-8') collectgarbage('stop') \
                debug.setmetatable(0, {}) return 200, {A = 1}, 'app' end";
    let app = directory.file("app.lua", text).display().to_string();
    let text = "print('A: 1\\n') print(os.setlocale(), debug.getregistry().mark, getmetatable(0))";
    let script = directory.file("script.lua", text).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &root]);
    for _ in 0..3 {
        for (script, answer) in [(&app, "Status: 200 OK\r\nA: 1\r\n\r\napp"), (&script, "A: 1\n\nC\tnil\tnil\n")] {
            assert_eq!(call(&address, &[("SCRIPT_FILENAME", script.as_bytes())], b"").text(), answer);
        }
    }
}

#[test]
fn pieces_of_unknown_length_are_sent_at_once() {
    let directory = Directory::new();
    let script = directory.file(
        "app.lua",
        "return function(env) local n = 0 return 200, {A = 1}, function() n = n + 1 \
         if n == 1 then return 'first' elseif n == 2 then repeat local go = io.open('go') until go return 'second' end \
         end end",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script.display().to_string()]);
    let mut connection = connect(&address);
    connection.write_all(&request(1, 1, false, &[], b"")).unwrap();
    let mut header = [0; 8];
    connection.read_exact(&mut header).unwrap();
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6])];
    connection.read_exact(&mut content).unwrap();
    assert!(String::from_utf8_lossy(&content).contains("\r\n\r\nfirst"));
    // The second piece comes only when the first has arrived.
    directory.file("go", "");
    assert_eq!(read_reply(&mut *connection, 1).text(), "second");
}

#[test]
fn as_a_cgi_program_it_answers_once_and_on_a_terminal_it_is_a_script() {
    let directory = Directory::new();
    let script = directory.file("app.lua", FUNCTION);
    let run = |cgi: bool, path: &str| {
        let mut command = Command::new(FCGI_LUA);
        command.arg(&script).env("PATH_INFO", path);
        if cgi {
            command.env("GATEWAY_INTERFACE", "CGI/1.1");
        }
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code())
    };
    assert_eq!(run(true, "/x"), (format!("{OK}1|/x|||no body|none"), "asked for /x\n".to_owned(), Some(0)));
    assert_eq!(run(false, "/x"), (String::new(), String::new(), Some(0)));
    let (stdout, stderr, status) = run(true, "/status");
    assert!(stdout.starts_with(FAILED) && stderr.contains("status is neither"), "{stdout}{stderr}");
    assert_eq!(status, Some(1));
}

#[test]
fn a_changed_file_is_a_new_application() {
    let directory = Directory::new();
    let text = "return function() return 200, {A = 1}, 'VERSION' end";
    let script = directory.file("app.lua", text.replace("VERSION", "old")).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    assert!(call(&address, &[], b"").text().ends_with("old"));
    directory.file("app.lua", text.replace("VERSION", "new one"));
    // A file is looked at once a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(call(&address, &[], b"").text().ends_with("new one"));
}

/// Applications of the system's packages, which are for Lua 5.1: Orbit, and what is made with WSAPI's library.
#[cfg(any(feature = "lua51", feature = "luajit"))]
#[test]
fn orbit_wsapi_and_cgilua() {
    let directory = Directory::new();
    let root = directory.path().display().to_string();
    let file = |name: &str, text: &str| directory.file(name, text).display().to_string();
    let orbit = file(
        "hello.lua",
        "local orbit = require 'orbit'
         module('hello', package.seeall, orbit.new)
         local visits = 0
         function index(web) visits = visits + 1 return page('visit ' .. visits) end
         function say(web, name) return page((web.input.greeting or 'Hello') .. ' ' .. name) end
         hello:dispatch_get(index, '/', '/index')
         hello:dispatch_get(say, '/say/(%a+)')
         function page(text) return html{ body{ p{ text } } } end
         orbit.htmlify(hello, 'page')",
    );
    let by_name = file("hello.ws", "return require 'hello'");
    let wsapi = file(
        "form.lua",
        "local request, response = require 'wsapi.request', require 'wsapi.response'
         return { run = function(env)
           local req, res = request.new(env), response.new()
           res:content_type('text/plain')
           res:write(req.POST.name, ' ', req.GET.q or '', ' ', req.path_info)
           return res:finish()
         end }",
    );
    let launched = file("launched.lua", "require 'wsapi.cgi'.run(dofile('form.lua'))");
    let looping = file("looping.lua", "require 'wsapi.fastcgi'.run(dofile('form.lua').run)");
    let cgilua = file(
        "pages.lua",
        "local sapi, common = require 'wsapi.sapi', require 'wsapi.common'
         require 'wsapi.cgi'.run(function(env)
           common.normalize_paths(env, 'page.lua', 'pages.lua')
           return sapi.run(env)
         end)",
    );
    file(
        "page.lua",
        "local cgilua = require 'cgilua' cgilua.htmlheader() cgilua.put('The answer is ', 6 * 7, ', ', cgilua.QUERY.who or 'nobody', '.')",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &root, "--extensions", "lua,ws"]);
    let ask = |script: &str, path: &str, query: &str, body: &str| {
        let pairs: Vec<(&str, &[u8])> = vec![
            ("REQUEST_METHOD", if body.is_empty() { b"GET" } else { b"POST" }),
            ("SCRIPT_FILENAME", script.as_bytes()),
            ("SCRIPT_NAME", b"/app"),
            ("PATH_INFO", path.as_bytes()),
            ("QUERY_STRING", query.as_bytes()),
            ("CONTENT_TYPE", b"application/x-www-form-urlencoded"),
            ("DOCUMENT_ROOT", root.as_bytes()),
        ];
        let length = body.len().to_string();
        let pairs = [pairs, vec![("CONTENT_LENGTH", length.as_bytes())]].concat();
        let reply = call(&address, &pairs, body.as_bytes());
        assert_eq!(reply.errors(), "", "{script}");
        let text = reply.text();
        assert!(text.starts_with("Status: 200 "), "{script}: {text}");
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    for visit in 1..=3 {
        for (script, visits) in [(&orbit, visit), (&by_name, visit)] {
            assert!(ask(script, "/", "", "").contains(&format!("visit {visits}")), "{}", ask(script, "/", "", ""));
        }
        assert!(ask(&by_name, "/say/Ann", "greeting=Hi", "").contains("Hi Ann"));
        for script in [&wsapi, &launched, &looping] {
            assert_eq!(ask(script, "/p", "q=1", "name=a%20b"), "a b 1 /p", "{script}");
        }
        assert_eq!(ask(&cgilua, "/", "who=Bob", "").trim(), "The answer is 42, Bob.");
    }
}
