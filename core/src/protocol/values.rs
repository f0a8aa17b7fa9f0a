//! GET_VALUES (section 4.1): a server asks for variables by name, we answer with those that we know.

use super::encoder;
use super::params::pair_lengths;
use super::record::RecordType;

/// The three variables of the specification, and what we say about them.
#[derive(Clone, Debug)]
pub struct Values {
    /// `FCGI_MAX_CONNS`: connections that we hold at once.
    pub max_connections: usize,
    /// `FCGI_MAX_REQS`: requests that we hold at once. On one connection, that is: the servers that ask use the answer to
    /// decide how many requests to put on a connection, and would meet that limit.
    pub max_requests: usize,
}

/// The longest name that we know; a longer one is skipped without being kept.
const LONGEST_NAME: usize = 15;

/// Reads the names of one GET_VALUES record as its content arrives. Keeps a lengths' worth of bytes, whatever is sent.
#[derive(Debug, Default)]
pub struct Question {
    lengths: Vec<u8>,
    name: Vec<u8>,
    name_left: usize,
    skip: usize,
    asked: [bool; 3],
}

impl Question {
    /// Takes the next bytes of the record's content.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.name_left > 0 {
                let (now, later) = bytes.split_at(self.name_left.min(bytes.len()));
                self.name.extend_from_slice(&now[..now.len().min(LONGEST_NAME + 1 - self.name.len())]);
                self.name_left -= now.len();
                bytes = later;
                if self.name_left == 0 {
                    self.ask();
                }
            } else if self.skip > 0 {
                let now = self.skip.min(bytes.len());
                self.skip -= now;
                bytes = &bytes[now..];
            } else {
                self.lengths.push(bytes[0]);
                bytes = &bytes[1..];
                if let Some((name, value, _)) = pair_lengths(&self.lengths) {
                    self.lengths.clear();
                    self.name.clear();
                    self.name_left = name;
                    self.skip = value;
                }
            }
        }
    }

    fn ask(&mut self) {
        let known: [&[u8]; 3] = [b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS"];
        if let Some(which) = known.iter().position(|n| *n == self.name) {
            self.asked[which] = true;
        }
    }

    /// Appends GET_VALUES_RESULT. Names that we do not know are left out.
    pub fn answer(self, values: &Values, out: &mut Vec<u8>) {
        let texts = [
            ("FCGI_MAX_CONNS", values.max_connections.to_string()),
            ("FCGI_MAX_REQS", values.max_requests.to_string()),
            ("FCGI_MPXS_CONNS", "1".to_owned()),
        ];
        let asked = texts.iter().zip(self.asked).filter(|(_, asked)| *asked);
        encoder::values(RecordType::GetValuesResult, asked.map(|((n, v), _)| (*n, v.as_str())), out);
    }
}
