//! What the protocol costs, without sockets: `cargo bench -p fcgi-core`.
// The macros of criterion make public functions without documentation.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fcgi_core::protocol::decoder::Decoder;
use fcgi_core::protocol::encoder::{self, GrowingRecord};
use fcgi_core::protocol::values::Values;
use fcgi_core::protocol::{Limits, Params, ProtocolStatus, RecordType, Role, Session};

const ID: u16 = 1;
/// The body of an upload, and what a script writes at once.
const BODY: usize = 16 << 10;
const OUTPUT: usize = 1 << 20;

/// What a web server sends of a short request.
fn few() -> Params {
    [("REQUEST_METHOD", "GET"), ("SCRIPT_FILENAME", "/srv/www/hello.lua"), ("QUERY_STRING", "")].into_iter().collect()
}

/// What it sends of a browser's request.
fn many() -> Params {
    let headers =
        (few().len()..30).map(|n| (format!("HTTP_X_HEADER_{n}"), "a value as headers have them".repeat(n % 4)));
    let mut params = few();
    for (name, value) in headers {
        params.set(name.as_bytes(), value.as_bytes());
    }
    params
}

/// The records of a request.
fn request(params: &Params, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder::request_head(ID, Role::Responder, true, params, &mut bytes);
    encoder::stream(RecordType::Stdin, ID, body, &mut bytes);
    encoder::end_stream(RecordType::Stdin, ID, &mut bytes);
    bytes
}

fn requests() -> [(&'static str, Vec<u8>); 3] {
    [
        ("hello", request(&few(), b"")),
        ("30 params", request(&many(), b"")),
        ("16 KiB body", request(&few(), &[b'x'; BODY])),
    ]
}

/// An answer, framed as it is written.
fn answer(output: &[u8], out: &mut Vec<u8>) {
    let mut record = GrowingRecord::default();
    for block in output.chunks(4096) {
        record.append(RecordType::Stdout, ID, block, out);
    }
    record.close(out);
    encoder::end_stream(RecordType::Stdout, ID, out);
    encoder::end_request(ID, 0, ProtocolStatus::RequestComplete, out);
}

fn decoder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoder");
    let mut output = Vec::new();
    answer(&vec![b'x'; OUTPUT], &mut output);
    // By the record, not by the byte: content is handed on without a copy.
    for (name, bytes) in requests().into_iter().chain([("1 MiB output", output)]) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut decoder = Decoder::new();
                let mut input = black_box(&bytes[..]);
                while let Ok(Some(piece)) = decoder.next(&mut input) {
                    black_box(piece.content);
                }
            });
        });
    }
}

fn encoder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encoder");
    for (name, output) in [("hello", vec![b'x'; 64]), ("1 MiB output", vec![b'x'; OUTPUT])] {
        let mut out = Vec::new();
        group.throughput(Throughput::Bytes(output.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                answer(black_box(&output), &mut out);
            });
        });
    }
}

fn params(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("params");
    let mut bytes = Vec::new();
    many().encode(&mut bytes);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    // With the copy of the bytes, which become part of it.
    group.bench_function("decode 30", |bencher| {
        bencher.iter(|| Params::from_stream(black_box(&bytes).clone(), 4096));
    });
    let params = many();
    let mut out = Vec::new();
    group.bench_function("encode 30", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&params).encode(&mut out);
        });
    });
    group.bench_function("get", |bencher| {
        bencher.iter(|| params.get(black_box(b"HTTP_X_HEADER_29")));
    });
}

fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    let (limits, values) = (Limits::default(), Values { max_connections: 1, max_requests: 1 });
    for (name, bytes) in requests() {
        let mut session = Session::new();
        let mut answers = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut input = black_box(&bytes[..]);
                while let Ok(Some(event)) = session.receive(&mut input, &limits, &values, &mut answers) {
                    black_box(event);
                }
                session.end(ID)
            });
        });
        assert!(answers.is_empty(), "every request is let in");
    }
}

criterion_group!(benches, decoder, encoder, params, session);
criterion_main!(benches);
