//! What a request or a connection may take.

use std::time::Duration;

use clap::Args;

use super::values::{positive_seconds, size};

/// Times, sizes, numbers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Seconds that a request may take (such as 30 or 0.5); then its script is interrupted and the client gets status 504
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds)]
    pub(crate) request_timeout: Option<Duration>,

    /// With --workers: seconds after which a process is ended whose request does not end, even interrupted [default:
    /// --request-timeout and 5 more]
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, requires = "workers")]
    pub(crate) kill_after: Option<Duration>,

    /// With --workers: replace a process that uses more bytes of memory than this
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "workers")]
    pub(crate) max_memory: Option<usize>,

    /// Bytes that one interpreter may use; a script that wants more fails
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_limit: Option<usize>,

    /// Seconds in which the rest of a request must come, counted anew with each byte; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) read_timeout: u64,

    /// Seconds in which an answer must be read, counted anew with each byte; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) write_timeout: u64,

    /// Seconds after which a connection without a request is closed; 0: never, that is the web server's to do (and with
    /// --http, after --read-timeout)
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) keepalive_timeout: u64,

    /// With --http: seconds in which a script must begin to answer, or be given up with status 504; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 0, requires = "http")]
    pub(crate) answer_timeout: u64,

    /// Connections at once; further ones wait
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub(crate) max_connections: usize,

    /// Requests at once on one connection; further ones are refused
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_multiplexed: usize,

    /// Bytes of one request's parameters; more are refused with status 431
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = size)]
    pub(crate) max_params_size: usize,

    /// Parameters of one request; more are refused with status 431
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_params_count: usize,

    /// Bytes of a body that are kept before the script reads them
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = size)]
    pub(crate) body_buffer: usize,

    /// Bytes of output that are kept before they are sent
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = size)]
    pub(crate) output_buffer: usize,
}
