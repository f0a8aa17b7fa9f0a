//! Scripts whose requests run in child processes (`--isolation fork`): what a script takes of memory and time is its own.

use std::path::Path;

use fcgi_core::fork::{Forking, Ground, Moment, Report, Warm};
use fcgi_core::{Interpreter, Setup, cgi};

use super::engine::Engine;

/// The engine that children are forked from.
struct Forked(Engine);

/// Makes what serves the requests of a process by children.
///
/// # Errors
/// When an option is not for Rhai, or the system has no memory for us.
pub(super) fn interpreter(setup: &Setup) -> anyhow::Result<Box<dyn Interpreter>> {
    // Rhai bounds the memory of a script itself, and says so.
    let ground = Ground::new(&Setup { memory_limit: None, ..setup.clone() })?;
    let setup = Setup { is_cgi: true, ..setup.clone() };
    Ok(Box::new(Forking::new(ground, Forked(Engine::new(setup)?))))
}

impl Warm for Forked {
    fn prepare(&mut self, script: &Path) {
        self.0.prepare(script);
    }

    fn fork(&mut self, _: Moment) {}

    fn run(&mut self, script: &Path, _: &Report) -> u8 {
        self.0.answer_once(script, cgi::request())
    }

    fn preload(&mut self, _: &[Vec<u8>]) {}
}
