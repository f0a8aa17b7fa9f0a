//! Python: modules that the standard library once had.

use std::process::Command;
use std::time::Duration;

use crate::support::client::call;
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment, serve_with};

#[test]
fn a_module_that_python_has_no_more() {
    let directory = Directory::new();
    let script = directory.file("old.py", "import telnetlib_gone, sys\n");
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[&script.display().to_string()]);
    assert!(call(&address, &[], b"").errors().contains("ModuleNotFoundError: No module named 'telnetlib_gone'"));
    directory.file("old.py", "raise ModuleNotFoundError(\"No module named 'cgi'\", name='cgi')\n");
    std::thread::sleep(Duration::from_millis(1100));
    let errors = call(&address, &[], b"").errors();
    assert!(errors.contains("pip install legacy-cgi brings it back"), "{errors}");
    for (module, package) in [("crypt", "crypt-r"), ("smtpd", "standard-smtpd")] {
        let gone = directory
            .file(&format!("{module}_gone.py"), format!("raise ModuleNotFoundError('gone', name='{module}')\n"));
        let address = directory.socket(module);
        let _runner = serve_with(FCGI_PYTHON, &address, &[&gone.display().to_string()]);
        let errors = call(&address, &[], b"").errors();
        assert!(errors.contains(&format!("pip install {package} brings it back")), "{errors}");
    }
}

/// `cgi.test()` sets the module's own limit, also where the module has been installed.
#[test]
fn a_module_that_was_once_standard_is_put_back() {
    let directory = Directory::new();
    std::fs::create_dir(directory.path().join("site-packages")).unwrap();
    directory.file("site-packages/cgi.py", "maxlen = 0\n\n\ndef test():\n    global maxlen\n    maxlen = 50\n");
    let text = "import cgi\nprint('Content-Type: text/plain\\n')\nprint(cgi.maxlen)\ncgi.test()\n";
    let script = directory.file("script.py", text);
    let address = directory.socket("s");
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.env("PYTHONPATH", directory.path().join("site-packages"));
    let _runner = Running::start(command.args(["--listen", &address]).arg(script));
    for _ in 0..3 {
        assert_eq!(call(&address, &[], b"").text(), "Content-Type: text/plain\n\n0\n");
    }
}
