//! A server whose log is a file in the directory that it serves.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::client::connect;
use super::{Directory, Running, plain_environment};

/// A runner that runs in a directory.
pub struct Logged {
    pub directory: Directory,
    pub address: String,
    pub running: Running,
}

impl Logged {
    pub fn start(runner: &str, directory: Directory, arguments: &[&str]) -> Self {
        let address = directory.socket("s");
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(runner);
        plain_environment(&mut command);
        command.args(["--listen", &address]).args(arguments).current_dir(directory.path());
        let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        drop(connect(&address));
        Self { directory, address, running }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !happened() {
            assert!(Instant::now() < end, "still waiting for {what:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn until_log(&self, text: &str) {
        self.until(text, || self.log().contains(text));
    }

    /// Ends the server; gives its log.
    pub fn stop(mut self) -> String {
        self.running.signal("TERM");
        assert_eq!(self.running.wait(Duration::from_secs(30)).0, Some(0), "{}", self.log());
        self.log()
    }
}
