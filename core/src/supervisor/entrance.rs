//! Where connections come to a pool: the sockets that all its workers share, and for each worker those that are its own.
//!
//! Workers give connections to each other by the channel of the entrance that these came by. So what has come by a worker's
//! own socket stays with that worker and those who take its place. The parent keeps an entrance open while nobody is there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::lobby::Lobby;
use super::reception::Reception;
use super::worker::Named;
use crate::handover::Channel;
use crate::inherit::numbered;
use crate::listener::Listener;

/// Sockets, with all that belongs to them.
#[derive(Debug)]
pub(super) struct Entrance {
    /// Whose sockets they are: the number of a worker, or 0 for all.
    pub(super) place: u16,
    pub(super) listeners: Vec<Listener>,
    /// By which workers give connections to each other.
    channel: Channel,
    lobby: Lobby,
}

impl Entrance {
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn new(place: u16, listeners: Vec<Listener>, channel: Option<Channel>) -> io::Result<Self> {
        let channel = channel.map_or_else(Channel::new, Ok)?;
        Ok(Self { place, listeners, channel, lobby: Lobby::default() })
    }

    /// Whether the worker of a place comes here.
    pub(super) fn is_for(&self, place: u16) -> bool {
        self.place == 0 || self.place == place
    }

    /// What a worker is passed.
    pub(super) fn passed(&self) -> impl Iterator<Item = Named<'_>> {
        let listeners = self.listeners.iter().map(|listener| (numbered("listener", self.place), listener.as_fd()));
        listeners.chain(self.ends())
    }

    /// By which workers give connections to each other.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The ends of the channel.
    pub(super) fn ends(&self) -> impl Iterator<Item = Named<'_>> {
        self.channel.ends().into_iter().map(|(name, end)| (numbered(name, self.place), end))
    }

    /// The end by which others give to this pool.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn givers_end(&self) -> io::Result<OwnedFd> {
        self.channel.copy_of_givers_end()
    }

    /// Whether a connection has waited for too long, as [`Lobby::look`] has it.
    pub(super) fn look(&mut self, reception: Option<&Reception>, nobody: bool, can_grow: bool, now: Instant) -> bool {
        self.lobby.look((&self.listeners, &self.channel), reception, nobody, can_grow, now)
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.lobby.next_look()
    }

    /// What the parent waits for.
    pub(super) fn descriptors(&self, nobody: bool) -> Vec<BorrowedFd<'_>> {
        self.lobby.descriptors(&self.channel, nobody)
    }

    /// What is in the parent's hands goes to the workers.
    pub(super) fn somebody_serves(&mut self) {
        self.lobby.somebody_serves(&self.channel);
    }

    /// Nothing will be served any more but what has come. The workers have the sockets, too: what connects from now on is
    /// refused once they have closed them.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.lobby.close(&self.channel);
    }
}
