//! The command line of `lua`: each line is given to the real `lua` and to `fcgi-lua`, which must do the same.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Directory, FCGI_LUA, LUA, comparable, lua_is_at_least};

/// Everything that a program says, and its exit status. Its name, addresses and its version's last digit are made equal.
fn says(program: &str, directory: &Path, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> String {
    let mut command = Command::new(program);
    command.arg0("lua").args(arguments).current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin");
    command.envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e} (tests/run installs it)"));
    // A program that does not read its input is not an error here.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, b"\n--- errors\n".to_vec(), output.stderr].concat();
    let text: Vec<String> = String::from_utf8_lossy(&comparable(&text))
        .split(' ')
        .map(|word| match word {
            word if word.starts_with("5.4.") => "5.4".to_owned(),
            word if word.starts_with("2.1.") => "2.1".to_owned(),
            word if word.starts_with("1994-") => "1994".to_owned(),
            word if word.starts_with("2005-") => "2005".to_owned(),
            word => word.to_owned(),
        })
        .collect();
    format!("{}\n--- status {:?}", text.join(" "), output.status.code())
}

#[test]
fn as_the_real_one() {
    let directory = Directory::new();
    directory.file(
        "s.lua",
        "print('script', ...) for i = -6, 6 do if arg[i] then io.write(i, '=', arg[i], ' ') end end print()",
    );
    for (name, text) in [
        ("init.lua", "print('init file')"),
        ("mymod.lua", "return {x = 1}"),
        ("err.lua", "error('in script')"),
        ("syn.lua", "local x = = 2"),
        ("bin.lua", "#!shebang\nprint('behind a first line')"),
    ] {
        directory.file(name, text);
    }
    let lines: &[&[&str]] = &[
        &["-e", "print(1)"],
        &["-eprint(2)"],
        &["-e", "x=1", "-e", "print(x)"],
        &["s.lua", "a", "b"],
        &["-e", "print(0)", "s.lua", "a", "-e", "--listen"],
        &["-l", "mymod", "-e", "print(mymod.x)"],
        &["-lg=mymod", "-e", "print(g.x, mymod)"],
        &["-l", "nosuch"],
        &["-v"],
        &["-v", "-e", "print(1)"],
        &["-W", "-e", "warn('w')"],
        &["-e", "warn('off') warn('@on') warn('on', ' and on')"],
        &["-E", "-e", "print(package.path) print(package.cpath)"],
        &["-e"],
        &["-l"],
        &["-x"],
        &["-vi"],
        &["--", "s.lua", "x"],
        &["err.lua"],
        &["syn.lua"],
        &["bin.lua"],
        &["."],
        &["-e", "error('e')"],
        &["-e", "error({})"],
        &["-e", "error(setmetatable({}, {__tostring = function() return 'TS' end}))"],
        &["-e", "error()"],
        &["-e", "x ="],
        &["-e", "os.exit(true)"],
        &["-e", "os.exit(false)"],
        &["-e", "io.write('flushed') os.exit(3)"],
        &["-e", "local x <close> = setmetatable({}, {__close = function() print('closed') end}) os.exit(1, true)"],
        &["-e", "setmetatable({}, {__gc = function() print('gc') end})"],
        &["-e", "print(#arg, arg[0], arg[-1], ...)"],
        &["-e", "print(collectgarbage('incremental'))"],
        &["-e", "print(debug.traceback('tb'))"],
        &["-e", "coroutine.wrap(function() error('co') end)()"],
        &["-e", "local function f() f() end f()"],
        &["-e", "print(io.read('*a'))"],
        &["-e", "string.rep()"],
        &["-e", "print(pcall(require, 'fcgi.nothing'))"],
        &["-W", "-v", "-E", "s.lua", "q"],
        &["-", "a", "b"],
        &["-e", "arg[1] = 100", "s.lua"],
        &["-e", "arg = 1", "s.lua"],
        &["-i", "-e", "print = nil"],
        &[],
        &["--", "-"],
        &["-i"],
        &["-i", "s.lua"],
        &["-e", "print(1)", "-i"],
    ];
    let input = "print(...)\nprint(1)\n";
    let typed = "1+1\nprint('x')\nx = 5\nx\n=x*2\nfor i = 1, 2 do\nprint(i)\nend\nerror('oops')\nfoo bar\nreturn 7, 8\n\
                 setmetatable({}, {__tostring = function() error('ts') end})\nn = io.write('no line end ')\n_PROMPT = 'next: '\n1\n";
    // The program of 5.1 does what `LUA_INIT` says even before it finds an option wrong; so ours are not compared there.
    let is_known = |arguments: &[&str]| {
        (lua_is_at_least(2) || !arguments.contains(&"-E")) && (lua_is_at_least(4) || !arguments.contains(&"-W"))
    };
    let mut differences = Vec::new();
    for arguments in lines.iter().filter(|arguments| is_known(arguments)) {
        let input = if arguments.contains(&"-i") { typed } else { input };
        let ours = says(FCGI_LUA, directory.path(), arguments, &[], input);
        let theirs = says(LUA, directory.path(), arguments, &[], input);
        if ours != theirs {
            differences.push(format!("{arguments:?}\n*** ours\n{ours}\n*** theirs\n{theirs}\n"));
        }
    }
    type WithEnvironment<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let environments: &[WithEnvironment<'_>] = &[
        (&[("LUA_INIT", "print('init')")], &["-e", "print(1)"]),
        (&[("LUA_INIT", "print('init')")], &["-E", "-e", "print(1)"]),
        (&[("LUA_INIT", "print('init')")], &["-v"]),
        (&[("LUA_INIT", "@init.lua")], &["s.lua"]),
        (&[("LUA_INIT", "error('bad init')")], &["s.lua"]),
        (&[("LUA_INIT", "error('bad')"), ("LUA_INIT_5_4", "print('5.4')")], &["s.lua"]),
        (&[("LUA_PATH", "./x/?.lua;;")], &["-e", "print(package.path)"]),
        (&[("LUA_PATH_5_4", "only"), ("LUA_PATH", "x")], &["-e", "print(package.path)"]),
        (&[("LUA_PATH", "x")], &["-E", "-e", "print(package.path)"]),
        (&[("LUA_CPATH", "a;;b")], &["-e", "print(package.cpath)"]),
    ];
    for (environment, arguments) in environments.iter().filter(|(_, arguments)| is_known(arguments)) {
        let ours = says(FCGI_LUA, directory.path(), arguments, environment, input);
        let theirs = says(LUA, directory.path(), arguments, environment, input);
        if ours != theirs {
            differences.push(format!("{environment:?} {arguments:?}\n*** ours\n{ours}\n*** theirs\n{theirs}\n"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
