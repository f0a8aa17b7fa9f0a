//! What a process gives up before it runs the first script: rights, the rest of the file system, its starter's environment.
//!
//! The parent of several processes gives up nothing: it must be able to start workers anew, and runs no script.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;
use nix::unistd::{Gid, Uid, chroot, getegid, geteuid, getgroups, setgroups, setresgid, setresuid};
use rustix::process::{
    DumpableBehavior, parent_process_death_signal, set_dumpable_behavior, set_parent_process_death_signal, umask,
};

use crate::options::System;

static ENTERED: AtomicBool = AtomicBool::new(false);
/// Says that the environment is as scripts are to have it.
const SETTLED: &str = "FCGI_ENVIRONMENT";
/// What the server itself is told by its environment, and takes out of it.
const OURS: [&str; 7] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "FCGI_WEB_SERVER_ADDRS",
];
const OURS_BEGIN: &str = "FCGI_";

/// Becomes what scripts may be. Called while the process has one thread, and before its interpreter is started, which runs
/// files of its user's.
///
/// # Errors
/// What the system refuses, with the option that asked for it.
pub(crate) fn enter(system: &System) -> anyhow::Result<()> {
    // Workers that are forked from a process that has entered are there.
    if ENTERED.swap(true, Relaxed) {
        return Ok(());
    }
    for limit in &system.rlimit {
        limit.set()?;
    }
    if let Some(mask) = system.umask {
        umask(rustix::fs::Mode::from_raw_mode(mask));
    }
    // Names are looked up in files that are not there below.
    let rights = Rights::find(system)?;
    let directory = system.chdir.as_ref().map(|directory| inside(system, directory)).transpose()?;
    if let Some(root) = &system.chroot {
        chroot(root).with_context(|| format!("cannot lock scripts into {} (--chroot)", root.display()))?;
        std::env::set_current_dir("/").context("cannot enter the directory of --chroot")?;
    }
    if let Some(rights) = rights {
        rights.take()?;
    }
    if let Some(directory) = directory {
        std::env::set_current_dir(&directory)
            .with_context(|| format!("cannot work in {} (--chdir)", directory.display()))?;
    }
    if system.no_new_privs {
        rustix::thread::set_no_new_privs(true).context("--no-new-privs")?;
    }
    Ok(())
}

/// A path as it is seen below `--chroot`.
///
/// # Errors
/// When there is no working directory.
pub(crate) fn inside(system: &System, path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let Some(root) = &system.chroot else { return Ok(absolute) };
    let root = std::path::absolute(root)?;
    Ok(match absolute.strip_prefix(root) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => Path::new("/").join(path),
    })
}

/// A path inside, as it is seen from outside.
pub(crate) fn outside(system: &System, inside: &Path) -> PathBuf {
    match &system.chroot {
        Some(root) => root.join(inside.strip_prefix("/").unwrap_or(inside)),
        None => inside.to_owned(),
    }
}

/// User and groups.
struct Rights {
    uid: Option<Uid>,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Rights {
    fn find(system: &System) -> anyhow::Result<Option<Self>> {
        let gid = system.group.or(system.user.as_ref().map(|user| user.gid));
        let Some(gid) = gid else { return Ok(None) };
        let groups = match &system.user {
            Some(user) => user.groups(gid).context("cannot find the groups of the user (--user)")?,
            None => vec![Gid::from_raw(gid)],
        };
        let uid = system.user.as_ref().map(|user| Uid::from_raw(user.uid));
        Ok(Some(Self { uid, gid: Gid::from_raw(gid), groups }))
    }

    fn take(self) -> anyhow::Result<()> {
        let is_there = getegid() == self.gid && self.uid.is_none_or(|uid| geteuid() == uid);
        if is_there && !geteuid().is_root() {
            return Ok(());
        }
        // Both are lost with the rights.
        let with_parent = parent_process_death_signal()?;
        if getgroups()? != self.groups {
            setgroups(&self.groups).context("cannot set the groups (--user, --group): only root can")?;
        }
        setresgid(self.gid, self.gid, self.gid).context("cannot become the group (--group): only root can")?;
        if let Some(uid) = self.uid {
            setresuid(uid, uid, uid).context("cannot become the user (--user): only root can")?;
        }
        set_parent_process_death_signal(with_parent)?;
        // Nothing of root's is in this process: it was started anew. So it may look at itself in /proc.
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        tracing::debug!("runs as user {:?}, group {}", self.uid.map(Uid::as_raw), self.gid);
        Ok(())
    }
}

/// Starts the program anew with the environment that scripts are to have, unless it has it. The environment of a process
/// cannot be changed everywhere at once: interpreters, the C library and `/proc` have copies of it.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn settle_environment(system: &System) -> anyhow::Result<()> {
    if (!system.clear_env && system.env.is_empty()) || fcgi_core::inherit::variable(SETTLED).is_some() {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words);
    if system.clear_env {
        let is_ours = |name: &str| OURS.contains(&name) || name.starts_with(OURS_BEGIN);
        let kept = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_ours));
        command.env_clear().envs(kept.collect::<Vec<_>>());
    }
    for (name, value) in &system.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.envs(std::env::var_os(name).map(|value| (name, value))),
        };
    }
    let e = command.env(SETTLED, "1").exec();
    Err(anyhow::Error::new(e).context("cannot start the program anew with the environment of --env"))
}
