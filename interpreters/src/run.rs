//! One function for each mode.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fcgi_core::audit::Audited;
use fcgi_core::demotion::Trusting;
use fcgi_core::http::Site;
use fcgi_core::inherit::{self, Passed};
use fcgi_core::interpreter::{Requests, serve_all};
use fcgi_core::scoreboard::Scoreboard;
use fcgi_core::script::Scripts;
use fcgi_core::signals::{self, Heard};
use fcgi_core::slow_log::SlowLog;
use fcgi_core::supervisor::{self, Kept, Link, Size};
use fcgi_core::{Books, Isolation, Listener, Server, Setup, Watchdog, status, watchdog};
use rustix::event::{PollFd, PollFlags};

use crate::command_line::Asked;
use crate::line::Line;
use crate::mode::{self, Mode, Sockets};
use crate::options::{Level, System};
use crate::service::Service;
use crate::{Language, Options, Preload, check, config, front, log, parent, print_config, scripts, system, watched};

/// What was asked for, and by whom.
struct Order<'a> {
    language: &'a Language,
    options: &'a Options,
    line: Line,
    /// Of a process that serves alone, until it serves.
    service: RefCell<Option<Service>>,
}

/// Does what the command line and the surroundings ask for; gives the exit status.
///
/// # Errors
/// What the user must mend.
pub(crate) fn run(language: &Language, options: &Options, line: Line) -> anyhow::Result<u8> {
    if let Some(server) = options.listening.print_config {
        print!("{}", print_config::print(language.known(), options, &line, server)?);
        return Ok(0);
    }
    let mut order = Order { language, options, line, service: RefCell::new(None) };
    if options.serving.check {
        log::start(options, true, false)?;
        return check::run(language, setup(&order));
    }
    if mode::serves(options) || scripts::needs_none(language.known(), &order.line) {
        if let Some(option) = &order.line.last {
            bail!("requests are for a script, not for what {} names", option.display());
        }
        if let (Some(afresh), false) = (language.afresh, order.line.own.is_empty()) {
            return Err(afresh(&setup(&order), &order.line.without_own()));
        }
    }
    // The parent of several processes has no scripts that could see its environment; its workers begin with that.
    if inherit::is_worker() || (mode::serves(options) && options.processes.workers.is_none()) {
        system::settle_environment(&options.system)?;
    }
    // It has been read.
    let _ = inherit::variable(config::TEXT);
    let mode = mode::find(options)?;
    let serves = matches!(mode, Mode::Serve { .. } | Mode::Worker(_));
    log::start(options, serves, matches!(mode, Mode::Worker(_)))?;
    match mode {
        Mode::Serve { sockets, kept } => serve(&order, sockets, kept).map(|()| 0),
        Mode::Worker(passed) => work(&order, passed).map(|()| 0),
        Mode::Cgi => {
            if order.line.script.is_none()
                && order.line.own.is_empty()
                && !scripts::needs_none(language.known(), &order.line)
            {
                order.line.script = Some(scripts::of_cgi(options)?.into());
            }
            (language.plain)(&Setup { is_cgi: true, ..setup(&order) })
        }
        Mode::Plain => (language.plain)(&setup(&order)),
    }
}

/// What can be found wrong without beginning to serve.
pub(crate) fn check(asked: &Asked) -> Vec<anyhow::Error> {
    let Asked { options, line, language, .. } = asked;
    let mut wrong: Vec<anyhow::Error> = Vec::new();
    wrong.extend(scripts::served(language, options, line).err());
    wrong.extend(options.check());
    wrong.extend(watched::watched(language, options, line).err());
    wrong
}

fn setup(order: &Order<'_>) -> Setup {
    let Order { language, options, line, .. } = order;
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
        audit: options.serving.audit || options.serving.isolation == Level::Auto,
        memory_limit: options.limits.memory_limit,
        shutdown_timeout: Duration::from_secs(options.processes.shutdown_timeout),
        request_timeout: options.limits.request_timeout,
        slow_log: None,
        watchdog: None,
        several_processes: options.processes.workers.is_some_and(|size| size.max > 1),
        other_scripts: options.roles.are_given(),
        options: line.language.clone(),
    }
}

fn scripts(order: &Order<'_>) -> anyhow::Result<Scripts> {
    scripts::served(order.language.known(), order.options, &order.line)
}

/// Serves with a parent and workers, or in this process alone; with the HTTP front before them, if it is wanted.
fn serve(order: &Order<'_>, sockets: Sockets, mut kept: Kept) -> anyhow::Result<()> {
    let options = order.options;
    let scripts = scripts(order)?;
    if options.processes.preload {
        preload_of(order.language)?;
    }
    if let Some(wrong) = options.check().into_iter().next() {
        return Err(wrong);
    }
    if !kept.is_reload() {
        for listener in sockets.all() {
            tracing::info!("listening on {}", listener.address());
        }
        if let Some(warning) = (order.language.outdated)() {
            tracing::warn!("{warning}");
        }
    }
    // The front has threads, and a process with threads cannot be forked.
    let forks_behind_front = options.listening.http.is_some() && setup(order).isolation == Isolation::Fork;
    let Some(workers) = options.processes.workers.or(forks_behind_front.then_some(Size::fixed(1))) else {
        if kept.is_trial() {
            bail!("a server without --workers cannot be reloaded: start it anew");
        }
        order.service.replace(Some(Service::start(options)?));
        let mut stop = signals::catch().context("cannot catch signals")?;
        // Workers that there are not have no sockets of their own.
        let mut listeners = sockets.shared;
        let mut front = None;
        if let Some(sockets) = front::Sockets::open(options, &mut kept)? {
            let backend = sockets.backend_path().into();
            let (running, has_stopped) = front::start(sockets.http, backend, site(scripts)?, options, stop)?;
            listeners.push(sockets.backend);
            front = Some((running, sockets.directory));
            stop = has_stopped;
        }
        let scoreboard = options.scoreboard(1)?;
        if let (Some(listener), Some(scoreboard)) = (status_socket(options, &mut kept)?, &scoreboard) {
            let desk = Arc::new(options.desk(vec![status_of(order, scoreboard, &listeners)?]));
            status::window::Window::open(listener, options.listening.allow_list()?, desk)
                .context("cannot start a thread")?;
        }
        serve_here(order, Means { listeners, stop: Some(stop), scoreboard, ..Means::default() })?;
        if let Some((front, _directory)) = front {
            front.stop();
        }
        return Ok(());
    };
    let heard = Heard::catch().context("cannot catch signals")?;
    let front = front::Sockets::open(options, &mut kept)?;
    let status_socket = status_socket(options, &mut kept)?;
    if kept.is_trial() {
        return compile(order, kept.changed());
    }
    let service = Service::start(options)?;
    let mut environment = service.environment();
    environment.extend(log::carry_workers()?);
    let watched = watched::watched(order.language.known(), options, &order.line)?;
    let (mut plan, _directory) = parent::plan(order.language, options, workers, sockets, front, status_socket)?;
    plan.watched = watched;
    (plan.observer, plan.environment) = (Box::new(service), environment);
    Ok(supervisor::supervise(plan, kept, heard)?)
}

/// Looks whether files that have changed can be taken as they are: half of a file that is being written, say, cannot.
fn compile(order: &Order<'_>, changed: &[PathBuf]) -> anyhow::Result<()> {
    let files = watched::to_compile(order.language.known(), order.options, &order.line, changed);
    if !files.is_empty() {
        // To start an interpreter may run what users have put in its way.
        begin(order)?;
    }
    files.iter().try_for_each(|file| (order.language.compile)(&setup(order), file))
}

/// Loads what workers have in common and forks them; this process is the parent of none, and takes no requests.
fn fork_workers(order: &Order<'_>, mut passed: Passed) -> anyhow::Result<()> {
    // While it loads it listens to nobody.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let link = Link::new(&mut passed)?;
    let listeners = listeners(&mut passed)?;
    let (scoreboard, elsewhere) = (passed.descriptor("scoreboard")?, passed.descriptor(supervisor::ELSEWHERE)?);
    let preload = preload_of(order.language)?;
    let scripts = begin(order)?;
    // What is loaded is its user's.
    system::enter(&order.options.system)?;
    (preload.load)(&setup(order))?;
    link.say_ready();
    // Signals to stop have been held back since it was started. Only workers hear them.
    let Some(link) = supervisor::fork_workers(link, preload.around_fork)? else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let _signals = signals::catch().context("cannot catch signals")?;
    let scoreboard = scoreboard.map(Scoreboard::open).transpose()?;
    let parent = Some(configured(link, order.options));
    serve_begun(order, &scripts, Means { listeners, stop: None, scoreboard, elsewhere, parent })
}

fn preload_of(language: &Language) -> anyhow::Result<Preload> {
    language
        .preload
        .with_context(|| format!("--preload is not for {}, whose interpreters start at once", language.name))
}

fn listeners(passed: &mut Passed) -> anyhow::Result<Vec<Listener>> {
    Ok(passed.descriptors("listener")?.into_iter().map(Listener::inherited).collect::<Result<Vec<_>, _>>()?)
}

/// Serves as one of several processes.
fn work(order: &Order<'_>, mut passed: Passed) -> anyhow::Result<()> {
    if passed.number(supervisor::TEMPLATE).is_some() {
        return fork_workers(order, passed);
    }
    // A worker without its parent would hold the sockets for ever.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // The parent says when to stop. Signals reach all processes at once, and a front still needs its workers then.
    let _signals = signals::catch().context("cannot catch signals")?;
    let link = Link::new(&mut passed)?;
    let listeners = listeners(&mut passed)?;
    let Some(backend) = inherit::variable(front::BACKEND) else {
        let scoreboard = passed.descriptor("scoreboard")?.map(Scoreboard::open).transpose()?;
        let elsewhere = passed.descriptor(supervisor::ELSEWHERE)?;
        let options = if passed.number(supervisor::FORKS).is_some() { &forking(order.options) } else { order.options };
        let order = &Order { options, line: order.line.clone(), service: RefCell::new(None), ..*order };
        let parent = Some(configured(link, options));
        return serve_here(order, Means { listeners, stop: None, scoreboard, elsewhere, parent });
    };
    let http = listeners.into_iter().next().context("a front without a socket")?;
    let site = site(scripts(order)?)?;
    // Relative paths are those of where it was started.
    system::enter(&System { chdir: None, ..order.options.system.clone() })?;
    let (front, has_stopped) = front::start(http, backend.into(), site, order.options, link.told()?)?;
    link.say_ready();
    while rustix::event::poll(&mut [PollFd::new(&has_stopped, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
    front.stop();
    Ok(())
}

/// The options of a worker that takes the requests of demoted scripts: those who give them to it keep the logs.
fn forking(options: &Options) -> Options {
    let mut options = options.clone();
    options.serving.isolation = Level::Fork;
    (options.watching.access_log, options.watching.slow_log) = (None, None);
    options.processes.workers = options.processes.workers.map(|size| Size { min: 0, ..size });
    options
}

/// When a worker is to end.
fn configured(link: Link, options: &Options) -> Link {
    // What is interrupted has some time to end.
    const GRACE: Duration = Duration::from_secs(5);
    let kill_after = options.limits.kill_after.or(options.limits.request_timeout.map(|timeout| timeout + GRACE));
    let may_go = options.processes.workers.is_some_and(|size| size.min < size.max);
    link.max_requests(options.processes.max_requests)
        .idle_timeout(may_go.then_some(options.processes.idle_timeout))
        .kill_after(kill_after)
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

/// The socket for the status alone, if there is to be one.
fn status_socket(options: &Options, kept: &mut Kept) -> anyhow::Result<Option<Listener>> {
    let address = options.watching.status_listen.as_ref();
    address.map(|address| mode::open(address, options, kept)).transpose()
}

/// What the status tells of this pool.
fn status_of<'a>(
    order: &Order<'_>,
    scoreboard: &Scoreboard,
    listeners: impl IntoIterator<Item = &'a Listener>,
) -> anyhow::Result<status::Pool> {
    let copies: Result<_, _> = listeners.into_iter().map(|listener| listener.as_fd().try_clone_to_owned()).collect();
    Ok(status::Pool {
        name: order.options.pool_name(order.language),
        manager: order.options.processes.manager(),
        scoreboard: scoreboard.clone(),
        listeners: copies?,
        own: order.options.names_of_own(),
        handed_over: Vec::new(),
    })
}

/// What the server is to keep for those who watch it.
fn books<'a>(
    order: &Order<'_>,
    scoreboard: Option<Scoreboard>,
    listeners: impl IntoIterator<Item = &'a Listener>,
) -> anyhow::Result<Books> {
    let Order { language, options, .. } = order;
    let pool = scoreboard.as_ref().map(|scoreboard| status_of(order, scoreboard, listeners)).transpose()?;
    let pools = pool.into_iter().collect();
    let desk = options.desk(pools);
    let measures_cost = options.watching.needs_scoreboard();
    let access_log = options.watching.access_log(&options.pool_name(language))?.map(Arc::new);
    Ok(Books { scoreboard, place: 0, measures_cost, desk: desk.is_open().then(|| Arc::new(desk)), access_log })
}

/// What tells of requests that run for long.
fn slow_log(order: &Order<'_>, scoreboard: Option<Scoreboard>) -> anyhow::Result<Option<Arc<SlowLog>>> {
    let Order { language, options, line, .. } = order;
    let Some(log) = options.watching.slow_log(&options.pool_name(language))? else { return Ok(None) };
    let setup = setup(order);
    let script = line.script.clone().or_else(|| setup.option("app").map(Into::into)).filter(|_| !setup.other_scripts);
    Ok(Some(Arc::new(log.script(script).scoreboard(scoreboard))))
}

/// The stack of an interpreter's thread: as much as the first thread of a process has by default.
const STACK: usize = 8 << 20;

/// What a process serves with.
#[derive(Default)]
struct Means {
    listeners: Vec<Listener>,
    /// Becomes readable when it is to stop.
    stop: Option<OwnedFd>,
    scoreboard: Option<Scoreboard>,
    /// Where requests of demoted scripts are given.
    elsewhere: Option<OwnedFd>,
    parent: Option<Link>,
}

/// Serves in this process, with one interpreter for each thread, until it is told to stop.
fn serve_here(order: &Order<'_>, means: Means) -> anyhow::Result<()> {
    let scripts = begin(order)?;
    serve_begun(order, &scripts, means)
}

/// Makes the process one that may run scripts, and starts the language.
fn begin(order: &Order<'_>) -> anyhow::Result<Scripts> {
    // Relative paths are those of where it was started.
    let scripts = scripts(order)?;
    system::enter(&order.options.system)?;
    (order.language.start)(&setup(order))?;
    Ok(scripts)
}

/// As [`serve_here`], once the process [has begun](begin).
fn serve_begun(order: &Order<'_>, scripts: &Scripts, means: Means) -> anyhow::Result<()> {
    let Means { listeners, stop, scoreboard, elsewhere, parent } = means;
    let board = scoreboard.clone();
    let Order { language, options, .. } = order;
    let setup = setup(order);
    let forks = setup.isolation == Isolation::Fork;
    // A child that takes too long is ended from outside.
    let timeout = options.limits.request_timeout.filter(|_| !forks);
    let slow_log = slow_log(order, scoreboard.clone())?;
    let limits = watchdog::Limits { timeout, slow: slow_log.as_ref().map(|log| log.after()) };
    let is_needed = timeout.is_some() || slow_log.is_some();
    let watchdog = is_needed.then(|| Watchdog::start(limits)).transpose().context("cannot start a thread")?;
    let setup = Setup { slow_log, watchdog, ..setup };
    let mut builder = Server::builder().allow(options.listening.allow_list()?).config(options.server_config());
    let own = parent.iter().flat_map(Link::own_listeners);
    let place = parent.as_ref().map_or(0, Link::place);
    builder = builder.books(Books { place, ..books(order, scoreboard, listeners.iter().chain(own))? });
    if let Some(stop) = stop {
        builder = builder.drain_on(stop);
    }
    for listener in listeners {
        builder = builder.listener(listener);
    }
    if let Some(parent) = parent {
        builder = builder.parent(parent);
    }
    let server = Arc::new(builder.start().context("cannot start to serve")?);
    server.attend_parent().context("cannot start a thread")?;
    let _service = order.service.take().map(Service::serve_alone).transpose()?;
    if !forks && (language.event_loop)(&setup, &server)? {
        return Ok(());
    }
    let one = || -> anyhow::Result<()> {
        let mut interpreter = (language.interpreter)(setup.clone())?;
        if let Some((board, elsewhere)) = board.clone().zip(elsewhere.as_ref()) {
            interpreter = Box::new(Trusting::new(interpreter, board, elsewhere.try_clone()?));
        } else if setup.audit {
            interpreter = Box::new(Audited::new(interpreter));
        }
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
