//! One connection's requests: which record is allowed when, and what must be said to the server at once.
//!
//! The session takes bytes and gives [`Event`]s. It answers by itself, into the caller's output, what needs no
//! application: questions (section 4), unknown roles, aborted requests that nobody has begun to work on, and whatever is
//! over a limit. It never calls anybody, so every rule can be tested with arrays of bytes.
//!
//! What happens to a record that is not allowed is decided in one place, [`Session::receive`]:
//!
//! | record | when | what happens |
//! | --- | --- | --- |
//! | any | header version is not 1 | [`BadVersion`]: the connection cannot be understood any further |
//! | management, unknown type | always | UNKNOWN_TYPE |
//! | BEGIN_REQUEST | its id is active | left out; the first request goes on undisturbed |
//! | BEGIN_REQUEST | unknown role | END_REQUEST, UNKNOWN_ROLE |
//! | BEGIN_REQUEST | as many requests as allowed are active | END_REQUEST, OVERLOADED |
//! | PARAMS | too many bytes or pairs, or malformed | an answer with status 431 or 400, END_REQUEST |
//! | ABORT_REQUEST | parameters not complete | END_REQUEST |
//! | of a stream | the stream has ended, or the role has no such stream | left out |
//! | other | id is not active, or type is unknown | left out: a late record after the end is normal |

use super::decoder::{BadVersion, Decoder, Piece};
use super::encoder;
use super::params::{PairsError, Params};
use super::record::{KEEP_CONN, MANAGEMENT_ID, ProtocolStatus, RecordType, Role};
use super::values::{Question, Values};
use crate::response::error_page;

/// What one connection can make us keep.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one request's PARAMS stream.
    pub params_bytes: usize,
    /// Variables of one request.
    pub params_count: usize,
    /// Active requests of one connection.
    pub requests: usize,
}

impl Limits {
    /// All active requests of a connection together hold at most this many requests' worth of parameters.
    const FULL_REQUESTS: usize = 4;
}

/// 2 MiB and 4096 variables a request, 256 requests a connection: far beyond what servers send (64 KiB, a hundred), and
/// little enough to be harmless.
impl Default for Limits {
    fn default() -> Self {
        Self { params_bytes: 2 << 20, params_count: 4096, requests: 256 }
    }
}

/// Which of a request's two input streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The request body.
    Stdin,
    /// The file that a Filter transforms.
    Data,
}

/// Something that the application must know.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// A request began; its variables are still to come.
    Begin {
        /// Its id, free for the next request after [`Session::end`].
        id: u16,
        /// What it wants of us.
        role: Role,
        /// Whether the server wants the connection kept.
        keep_conn: bool,
    },
    /// A request's variables are complete: it can be worked on.
    Params {
        /// The request.
        id: u16,
        /// The variables, as sent.
        params: Params,
    },
    /// The next bytes of an input stream.
    Input {
        /// The request.
        id: u16,
        /// Which stream.
        input: Input,
        /// The bytes; never none.
        bytes: &'a [u8],
    },
    /// An input stream is complete.
    InputEnd {
        /// The request.
        id: u16,
        /// Which stream.
        input: Input,
    },
    /// The server no longer wants a request whose variables were complete. [`Session::end`] is still owed.
    Abort {
        /// The request.
        id: u16,
    },
    /// A request has been answered by the session itself, and has ended.
    Refused {
        /// The request.
        id: u16,
        /// Why.
        why: Refusal,
        /// Whether the server wants the connection kept.
        keep_conn: bool,
    },
}

/// What is left to know of a request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether the server wants the connection kept.
    pub keep_conn: bool,
    /// Whether the server may still be sending the request's input.
    pub input_open: bool,
}

/// Why the session answered a request by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The role's number is none of the specification's.
    #[error("unknown role {0}")]
    UnknownRole(u16),
    /// As many requests as [`Limits::requests`] are active on the connection.
    #[error("more than {0} requests at once on one connection (--max-multiplexed)")]
    TooManyRequests(usize),
    /// One request's parameters are over [`Limits::params_bytes`].
    #[error("more than {0} bytes of parameters (--max-params-size)")]
    ParamsTooLong(usize),
    /// All requests of the connection together are over their share of parameters.
    #[error("the requests of one connection hold more than {0} bytes of parameters (--max-params-size)")]
    ParamsHeld(usize),
    /// One request's parameters are over [`Limits::params_count`].
    #[error("more than {0} parameters (--max-params-count)")]
    TooManyParams(usize),
    /// The parameters cannot be decoded.
    #[error("malformed parameters: {0}")]
    Malformed(PairsError),
    /// The server took the request back before its parameters were complete.
    #[error("aborted by the server before the parameters were complete")]
    Aborted,
}

/// The protocol's state of one connection.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    partial: Partial,
    active: Vec<Active>,
    /// Bytes of parameters of all active requests.
    held: usize,
}

/// What is kept of a record whose content has not come to its end.
#[derive(Debug, Default)]
enum Partial {
    #[default]
    None,
    Begin([u8; 8], u8),
    Question(Box<Question>),
}

#[derive(Debug)]
struct Active {
    id: u16,
    role: Role,
    keep_conn: bool,
    params: ParamsState,
    stdin_open: bool,
    data_open: bool,
}

#[derive(Debug)]
enum ParamsState {
    Open(Vec<u8>),
    Complete(usize),
}

impl ParamsState {
    fn held(&self) -> usize {
        match self {
            Self::Open(bytes) => bytes.len(),
            Self::Complete(len) => *len,
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A connection on which nothing has been said.
    pub fn new() -> Self {
        Self { decoder: Decoder::new(), partial: Partial::None, active: Vec::new(), held: 0 }
    }

    /// Whether the peer owes us something: the rest of a record, or of a request's variables.
    pub fn inside_head(&self) -> bool {
        self.decoder.inside_record() || self.active.iter().any(|a| matches!(a.params, ParamsState::Open(_)))
    }

    /// Whether a request is active: begun and not ended.
    pub fn is_active(&self, id: u16) -> bool {
        self.active.iter().any(|a| a.id == id)
    }

    /// How many requests are active.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// A request has been answered with END_REQUEST: its id is free again. `None` when it was not active.
    pub fn end(&mut self, id: u16) -> Option<Ended> {
        let at = self.active.iter().position(|a| a.id == id)?;
        let ended = self.active.swap_remove(at);
        self.held -= ended.params.held();
        let params_open = matches!(ended.params, ParamsState::Open(_));
        Some(Ended { keep_conn: ended.keep_conn, input_open: params_open || ended.stdin_open || ended.data_open })
    }

    /// Takes bytes off the front of `input` until there is an event; `None` when more bytes are needed. What must be
    /// answered at once is appended to `out`.
    ///
    /// # Errors
    /// [`BadVersion`]: the connection must be closed.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a [u8],
        limits: &Limits,
        values: &Values,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, BadVersion> {
        while let Some(piece) = self.decoder.next(input)? {
            if piece.header.id == MANAGEMENT_ID {
                self.management(piece, values, out);
            } else if let Some(event) = self.application(piece, limits, out) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn management(&mut self, piece: Piece<'_>, values: &Values, out: &mut Vec<u8>) {
        match RecordType::from_number(piece.header.kind) {
            Some(RecordType::GetValues) => {
                if piece.first {
                    self.partial = Partial::Question(Box::default());
                }
                if let Partial::Question(question) = &mut self.partial {
                    question.receive(piece.content);
                }
                if piece.last
                    && let Partial::Question(question) = std::mem::take(&mut self.partial)
                {
                    question.answer(values, out);
                }
            }
            // These two are answers: answering them could go on for ever.
            Some(RecordType::GetValuesResult | RecordType::UnknownType) => {}
            _ if piece.last => encoder::unknown_type(piece.header.kind, out),
            _ => {}
        }
    }

    fn application<'a>(&mut self, piece: Piece<'a>, limits: &Limits, out: &mut Vec<u8>) -> Option<Event<'a>> {
        let id = piece.header.id;
        let kind = RecordType::from_number(piece.header.kind)?;
        if kind == RecordType::BeginRequest {
            let body = self.begin_body(piece)?;
            return self.begin(id, body, limits, out);
        }
        let at = self.active.iter().position(|a| a.id == id)?;
        match kind {
            RecordType::AbortRequest if piece.last => {
                if let ParamsState::Complete(_) = self.active[at].params {
                    return Some(Event::Abort { id });
                }
                encoder::end_request(id, 0, ProtocolStatus::RequestComplete, out);
                Some(self.refused(id, Refusal::Aborted))
            }
            RecordType::Params => self.params(at, piece, limits, out),
            RecordType::Stdin if self.active[at].stdin_open => {
                let ended = piece.header.content_len == 0;
                self.active[at].stdin_open = !ended;
                Some(input_event(id, Input::Stdin, piece.content, ended))
            }
            RecordType::Data if self.active[at].data_open => {
                let ended = piece.header.content_len == 0;
                self.active[at].data_open = !ended;
                Some(input_event(id, Input::Data, piece.content, ended))
            }
            _ => None,
        }
    }

    /// Collects the eight bytes of BEGIN_REQUEST. A shorter one is left out; of a longer one the rest is.
    fn begin_body(&mut self, piece: Piece<'_>) -> Option<[u8; 8]> {
        if piece.first {
            self.partial = Partial::Begin([0; 8], 0);
        }
        let Partial::Begin(body, have) = &mut self.partial else { return None };
        let at = usize::from(*have);
        let take = piece.content.len().min(8 - at);
        body[at..at + take].copy_from_slice(&piece.content[..take]);
        *have += take as u8;
        if !piece.last {
            return None;
        }
        let complete = (*have == 8).then_some(*body);
        self.partial = Partial::None;
        complete
    }

    fn begin<'a>(&mut self, id: u16, body: [u8; 8], limits: &Limits, out: &mut Vec<u8>) -> Option<Event<'a>> {
        if self.is_active(id) {
            tracing::warn!(id, "BEGIN_REQUEST with the id of an active request: left out");
            return None;
        }
        let keep_conn = body[2] & KEEP_CONN != 0;
        let number = u16::from_be_bytes([body[0], body[1]]);
        let Some(role) = Role::from_number(number) else {
            encoder::end_request(id, 0, ProtocolStatus::UnknownRole, out);
            return Some(Event::Refused { id, why: Refusal::UnknownRole(number), keep_conn });
        };
        if self.active.len() >= limits.requests {
            encoder::end_request(id, 0, ProtocolStatus::Overloaded, out);
            return Some(Event::Refused { id, why: Refusal::TooManyRequests(limits.requests), keep_conn });
        }
        let params = ParamsState::Open(Vec::new());
        let (stdin_open, data_open) = (role.has_stdin(), role.has_data());
        if self.active.is_empty() {
            self.active.reserve_exact(1); // one request at a time is the rule, and many connections idle
        }
        self.active.push(Active { id, role, keep_conn, params, stdin_open, data_open });
        Some(Event::Begin { id, role, keep_conn })
    }

    fn params<'a>(&mut self, at: usize, piece: Piece<'a>, limits: &Limits, out: &mut Vec<u8>) -> Option<Event<'a>> {
        let active = &mut self.active[at];
        let (id, role) = (active.id, active.role);
        let ParamsState::Open(bytes) = &mut active.params else { return None };
        if piece.header.content_len > 0 {
            let held = Limits::FULL_REQUESTS.saturating_mul(limits.params_bytes);
            let why = if bytes.len() + piece.content.len() > limits.params_bytes {
                Refusal::ParamsTooLong(limits.params_bytes)
            } else if self.held + piece.content.len() > held {
                Refusal::ParamsHeld(held)
            } else {
                // All servers send the parameters in one record or two; there is room left for a variable of our own.
                bytes.reserve(piece.content.len() + 32);
                bytes.extend_from_slice(piece.content);
                self.held += piece.content.len();
                return None;
            };
            return Some(self.answer_refused(id, why, out));
        }
        let bytes = std::mem::take(bytes);
        active.params = ParamsState::Complete(bytes.len());
        match Params::from_stream(bytes, limits.params_count) {
            Ok(mut params) => {
                params.set(b"FCGI_ROLE", role.name().as_bytes());
                Some(Event::Params { id, params })
            }
            Err(PairsError::TooMany(limit)) => Some(self.answer_refused(id, Refusal::TooManyParams(limit), out)),
            Err(why) => Some(self.answer_refused(id, Refusal::Malformed(why), out)),
        }
    }

    /// Answers a request with a small page: what is wrong belongs where the user sees it, not only in our log.
    fn answer_refused<'a>(&mut self, id: u16, why: Refusal, out: &mut Vec<u8>) -> Event<'a> {
        let status = match why {
            Refusal::Malformed(_) => "400 Bad Request",
            _ => "431 Request Header Fields Too Large",
        };
        encoder::stream(RecordType::Stdout, id, &error_page(status, b""), out);
        encoder::end_stream(RecordType::Stdout, id, out);
        encoder::end_request(id, 0, ProtocolStatus::RequestComplete, out);
        self.refused(id, why)
    }

    fn refused<'a>(&mut self, id: u16, why: Refusal) -> Event<'a> {
        let keep_conn = self.end(id).is_some_and(|e| e.keep_conn);
        Event::Refused { id, why, keep_conn }
    }
}

fn input_event(id: u16, input: Input, bytes: &[u8], ended: bool) -> Event<'_> {
    if ended { Event::InputEnd { id, input } } else { Event::Input { id, input, bytes } }
}
