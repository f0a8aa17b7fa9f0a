//! The prompt of `fcgi-rhai`, at a terminal (made by `script`).

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::support::{Directory, FCGI_RHAI};

struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What has been shown since the last look.
    shown: String,
}

impl Terminal {
    fn open(directory: &Directory, options: &str) -> Self {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("exec {FCGI_RHAI} {options}"), "/dev/null"]).env("TERM", "xterm");
        command.env("HOME", directory.path()).env_remove("GATEWAY_INTERFACE").env_remove("REQUEST_METHOD");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script (bsdutils)");
        let mut output = child.stdout.take().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keys = child.stdin.take().unwrap();
        let mut terminal = Self { child, keys, screen, shown: String::new() };
        terminal.wait_for("repl> ");
        terminal
    }

    /// Waits until a text is shown; gives what came up to it.
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            match self.screen.recv_timeout(Duration::from_secs(60)) {
                Ok(piece) => self.shown += &String::from_utf8_lossy(&piece),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("'{text}' is not shown, but: {}", self.shown)
                }
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Enters a line; waits for an answer to it, and for the next prompt.
    fn ask(&mut self, line: &str, answer: &str) {
        self.press(&format!("{line}\r"));
        // The line is shown as it is typed.
        self.wait_for("\n");
        self.wait_for(answer);
        self.wait_for("repl> ");
    }

    fn status(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_session() {
    let directory = Directory::new();
    let mut terminal = Terminal::open(&directory, "");
    terminal.ask("let x = 40", "");
    terminal.ask("x + 2", "=> 42");
    terminal.ask("print(`${x} ${env(\"HOME\")}`)", &format!("40 {}", directory.path().display()));
    terminal.ask("scope", "[1] x = 40");
    terminal.ask("help", "quit, exit");
    // What is open goes on.
    terminal.press("fn twice(n) {\r");
    terminal.wait_for("    > ");
    terminal.press("n * 2\r");
    terminal.wait_for("    > ");
    terminal.ask("}", "");
    terminal.ask("twice(x)", "=> 80");
    terminal.ask("functions", "twice(n)");
    terminal.press("let a = [1,\r");
    terminal.wait_for("    > ");
    terminal.ask("2]; a.len", "=> 2");
    terminal.press("`two\r");
    terminal.wait_for("    > ");
    terminal.ask("lines`", "=> \"two\\nlines\"");
    terminal.press("40 \\\r");
    terminal.wait_for("    > ");
    terminal.ask("+ 3", "=> 43");
    // What is wrong is shown, and no reason to leave.
    terminal.ask("let y = ;", "prompt:1:9: Unexpected ';'");
    terminal.ask("nothing(1)", "prompt:1:1: Function not found: nothing (i64)");
    terminal.ask("\"open", "prompt:1:1: Open string is not terminated");
    terminal.ask("strict", "strict variables are on");
    terminal.ask("if false { unknown }", "Undefined variable: unknown");
    terminal.ask("strict", "strict variables are off");
    // Ctrl-C forgets a line, and what was open before it; it interrupts what runs.
    terminal.press("fn half( {\r");
    terminal.wait_for("repl> ");
    terminal.press("if x {\r");
    terminal.wait_for("    > ");
    terminal.press("\x03");
    terminal.wait_for("repl> ");
    terminal.press("x = 7\x03");
    terminal.wait_for("repl> ");
    terminal.ask("x", "=> 40");
    terminal.press("print(\"runs\"); loop {}\r");
    terminal.wait_for("\n");
    terminal.wait_for("runs");
    terminal.press("\x03");
    terminal.wait_for(": interrupted");
    terminal.wait_for("repl> ");
    terminal.ask("x + 1", "=> 41");
    // Lines before.
    terminal.ask("!!", "=> 41");
    terminal.ask("!twice", "=> 80");
    terminal.ask("!?+ 2", "=> 42");
    terminal.ask("!999", "no such line: !999");
    terminal.ask("history", "[1] let x = 40");
    terminal.ask("!2", "=> 42");
    terminal.press("exit(5)\r");
    assert_eq!(terminal.status(), Some(5));
    // The next session knows them.
    let mut terminal = Terminal::open(&directory, "");
    terminal.ask("history", "[2] x + 2");
    terminal.press("\x04");
    assert_eq!(terminal.status(), Some(0));
    let mut terminal = Terminal::open(&directory, "--memory-limit 8M");
    terminal.ask("let s = \"a\"; loop { s += s; }", "--memory-limit");
    terminal.press("quit\r");
    assert_eq!(terminal.status(), Some(0));
}
