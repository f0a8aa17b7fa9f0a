//! Where connections come from, and from whom.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use fcgi_core::{Address, AllowList, ListenError, Listener, Server};

use crate::app::{App, Folder};
use crate::client::{Client, Wire};

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn several_listeners_at_once() {
    let folder = Folder::new();
    let second = Address::Unix(folder.0.join("second.sock"));
    let mut builder = Server::builder().listen(&folder.socket()).unwrap().listen(&second).unwrap();
    let mut tcp = vec!["127.0.0.1:0"];
    if has_ipv6() {
        tcp.push("[::1]:0");
    }
    for text in &tcp {
        builder = builder.listen(&text.parse().unwrap()).unwrap();
    }
    let app = App::start(builder, folder, |c| c.threads = 2);
    let addresses = app.server.addresses();
    assert_eq!(addresses.len(), 2 + tcp.len());
    assert!(addresses.iter().all(|a| !a.to_string().ends_with(":0")), "real ports: {addresses:?}");
    let mut clients: Vec<Client> = addresses.iter().map(Client::connect).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(Client::expect_alive);
    }
}

#[test]
fn any_host_takes_both_families() {
    let builder = Server::builder().listen(&"*:0".parse().unwrap()).unwrap();
    let app = App::start(builder, Folder::new(), |_| ());
    let Address::Tcp { port, .. } = app.address else { panic!("{}", app.address) };
    Client::connect(&format!("127.0.0.1:{port}").parse().unwrap()).expect_alive();
    if has_ipv6() {
        Client::connect(&format!("[::1]:{port}").parse().unwrap()).expect_alive();
    }
}

#[test]
fn a_name_is_looked_up() {
    let builder = Server::builder().listen(&"localhost:0".parse().unwrap()).unwrap();
    App::start(builder, Folder::new(), |_| ()).connect().expect_alive();
    let nowhere = Listener::bind(&"no.such.host.invalid:9000".parse().unwrap()).unwrap_err();
    assert!(matches!(nowhere, ListenError::NoHost(_)), "{nowhere:?}");
    assert_eq!(nowhere.to_string(), "no.such.host.invalid:9000: no such host");
}

#[test]
fn who_is_not_allowed_is_closed_at_once() {
    let mut allowed = AllowList::everybody();
    allowed.add("192.0.2.0/24,198.51.100.7").unwrap();
    let folder = Folder::new();
    let builder = Server::builder().listen(&"127.0.0.1:0".parse().unwrap()).unwrap().listen(&folder.socket()).unwrap();
    let app = App::start(builder.allow(allowed.clone()), folder, |_| ());
    for _ in 0..3 {
        let mut stranger = app.connect();
        let _ = stranger.try_send(&Wire::new().request(1, 0, &[("NAME", "stranger")], b"").bytes);
        stranger.expect_gone();
    }
    // The list is about hosts: whoever may open the file of a unix socket may connect.
    Client::connect(&app.server.addresses()[1]).expect_alive();
    assert!(!app.notes.heard("stranger started"));

    allowed.add("127.0.0.1").unwrap();
    let builder = Server::builder().listen(&"127.0.0.1:0".parse().unwrap()).unwrap().allow(allowed);
    App::start(builder, Folder::new(), |_| ()).connect().expect_alive();
}

#[test]
fn an_empty_list_allows_nobody() {
    let mut allowed = AllowList::everybody();
    allowed.add("").unwrap();
    let builder = Server::builder().listen(&"127.0.0.1:0".parse().unwrap()).unwrap().allow(allowed);
    let app = App::start(builder, Folder::new(), |_| ());
    app.connect().expect_gone();
}

#[test]
fn sockets_that_somebody_else_opened() {
    let folder = Folder::new();
    let Address::Unix(path) = folder.socket() else { unreachable!() };
    let unix = Listener::inherited(UnixListener::bind(&path).unwrap().into()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let tcp = Listener::inherited(tcp.into()).unwrap();
    assert_eq!(unix.address(), &Address::Unix(path.clone()));
    assert_eq!(tcp.address(), &Address::Tcp { host: "127.0.0.1".into(), port });
    let addresses = [unix.address().clone(), tcp.address().clone()];
    let app = App::start(Server::builder().listener(unix).listener(tcp), folder, |_| ());
    for address in &addresses {
        Client::connect(address).expect_alive();
    }
    app.server.drain();
    app.expect_stopped();
    assert!(path.exists(), "the file is its owner's to remove");
}
