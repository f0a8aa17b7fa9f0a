//! What the protocol costs without a system call: `cargo bench -p fcgi-core`.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fcgi_core::protocol::decoder::Decoder;
use fcgi_core::protocol::encoder::GrowingRecord;
use fcgi_core::protocol::session::Event;
use fcgi_core::protocol::values::Values;
use fcgi_core::protocol::{Limits, Params, ProtocolStatus, RecordType, Role, Session, encoder};

const VALUES: Values = Values { max_connections: 1024, max_requests: 1024 };

/// The variables that nginx sends with a request of a browser.
fn variables() -> Params {
    let mut params = Params::new();
    for (name, value) in [
        ("SCRIPT_FILENAME", "/srv/www/site/app.lua"),
        ("QUERY_STRING", "page=3&order=asc"),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SCRIPT_NAME", "/app.lua"),
        ("REQUEST_URI", "/app.lua?page=3&order=asc"),
        ("DOCUMENT_URI", "/app.lua"),
        ("DOCUMENT_ROOT", "/srv/www/site"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "https"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "nginx/1.22.1"),
        ("REMOTE_ADDR", "192.0.2.77"),
        ("REMOTE_PORT", "51124"),
        ("SERVER_ADDR", "192.0.2.1"),
        ("SERVER_PORT", "443"),
        ("SERVER_NAME", "www.example.org"),
        ("REDIRECT_STATUS", "200"),
        ("HTTP_HOST", "www.example.org"),
        ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
        ("HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("HTTP_ACCEPT_LANGUAGE", "de,en-US;q=0.7,en;q=0.3"),
        ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd"),
        ("HTTP_REFERER", "https://www.example.org/start"),
        ("HTTP_COOKIE", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ] {
        params.set(name.as_bytes(), value.as_bytes());
    }
    params
}

fn request(body: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder::request_head(1, Role::Responder, true, &variables(), &mut bytes);
    encoder::stream(RecordType::Stdin, 1, &vec![b'x'; body], &mut bytes);
    encoder::end_stream(RecordType::Stdin, 1, &mut bytes);
    bytes
}

fn incoming(c: &mut Criterion) {
    let mut group = c.benchmark_group("incoming");
    for (name, body) in [("get", 0), ("post 16 KiB", 16 << 10), ("post 1 MiB", 1 << 20)] {
        let bytes = request(body);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("decoder, {name}"), |b| {
            let mut decoder = Decoder::new();
            b.iter(|| {
                let mut input = &bytes[..];
                while let Some(piece) = decoder.next(&mut input).unwrap() {
                    black_box(piece.content);
                }
            });
        });
        group.bench_function(format!("session, {name}"), |b| {
            let (mut session, limits, mut out) = (Session::new(), Limits::default(), Vec::new());
            b.iter(|| {
                let mut input = &bytes[..];
                while let Some(event) = session.receive(&mut input, &limits, &VALUES, &mut out).unwrap() {
                    if let Event::Begin { .. } = &event {
                        black_box(&event);
                    }
                }
                session.end(1);
            });
        });
    }
    group.finish();
}

fn params(c: &mut Criterion) {
    let variables = variables();
    let mut stream = Vec::new();
    variables.encode(&mut stream);
    c.bench_function("params, from a stream", |b| {
        b.iter_batched(
            || stream.clone(),
            |bytes| Params::from_stream(bytes, 4096).unwrap(),
            criterion::BatchSize::SmallInput,
        );
    });
    c.bench_function("params, get the last", |b| b.iter(|| variables.get(black_box(b"HTTP_COOKIE"))));
    c.bench_function("params, get what is missing", |b| b.iter(|| variables.get(black_box(b"HTTP_X_NOTHING"))));
}

fn outgoing(c: &mut Criterion) {
    let mut group = c.benchmark_group("outgoing");
    for (name, size) in [("hello", 64), ("16 KiB", 16 << 10), ("1 MiB", 1 << 20)] {
        let page = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("answer of {name}"), |b| {
            let mut out = Vec::with_capacity(size + (size >> 8) + 64);
            b.iter(|| {
                out.clear();
                let mut record = GrowingRecord::default();
                for piece in page.chunks(1000) {
                    record.append(RecordType::Stdout, 1, piece, &mut out);
                }
                record.close(&mut out);
                encoder::end_stream(RecordType::Stdout, 1, &mut out);
                encoder::end_request(1, 0, ProtocolStatus::RequestComplete, &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, incoming, params, outgoing);
criterion_main!(benches);
