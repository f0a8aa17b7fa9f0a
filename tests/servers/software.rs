//! The web servers. Each has a main configuration of the test's own, into which it takes the one that is tested.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// How a server is started with the files in a directory: `site.conf` is what is tested.
pub struct Software {
    /// Writes the main configuration; gives the command.
    pub command: fn(&Path, port: u16) -> Command,
    /// It calls a status by its own name, whatever the program calls it.
    pub has_own_reasons: bool,
}

fn write(directory: &Path, text: &str) -> String {
    let file = directory.join("main.conf");
    let text = text.replace("$DIR", &directory.display().to_string());
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

pub const NGINX: Software = Software {
    has_own_reasons: false,
    command: |directory, _| {
        let main = write(
            directory,
            "daemon off; worker_processes 2; pid $DIR/nginx.pid; error_log $DIR/error.log;
             events { worker_connections 512; }
             http {
               access_log off;
               client_body_temp_path $DIR/body; fastcgi_temp_path $DIR/fastcgi; proxy_temp_path $DIR/proxy;
               uwsgi_temp_path $DIR/uwsgi; scgi_temp_path $DIR/scgi;
               include $DIR/site.conf;
             }\n",
        );
        command("nginx", &["-c", &main, "-e", &directory.join("start.log").display().to_string()])
    },
};

pub const APACHE: Software = Software {
    has_own_reasons: false,
    command: |directory, _| {
        let user = if is_root() { "User www-data\nGroup www-data\n" } else { "" };
        let modules = [
            "mpm_event",
            "authz_core",
            "authn_core",
            "alias",
            "env",
            "setenvif",
            "mime",
            "proxy",
            "proxy_fcgi",
            "slotmem_shm",
            "proxy_balancer",
            "lbmethod_byrequests",
            "fcgid",
            "cgid",
            "authnz_fcgi",
            "auth_basic",
            "authz_user",
        ];
        let modules: String = modules
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
        let main = write(
            directory,
            &format!(
                "ServerRoot $DIR\nServerName localhost\nPidFile $DIR/httpd.pid\nDefaultRuntimeDir $DIR\n{modules}{user}
                 ErrorLog $DIR/error.log\nTypesConfig /dev/null\nScriptSock $DIR/cgid.sock
                 FcgidIPCDir $DIR/fcgid\nFcgidProcessTableFile $DIR/fcgid.shm\n
                 <Directory />\nRequire all denied\n</Directory>
                 Include $DIR/site.conf\n"
            ),
        );
        command("apache2", &["-f", &main, "-DFOREGROUND"])
    },
};

pub const LIGHTTPD: Software = Software {
    has_own_reasons: true,
    command: |directory, port| {
        let main = write(
            directory,
            &format!(
                "server.port = {port}\nserver.bind = \"127.0.0.1\"\nserver.document-root = \"$DIR/www\"
                 server.errorlog = \"$DIR/error.log\"\nserver.upload-dirs = ( \"$DIR\" )
                 static-file.exclude-extensions = ()\n
                 include \"$DIR/site.conf\"\n"
            ),
        );
        command("lighttpd", &["-D", "-f", &main])
    },
};

pub const CADDY: Software = Software {
    has_own_reasons: true,
    command: |directory, _| {
        let main = write(directory, "{\n\tadmin off\n\tauto_https off\n}\nimport $DIR/site.conf\n");
        let mut command = command("caddy", &["run", "--adapter", "caddyfile", "--config", &main]);
        command.env("HOME", directory).env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
        command
    },
};

pub const HAPROXY: Software = Software {
    has_own_reasons: false,
    command: |directory, _| {
        let main = write(
            directory,
            "global\n    log stderr format raw local0\n    maxconn 500\n
             defaults\n    log global\n    timeout connect 5s\n    timeout client 120s\n    timeout server 120s\n",
        );
        command("haproxy", &["-db", "-f", &main, "-f", &directory.join("site.conf").display().to_string()])
    },
};

pub const H2O: Software = Software {
    has_own_reasons: false,
    command: |directory, _| {
        let user = if is_root() { "user: root\n" } else { "" };
        let site = std::fs::read_to_string(directory.join("site.conf")).unwrap();
        let main = write(directory, &format!("{user}num-threads: 2\nerror-log: $DIR/error.log\n{site}"));
        let mut command = command("h2o", &["-c", &main]);
        command.env("TMPDIR", directory);
        command
    },
};
