//! What the parent of several processes looks after: the pool that the command line describes, and the front before it.

use std::sync::Arc;
use std::time::Duration;

use fcgi_core::Listener;
use fcgi_core::scoreboard::Scoreboard;
use fcgi_core::status;
use fcgi_core::supervisor::{Nobody, Plan, Pool, Program, Reception, Size};

use crate::config;
use crate::front::{self, BACKEND, Directory};
use crate::mode::Sockets;
use crate::options::Level;
use crate::{Language, Options};

/// The pools, and what is to be kept until they have ended.
pub(crate) fn plan(
    language: &Language,
    options: &Options,
    workers: Size,
    mut sockets: Sockets,
    front: Option<front::Sockets>,
    status_socket: Option<Listener>,
) -> anyhow::Result<(Plan, Option<Directory>)> {
    let mut program = Program::this();
    program.environment.extend(options.configuration.text.iter().map(|text| (config::TEXT.into(), text.into())));
    let mut pools = Vec::new();
    let mut kept = None;
    if let Some(front) = front {
        let mut program = program.clone();
        program.environment.push((BACKEND.into(), front.backend_path()));
        pools.push(Pool {
            name: "HTTP front".to_owned(),
            listeners: vec![front.http],
            own: Vec::new(),
            program,
            size: Size::fixed(1),
            max_memory: None,
            is_front: true,
            reception: None,
            scoreboard: None,
            is_preloaded: false,
            forks_requests: false,
        });
        sockets.shared.push(front.backend);
        kept = Some(front.directory);
    }
    let scoreboard = options.scoreboard(workers.max)?;
    let reception = reception(language, options, scoreboard.as_ref(), &sockets)?;
    let answers_at = status_socket.as_ref().map(|socket| Listener::inherited(socket.fd().try_clone()?)).transpose()?;
    // The parent alone answers there; its socket is kept over reloads as others are.
    pools.extend(status_socket.map(|socket| Pool::without_workers("status page", vec![socket])));
    let trusts = options.serving.isolation == Level::Auto;
    pools.push(Pool {
        name: options.pool_name(language),
        listeners: sockets.shared,
        own: sockets.own,
        program: program.clone(),
        size: workers,
        max_memory: options.limits.max_memory.map(|bytes| bytes as u64),
        // What it has begun may need those that fork.
        is_front: trusts,
        reception,
        scoreboard,
        is_preloaded: options.processes.preload,
        forks_requests: false,
    });
    if trusts {
        // None of them runs until there is something to do.
        let name = format!("{}, forking", options.pool_name(language));
        let size = Size { min: 0, max: workers.max };
        let max_memory = options.limits.max_memory.map(|bytes| bytes as u64);
        pools.push(Pool {
            program,
            size,
            max_memory,
            forks_requests: true,
            ..Pool::without_workers(&name, Vec::new())
        });
    }
    let shutdown_timeout = Duration::from_secs(options.processes.shutdown_timeout);
    Ok((
        Plan {
            pools,
            shutdown_timeout,
            observer: Box::new(Nobody),
            environment: Vec::new(),
            answers_at,
            watched: None,
        },
        kept,
    ))
}

/// What the parent answers itself.
fn reception(
    language: &Language,
    options: &Options,
    scoreboard: Option<&Scoreboard>,
    sockets: &Sockets,
) -> anyhow::Result<Option<Reception>> {
    let Some(scoreboard) = scoreboard else { return Ok(None) };
    let copies = sockets.all().map(|listener| listener.fd().try_clone()).collect::<Result<_, _>>()?;
    let desk = options.desk(vec![status::Pool {
        name: options.pool_name(language),
        manager: options.processes.manager(),
        scoreboard: scoreboard.clone(),
        listeners: copies,
        own: options.names_of_own(),
        handed_over: Vec::new(),
    }]);
    let allowed = options.listening.allow_list()?;
    Ok(desk.is_open().then(|| Reception { desk: Arc::new(desk), allowed }))
}
