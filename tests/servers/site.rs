//! A web server and a program behind it, running.

use std::fs::{File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Language;
use super::ways::{Config, Program, Served, Way};
use crate::nginx::free_port;
use crate::python_command_line::python_library;
use crate::support::http::{self, Answer};
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment, repository};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Site {
    pub way: &'static Way,
    pub language: Language,
    pub port: u16,
    /// The program, where the web server's user can reach it.
    runner: String,
    tcp: String,
    directory: Directory,
    server: Option<Running>,
    program: Option<Running>,
}

impl Site {
    /// Starts the program, if the server does not, and the server.
    pub fn start(way: &'static Way, language: Language) -> Result<Self, String> {
        let directory = Directory::new();
        let port = free_port();
        let tcp = format!("127.0.0.1:{}", free_port());
        let is_theirs = matches!(way.program, Program::ByServer);
        let runner = if is_theirs { reachable(language.runner, &directory) } else { language.runner.to_owned() };
        let mut site = Self { way, language, port, runner, tcp, directory, server: None, program: None };
        // Debian's servers run as a user of their own.
        std::fs::set_permissions(site.directory.path(), Permissions::from_mode(0o777)).unwrap();
        let script = site
            .directory
            .file(&format!("www/app.{}", language.extension), format!("#!{}\n{}", site.runner, language.probe));
        std::fs::set_permissions(script, Permissions::from_mode(0o755)).unwrap();
        site.directory.file("www/plain.txt", "a file of the server's\n");
        let text = site.configuration()?;
        site.directory.file("site.conf", text);
        site.start_program()?;
        site.start_server()?;
        Ok(site)
    }

    /// What URLs of the program begin with.
    pub fn base(&self) -> String {
        match self.way.served {
            Served::One => String::new(),
            Served::Directory => format!("/app.{}", self.language.extension),
        }
    }

    pub fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Result<Answer, String> {
        http::ask(self.port, &format!("{method} {}{target}", self.base()), headers, body)
    }

    /// An example with this site's paths and ports in place of those that it names. `examples/servers/README.md` tells users to
    /// do the same.
    fn substituted(&self, text: &str) -> String {
        let directory = self.directory.path().display().to_string();
        let extension = format!(".{}", self.language.extension);
        let text = text
            .replace("/usr/local/bin/fcgi-lua", &self.runner)
            .replace("/srv/www", &format!("{directory}/www"))
            .replace("/run/app.sock", &format!("{directory}/app.sock"))
            .replace("/run/app-", &format!("{directory}/app-"))
            .replace(".lua", &extension)
            .replace("8080", &self.port.to_string())
            .replace("127.0.0.1:9000", &self.tcp);
        // As the examples tell for programs that listen on a port.
        if matches!(self.way.program, Program::Tcp) {
            let unix = format!("unix:{directory}/app.sock|fcgi://app/");
            return text.replace(&unix, &format!("fcgi://{}/", self.tcp));
        }
        text
    }

    fn configuration(&self) -> Result<String, String> {
        match self.way.config {
            Config::Example(name) => {
                let text = std::fs::read_to_string(repository().join("examples/servers").join(name));
                Ok(self.substituted(&text.map_err(|e| format!("examples/servers/{name}: {e}"))?))
            }
            Config::Printed(server) => {
                let words = ["--print-config", server];
                let output = Command::new(&self.runner).args(words).args(self.words()).output().unwrap();
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).into_owned());
                }
                Ok(String::from_utf8_lossy(&output.stdout).replace("8080", &self.port.to_string()))
            }
        }
    }

    /// The command line of the program.
    fn words(&self) -> Vec<String> {
        let www = self.directory.path().join("www").display().to_string();
        let mut words: Vec<String> = match self.way.program {
            Program::Unix => vec!["--listen".into(), self.directory.socket("app.sock")],
            Program::Tcp => vec!["--listen".into(), self.tcp.clone()],
            Program::Workers => {
                ["--listen", &self.directory.socket("app-{worker}.sock"), "--workers", "4"].map(str::to_owned).into()
            }
            Program::Launched(_) | Program::ByServer => Vec::new(),
        };
        words.extend(self.way.options.iter().map(|word| (*word).to_owned()));
        match self.way.served {
            Served::One => words.push(format!("{www}/app.{}", self.language.extension)),
            Served::Directory => words.extend(["--root".into(), www]),
        }
        words
    }

    pub fn start_program(&mut self) -> Result<(), String> {
        let mut command = match self.way.program {
            Program::ByServer => return Ok(()),
            Program::Unix | Program::Tcp | Program::Workers => Command::new(&self.runner),
            Program::Launched(example) => {
                let text = std::fs::read_to_string(repository().join("examples/servers").join(example)).unwrap();
                let mut command = Command::new("sh");
                command.arg(self.directory.file("launch.sh", self.substituted(&text)));
                command
            }
        };
        if matches!(self.way.program, Program::Unix | Program::Tcp | Program::Workers) {
            command.args(self.words());
        }
        plain_environment(&mut command);
        self.program = Some(Running::start(self.logged(&mut command)));
        let sockets: Vec<String> = match self.way.program {
            Program::Workers => (1..=4).map(|worker| format!("app-{worker}.sock")).collect(),
            _ => vec!["app.sock".to_owned()],
        };
        if matches!(self.way.program, Program::Tcp) {
            return wait("the program", || TcpStream::connect(&self.tcp).is_ok());
        }
        for socket in sockets {
            let socket = self.directory.path().join(socket);
            wait("the program", || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
            std::fs::set_permissions(&socket, Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    pub fn start_server(&mut self) -> Result<(), String> {
        let mut command = (self.way.software.command)(self.directory.path(), self.port);
        plain_environment(&mut command);
        let mut server = Running::start(self.logged(&mut command));
        let port = self.port;
        let waited = wait("the web server", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() || !matches!(server.0.try_wait(), Ok(None))
        });
        if let Ok(Some(status)) = server.0.try_wait() {
            return Err(format!("the web server does not start ({status}){}", self.logs()));
        }
        self.server = Some(server);
        waited
    }

    pub fn stop_program(&mut self) {
        self.program = None;
    }

    pub fn stop_server(&mut self) {
        self.server = None;
    }

    fn logged<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let log = File::options().create(true).append(true).open(self.directory.path().join("output.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log)
    }

    /// The last of what server and program said.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["start.log", "output.log", "error.log"] {
            let Ok(bytes) = std::fs::read(self.directory.path().join(name)) else { continue };
            let said = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(1500)..]).into_owned();
            if !said.trim().is_empty() {
                text += &format!("\n    {name}: {}", said.trim().replace('\n', "\n    "));
            }
        }
        text
    }

    /// What the logs say, all of it.
    pub fn has_logged(&self, words: &str) -> bool {
        ["start.log", "output.log", "error.log"].iter().any(|name| {
            std::fs::read(self.directory.path().join(name))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(words))
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The server first: it ends what it started.
        self.server = None;
        self.program = None;
    }
}

/// The program where all users can reach it: a repository, or the Python that it was built with, may lie in a home directory that
/// is closed to others.
fn reachable(program: &str, directory: &Directory) -> String {
    let is_open = |path: &Path| std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o001 != 0);
    let is_reachable = |path: &Path| path.ancestors().all(is_open);
    if program == FCGI_PYTHON && !is_reachable(&python_library()) {
        return with_its_library(program, directory);
    }
    if is_reachable(Path::new(program)) {
        return program.to_owned();
    }
    let copy = directory.path().join("program");
    std::fs::copy(program, &copy).unwrap();
    copy.display().to_string()
}

/// A copy as the `python3` of an installation that has a copy of the library.
fn with_its_library(program: &str, directory: &Directory) -> String {
    let library = python_library();
    let copy = directory.path().join("installation/lib").join(library.file_name().unwrap());
    std::fs::create_dir_all(&copy).unwrap();
    let line =
        "tar -C \"$1\" --exclude=./test --exclude=./site-packages --exclude=__pycache__ -cf - . | tar -C \"$2\" -xf -";
    let status = Command::new("sh").args(["-c", line, "sh"]).args([&library, &copy]).status().unwrap();
    assert!(status.success(), "{library:?} can be copied");
    let bin = directory.path().join("installation/bin");
    std::fs::create_dir(&bin).unwrap();
    let python = bin.join("python3");
    std::fs::copy(program, &python).unwrap();
    python.display().to_string()
}

/// Waits until something is so.
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return Err(format!("waited in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
