//! The command line of `python3`: each line is given to the real `python3` and to `fcgi-python`, which must do the same.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Directory, FCGI_PYTHON, PYTHON};

/// What a script finds.
const STATE: &str = "import sys, threading\n\
    print(sys.argv, sys.flags, getattr(sys, 'orig_argv', [])[1:], sys.executable, sys.path, sys.warnoptions, sys._xoptions)\n\
    print(__name__, globals().get('__file__'), __doc__, __spec__, __loader__, __package__, __debug__, sorted(globals()))\n\
    print(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.dont_write_bytecode, sys.pycache_prefix, sys.platlibdir)\n\
    print(sys.stdout.line_buffering, sys.stdout.encoding, sys.stdout.errors, sys.getfilesystemencoding())\n\
    print(sorted(sys.modules), sys.getrecursionlimit(), threading.active_count(), sys.version, sys.implementation)";

const FILES: &[(&str, &str)] = &[
    ("module.py", "'what it is for'\nimport state"),
    ("package/__init__.py", "print('init')"),
    ("package/__main__.py", "import state"),
    ("nothing/nothing.txt", ""),
    ("error.py", "def g():\n    raise ValueError('bad')\n\ng()"),
    ("syntax.py", "x = = 1"),
    ("exit.py", "import sys\nprint('flushed')\nsys.exit(5)"),
    ("exit_text.py", "import sys\nsys.exit('said')"),
    ("assertion.py", "def f():\n    'doc'\n    assert False\nprint(f.__doc__)\nf()"),
    ("bytes.py", "print('a' == b'a')"),
    ("killed.py", "import os, signal\nprint('lost', end='')\nos.kill(os.getpid(), signal.SIGTERM)"),
    ("faulty.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\nprint('still here')"),
    ("interrupted.py", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)"),
    (
        "at_exit.py",
        "import atexit\natexit.register(print, 'bye')\nclass A:\n    def __del__(self): print('del')\na = A()",
    ),
    ("reads.py", "import sys\nsys.stdout.write('no line end')\nsys.stderr.write('err')\nprint(sys.stdin.read())"),
    ("start.py", "print('started')"),
    ("thread.py", "import threading, time\nthreading.Timer(.02, print, ['thread']).start()\nprint('main')"),
    ("fork.py", "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint(bool(pid))"),
    (
        "signals.py",
        "import signal\nprint([(s, signal.getsignal(s)) for s in signal.valid_signals()], signal.pthread_sigmask(0, []))",
    ),
    ("descriptors.py", "import os\nprint(sorted(os.listdir('/proc/self/fd')), os.environ)"),
    (
        "spawn.py",
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    m.set_start_method('spawn')\n    \
            with m.Pool(1) as p: print(p.map(f, [1, 2]))",
    ),
    (
        "child.py",
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import sys; print(sys.path)']))",
    ),
    ("latin.py", "# -*- coding: latin-1 -*-\nprint(ascii('\u{e9}'))"),
    ("-dash.py", "import state"),
];

/// Scripts, `-c` and `-m`, ends of all kinds.
const PROGRAMS: &[&[&str]] = &[
    &["-c", STATE, "a", "-b", "--listen"],
    &["-cprint(2)"],
    &["-m", "module", "a", "--listen"],
    &["-mmodule"],
    &["-m", "package", "-x"],
    &["-m", "no_such"],
    &["-m", "module.x"],
    &["-m", "json.tool", "--help"],
    &["state.py", "a", "-O", "--", "b"],
    &["./state.py"],
    &["package", "x"],
    &["archive.zip", "y"],
    &["nothing"],
    &["no_such.py"],
    &["--", "state.py", "x"],
    &["--", "-dash.py", "x"],
    &["-", "a"],
    &["error.py"],
    &["syntax.py"],
    &["exit.py"],
    &["exit_text.py"],
    &["killed.py"],
    &["faulty.py"],
    &["interrupted.py"],
    &["at_exit.py"],
    &["reads.py"],
    &["thread.py"],
    &["fork.py"],
    &["signals.py"],
    &["descriptors.py"],
    &["spawn.py"],
    &["child.py"],
    &["latin.py"],
    &["-c", "raise ValueError('x')"],
    &["-c", "x ="],
    &["-c", "import sys; sys.exit(300)"],
    &["-c", "import sys; sys.exit(-1)"],
    &["-c", "raise SystemExit(None)"],
    &["-c", "import os; os._exit(9)"],
    &["-c", "import os; os.abort()"],
    &["-c", "import os; os.write(1, b'x'); print('y')"],
    &["-c", "import sys; sys.stdout.close(); sys.exit(0)"],
    &["-c", "import os; os.close(1); print('x')"],
    &["-c", "def f(): f()\nf()"],
    &["-c", "print('\\udc80')"],
    &["-c", "help(print)"],
];

/// The interpreter's options.
const OPTIONS: &[&[&str]] = &[
    &["-b", "bytes.py"],
    &["-bb", "bytes.py"],
    &["-B", "state.py"],
    &["-d", "state.py"],
    &["-E", "state.py"],
    &["-h"],
    &["-?"],
    &["-h", "state.py"],
    &["--help-env"],
    &["--help-xoptions"],
    &["--help-all"],
    &["-I", "state.py"],
    &["assertion.py"],
    &["-O", "assertion.py"],
    &["-OO", "assertion.py"],
    &["-P", "state.py"],
    &["-Pc", STATE],
    &["-q", "state.py"],
    &["-R", "state.py"],
    &["-s", "state.py"],
    &["-S", "state.py"],
    &["-BEsS", "-c", STATE],
    &["-u", "state.py"],
    &["-u", "-c", STATE],
    &["-v", "-c", "pass"],
    &["-V"],
    &["-VV"],
    &["-V", "state.py"],
    &["-W", "error", "state.py"],
    &["-Werror", "-c", "import warnings; warnings.warn('x')"],
    &["-W", "bad:bad", "-c", "pass"],
    &["-x", "state.py"],
    &["-x", "syntax.py"],
    &["-X", "dev", "state.py"],
    &["-Xutf8=0", "state.py"],
    &["-X", "faulthandler", "state.py"],
    &["-X", "tracemalloc=3", "state.py"],
    &["-X", "no_such", "state.py"],
    &["-X", "int_max_str_digits=10", "-c", "pass"],
    &["-X", "frozen_modules=off", "state.py"],
    &["-X", "pycache_prefix=cache", "state.py"],
    &["-X", "warn_default_encoding", "-c", "open('/dev/null').close()"],
    &["-X", "no_debug_ranges", "error.py"],
    &["-X", "gil=1", "-c", "pass"],
    &["-X", "cpu_count=1", "-c", "import os; print(os.cpu_count())"],
    &["--check-hash-based-pycs", "always", "state.py"],
    &["--check-hash-based-pycs", "bad", "state.py"],
    &["--check-hash-based-pycs"],
    // Without their values, and such as there are not.
    &["-c"],
    &["-m"],
    &["-W"],
    &["-X"],
    &["-J"],
    &["-t", "state.py"],
    &["-Z"],
    &["-y", "state.py"],
];

/// Where something is typed.
const TYPED: &[&[&str]] = &[
    &[],
    &["-i"],
    &["-q"],
    &["-qi"],
    &["-i", "-c", "x = 3"],
    &["-ic", "x = 3"],
    &["-i", "error.py"],
    &["-i", "exit.py"],
];

const ENVIRONMENTS: &[(&str, &str, &[&str])] = &[
    ("PYTHONOPTIMIZE", "1", &["assertion.py"]),
    ("PYTHONSTARTUP", "start.py", &["-i"]),
    ("PYTHONSTARTUP", "start.py", &["state.py"]),
    ("PYTHONINSPECT", "1", &["-c", "x = 1"]),
    ("PYTHONPATH", "/tmp/p:/x", &["state.py"]),
    ("PYTHONPATH", "/tmp/p:/x", &["-E", "state.py"]),
    ("PYTHONHOME", "/no/such", &["-c", "pass"]),
    ("PYTHONIOENCODING", "latin-1:replace", &["state.py"]),
    ("PYTHONUTF8", "1", &["state.py"]),
    ("PYTHONUTF8", "bad", &["state.py"]),
    ("PYTHONDONTWRITEBYTECODE", "1", &["state.py"]),
    ("PYTHONUNBUFFERED", "1", &["state.py"]),
    ("PYTHONWARNINGS", "error", &["state.py"]),
    ("PYTHONHASHSEED", "0", &["-c", "print(hash('a'))"]),
    ("PYTHONHASHSEED", "bad", &["-c", "pass"]),
    ("PYTHONSAFEPATH", "1", &["state.py"]),
    ("PYTHONNOUSERSITE", "1", &["state.py"]),
    ("PYTHONDEVMODE", "1", &["state.py"]),
    ("PYTHONFAULTHANDLER", "1", &["state.py"]),
    ("PYTHONTRACEMALLOC", "2", &["state.py"]),
    ("PYTHONDEBUG", "1", &["state.py"]),
    ("PYTHONCOERCECLOCALE", "warn", &["state.py"]),
    ("PYTHONCOERCECLOCALE", "0", &["state.py"]),
    ("LC_ALL", "C", &["state.py"]),
    ("LC_ALL", "C.UTF-8", &["descriptors.py"]),
    ("PYTHONBREAKPOINT", "0", &["-c", "breakpoint()"]),
    ("PYTHONPYCACHEPREFIX", "cache", &["state.py"]),
    ("PYTHONMALLOC", "debug", &["state.py"]),
    ("PYTHONMALLOC", "bad", &["state.py"]),
    ("PYTHONINTMAXSTRDIGITS", "700", &["state.py"]),
    ("PYTHONPLATLIBDIR", "lib9", &["-c", "pass"]),
    ("PYTHONEXECUTABLE", "/x", &["state.py"]),
    ("PYTHONUSERBASE", "/tmp/b", &["-c", "import site; print(site.getuserbase())"]),
    ("PYTHONVERBOSE", "1", &["-c", "pass"]),
    ("PYTHONNODEBUGRANGES", "1", &["error.py"]),
    ("PYTHON_COLORS", "1", &["error.py"]),
    ("PYTHON_BASIC_REPL", "1", &["-i"]),
    ("PYTHON_CPU_COUNT", "1", &["-c", "import os; print(os.cpu_count())"]),
    ("PYTHONASYNCIODEBUG", "1", &["state.py"]),
    ("PYTHONCASEOK", "1", &["state.py"]),
    ("TERM", "xterm", &["-i"]),
];

const TYPING: &str =
    "1+1\nprint('x')\ndef f():\n  return 3\n\nf()\n1/0\nx = = 2\nx\nimport sys\nsys.argv\nsys.exit(4)\n";

/// Everything that a program says, and its end. Its own name and addresses are made equal.
fn says(program: &str, directory: &Path, words: &[&str], variable: Option<(&str, &str)>) -> String {
    let mut command = Command::new(program);
    command.args(words).current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory);
    command.envs(variable).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let types = words.is_empty() || words[0].starts_with("-i") || words[0].starts_with("-q");
    let input = if types { TYPING } else { "import sys; print('typed', sys.argv)\n" };
    // A program that does not read its input is not an error here.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = [&output.stdout[..], b"\n--- errors\n", &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(program, "PYTHON").replace(PYTHON, "PYTHON");
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    let without_addresses =
        parts.fold(first, |all, part| all + "0x" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    format!("{without_addresses}\n--- ended {:?} {:?}", output.status.code(), output.status.signal())
}

#[test]
fn as_the_real_one() {
    let directory = Directory::new();
    directory.file("state.py", STATE);
    for folder in ["package", "nothing"] {
        std::fs::create_dir(directory.path().join(folder)).unwrap();
    }
    for (name, text) in FILES {
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        directory.file(name, latin);
    }
    let zip = ["-c", "import zipfile; zipfile.ZipFile('archive.zip', 'w').write('module.py', '__main__.py')"];
    assert!(Command::new(PYTHON).args(zip).current_dir(directory.path()).status().unwrap().success());
    // So that both find the same.
    assert!(
        Command::new(PYTHON)
            .args(["-c", "import state, module"])
            .current_dir(directory.path())
            .output()
            .unwrap()
            .status
            .success()
    );

    let lines = [PROGRAMS, OPTIONS, TYPED].concat().into_iter().map(|words| (None, words));
    let lines = lines.chain(ENVIRONMENTS.iter().map(|(name, value, words)| (Some((*name, *value)), *words)));
    let mut differences = Vec::new();
    for (variable, words) in lines {
        let [ours, theirs] = [FCGI_PYTHON, PYTHON].map(|program| says(program, directory.path(), words, variable));
        if ours != theirs {
            let ends = [&ours, &theirs].map(|said| said.lines().last().unwrap_or_default());
            let differing = ours
                .lines()
                .zip(theirs.lines())
                .filter(|(one, other)| one != other)
                .take(3)
                .chain([(ends[0], ends[1])]);
            let shown: String = differing.map(|(one, other)| format!("  ours   {one}\n  theirs {other}\n")).collect();
            differences.push(format!("{variable:?} {words:?}\n{shown}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn closed_descriptors_stay_closed() {
    let directory = Directory::new();
    let script = directory.file(
        "script.py",
        "import os, sys\nwith open(sys.argv[1], 'w') as f:\n    print(f.fileno(), sys.stdin, sys.stdout, sys.stderr, \
         sorted(os.listdir('/proc/self/fd')), file=f)",
    );
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let [ours, theirs] = [FCGI_PYTHON, PYTHON].map(|program| {
            let said = directory.path().join("said");
            let line = format!("exec \"$0\" \"$@\" {closed}");
            let status = Command::new("sh").args(["-c", &line, program]).arg(&script).arg(&said).status().unwrap();
            (std::fs::read_to_string(&said).unwrap(), status)
        });
        assert_eq!(ours, theirs, "{closed}");
    }
}

/// What a program finds around itself, called as a shell calls it.
fn finds(program: impl AsRef<Path>, from: &Path, variables: &[(&str, &Path)]) -> String {
    let script = "import sys, subprocess\nprint(sys.prefix, sys.base_prefix, sys.executable, sys.path)\n\
                  subprocess.run([sys.executable, '-c', 'import sys; print(sys.prefix)'])";
    let mut command = Command::new("/bin/sh");
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied()).current_dir(from);
    command.args(["-c", "exec \"$0\" -uc \"$1\""]).arg(program.as_ref()).arg(script);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}: {}", program.as_ref(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_environment_that_it_lies_in() {
    let directory = Directory::new();
    let here = directory.path();
    let home = Path::new(PYTHON).parent().unwrap().to_str().unwrap();
    let [linked, copied, active] = ["linked", "copied", "active"].map(|name| {
        let environment = here.join(name);
        std::fs::create_dir_all(environment.join("bin")).unwrap();
        directory.file(&format!("{name}/pyvenv.cfg"), format!("home = {home}\n"));
        symlink(PYTHON, environment.join("bin/python3")).unwrap();
        environment
    });
    symlink(FCGI_PYTHON, linked.join("bin/fcgi-python")).unwrap();
    std::fs::copy(FCGI_PYTHON, copied.join("bin/fcgi-python")).unwrap();
    for environment in [&linked, &copied] {
        let bin = environment.join("bin");
        let theirs = finds(bin.join("python3"), here, &[]);
        assert!(theirs.starts_with(&*environment.to_string_lossy()), "{theirs}");
        assert_eq!(finds(bin.join("fcgi-python"), here, &[]), theirs);
        assert_eq!(finds("./fcgi-python", &bin, &[]), theirs);
        assert_eq!(finds("fcgi-python", here, &[("PATH", &bin)]), theirs);
        // Another one is active, which is nothing to a python3 of this one.
        assert_eq!(finds(bin.join("fcgi-python"), here, &[("VIRTUAL_ENV", &active)]), theirs);
    }
    let theirs = finds(active.join("bin/python3"), here, &[]);
    assert_eq!(finds(FCGI_PYTHON, here, &[("VIRTUAL_ENV", &active)]), theirs);
    let theirs = finds(PYTHON, here, &[]);
    assert_eq!(finds(FCGI_PYTHON, here, &[]), theirs);
    assert_eq!(finds(FCGI_PYTHON, here, &[("VIRTUAL_ENV", &here.join("none"))]), theirs);
}

/// Where the library of the real one lies.
pub fn python_library() -> PathBuf {
    let output = Command::new(PYTHON).args(["-Ic", "import os; print(os.path.dirname(os.__file__))"]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Installs a program as the `python3` of a prefix that has the library of the real one.
pub fn install_as_python3(program: &str, prefix: &Path) -> PathBuf {
    let library = python_library();
    let [bin, lib] = ["bin", "lib"].map(|name| prefix.join(name));
    for made in [&bin, &lib] {
        std::fs::create_dir_all(made).unwrap();
    }
    symlink(&library, lib.join(library.file_name().unwrap())).unwrap();
    let python = bin.join("python3");
    std::fs::copy(program, &python).unwrap();
    python
}

#[test]
fn the_installation_whose_python3_it_is() {
    let directory = Directory::new();
    let [theirs, ours] = [("theirs", PYTHON), ("ours", FCGI_PYTHON)].map(|(name, program)| {
        let prefix = directory.path().join(name);
        let found = finds(install_as_python3(program, &prefix), directory.path(), &[]);
        assert!(found.starts_with(&*prefix.to_string_lossy()), "{found}");
        found.replace(prefix.to_str().unwrap(), "PREFIX")
    });
    assert_eq!(ours, theirs);
}

/// Python runs faster when the program contains it; extension modules find it there, too.
#[test]
fn the_library_is_part_of_the_program_where_it_can_be() {
    let says = |program: &str, code: &str| {
        let output = Command::new(program).args(["-c", code]).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let archive = "import os, sysconfig as s
print(os.path.isfile(os.path.join(s.get_config_var('LIBPL'), s.get_config_var('LIBRARY'))))";
    // Some linkers have the library loaded nevertheless, in vain.
    let lies_in_program = "import ctypes, os
class Where(ctypes.Structure):
    _fields_ = [('file', ctypes.c_char_p)] + [(name, ctypes.c_void_p) for name in ('base', 'symbol', 'address')]
where = Where()
ctypes.CDLL(None).dladdr(ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p), ctypes.byref(where))
print(b'libpython' not in os.path.basename(where.file))";
    assert_eq!(says(FCGI_PYTHON, lies_in_program), says(PYTHON, archive));
    let imports = "import ctypes, sys
import _ctypes, _decimal, _ssl
get = ctypes.pythonapi.Py_GetVersion
get.restype = ctypes.c_char_p
print(get().decode() == sys.version)";
    assert_eq!(says(FCGI_PYTHON, imports), "True\n");
}
