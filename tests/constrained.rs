//! Shared hosts under mod_fcgid: the socket on descriptor 0, one process, not one thread more.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, Running};

#[test]
fn one_process_one_thread_and_no_more_to_be_had() {
    let directory = Directory::new();
    let script = directory.file(
        "app.lua",
        "print('Content-Type: text/plain\\n')
         for line in io.lines('/proc/self/status') do if line:match('^Threads') then print(line) end end
         print(os.execute('true'))
         print(io.popen('true'))",
    );
    let listener = UnixListener::bind(directory.path().join("s")).unwrap();
    // Everybody may connect and read; then the program runs as a user of its own who may have one process.
    Command::new("chmod").args(["-R", "a+rwX"]).arg(directory.path()).status().unwrap();
    let program = directory.path().join("fcgi-lua");
    std::fs::copy(FCGI_LUA, &program).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit", "--nproc=1:1"])
        .arg(&program)
        .arg(&script)
        .current_dir(directory.path())
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut runner = Running::start(&mut command);
    for _ in 0..3 {
        let text = call(&directory.socket("s"), &[], b"").text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "Threads:\t1", "{text}");
        // No child can be started; the script learns it as from the C library.
        assert!(
            lines[3] == "-1"
                || (lines[3].starts_with("nil\t") && lines[3].contains("Resource temporarily unavailable")),
            "{text}"
        );
        assert!(lines[4].starts_with("nil\ttrue: Resource temporarily unavailable"), "{text}");
    }
    runner.signal("TERM");
    assert_eq!(runner.wait(std::time::Duration::from_secs(10)).0, Some(0));
}
