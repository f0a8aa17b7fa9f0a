//! The numbers of the specification: record header, record types, roles, statuses (sections 3.3, 4, 5 and 8).

/// The only protocol version there is (`FCGI_VERSION_1`).
pub const VERSION: u8 = 1;
/// Bytes of a record header.
pub const HEADER_LEN: usize = 8;
/// The largest content that one record carries.
pub const MAX_CONTENT: usize = 65_535;
/// Request id of management records (`FCGI_NULL_REQUEST_ID`).
pub const MANAGEMENT_ID: u16 = 0;

/// Record types (section 8). A number that is not listed is kept as it is, because what must happen
/// to an unknown type depends on whether it is a management record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// Server to application: a request begins.
    BeginRequest = 1,
    /// Server to application: the request is no longer wanted.
    AbortRequest = 2,
    /// Application to server: the request has ended.
    EndRequest = 3,
    /// Stream of name-value pairs.
    Params = 4,
    /// Stream: the request body.
    Stdin = 5,
    /// Stream: the CGI response.
    Stdout = 6,
    /// Stream: error messages.
    Stderr = 7,
    /// Stream: the file that a Filter transforms.
    Data = 8,
    /// Management: which variables does the application have?
    GetValues = 9,
    /// Management: the answer.
    GetValuesResult = 10,
    /// Management: the application does not know a record type.
    UnknownType = 11,
}

impl RecordType {
    /// The type with this number, if the specification has one.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::BeginRequest,
            2 => Self::AbortRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Data,
            9 => Self::GetValues,
            10 => Self::GetValuesResult,
            11 => Self::UnknownType,
            _ => return None,
        })
    }
}

/// What the application is asked to be for one request (section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Role {
    /// Answers a request, as a CGI program does.
    Responder = 1,
    /// Allows or refuses a request.
    Authorizer = 2,
    /// Transforms a file, which arrives on the data stream.
    Filter = 3,
    /// Takes entries of the server's log, one a line on standard input; its output is not looked at. The specification
    /// leaves numbers for further roles; the paper that FastCGI began with names this one (section 4), and its number is
    /// ours.
    Logger = 4,
}

impl Role {
    /// The role with this number, if there is one.
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Responder,
            2 => Self::Authorizer,
            3 => Self::Filter,
            4 => Self::Logger,
            _ => return None,
        })
    }

    /// The role's name, as scripts find it in the variable `FCGI_ROLE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responder => "RESPONDER",
            Self::Authorizer => "AUTHORIZER",
            Self::Filter => "FILTER",
            Self::Logger => "LOGGER",
        }
    }

    /// The role with this name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Responder, Self::Authorizer, Self::Filter, Self::Logger];
        all.into_iter().find(|role| role.name().eq_ignore_ascii_case(name))
    }

    /// Whether the server sends a request body to this role. An Authorizer gets not even its end.
    pub const fn has_stdin(self) -> bool {
        !matches!(self, Self::Authorizer)
    }

    /// Whether the server sends a file to this role.
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Filter)
    }
}

/// How a request ended, for the protocol (section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProtocolStatus {
    /// The normal end.
    RequestComplete = 0,
    /// The application handles one request at a time on a connection.
    CantMultiplex = 1,
    /// The application is out of some resource.
    Overloaded = 2,
    /// The application does not know the role.
    UnknownRole = 3,
}

impl ProtocolStatus {
    /// The status with this number, if the specification has one.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::RequestComplete,
            1 => Self::CantMultiplex,
            2 => Self::Overloaded,
            3 => Self::UnknownRole,
            _ => return None,
        })
    }
}

/// Bit of the BEGIN_REQUEST flags: the application leaves the connection open (`FCGI_KEEP_CONN`).
pub const KEEP_CONN: u8 = 1;

/// A record header as it stands on the wire. The type stays a number: see [`RecordType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the record type.
    pub kind: u8,
    /// Request id; 0 for management records.
    pub id: u16,
    /// Bytes of content that follow.
    pub content_len: u16,
    /// Bytes of padding that follow the content.
    pub padding_len: u8,
}

impl Header {
    /// The header's eight bytes.
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let id = self.id.to_be_bytes();
        let len = self.content_len.to_be_bytes();
        [VERSION, self.kind, id[0], id[1], len[0], len[1], self.padding_len, 0]
    }

    /// Reads a header; `None` when its version is not 1. The reserved byte is ignored.
    pub const fn from_bytes(b: [u8; HEADER_LEN]) -> Option<Self> {
        if b[0] != VERSION {
            return None;
        }
        Some(Self {
            kind: b[1],
            id: u16::from_be_bytes([b[2], b[3]]),
            content_len: u16::from_be_bytes([b[4], b[5]]),
            padding_len: b[6],
        })
    }
}
