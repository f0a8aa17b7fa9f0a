//! What a server is allowed, and what surrounds it.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use fcgi_core::listener::Access;
use nix::unistd::geteuid;

use crate::accounts::{Account, Owner};

use super::values::{environment, octal};
use crate::rlimits::Limit;

/// Rights, limits, environment.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Privileges and surroundings")]
pub(crate) struct System {
    /// Run scripts as this user, with all of its groups (a name or a number; only root can). The parent of --workers stays
    /// what it is, so that it can start workers anew
    #[arg(long, value_name = "USER", value_parser = Account::user)]
    pub(crate) user: Option<Account>,

    /// Run scripts with this group [default: the user's]
    #[arg(long, value_name = "GROUP", value_parser = Account::group)]
    pub(crate) group: Option<u32>,

    /// Owner of unix sockets that are made: the web server's user, if it is not ours
    #[arg(long, value_name = "USER[:GROUP]", value_parser = Owner::parse)]
    pub(crate) socket_owner: Option<Owner>,

    /// Permissions of unix sockets that are made; whoever may write can connect [default: as the umask leaves them]
    #[arg(long, value_name = "OCTAL", value_parser = octal)]
    pub(crate) socket_mode: Option<u32>,

    /// Work in this directory [default: where it was started]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) chdir: Option<PathBuf>,

    /// Lock scripts into this directory (only root can): all that they need, the interpreter's modules too, must be below
    /// it. Paths of scripts are those inside; a path that begins with DIR is taken as well
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) chroot: Option<PathBuf>,

    /// Permissions that files of scripts do not get, such as 027 [default: as it was started]
    #[arg(long, value_name = "OCTAL", value_parser = octal)]
    pub(crate) umask: Option<u32>,

    /// Limit of the system's for each process of scripts, such as nofile=4096, core=0, as=2G or cpu=unlimited (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = Limit::parse)]
    pub(crate) rlimit: Vec<Limit>,

    /// Scripts and their children never get more rights than they have, by no set-user-id program
    #[arg(long)]
    pub(crate) no_new_privs: bool,

    /// Scripts do not see the environment that the server was started in, but for what --env grants
    #[arg(long)]
    pub(crate) clear_env: bool,

    /// A variable of the environment for scripts; without a value, with --clear-env, as the server has it (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = environment)]
    pub(crate) env: Vec<(String, Option<String>)>,

    /// Write the number of the process to this file when the server is ready; it is removed at the end
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) pid_file: Option<PathBuf>,

    /// Known, so that it can be said what to do instead.
    #[arg(long, hide = true)]
    pub(crate) daemonize: bool,
}

impl System {
    /// Who may connect to the sockets that are made.
    pub(crate) fn access(&self) -> Access {
        let owner = self.socket_owner;
        Access {
            mode: self.socket_mode,
            user: owner.and_then(|owner| owner.uid),
            group: owner.and_then(|owner| owner.gid),
        }
    }

    /// What cannot be done, and what to do instead.
    pub(crate) fn check(&self) -> Vec<anyhow::Error> {
        let mut wrong = Vec::new();
        if self.daemonize {
            wrong.push(anyhow!(
                "there is no --daemonize: who starts a server in the background should also see it end. As a service of \
                 systemd it runs in the foreground (examples/servers has units); from a shell, write `setsid PROGRAM \
                 --log-to FILE --pid-file FILE ... &`"
            ));
        }
        for (option, directory) in [("chdir", &self.chdir), ("chroot", &self.chroot)] {
            if let Some(directory) = directory.as_ref().filter(|directory| !directory.is_dir()) {
                wrong.push(anyhow!("{} is not a directory (--{option})", directory.display()));
            }
        }
        let is_root = geteuid().is_root();
        let is_itself = |user: &Account| geteuid().as_raw() == user.uid;
        if !is_root && self.user.as_ref().is_some_and(|user| !is_itself(user)) {
            wrong
                .push(anyhow!("only root can run scripts as another user (--user): start it as root, or leave it out"));
        }
        if !is_root && self.chroot.is_some() {
            wrong.push(anyhow!("only root can lock scripts into a directory (--chroot)"));
        }
        wrong
    }
}
