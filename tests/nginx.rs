//! Behind the real nginx: kept connections and not, unix and TCP, many clients, large bodies both ways.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Directory, Running, repository, serve};

/// A web server of the test's own, with the configuration of the examples.
pub struct Nginx {
    port: u16,
    _running: Running,
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Nginx {
    pub fn start(directory: &Directory, upstream: &str, keep: bool) -> Self {
        let keep_upstream = if keep { "keepalive 16;" } else { "" };
        let keep_conn = if keep { "fastcgi_keep_conn on;" } else { "" };
        let location = format!("location / {{ include fastcgi.conf; {keep_conn} fastcgi_pass runner; }}");
        Self::with(directory, &format!("upstream runner {{ server {upstream}; {keep_upstream} }}"), &location)
    }

    /// A web server with locations of the test's own, which find the configuration of the examples as `fastcgi.conf`.
    pub fn with(directory: &Directory, upstreams: &str, locations: &str) -> Self {
        let port = free_port();
        let path = directory.path().display();
        std::fs::copy(repository().join("examples/servers/nginx-fastcgi.conf"), directory.path().join("fastcgi.conf"))
            .unwrap();
        let configuration = format!(
            "user root; daemon off; worker_processes 2; pid {path}/nginx.pid; error_log {path}/error.log;
             events {{ worker_connections 512; }}
             http {{
               access_log off; client_max_body_size 200m;
               client_body_temp_path {path}/body; fastcgi_temp_path {path}/fastcgi; proxy_temp_path {path}/proxy;
               uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
               {upstreams}
               server {{
                 listen 127.0.0.1:{port};
                 root {path};
                 {locations}
               }}
             }}"
        );
        let file = directory.file("nginx.conf", configuration);
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-e").arg(directory.path().join("start.log"));
        let running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "nginx does not listen (is it installed? tests/run installs it)");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { port, _running: running }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    #[cfg(feature = "python")]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One HTTP/1.0 request; gives status, head and body.
    pub fn ask(&self, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        socket.write_all(format!("{head} HTTP/1.0\r\nHost: test\r\n{length}\r\n").as_bytes()).unwrap();
        socket.write_all(body).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP head");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer.split_off(end + 4))
    }
}

const APP: &str = r#"
local query = os.getenv("QUERY_STRING")
if query == "upload" then
  local bytes, sum = 0, 0
  while true do
    local block = io.read(65536)
    if not block then break end
    bytes = bytes + #block
    sum = (sum * 31 + block:byte(1) + block:byte(-1)) % 1000003
  end
  print("Content-Type: text/plain\n")
  print(bytes)
elseif query == "download" then
  io.write("Content-Type: application/octet-stream\n\n")
  local block = string.rep("0123456789abcdef", 4096)
  for i = 1, 1600 do io.write(block) end
elseif query == "error" then
  io.stderr:write("to the log of nginx\n")
  error("failed on purpose")
else
  count = (count or 0) + 1
  print("Status: 203 Fine\nContent-Type: text/plain\nX-One: 1\n")
  print(query, count, os.getenv("REQUEST_METHOD"))
end
"#;

fn behind_nginx(unix: bool, keep: bool, arguments: &[&str]) {
    let directory = Directory::new();
    let script = directory.file("app.lua", APP).display().to_string();
    let (address, upstream) = if unix {
        (directory.socket("s"), format!("unix:{}/s", directory.path().display()))
    } else {
        let address = format!("127.0.0.1:{}", free_port());
        (address.clone(), address)
    };
    let _runner = serve(&address, &[arguments, &[&script]].concat());
    let nginx = Nginx::start(&directory, &upstream, keep);

    let (status, head, body) = nginx.ask("GET /?hello", b"");
    assert_eq!((status, &body[..]), (203, &b"hello\t1\tGET\n"[..]), "{head}");
    assert!(head.contains("X-One: 1"));
    let (status, _, body) = nginx.ask("HEAD /?hello", b"");
    assert_eq!((status, body.len()), (203, 0));
    let (status, ..) = nginx.ask("GET /?error", b"");
    assert_eq!(status, 500);
    let log = std::fs::read_to_string(directory.path().join("error.log")).unwrap();
    assert!(log.contains("to the log of nginx") && log.contains("failed on purpose"), "{log}");

    // 64 clients.
    std::thread::scope(|scope| {
        for client in 0..64 {
            let nginx = &nginx;
            scope.spawn(move || {
                for turn in 0..10 {
                    let (status, _, body) = nginx.ask(&format!("GET /?c{client}-{turn}"), b"");
                    assert_eq!((status, body), (203, format!("c{client}-{turn}\t1\tGET\n").into_bytes()));
                }
            });
        }
    });

    let upload = vec![b'u'; 50 << 20];
    let (status, _, body) = nginx.ask("POST /?upload", &upload);
    assert_eq!((status, body), (200, format!("{}\n", 50 << 20).into_bytes()));
    let (status, _, body) = nginx.ask("GET /?download", b"");
    assert_eq!((status, body.len()), (200, 1600 * 65536));
    assert!(body.chunks(16).all(|c| c == b"0123456789abcdef"));
}

#[test]
fn unix_socket_a_connection_per_request() {
    behind_nginx(true, false, &[]);
}

#[test]
fn unix_socket_kept_connections() {
    behind_nginx(true, true, &["--workers", "2"]);
}

#[test]
fn tcp_a_connection_per_request() {
    behind_nginx(false, false, &["--threads", "2"]);
}

#[test]
fn tcp_kept_connections() {
    behind_nginx(false, true, &[]);
}
