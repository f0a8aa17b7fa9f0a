//! Records out: the mirror of the decoder. Everything is appended to a caller's buffer, so that a whole answer
//! (its last output, the ends of its streams, END_REQUEST) leaves in one write.

use super::params::encode_pair;
use super::record::{HEADER_LEN, Header, KEEP_CONN, MANAGEMENT_ID, MAX_CONTENT, ProtocolStatus, RecordType, Role};

fn record(kind: RecordType, id: u16, content: &[u8], out: &mut Vec<u8>) {
    debug_assert!(content.len() <= MAX_CONTENT);
    let header = Header { kind: kind as u8, id, content_len: content.len() as u16, padding_len: 0 };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(content);
}

/// Appends BEGIN_REQUEST. `role` is a number, because a client may want to try one that is not in the specification.
pub fn begin_request(id: u16, role: u16, keep_conn: bool, out: &mut Vec<u8>) {
    let role = role.to_be_bytes();
    record(
        RecordType::BeginRequest,
        id,
        &[role[0], role[1], if keep_conn { KEEP_CONN } else { 0 }, 0, 0, 0, 0, 0],
        out,
    );
}

/// Appends ABORT_REQUEST.
pub fn abort_request(id: u16, out: &mut Vec<u8>) {
    record(RecordType::AbortRequest, id, &[], out);
}

/// Appends END_REQUEST.
pub fn end_request(id: u16, app_status: u32, status: ProtocolStatus, out: &mut Vec<u8>) {
    let app = app_status.to_be_bytes();
    record(RecordType::EndRequest, id, &[app[0], app[1], app[2], app[3], status as u8, 0, 0, 0], out);
}

/// Appends `bytes` as records of a stream. No bytes, no record: an empty record would end the stream.
pub fn stream(kind: RecordType, id: u16, bytes: &[u8], out: &mut Vec<u8>) {
    for content in bytes.chunks(MAX_CONTENT) {
        record(kind, id, content, out);
    }
}

/// Appends the empty record that ends a stream.
pub fn end_stream(kind: RecordType, id: u16, out: &mut Vec<u8>) {
    record(kind, id, &[], out);
}

/// Appends the answer to a management record of a type that is not known (section 4.2).
pub fn unknown_type(kind: u8, out: &mut Vec<u8>) {
    record(RecordType::UnknownType, MANAGEMENT_ID, &[kind, 0, 0, 0, 0, 0, 0, 0], out);
}

/// Appends a management record of name-value pairs: GET_VALUES or GET_VALUES_RESULT.
pub fn values<'a>(kind: RecordType, pairs: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    let mut content = Vec::new();
    for (name, value) in pairs {
        encode_pair(name.as_bytes(), value.as_bytes(), &mut content);
    }
    record(kind, MANAGEMENT_ID, &content, out);
}

/// Appends a whole request head: BEGIN_REQUEST, the PARAMS stream and its end.
pub fn request_head(id: u16, role: Role, keep_conn: bool, params: &super::Params, out: &mut Vec<u8>) {
    begin_request(id, role as u16, keep_conn, out);
    let mut pairs = Vec::new();
    params.encode(&mut pairs);
    stream(RecordType::Params, id, &pairs, out);
    end_stream(RecordType::Params, id, out);
}

/// A record that grows in place: content is appended directly behind its header, and the header's length is written
/// when the record is closed. So a script's output is copied once, from the script into the bytes that are sent.
#[derive(Debug, Default)]
pub struct GrowingRecord {
    start: Option<usize>,
}

impl GrowingRecord {
    /// Appends content of stream `kind`, opening records as they are needed.
    pub fn append(&mut self, kind: RecordType, id: u16, mut bytes: &[u8], out: &mut Vec<u8>) {
        // Most pieces are small, and go on where the one before ended.
        if let Some(start) = self.start
            && out.len() - start - HEADER_LEN + bytes.len() <= MAX_CONTENT
        {
            return out.extend_from_slice(bytes);
        }
        while !bytes.is_empty() {
            let start = *self.start.get_or_insert_with(|| {
                let start = out.len();
                out.extend_from_slice(&Header { kind: kind as u8, id, content_len: 0, padding_len: 0 }.to_bytes());
                start
            });
            let room = MAX_CONTENT - (out.len() - start - HEADER_LEN);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            out.extend_from_slice(now);
            bytes = later;
            if !bytes.is_empty() {
                self.close(out);
            }
        }
    }

    /// Writes the length of the open record, if there is one; what is appended next begins another.
    pub fn close(&mut self, out: &mut [u8]) {
        if let Some(start) = self.start.take() {
            let len = (out.len() - start - HEADER_LEN) as u16;
            out[start + 4..start + 6].copy_from_slice(&len.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_discrete_records() {
        let mut out = Vec::new();
        begin_request(0x0102, 3, true, &mut out);
        assert_eq!(out, [1, 1, 1, 2, 0, 8, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0]);
        out.clear();
        end_request(7, 0x0A0B_0C0D, ProtocolStatus::Overloaded, &mut out);
        assert_eq!(out, [1, 3, 0, 7, 0, 8, 0, 0, 10, 11, 12, 13, 2, 0, 0, 0]);
        out.clear();
        unknown_type(77, &mut out);
        assert_eq!(out, [1, 11, 0, 0, 0, 8, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0]);
        out.clear();
        values(RecordType::GetValuesResult, [("AB", "c")], &mut out);
        assert_eq!(out, *b"\x01\x0a\0\0\0\x05\0\0\x02\x01ABc");
    }

    #[test]
    fn a_growing_record_is_cut_at_the_largest_content() {
        let mut out = Vec::new();
        let mut record = GrowingRecord::default();
        record.append(RecordType::Stdout, 1, b"ab", &mut out);
        record.append(RecordType::Stdout, 1, &vec![b'x'; MAX_CONTENT], &mut out);
        record.close(&mut out);
        assert_eq!(out[..10], [1, 6, 0, 1, 0xff, 0xff, 0, 0, b'a', b'b']);
        assert_eq!(out[HEADER_LEN + MAX_CONTENT..], [1, 6, 0, 1, 0, 2, 0, 0, b'x', b'x']);
    }
}
