//! systemd: a socket that is there from the beginning, and a service that is started with it.

use std::fmt::Write as _;

use anyhow::bail;

use super::{Served, Site};

pub(super) fn print(site: &Site) -> anyhow::Result<String> {
    if site.backends.is_empty() {
        bail!("give --listen with the address that systemd is to listen on");
    }
    let mut listens = String::new();
    for address in &site.listens {
        let _ = writeln!(listens, "ListenStream={address}");
    }
    let served = match &site.served {
        Served::One(Some(script)) => script,
        Served::One(None) => "the application",
        Served::Directory { root, .. } => root,
    };
    let command = &site.without_listen;
    Ok(format!(
        "# systemd: two files, each below the line with its name. The socket is there before the program, and stays while that is
# restarted: no request is lost.
#
#     systemctl daemon-reload && systemctl enable --now app.socket app.service
#
# /etc/systemd/system/app.socket
[Unit]
Description=FastCGI socket of {served}

[Socket]
{listens}# The web server's user may connect, and no other.
SocketUser=www-data
SocketMode=0600

[Install]
WantedBy=sockets.target

# /etc/systemd/system/app.service
[Unit]
Description=FastCGI server of {served}
Requires=app.socket
After=network.target

[Service]
ExecStart={command}
User=www-data
Restart=on-failure
# Longer than --shutdown-timeout, in which requests that have begun are finished.
TimeoutStopSec=40

[Install]
WantedBy=multi-user.target
"
    ))
}
