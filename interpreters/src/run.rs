//! One function for each mode.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fcgi_core::http::Site;
use fcgi_core::inherit::{self, Passed};
use fcgi_core::interpreter::{Requests, serve_all};
use fcgi_core::scoreboard::Scoreboard;
use fcgi_core::script::{Named, Scripts};
use fcgi_core::signals::{self, Heard};
use fcgi_core::supervisor::{self, Kept, Link};
use fcgi_core::{Books, Isolation, Listener, Server, Setup, Watchdog, cgi, status};
use rustix::event::{PollFd, PollFlags};

use crate::line::Line;
use crate::mode::{self, Mode};
use crate::{Language, Options, front, log, parent};

/// What was asked for, and by whom.
struct Order<'a> {
    language: &'a Language,
    options: &'a Options,
    line: Line,
}

/// Does what the command line and the surroundings ask for; gives the exit status.
///
/// # Errors
/// What the user must mend.
pub(crate) fn run(language: &Language, options: &Options, line: Line) -> anyhow::Result<u8> {
    let mut order = Order { language, options, line };
    if mode::serves(options) || needs_no_script(&order) {
        if let Some(option) = &order.line.last {
            bail!("requests are for a script, not for what {} names", option.display());
        }
        if let (Some(afresh), false) = (language.afresh, order.line.own.is_empty()) {
            return Err(afresh(&setup(&order), &order.line.without_own()));
        }
    }
    let mode = mode::find(options)?;
    log::start(options, matches!(mode, Mode::Serve { .. } | Mode::Worker(_)));
    match mode {
        Mode::Serve { listeners, kept } => serve(&order, listeners, kept).map(|()| 0),
        Mode::Worker(passed) => work(&order, passed).map(|()| 0),
        Mode::Cgi => {
            if order.line.script.is_none() && order.line.own.is_empty() && !needs_no_script(&order) {
                order.line.script = Some(cgi_script(options)?.into());
            }
            (language.plain)(&Setup { is_cgi: true, ..setup(&order) })
        }
        Mode::Plain => (language.plain)(&setup(&order)),
    }
}

fn setup(order: &Order<'_>) -> Setup {
    let Order { language, options, line } = order;
    Setup {
        program: line.whole.first().cloned().unwrap_or_else(|| OsString::from(language.program)),
        command_line: line.whole.clone(),
        own: line.own.clone(),
        own_ended: line.ended,
        script: line.script.clone(),
        arguments: line.arguments.clone(),
        is_cgi: false,
        display_errors: options.serving.display_errors,
        shared_process: options.processes.threads > 1,
        isolation: options.serving.isolation.into(),
        memory_limit: options.limits.memory_limit,
        shutdown_timeout: Duration::from_secs(options.processes.shutdown_timeout),
        request_timeout: options.limits.request_timeout,
        watchdog: None,
        several_processes: options.processes.workers.is_some_and(|count| count > 1),
        other_scripts: options.roles.are_given(),
        options: line.language.clone(),
    }
}

/// Whether the command line names a program that needs no script.
fn needs_no_script(order: &Order<'_>) -> bool {
    order.language.in_place_of_script.is_some_and(|name| order.line.language.iter().any(|(known, _)| *known == name))
}

/// The script of a CGI program that a web server calls as a handler.
fn cgi_script(options: &Options) -> anyhow::Result<PathBuf> {
    let mut params = cgi::request_variables();
    scripts_of(options, "").locate(&mut params).context("as a CGI program")
}

fn scripts_of(options: &Options, extension: &str) -> Scripts {
    let list = options.serving.extensions.as_deref().unwrap_or(extension);
    let extensions = list.split(',').map(str::trim).filter(|e| !e.is_empty()).map(OsString::from).collect();
    Scripts::Named(Named::new(options.serving.root.clone(), extensions))
}

/// The scripts that requests may be for: those of the front's roles as well.
fn scripts(order: &Order<'_>) -> anyhow::Result<Scripts> {
    let rest = answering_scripts(order)?;
    let roles = &order.options.roles;
    if !roles.are_given() {
        return Ok(rest);
    }
    if needs_no_script(order) {
        bail!("--authorizer, --filter and --logger are scripts beside another one: give a script, or --root");
    }
    let named = roles.of_front()?.scripts().map(Path::to_owned).collect();
    Ok(Scripts::Besides { rest: Box::new(rest), named })
}

fn answering_scripts(order: &Order<'_>) -> anyhow::Result<Scripts> {
    let Order { language, options, line } = order;
    if let Some(root) = &options.serving.root
        && !root.is_dir()
    {
        bail!("{} is not a directory (--root)", root.display());
    }
    if needs_no_script(order) {
        // All requests are for it; this is no file that one could ask for.
        return Ok(Scripts::One(std::path::absolute(".application")?));
    }
    let Some(script) = &line.script else { return Ok(scripts_of(options, language.extension)) };
    let shown = Path::new(script).display();
    std::fs::File::open(script).with_context(|| format!("cannot open {shown}"))?;
    if Path::new(script).is_dir() {
        bail!("{shown} is a directory: give it as --root, or give a script");
    }
    Ok(Scripts::One(std::path::absolute(script)?))
}

/// Serves with a parent and workers, or in this process alone; with the HTTP front before them, if it is wanted.
fn serve(order: &Order<'_>, mut listeners: Vec<Listener>, mut kept: Kept) -> anyhow::Result<()> {
    let options = order.options;
    let scripts = scripts(order)?;
    options.listening.allow_list()?;
    if setup(order).isolation == Isolation::Fork && options.processes.threads > 1 {
        bail!("--threads is not for --isolation fork: a process with threads cannot be forked (give --workers)");
    }
    if options.processes.affinity.is_some() && options.processes.threads == 1 {
        bail!("--affinity chooses among the interpreters of one process: give --threads, too");
    }
    if !kept.is_reload() {
        for listener in &listeners {
            tracing::info!("listening on {}", listener.address());
        }
    }
    // The front has threads, and a process with threads cannot be forked.
    let forks_behind_front = options.listening.http.is_some() && setup(order).isolation == Isolation::Fork;
    let Some(workers) = options.processes.workers.or(forks_behind_front.then_some(1)) else {
        let mut stop = signals::catch().context("cannot catch signals")?;
        let mut front = None;
        if let Some(sockets) = front::Sockets::open(options, &mut kept)? {
            let backend = sockets.backend_path().into();
            let (running, has_stopped) = front::start(sockets.http, backend, site(scripts)?, options, stop)?;
            listeners.push(sockets.backend);
            front = Some((running, sockets.directory));
            stop = has_stopped;
        }
        let scoreboard = options.scoreboard(1)?;
        serve_here(order, listeners, stop, scoreboard, None)?;
        if let Some((front, _directory)) = front {
            front.stop();
        }
        return Ok(());
    };
    let heard = Heard::catch().context("cannot catch signals")?;
    let front = front::Sockets::open(options, &mut kept)?;
    if kept.is_trial() {
        return Ok(());
    }
    let (plan, _directory) = parent::plan(order.language, options, workers, listeners, front)?;
    Ok(supervisor::supervise(plan, kept, heard)?)
}

/// Serves as one of several processes.
fn work(order: &Order<'_>, mut passed: Passed) -> anyhow::Result<()> {
    // A worker without its parent would hold the sockets for ever.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // The parent says when to stop. Signals reach all processes at once, and a front still needs its workers then.
    let _signals = signals::catch().context("cannot catch signals")?;
    let link = Link::new(&mut passed)?;
    let listeners =
        passed.descriptors("listener")?.into_iter().map(Listener::inherited).collect::<Result<Vec<_>, _>>()?;
    let Some(backend) = inherit::variable(front::BACKEND) else {
        let scoreboard = passed.descriptor("scoreboard")?.map(Scoreboard::open).transpose()?;
        return serve_here(order, listeners, link.told()?, scoreboard, Some(link));
    };
    let http = listeners.into_iter().next().context("a front without a socket")?;
    let (front, has_stopped) = front::start(http, backend.into(), site(scripts(order)?)?, order.options, link.told()?)?;
    link.say_ready();
    while rustix::event::poll(&mut [PollFd::new(&has_stopped, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
    front.stop();
    Ok(())
}

/// What the front's URLs name: the one script, or those below the root (without one: below the current directory).
fn site(scripts: Scripts) -> anyhow::Result<Site> {
    Ok(match scripts {
        Scripts::One(script) => Site::Script(script),
        Scripts::Named(named) => Site::Directory {
            root: std::path::absolute(named.root().unwrap_or(Path::new(".")))?,
            extensions: named.extensions().to_vec(),
        },
        Scripts::Besides { rest, .. } => return site(*rest),
    })
}

/// What the server is to keep for those who watch it.
fn books(order: &Order<'_>, scoreboard: Option<Scoreboard>, listeners: &[Listener]) -> anyhow::Result<Books> {
    let Order { language, options, .. } = order;
    let mut pools = Vec::new();
    if let Some(scoreboard) = &scoreboard {
        pools.push(status::Pool {
            name: language.name.to_lowercase(),
            manager: options.processes.manager(),
            scoreboard: scoreboard.clone(),
            listeners: listeners
                .iter()
                .map(|listener| listener.as_fd().try_clone_to_owned())
                .collect::<Result<_, _>>()?,
        });
    }
    let desk = options.desk(pools);
    let measures_cost = scoreboard.is_some();
    Ok(Books { scoreboard, measures_cost, desk: desk.is_open().then(|| Arc::new(desk)) })
}

/// The stack of an interpreter's thread: as much as the first thread of a process has by default.
const STACK: usize = 8 << 20;

/// Serves in this process, with one interpreter for each thread, until `stop` becomes readable.
fn serve_here(
    order: &Order<'_>,
    listeners: Vec<Listener>,
    stop: OwnedFd,
    scoreboard: Option<Scoreboard>,
    parent: Option<Link>,
) -> anyhow::Result<()> {
    let Order { language, options, .. } = order;
    let scripts = scripts(order)?;
    let setup = setup(order);
    let forks = setup.isolation == Isolation::Fork;
    // A child that takes too long is ended from outside.
    let timeout = options.limits.request_timeout.filter(|_| !forks);
    let watchdog = timeout.map(Watchdog::start).transpose().context("cannot start a thread")?;
    let setup = Setup { watchdog, ..setup };
    (language.start)(&setup)?;
    let mut builder =
        Server::builder().allow(options.listening.allow_list()?).config(options.server_config()).drain_on(stop);
    builder = builder.books(books(order, scoreboard, &listeners)?);
    for listener in listeners {
        builder = builder.listener(listener);
    }
    if let Some(parent) = parent {
        builder = builder.parent(parent);
    }
    let server = Arc::new(builder.start().context("cannot start to serve")?);
    if !forks && (language.event_loop)(&setup, &server)? {
        return Ok(());
    }
    let one = || -> anyhow::Result<()> {
        let mut interpreter = (language.interpreter)(setup.clone())?;
        let requests = Requests::new(server.clone(), scripts.clone());
        serve_all(&mut *interpreter, requests).context("cannot serve any further")
    };
    if options.processes.threads == 1 {
        return one();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.processes.threads)
            .map(|_| {
                std::thread::Builder::new().name("interpreter".to_owned()).stack_size(STACK).spawn_scoped(scope, || {
                    fcgi_core::thread::own_directory()?;
                    one()
                })
            })
            .collect::<Result<_, _>>()
            .context("cannot start a thread")?;
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| bail!("an interpreter's thread panicked")))
    })
}
