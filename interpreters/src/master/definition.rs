//! What each pool of a file needs: a program, its command line, sockets.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use anyhow::{Context, bail};
use fcgi_core::inherit;
use fcgi_core::supervisor::Program;

use crate::Language;
use crate::command_line::{Asked, Ended, Order};

/// How the parent of a pool is started.
#[derive(Debug)]
pub(super) struct Definition {
    /// The pool's.
    pub(super) name: String,
    pub(super) program: Program,
    /// Sockets that it is given, if it opens none itself.
    pub(super) sockets: Vec<Rc<OwnedFd>>,
}

/// The sockets that the master was started with, by name.
#[derive(Debug)]
pub(super) struct Sockets(Vec<(String, Rc<OwnedFd>)>);

impl Sockets {
    /// Takes those of systemd, and a descriptor 0 that listens.
    pub(super) fn take() -> anyhow::Result<Self> {
        let mut all = inherit::systemd_named().context("LISTEN_FDS")?;
        all.extend(inherit::standard_input().context("descriptor 0")?.map(|fd| (String::new(), fd)));
        Ok(Self(all.into_iter().map(|(name, fd)| (name, Rc::new(fd))).collect()))
    }

    /// Those for a pool that opens none: those of its name, or all if there is but one such pool.
    fn of(&self, pool: &str, is_only_one: bool) -> Vec<Rc<OwnedFd>> {
        let named = self.0.iter().filter(|(name, _)| is_only_one || name == pool);
        named.map(|(_, fd)| fd.clone()).collect()
    }
}

/// Reads the file again.
///
/// # Errors
/// All that is wrong with it.
pub(super) fn read(language: &Language, words: &[OsString], sockets: &Sockets) -> Result<Vec<Definition>, Vec<String>> {
    let order = Order::read(language, words.to_vec()).map_err(Ended::mistakes)?;
    let wrong = order.wrong(language);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    if !order.is_for_master() {
        return Err(vec![format!("{}: the file has no pools any more, [pool.NAME]", language.program)]);
    }
    of(language, &order, sockets).map_err(|e| vec![format!("{e:#}")])
}

/// What the pools need that are asked for.
///
/// # Errors
/// When one of them has no socket.
pub(super) fn of(language: &Language, order: &Order, sockets: &Sockets) -> anyhow::Result<Vec<Definition>> {
    let opens = |asked: &Asked| !asked.options.listening.listen.is_empty() || asked.options.listening.http.is_some();
    let without = order.pools.iter().filter(|asked| !opens(asked)).count();
    let mut definitions = Vec::new();
    for asked in &order.pools {
        let name = asked.pool.clone().context("a pool without a name")?;
        let given = if opens(asked) { Vec::new() } else { sockets.of(&name, without == 1) };
        if given.is_empty() && !opens(asked) {
            bail!(order.located(
                asked,
                &format!("the pool \"{name}\" listens nowhere: write listen, or let systemd pass a socket (FileDescriptorName={name})")
            ));
        }
        definitions.push(Definition { program: program(language, asked, &name), name, sockets: given });
    }
    Ok(definitions)
}

/// The runner of the pool's language, with the command line that was typed, and the pool's name.
fn program(language: &Language, asked: &Asked, name: &str) -> Program {
    let own = asked.line.whole.len().saturating_sub(1);
    let mut program = Program::this();
    let mut begin = program.arguments.len().saturating_sub(own);
    if let Some(other) = asked.other_program(language.known()) {
        (program.path, program.name) = (other.clone(), other.into_os_string());
        program.arguments = asked.words_for_other(language.known());
        begin = 0;
    }
    // Before a script, whose arguments are behind it.
    program.arguments.splice(begin..begin, ["--pool".into(), name.into()]);
    program
}
