//! Requests of a session find the thread that served it before, and wait for it only as long as they are told to.

use std::collections::HashMap;
use std::time::Duration;

use fcgi_core::Affinity;

use crate::app::App;
use crate::client::{CLOSE, Client, KEEP, PATIENCE, Wire};

fn app(threads: usize, patience: Duration) -> App {
    App::with(|config| {
        config.threads = threads;
        config.affinity = Some(Affinity { source: "cookie:sid".parse().unwrap(), patience });
    })
}

fn ask(session: &str, test: &str, name: &str) -> Wire {
    let cookie = format!("other=1; sid={session}");
    Wire::new().request(1, CLOSE, &[("TEST", test), ("NAME", name), ("HTTP_COOKIE", &cookie)], b"")
}

/// The thread that serves a session now.
fn thread(app: &App, session: &str) -> Vec<u8> {
    let mut client = app.connect();
    client.send(&ask(session, "thread", "it"));
    client.answer(1).body().to_vec()
}

#[test]
fn a_session_stays_with_its_thread() {
    let app = app(4, PATIENCE);
    let mut homes: HashMap<String, Vec<u8>> = HashMap::new();
    // Others keep threads busy meanwhile, so that first requests come to different ones.
    for round in 0..40 {
        let session = format!("s{}", round % 8);
        let busy = (round < 8).then(|| {
            let mut client = app.connect();
            let name = format!("busy{round}");
            client.send(&ask("", "gate", &name));
            app.notes.wait(&format!("{name} started"));
            (client, name)
        });
        let served_by = thread(&app, &session);
        assert_eq!(homes.entry(session.clone()).or_insert_with(|| served_by.clone()), &served_by, "{session}");
        if let Some((mut client, name)) = busy {
            app.notes.say(format!("{name} may go on"));
            client.answer(1);
        }
    }
}

#[test]
fn a_session_waits_for_its_thread_while_others_idle() {
    let app = app(4, PATIENCE);
    let home = thread(&app, "anna");
    let mut first = app.connect();
    first.send(&ask("anna", "gate", "first"));
    app.notes.wait("first started");
    let mut second = app.connect();
    second.send(&ask("anna", "thread", "second"));
    // All other threads are free, and serve other sessions and none.
    for _ in 0..8 {
        assert_ne!(thread(&app, "berta"), home);
        app.connect().expect_alive();
    }
    assert!(!app.notes.heard("second started"));
    app.notes.say("first may go on");
    assert_eq!(first.answer(1).app_status, 0);
    assert_eq!(second.answer(1).body(), home);
}

#[test]
fn a_session_moves_when_its_thread_is_busy_for_too_long() {
    let app = app(3, Duration::from_millis(50));
    let home = thread(&app, "anna");
    let mut first = app.connect();
    first.send(&ask("anna", "gate", "first"));
    app.notes.wait("first started");
    let moved = thread(&app, "anna");
    assert_ne!(moved, home);
    // And it stays there.
    app.notes.say("first may go on");
    first.answer(1);
    for _ in 0..10 {
        assert_eq!(thread(&app, "anna"), moved);
    }
}

#[test]
fn sessions_of_one_connection_run_at_the_same_time() {
    let app = app(4, PATIENCE);
    let names = ["one", "two", "three", "four"];
    for _ in 0..50 {
        let mut client = app.connect();
        let wire = (0..4).fold(Wire::new(), |wire, at| {
            let cookie = format!("sid={}", names[at]);
            let other = names[(at + 1) % 4];
            let pairs = [("TEST", "meet"), ("NAME", names[at]), ("OTHER", other), ("HTTP_COOKIE", &cookie)];
            wire.request(at as u16 + 1, KEEP, &pairs, b"")
        });
        client.send(&wire);
        let mut open = vec![1, 2, 3, 4];
        while !open.is_empty() {
            let (id, answer) = client.any_answer(&open);
            assert_eq!(answer.body(), b"met");
            open.retain(|o| *o != id);
        }
    }
}

#[test]
fn many_clients_are_all_served() {
    let app = app(3, Duration::from_millis(1));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let app = &app;
            scope.spawn(move || {
                let mut kept = app.connect();
                for round in 0..200 {
                    // Some sessions are shared, some requests have none.
                    let session = if round % 3 == 0 { String::new() } else { format!("s{}", (number + round) % 5) };
                    let cookie = format!("sid={session}");
                    let pairs = [("TEST", "thread"), ("HTTP_COOKIE", &cookie)];
                    kept.send(&Wire::new().request(1, KEEP, &pairs, b""));
                    kept.answer(1);
                    if round % 10 == 0 {
                        Client::connect(&app.address).expect_alive();
                    }
                }
            });
        }
    });
}
