//! The page `docs/rhai.md` is true: each example of it is run as a CGI program.
//!
//! What an example prints is told by its comments `// prints`, or by the block of text that follows it; `// error:` tells
//! what its error stream has. A word behind the language's name says what the request is like, or names a file.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::support::{Directory, FCGI_RHAI, repository};

struct Example {
    line: usize,
    kind: String,
    code: String,
    /// The text that follows.
    text: Option<String>,
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((line, first)) = lines.next() {
        let Some(kind) = first.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let block = block.join("\n") + "\n";
        match kind.split_once(' ').unwrap_or((kind, "")) {
            ("rhai", kind) => examples.push(Example { line: line + 1, kind: kind.to_owned(), code: block, text: None }),
            ("text", _) => examples.last_mut().unwrap().text = Some(block),
            _ => panic!("line {}: what is '{kind}'?", line + 1),
        }
    }
    examples
}

fn run(directory: &Directory, example: &Example) -> Output {
    let (kind, body): (&str, &[u8]) = match &*example.kind {
        "body" => ("text/plain", b"first\r\nsecond\nthird\n"),
        "form" => ("application/x-www-form-urlencoded", b"name=Otto&tag=a&tag=b"),
        "upload" => (
            "multipart/form-data; boundary=xx",
            b"--xx\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nA picture\r\n--xx\r\nContent-Disposition: form-data; \
              name=\"picture\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--xx--\r\n",
        ),
        _ => ("", b""),
    };
    let script = directory.file("example.rhai", &example.code);
    let root = directory.path().join("root");
    std::fs::create_dir_all(&root).unwrap();
    let mut command = Command::new(FCGI_RHAI);
    command.env_clear().envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET")]);
    command.envs([("QUERY_STRING", "name=Anna&tag=red&tag=blue"), ("HTTP_COOKIE", "session=s1; theme=dark")]);
    command.envs([("CONTENT_TYPE", kind), ("CONTENT_LENGTH", &*body.len().to_string())]);
    command.arg("--fs-root").arg(root).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    child.wait_with_output().unwrap()
}

/// What follows a mark in the lines of an example.
fn marked<'a>(code: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    code.lines().filter_map(move |line| line.split_once(mark).map(|(_, text)| text.trim()))
}

#[test]
fn each_example_does_what_it_says() {
    let page = std::fs::read_to_string(repository().join("docs/rhai.md")).unwrap();
    let (files, programs): (Vec<_>, Vec<_>) =
        examples(&page).into_iter().partition(|example| example.kind.ends_with(".rhai"));
    assert!(programs.len() > 30, "{}", programs.len());
    for example in &programs {
        let directory = Directory::new();
        for file in &files {
            directory.file(&file.kind, &file.code);
        }
        let output = run(&directory, example);
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let here = format!("docs/rhai.md, line {}: {said}{errors}", example.line);
        let expected_errors: Vec<_> = marked(&example.code, "// error:").collect();
        assert!(expected_errors.iter().all(|error| errors.contains(error)), "{here}");
        assert!(!expected_errors.is_empty() || errors.is_empty(), "{here}");
        if let Some(text) = &example.text {
            assert_eq!(said.replace("\r\n", "\n").trim_end(), text.trim_end(), "{here}");
        } else if expected_errors.is_empty() {
            let printed: String = marked(&example.code, "// prints").map(|line| format!("{line}\n")).collect();
            assert_eq!(said, printed, "{here}");
        }
    }
}

/// Nothing is missing: all that a heading of the page's list names has an example, and all functions are in the list.
#[test]
fn each_function_has_an_example() {
    let page = std::fs::read_to_string(repository().join("docs/rhai.md")).unwrap();
    let code: String = examples(&page).into_iter().map(|example| example.code).collect();
    let list = page.lines().filter(|line| line.starts_with("* ["));
    let names: Vec<&str> = list.flat_map(|line| line.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 40, "{names:?}");
    let untold = ["rand_float", "rand_bool", "is_dir", "remove_dir", "remove_file", "fcgi"];
    for name in names.iter().filter(|name| !untold.contains(name)) {
        assert!(
            code.contains(&format!("{name}("))
                || code.contains(&format!("{name} "))
                || code.contains(&format!("{name}.")),
            "{name}"
        );
    }
    // What the engine has is in the page.
    for file in ["application", "files", "forms", "functions", "module", "stdio", "time", "timeout", "web"] {
        let source = std::fs::read_to_string(repository().join(format!("bindings/src/rhai/{file}.rs"))).unwrap();
        for registered in ["register_fn(\"", "register_get(\"", "volatile(\""] {
            for name in source.split(registered).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(
                    page.contains(&format!("`{name}"))
                        || page.contains(&format!(".{name}"))
                        || page.contains(&format!("::{name}")),
                    "{file}.rs: {name}"
                );
            }
        }
    }
}
