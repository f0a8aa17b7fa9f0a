//! What a connection keeps: the input of its requests that nobody has read yet, and output that the socket has not taken.

use crate::hub::Config;
use crate::protocol::session::Input;
use crate::protocol::{Params, Role};

/// A request's input, and how far the request is.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) id: u16,
    pub(crate) role: Role,
    pub(crate) keep_conn: bool,
    pub(crate) params: Option<Params>,
    pub(crate) stdin: Stream,
    pub(crate) data: Stream,
    pub(crate) stage: Stage,
    pub(crate) aborted: bool,
    pub(crate) awaited: Awaited,
}

/// What an event loop waits for that runs the request. Threads wait for themselves.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// By which the loop knows the request.
    pub(crate) key: u64,
    /// More of this stream.
    pub(crate) input: Option<Input>,
    /// Room for output.
    pub(crate) output: bool,
    /// The end of the connection, which is watched for it.
    pub(crate) abort: bool,
    /// The loop knows that the request is aborted.
    pub(crate) abort_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Arriving,
    Queued,
    Running,
}

/// One input stream, as far as it has arrived and not been taken.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
}

impl Inbox {
    pub(crate) fn stream(&mut self, input: Input) -> &mut Stream {
        match input {
            Input::Stdin => &mut self.stdin,
            Input::Data => &mut self.data,
        }
    }

    /// Whether an event loop waits for input, and nothing of it has come.
    pub(crate) fn lacks_input(&self) -> bool {
        let stream = match self.awaited.input {
            None => return false,
            Some(Input::Stdin) => &self.stdin,
            Some(Input::Data) => &self.data,
        };
        stream.bytes.is_empty() && !stream.ended
    }

    pub(crate) fn held(&self) -> usize {
        self.stdin.bytes.len() + self.data.bytes.len()
    }

    pub(crate) fn is_complete(&self) -> bool {
        let has_params = self.params.is_some() || self.stage == Stage::Running;
        has_params && self.stdin.ended && self.data.ended
    }
}

/// Bytes of the bodies of requests that nobody works on yet.
pub(crate) fn held_waiting(inboxes: &[Inbox]) -> usize {
    inboxes.iter().filter(|inbox| inbox.stage != Stage::Running).map(Inbox::held).sum()
}

/// Why a request must not read on: what comes next would have to be kept for somebody who does not take it.
pub(crate) enum Obstacle {
    /// The request's own other stream.
    OtherStream,
    /// A running request of the same connection. At last it reads, or ends.
    Running,
    /// A request that some thread may take at any moment; or none, before this one has ended.
    Queued,
}

/// What stands in the way of request `id`, which has nothing left to read.
pub(crate) fn obstacle(inboxes: &[Inbox], id: u16, config: &Config) -> Option<Obstacle> {
    let limit = config.body_limit();
    inboxes.iter().find_map(|inbox| match inbox.stage {
        _ if inbox.id == id => (inbox.held() >= limit).then_some(Obstacle::OtherStream),
        Stage::Running => (inbox.held() >= limit).then_some(Obstacle::Running),
        Stage::Queued => (config.threads > 1 && inbox.held() >= config.body_buffer).then_some(Obstacle::Queued),
        Stage::Arriving => None,
    })
}

/// Bytes that wait for the socket to take them.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sent: usize,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            // An idle connection keeps no buffer.
            self.bytes = Vec::new();
        }
    }
}
