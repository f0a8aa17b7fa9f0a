//! Many requests in one thread, which never waits for one of them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use fcgi_core::request::Input;
use fcgi_core::{Event, PolledRequest, Reactor, Server};

use crate::app::Folder;
use crate::client::{CLOSE, Client, DATA, FILTER, KEEP, STDIN, Wire};
use crate::polled_app::Polled;

#[test]
fn a_request_is_answered() {
    for app in [Polled::new(), Polled::tcp(|_| ())] {
        for flags in [KEEP, CLOSE] {
            let mut client = app.connect();
            client.send(&Wire::new().request(1, flags, &[], b""));
            assert_eq!(client.answer(1).body(), b"hello");
            if flags == CLOSE {
                client.expect_end();
            } else {
                client.expect_alive();
                assert_eq!(client.ask(&[("TEST", "exit")], b"").app_status, 7);
                assert_eq!(client.ask(&[("TEST", "stderr")], b"").stderr, b"a complaint");
            }
        }
    }
}

#[test]
fn all_requests_run_at_once() {
    let app = Polled::new();
    // More than there are buffers for: on connections of their own, and on one together.
    let name = |number: usize| format!("request {}", number % 400);
    let meeting = |number: usize| [("TEST", "meet".to_owned()), ("NAME", name(number)), ("OTHER", name(number + 1))];
    let mut alone: Vec<Client> = (0..200).map(|_| app.connect()).collect();
    for (number, client) in alone.iter_mut().enumerate() {
        let pairs = meeting(number);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, &value[..])).collect();
        client.send(&Wire::new().request(1, CLOSE, &pairs, &[b'x'; 5_000]));
    }
    let mut together = app.connect();
    for number in 200..400 {
        let pairs = meeting(number);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, &value[..])).collect();
        together.send(&Wire::new().request(number as u16, KEEP, &pairs, &[b'y'; 300]));
    }
    for client in &mut alone {
        assert_eq!(client.answer(1).body(), [b'x'; 5_000]);
        client.expect_end();
    }
    let mut open: Vec<u16> = (200..400).collect();
    while !open.is_empty() {
        let (id, answer) = together.any_answer(&open);
        assert_eq!(answer.body(), [b'y'; 300]);
        open.retain(|o| *o != id);
    }
    together.expect_alive();
}

#[test]
fn bodies_come_in_pieces() {
    for app in [Polled::new(), Polled::with(|c| c.body_buffer = 10), Polled::tcp(|c| c.output_buffer = 100)] {
        let mut client = app.connect();
        let whole = Wire::new().head(1, KEEP, &[("TEST", "echo")]).stream(STDIN, 1, &[b'x'; 300]).end(STDIN, 1).bytes;
        for byte in &whole {
            client.send_bytes(std::slice::from_ref(byte));
            app.connect().expect_alive();
        }
        assert_eq!(client.answer(1).body(), [b'x'; 300]);
        let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut writer = client.writer();
        let wire = Wire::new().padding(3).request(1, KEEP, &[("TEST", "echo")], &body);
        let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &wire.bytes));
        assert!(client.answer(1).body() == body);
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn a_filter_reads_its_file() {
    let app = Polled::new();
    let mut client = app.connect();
    let wire = Wire::new().begin(1, FILTER, KEEP).params(1, &[("TEST", "data-only")]);
    client.send(&wire.stream(STDIN, 1, b"body").end(STDIN, 1));
    app.connect().expect_alive();
    client.send(&Wire::new().stream(DATA, 1, &[b'd'; 200_000]).end(DATA, 1));
    assert_eq!(client.answer(1).body(), b"200000");
    // A body that is too long to be kept lies before the file, and nobody reads it.
    let mut client = app.connect();
    let wire = Wire::new().begin(1, FILTER, KEEP).params(1, &[("TEST", "data-only"), ("NAME", "long")]);
    client.send(&wire.stream(STDIN, 1, &[b'x'; 2 << 20]));
    app.notes.wait("long failed: Other");
}

#[test]
fn requests_of_one_connection_stream_their_bodies() {
    let app = Polled::new();
    let mut client = app.connect();
    let ids = [1, 2, 3];
    let mut wire = ids.iter().fold(Wire::new(), |wire, id| wire.head(*id, KEEP, &[("TEST", "count")]));
    for _ in 0..100 {
        wire = wire.stream(STDIN, 1, &[1; 30_000]).stream(STDIN, 2, &[2; 60_000]).stream(STDIN, 3, &[3; 100]);
    }
    client.send(&ids.iter().fold(wire, |wire, id| wire.end(STDIN, *id)));
    let mut answers = ids.map(|_| client.any_answer(&ids));
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(answers.map(|(_, answer)| answer.body_text()), ["3000000", "6000000", "10000"]);
}

#[test]
fn a_request_reads_past_one_that_does_not() {
    let app = Polled::new();
    let mut client = app.connect();
    let first = [("TEST", "gate"), ("NAME", "first")];
    let second = [("TEST", "count"), ("NAME", "second")];
    client.send(&Wire::new().head(1, KEEP, &first).head(2, KEEP, &second).stream(STDIN, 2, &[2; 100_000]));
    app.notes.wait("second started");
    // The rest of its body lies behind that of the first, which is read only after the second was answered.
    client.send(&Wire::new().stream(STDIN, 1, &[1; 300_000]).stream(STDIN, 2, &[2; 200_000]).end(STDIN, 2));
    assert_eq!(client.answer(2).body(), b"300000");
    app.notes.say("first may go on");
    client.send(&Wire::new().end(STDIN, 1));
    assert_eq!(client.answer(1).body().len(), 300_000);
}

#[test]
fn answers_that_nobody_reads_delay_nobody() {
    let app = Polled::new();
    let mut slow = app.connect();
    let ids: Vec<u16> = (1..=20).collect();
    let pairs = [("TEST", "big"), ("SIZE", "1000000")];
    slow.send(&ids.iter().fold(Wire::new(), |wire, id| wire.request(*id, KEEP, &pairs, b"")));
    for _ in 0..20 {
        app.connect().expect_alive();
    }
    let mut open = ids;
    while !open.is_empty() {
        let (id, answer) = slow.any_answer(&open);
        assert_eq!(answer.body().len(), 1_000_000);
        open.retain(|o| *o != id);
    }
    slow.expect_alive();
}

#[test]
fn answers_of_one_connection_take_turns() {
    let (mut reactor, mut client, _folder) = reactor_and_client();
    client.send(&Wire::new().request(1, KEEP, &[], b"").request(2, KEEP, &[], b""));
    let mut events = Vec::new();
    reactor.turn(&mut events).unwrap();
    let mut requests = HashMap::new();
    for event in events.drain(..) {
        let Event::Request(request) = event else { panic!("{event:?}") };
        requests.insert(request.key(), request);
    }
    let write_all_it_takes = |request: &mut PolledRequest| while request.try_write(&[b'x'; 10_000]).is_ok() {};
    requests.values_mut().for_each(write_all_it_takes);
    let mut first: Vec<u64> = Vec::new();
    while first.len() < 6 {
        reactor.turn(&mut events).unwrap();
        if events.is_empty() {
            client.next().unwrap();
        }
        for (at, event) in events.drain(..).enumerate() {
            let Event::Writable(key) = event else { panic!("{event:?}") };
            if at == 0 {
                first.push(key);
            }
            write_all_it_takes(requests.get_mut(&key).unwrap());
        }
    }
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
}

#[test]
fn output_is_sent_when_it_is_flushed() {
    let app = Polled::new();
    for flags in [KEEP, CLOSE] {
        let mut client = app.connect();
        let name = format!("flush {flags}");
        client.send(&Wire::new().request(1, flags, &[("TEST", "flush"), ("NAME", &name)], b""));
        assert_eq!(client.next().unwrap().content, b"Content-Type: text/plain\r\n\r\n");
        app.notes.say(format!("{name} may go on"));
        assert_eq!(client.answer(1).stdout, b"after");
    }
}

#[test]
fn a_turn_waits_for_nothing() {
    let (mut reactor, mut client, _folder) = reactor_and_client();
    assert_eq!(reactor.timeout(), None);
    let mut events = Vec::new();
    let head = Wire::new().head(1, KEEP, &[]);
    let (begin, rest) = head.bytes.split_at(16);
    client.writer().write_all(begin).unwrap();
    assert!(reactor.turn(&mut events).unwrap() && events.is_empty());
    assert!(reactor.timeout().is_some_and(|timeout| timeout <= Duration::from_secs(1)));
    client.writer().write_all(rest).unwrap();
    assert!(reactor.turn(&mut events).unwrap());
    // It begins before its body has come.
    let Some(Event::Request(mut request)) = events.pop() else { panic!("no request") };
    assert_eq!(request.try_read(Input::Stdin, &mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.send(&Wire::new().end(STDIN, 1));
    assert!(reactor.turn(&mut events).unwrap());
    assert!(matches!(events.pop(), Some(Event::Readable(key)) if key == request.key()));
    assert_eq!(request.try_read(Input::Stdin, &mut [0]).unwrap(), 0);
    assert_eq!((request.try_write(b"\r\nhi").unwrap(), request.written()), (4, 4));
    assert!(request.discard());
    assert_eq!(request.try_write(b"\r\nyou").unwrap(), 5);
    request.try_flush().unwrap();
    assert!(!request.discard());
    request.finish(0).unwrap();
    assert!(request.is_finished() && !request.is_aborted());
    assert_eq!(client.answer(1).stdout, b"\r\nyou");
    reactor.server().drain();
    assert!(!reactor.turn(&mut events).unwrap());
}

/// What has come before the event loop began waits for nothing else.
#[test]
fn a_request_has_begun_before_the_loop() {
    let folder = Folder::new();
    let server = Arc::new(Server::builder().listen(&folder.socket()).unwrap().start().unwrap());
    let mut client = Client::connect(&folder.socket());
    let both = Wire::new().head(1, KEEP, &[("A", "1")]).request(2, KEEP, &[("A", "2")], b"");
    client.send(&both);
    let taken = server.accept().unwrap().unwrap();
    assert_eq!(taken.params().get(b"A"), Some(&b"2"[..]));
    let mut reactor = Reactor::new(server);
    let mut second = reactor.adopt(taken).unwrap();
    second.finish(0).unwrap();
    let mut events = Vec::new();
    assert!(reactor.turn(&mut events).unwrap());
    let Some(Event::Request(mut first)) = events.pop() else { panic!("no request") };
    assert_eq!(first.params().get(b"A"), Some(&b"1"[..]));
    first.finish(0).unwrap();
}

/// Who works on a request may find that it is for an event loop.
#[test]
fn a_request_is_handed_over() {
    let folder = Folder::new();
    let server = Arc::new(Server::builder().listen(&folder.socket()).unwrap().start().unwrap());
    let mut client = Client::connect(&folder.socket());
    // So much of a body that it is not waited for whole.
    let mut sender = client.writer();
    let head = Wire::new().head(1, KEEP, &[("A", "b")]).stream(STDIN, 1, &[b'x'; 200_000]);
    let sending = std::thread::spawn(move || sender.write_all(&head.bytes).unwrap());
    let mut taken = server.accept().unwrap().unwrap();
    taken.stdin().read_exact(&mut [0; 2]).unwrap();
    taken.stdout().write_all(b"\r\n").unwrap();
    let mut reactor = Reactor::new(server);
    let mut request = reactor.adopt(taken).unwrap();
    assert_eq!((request.params().get(b"A"), request.written()), (Some(&b"b"[..]), 2));
    let (mut events, mut count) = (Vec::new(), 2);
    while count < 200_000 {
        match request.try_read(Input::Stdin, &mut [0; 7_000]) {
            Ok(read) => count += read,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        reactor.turn(&mut events).unwrap();
    }
    sending.join().unwrap();
    events.clear();
    assert_eq!(request.try_fill_buf(Input::Stdin).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.send(&Wire::new().record(STDIN, 1, b" world").end(STDIN, 1));
    while events.is_empty() {
        reactor.turn(&mut events).unwrap();
    }
    assert!(matches!(events[..], [Event::Readable(key)] if key == request.key()), "{events:?}");
    let mut rest = [0; 16];
    assert_eq!(request.try_read(Input::Stdin, &mut rest).unwrap(), 6);
    request.try_write(b"seen").unwrap();
    request.finish(0).unwrap();
    assert_eq!(client.answer(1).stdout, b"\r\nseen");
    // A request that is over, or that came otherwise, is nobody's.
    let over = fcgi_core::cgi::request();
    assert!(reactor.adopt(over).is_err());
}

/// A server that does what the test says, and a connection to it.
fn reactor_and_client() -> (Reactor, Client, Folder) {
    let folder = Folder::new();
    let server = Server::builder().listen(&folder.socket()).unwrap().start().unwrap();
    let client = Client::connect(&folder.socket());
    (Reactor::new(Arc::new(server)), client, folder)
}
