// SPDX-License-Identifier: Apache-2.0
//! Announcing on a real bus: a dbus-daemon of the test's own, and a stand-in for the daemon.
use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};

use tcmu_sim::Bus;

const LONG: Duration = Duration::from_secs(20);

/// Tells what is registered.
struct Manager(Sender<Described>);

#[interface(name = "org.kernel.TCMUService1.HandlerManager1")]
impl Manager {
    async fn register_handler(&self, subtype: String, description: String) -> (bool, String) {
        let _ = self.0.send((subtype, description));
        (true, "succeeded".to_owned())
    }
}

/// A daemon on the bus.
fn daemon(bus: &Bus) -> (Connection, Receiver<Described>) {
    let (sender, receiver) = channel();
    let builder = connection::Builder::address(bus.address());
    let builder = builder.serve_at(MANAGER_PATH, Manager(sender)).name(NAME);
    (zbus::block_on(builder.build()).unwrap(), receiver)
}

#[test]
fn handlers_are_registered_whenever_the_daemon_comes_and_answer_checks() {
    let bus = Bus::start().unwrap();
    let checks = Arc::new(Checks::new().unwrap());
    let handlers = vec![("a".to_owned(), "of a".to_owned()), ("b".to_owned(), "of b".to_owned())];
    let announced =
        Announced::start(Some(bus.address().to_owned()), handlers.clone(), checks.clone());
    let announced = announced.unwrap();
    for _ in 0..2 {
        let (connection, registered) = daemon(&bus);
        let found =
            [registered.recv_timeout(LONG).unwrap(), registered.recv_timeout(LONG).unwrap()];
        assert_eq!(found.to_vec(), handlers);
        drop(connection);
    }
    let program = std::thread::spawn(move || {
        loop {
            if let Some(check) = checks.next() {
                assert_eq!(check.subtype, "b");
                return check.answer(Err(format!("not {}", check.config)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let client = connection::Builder::address(bus.address()).build();
    let client = zbus::block_on(client).unwrap();
    let (name, path) = (format!("{MANAGER_NAME}.b"), format!("{MANAGER_PATH}/b"));
    let asked = client.call_method(Some(name), path, Some(NAME), "CheckConfig", &("b/x",));
    let answer: (bool, String) = zbus::block_on(asked).unwrap().body().deserialize().unwrap();
    assert_eq!(answer, (false, "not b/x".to_owned()));
    program.join().unwrap();

    drop(announced);
    let end = std::time::Instant::now() + LONG;
    while owner(&client, "a").is_some() {
        assert!(std::time::Instant::now() < end, "the names are still owned");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Who owns a handler's name.
fn owner(client: &Connection, subtype: &str) -> Option<String> {
    let (bus, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    let name = (format!("{MANAGER_NAME}.{subtype}"),);
    let asked = client.call_method(Some(bus), path, Some(bus), "GetNameOwner", &name);
    zbus::block_on(asked).ok().map(|reply| reply.body().deserialize::<String>().unwrap())
}

#[test]
fn a_second_program_leaves_the_first_its_handlers_and_follows_it() {
    let bus = Bus::start().unwrap();
    let (client, registered) = daemon(&bus);
    let of = |text: &str| vec![("a".to_owned(), text.to_owned())];
    let start = |handlers| {
        let checks = Arc::new(Checks::new().unwrap());
        Announced::start(Some(bus.address().to_owned()), handlers, checks).unwrap()
    };
    let first = start(of("first"));
    assert_eq!(registered.recv_timeout(LONG).unwrap(), of("first")[0]);
    let owned_by = owner(&client, "a");
    // What it has besides shows that it is there.
    let second = start([of("second"), vec![("b".to_owned(), "second".to_owned())]].concat());
    assert_eq!(registered.recv_timeout(LONG).unwrap().0, "b");
    assert_eq!(owner(&client, "a"), owned_by);
    drop(first);
    assert_eq!(registered.recv_timeout(LONG).unwrap(), of("second")[0]);
    assert_ne!(owner(&client, "a"), owned_by);
    drop(second);
    assert!(registered.recv_timeout(Duration::from_millis(200)).is_err());
}

#[test]
fn where_there_is_no_bus_nobody_waits() {
    let checks = Arc::new(Checks::new().unwrap());
    let start = std::time::Instant::now();
    let address = Some("unix:path=/no/such/bus".to_owned());
    drop(Announced::start(address, vec![("a".into(), "b".into())], checks).unwrap());
    assert!(start.elapsed() < Duration::from_secs(2));
}
