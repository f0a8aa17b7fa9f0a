//! Stopping without a loss, and sockets in the file system.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};

use fcgi_core::{Address, ListenError, Listener, Server};

use crate::app::{App, Folder, until};
use crate::client::{CLOSE, Client, KEEP, OVERLOADED, STDIN, Wire};

/// A server that stops when something is written to the socket.
fn stoppable(threads: usize) -> (App, UnixStream) {
    let (stop, told) = UnixStream::pair().unwrap();
    let folder = Folder::new();
    let builder = Server::builder().listen(&folder.socket()).unwrap().drain_on(stop.into());
    (App::start(builder, folder, |c| c.threads = threads), told)
}

fn path(address: &Address) -> &std::path::Path {
    match address {
        Address::Unix(path) => path,
        other => panic!("{other}"),
    }
}

#[test]
fn what_runs_is_finished_and_nothing_new_is_taken() {
    let (app, mut stop) = stoppable(3);
    let mut idle = app.connect();
    idle.expect_alive();
    let (mut kept, mut single) = (app.connect(), app.connect());
    kept.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "kept")], b"kept"));
    single.send(&Wire::new().request(1, CLOSE, &[("TEST", "gate"), ("NAME", "single")], b"single"));
    app.notes.wait("kept started");
    app.notes.wait("single started");
    stop.write_all(b"x").unwrap();
    idle.expect_end();
    assert!(until(|| !path(&app.address).exists()), "the socket's file is still there");
    assert!(Client::try_connect(&app.address).is_err());
    assert!(app.server.addresses().is_empty());
    app.notes.say("kept may go on");
    assert_eq!(kept.answer(1).body(), b"kept");
    kept.expect_end();
    app.notes.say("single may go on");
    assert_eq!(single.answer(1).body(), b"single");
    single.expect_end();
    app.expect_stopped();
}

#[test]
fn all_idle_threads_are_told() {
    for threads in [1, 8] {
        let (app, mut stop) = stoppable(threads);
        app.connect().expect_alive();
        stop.write_all(b"x").unwrap();
        app.expect_stopped();
        let app = App::threads(threads);
        app.server.drain();
        app.expect_stopped();
        app.server.drain();
    }
}

#[test]
fn a_closed_stop_descriptor_stops_too() {
    let (app, stop) = stoppable(2);
    app.connect().expect_alive();
    drop(stop);
    app.expect_stopped();
}

#[test]
fn a_request_that_has_begun_is_answered() {
    for threads in [1, 3] {
        let app = App::threads(threads);
        let mut client = app.connect();
        client.send(&Wire::new().head(1, KEEP, &[("TEST", "echo")]).stream(STDIN, 1, b"bo"));
        client.send(&Wire::new().end(crate::client::GET_VALUES, 0));
        client.management();
        app.server.drain();
        client.send(&Wire::new().stream(STDIN, 1, b"dy").end(STDIN, 1));
        assert_eq!(client.answer(1).body(), b"body");
        client.expect_end();
        app.expect_stopped();
    }
}

#[test]
fn a_request_that_waits_for_a_thread_is_answered() {
    let app = App::new();
    let mut busy = app.connect();
    busy.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "busy")], b"").request(2, KEEP, &[], b""));
    app.notes.wait("busy started");
    app.server.drain();
    app.notes.say("busy may go on");
    let ids = [busy.any_answer(&[1, 2]).0, busy.any_answer(&[1, 2]).0];
    assert!(ids.contains(&1) && ids.contains(&2));
    busy.expect_end();
    app.expect_stopped();
}

#[test]
fn a_request_that_nobody_has_read_yet_is_answered() {
    let app = App::new();
    let (mut busy, mut kept) = (app.connect(), app.connect());
    kept.expect_alive();
    busy.send(&Wire::new().request(1, KEEP, &[("TEST", "gate"), ("NAME", "busy")], b""));
    app.notes.wait("busy started");
    // The only thread is busy: this lies in its socket when the server is told to stop.
    kept.send(&Wire::new().request(1, KEEP, &[("TEST", "hello")], b""));
    app.server.drain();
    app.notes.say("busy may go on");
    busy.answer(1);
    assert_eq!(kept.answer(1).body(), b"hello");
    kept.expect_end();
    app.expect_stopped();
}

#[test]
fn a_request_that_begins_too_late_is_refused() {
    let app = App::threads(2);
    let mut client = app.connect();
    client.send(&Wire::new().request(1, KEEP, &[("TEST", "gate")], b"body"));
    app.notes.wait("it started");
    app.server.drain();
    client.send(&Wire::new().request(2, KEEP, &[("NAME", "late")], b""));
    // By whom depends on who reads: another thread at once, or the one that answers.
    app.notes.say("it may go on");
    let mut answers = [client.any_answer(&[1, 2]), client.any_answer(&[1, 2])];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(answers[0].1.body(), b"body");
    assert_eq!(answers[1].1.protocol_status, OVERLOADED);
    assert!(!app.notes.heard("late started"));
}

#[test]
fn an_answer_on_its_way_arrives_whole() {
    for threads in [1, 2] {
        let app = App::threads(threads);
        let mut slow = app.connect();
        // Answers that have left the program and not the server: the socket is full, and nobody reads.
        let wire = (1..=30).fold(Wire::new(), |w, id| w.request(id, KEEP, &[("TEST", "big"), ("SIZE", "60000")], b""));
        slow.send(&wire.request(31, KEEP, &[("TEST", "hello"), ("NAME", "last")], b""));
        app.notes.wait("last started");
        app.server.drain();
        // As a program does: it ends when all threads have been told so.
        let ended = std::thread::spawn(move || {
            app.expect_stopped();
            drop(app);
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        let mut open: Vec<u16> = (1..=31).collect();
        while !open.is_empty() {
            let (id, answer) = slow.any_answer(&open);
            assert!(answer.body().len() == 60_000 || id == 31);
            open.retain(|o| *o != id);
        }
        slow.expect_end();
        ended.join().unwrap();
    }
}

#[test]
fn the_file_of_a_socket_goes_with_its_listener() {
    let folder = Folder::new();
    let address = folder.socket();
    let listener = Listener::bind(&address).unwrap();
    assert!(path(&address).exists());
    drop(listener);
    assert!(!path(&address).exists());
    // Unless another server has taken the name.
    let listener = Listener::bind(&address).unwrap();
    std::fs::remove_file(path(&address)).unwrap();
    let other = UnixListener::bind(path(&address)).unwrap();
    drop(listener);
    assert!(path(&address).exists());
    drop(other);
}

#[test]
fn a_stale_socket_is_replaced() {
    let folder = Folder::new();
    drop(UnixListener::bind(path(&folder.socket())).unwrap());
    assert!(path(&folder.socket()).exists());
    let builder = Server::builder().listen(&folder.socket()).unwrap();
    App::start(builder, folder, |_| ()).connect().expect_alive();
}

#[test]
fn a_live_server_is_not_replaced() {
    let unix = App::new();
    let tcp = App::tcp(|_| ());
    for app in [&unix, &tcp] {
        let refused = Listener::bind(&app.address).unwrap_err();
        assert!(matches!(refused, ListenError::InUse(_)), "{refused:?}");
        assert_eq!(
            refused.to_string(),
            format!("{} is in use by a running server: stop it, or listen elsewhere", app.address)
        );
        app.connect().expect_alive();
    }
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let address = folder.socket();
    std::fs::write(path(&address), "precious").unwrap();
    let refused = Listener::bind(&address).unwrap_err();
    assert!(matches!(refused, ListenError::NotASocket(_)), "{refused:?}");
    assert_eq!(refused.to_string(), format!("{address} exists and is not a socket: remove it, or listen elsewhere"));
    assert_eq!(std::fs::read(path(&address)).unwrap(), b"precious");
    // Nor a folder, nor a name in a folder that is not there.
    assert!(matches!(Listener::bind(&Address::Unix(folder.0.clone())), Err(ListenError::NotASocket(_))));
    let nowhere = Address::Unix(folder.0.join("no/such/folder"));
    assert!(matches!(Listener::bind(&nowhere), Err(ListenError::System(..))));
}
