//! What a program sees of one request: role, variables, input; and what it writes: output, errors, an exit status.
//!
//! The same type serves FastCGI, plain CGI and tests: they differ in the [`Transport`] behind it.

use std::any::Any;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

pub use crate::protocol::session::Input;
use crate::protocol::{Params, Role};
use crate::response::error_page;

/// What carries a request's streams. Programs use [`Request`]; this is implemented by what can carry one.
pub trait Transport: Any + Send {
    /// Reads the next bytes of an input stream into `buf`, waiting for them; 0 at the end of the stream.
    ///
    /// # Errors
    /// `ConnectionAborted` when the server has gone or took the request back, `TimedOut` when nothing came for too long.
    fn read(&mut self, input: Input, buf: &mut [u8]) -> io::Result<usize>;
    /// As [`read`](Transport::read), but does not wait, if it can tell whether it would: [`input_source`](Transport::input_source)
    /// is what to wait for then.
    ///
    /// # Errors
    /// As for `read`; `WouldBlock` when nothing has come.
    fn try_read(&mut self, input: Input, buf: &mut [u8]) -> io::Result<usize> {
        self.read(input, buf)
    }
    /// Becomes readable when more input has come.
    fn input_source(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Whether it is known already that nothing of an input stream is left to be read.
    fn has_no_more(&self, _input: Input) -> bool {
        false
    }
    /// Takes output; it is sent when enough has come together.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody is there to read it, `TimedOut` when it was not read for too long.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Takes text for the server's error log.
    ///
    /// # Errors
    /// As for [`write`](Transport::write).
    fn write_error(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Sends what has been written.
    ///
    /// # Errors
    /// As for [`write`](Transport::write).
    fn flush(&mut self) -> io::Result<()>;
    /// Bytes that can be written now without sending, and so without waiting.
    fn room(&self) -> usize {
        0
    }
    /// Forgets the output that has not been sent; false when some has been, which nobody can take back.
    fn discard(&mut self) -> bool {
        false
    }
    /// Whether the answer is no longer wanted. Costs a system call at most.
    fn is_aborted(&mut self) -> bool;
    /// Sends what is left and ends the request. Called once.
    ///
    /// # Errors
    /// As for [`write`](Transport::write).
    fn finish(&mut self, status: u32) -> io::Result<()>;
    /// As [`finish`](Transport::finish) with status 1, so that an answer of which a part has been sent is not taken for a
    /// whole one, if there is a way to say so.
    ///
    /// # Errors
    /// As for [`write`](Transport::write).
    fn break_off(&mut self) -> io::Result<()> {
        self.finish(1)
    }
}

/// One request.
///
/// Reading and writing block. A request that is dropped unfinished ends with status 1, and with an error page when
/// nothing had been written: so a panic costs an answer, never a waiting client.
///
/// A program that serves all roles:
///
/// ```
/// use std::io::{Read, Write};
/// use fcgi_core::{Role, Server};
///
/// # let socket = std::env::temp_dir().join(format!("fcgi-doc-{}.sock", std::process::id()));
/// # let address: fcgi_core::Address = format!("unix:{}", socket.display()).parse()?;
/// # let server = Server::builder().listen(&address)?.start()?;
/// # let client = std::thread::spawn(move || roles_as_a_web_server_asks_for_them(&address));
/// # for _ in 0..3 {
/// let Some(mut request) = server.accept()? else { return Ok(()) };
/// let mut text = String::new();
/// match request.role() {
///     // The body comes in, a page goes out.
///     Role::Responder => {
///         request.stdin().read_to_string(&mut text)?;
///         write!(request.stdout(), "Content-Type: text/plain\r\n\r\nYou said {text}.")?;
///     }
///     // 200 lets the client in; `Variable-` headers become variables of the guarded program.
///     Role::Authorizer => write!(request.stdout(), "Status: 200 OK\r\nVariable-USER: anna\r\n\r\n")?,
///     // A file comes in behind the body, and goes out changed.
///     Role::Filter => {
///         request.data().read_to_string(&mut text)?;
///         write!(request.stdout(), "Content-Type: text/plain\r\n\r\n{}", text.to_uppercase())?;
///     }
///     // Entries of the server's log come in, one a line.
///     Role::Logger => drop(request.stdin().read_to_string(&mut text)?),
/// }
/// request.finish(0)?;
/// # }
/// # client.join().unwrap();
/// # fn roles_as_a_web_server_asks_for_them(address: &fcgi_core::Address) {
/// #     use fcgi_core::client::{Client, Event, Request};
/// #     for (role, answer) in [(1, "You said hello."), (2, "Variable-USER: anna\r\n\r\n"), (3, "A FILE")] {
/// #         let mut got = Vec::new();
/// #         let request = Request { id: 1, role, keep_conn: false, params: &fcgi_core::Params::new(), stdin: &mut &b"hello"[..], data: Some(&mut &b"a file"[..]) };
/// #         let mut client = Client::connect(address, None).unwrap();
/// #         client.request(request, &mut |event| if let Event::Stdout(bytes) = event { got.extend_from_slice(bytes) }).unwrap();
/// #         assert!(String::from_utf8(got).unwrap().ends_with(answer), "role {role}");
/// #     }
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Request {
    role: Role,
    params: Params,
    transport: Box<dyn Transport>,
    written: u64,
    finished: bool,
}

impl Request {
    /// A request over a transport of your own.
    pub fn new(role: Role, params: Params, transport: Box<dyn Transport>) -> Self {
        Self { role, params, transport, written: 0, finished: false }
    }

    /// Takes a request apart whose transport is a `T`.
    pub(crate) fn into_parts<T: Transport>(mut self) -> Result<(Role, Params, Box<T>, u64), Self> {
        if self.finished || !(&*self.transport as &dyn Any).is::<T>() {
            return Err(self);
        }
        // What is left of it has nothing to end.
        self.finished = true;
        let transport: Box<dyn Transport> = std::mem::replace(&mut self.transport, Box::new(Nowhere));
        let transport: Box<dyn Any> = transport;
        let transport = transport.downcast().unwrap_or_else(|_| unreachable!("it was looked at"));
        Ok((self.role, std::mem::take(&mut self.params), transport, self.written))
    }

    /// What is asked of the program.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The CGI variables (RFC 3875, section 4.1), and `FCGI_ROLE`.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The variables, to be put right before a program sees them.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The request body. `CONTENT_LENGTH` says how long it is, if the server knew; the end of the stream always does.
    pub fn stdin(&mut self) -> InputStream<'_> {
        InputStream { request: self, input: Input::Stdin }
    }

    /// What has come of the body; for programs that wait elsewhere, for [`input_source`](Self::input_source).
    pub(crate) fn try_read_stdin(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.finished { Ok(0) } else { self.transport.try_read(Input::Stdin, buf) }
    }

    /// Becomes readable when more of the body has come.
    pub(crate) fn input_source(&self) -> Option<BorrowedFd<'_>> {
        self.transport.input_source().filter(|_| !self.finished)
    }

    /// Whether there is no body, as far as is known.
    pub(crate) fn has_no_body(&self) -> bool {
        self.transport.has_no_more(Input::Stdin)
    }

    /// The file that a Filter transforms; empty for other roles.
    pub fn data(&mut self) -> InputStream<'_> {
        InputStream { request: self, input: Input::Data }
    }

    /// Where the CGI response goes: header lines, an empty line, the body (RFC 3875, section 6).
    pub fn stdout(&mut self) -> Stdout<'_> {
        Stdout(self)
    }

    /// Where text for the server's error log goes.
    pub fn stderr(&mut self) -> Stderr<'_> {
        Stderr(self)
    }

    /// Bytes written to [`stdout`](Self::stdout) so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that can be written to [`stdout`](Self::stdout) now without sending, and so without waiting.
    pub fn room(&self) -> usize {
        if self.finished { usize::MAX } else { self.transport.room() }
    }

    /// Takes back what was written to [`stdout`](Self::stdout), so that another answer can be given; false when some of it
    /// has been sent already.
    pub fn discard(&mut self) -> bool {
        let discarded = self.written == 0 || (!self.finished && self.transport.discard());
        if discarded {
            self.written = 0;
        }
        discarded
    }

    /// Gives a request that has no answer an [error page](error_page), with `status` such as `500 Internal Server Error` and
    /// `details` below it. An answer that has begun stays as it is: [`discard`](Self::discard) takes it back, if it can be.
    pub fn answer_with_error(&mut self, status: &str, details: &[u8]) {
        if self.written == 0 && !self.finished {
            // A client that has gone needs no answer.
            let _ = self.stdout().write_all(&error_page(status, details));
        }
    }

    /// Whether the answer is no longer wanted: the server took the request back, or its connection is gone. While much of
    /// the body is unread (`Config::body_buffer`), nothing further is read from the connection: then only its closing is
    /// noticed, and a request taken back is once the program reads on.
    pub fn is_aborted(&mut self) -> bool {
        !self.finished && self.transport.is_aborted()
    }

    /// Whether [`finish`](Self::finish) was called.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Ends the request: what was written is sent, and the server learns the exit status. What is read and written
    /// afterwards is nothing. Called again, it does nothing.
    ///
    /// # Errors
    /// When the rest of the answer could not be sent; the request has ended all the same.
    pub fn finish(&mut self, status: u32) -> io::Result<()> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.transport.finish(status)
    }

    /// Ends the request because its answer cannot be completed. Under FastCGI the connection is closed without an
    /// END_REQUEST, so that the server does not take the answer for a whole one; if it carries other requests as well, the
    /// exit status 1 must do.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub fn break_off(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.transport.break_off()
    }
}

/// What a request has that was taken apart.
struct Nowhere;

impl Transport for Nowhere {
    fn read(&mut self, _: Input, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_error(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_aborted(&mut self) -> bool {
        true
    }

    fn finish(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.finished {
            if self.written == 0 {
                let _ = self.transport.write(&error_page("500 Internal Server Error", b""));
            }
            let _ = self.finish(1);
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("role", &self.role).field("params", &self.params).finish_non_exhaustive()
    }
}

/// An input stream of a request.
pub struct InputStream<'a> {
    request: &'a mut Request,
    input: Input,
}

impl Read for InputStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.request.finished || buf.is_empty() {
            return Ok(0);
        }
        self.request.transport.read(self.input, buf)
    }
}

/// The output of a request. [`flush`](Write::flush) sends; without it, output is sent when enough has come together.
pub struct Stdout<'a>(&'a mut Request);

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.0.finished {
            self.0.transport.write(bytes)?;
            self.0.written += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        // All is taken at once, whatever it is.
        self.write(bytes).map(|_| ())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0.finished { Ok(()) } else { self.0.transport.flush() }
    }
}

/// The error stream of a request.
pub struct Stderr<'a>(&'a mut Request);

impl Write for Stderr<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.0.finished {
            self.0.transport.write_error(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
