// SPDX-License-Identifier: Apache-2.0
//! The service on a real bus: a dbus-daemon of the test's own, asked with dbus-send and zbus.
use super::*;
use std::collections::HashMap;
use std::process::Command;
use std::time::Instant;

use zbus::{OwnedObjectPath, OwnedVariant};

/// A bus of a test's own, and the handlers of a daemon on it.
struct Bus {
    bus: tcmu_sim::Bus,
    handlers: Arc<Handlers>,
}

impl Bus {
    fn start() -> Bus {
        Bus::with(tcmu_sim::Bus::start().unwrap())
    }

    fn with(bus: tcmu_sim::Bus) -> Bus {
        let handlers = ["file", "qcow"].map(|subtype| Handler {
            subtype: subtype.into(),
            description: format!("about {subtype}"),
        });
        Bus { bus, handlers: Arc::new(Handlers::new(handlers)) }
    }

    fn address(&self) -> &str {
        self.bus.address()
    }

    fn serve(&self, check: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) {
        let options = Options {
            address: Some(self.address().to_owned()),
            handlers: self.handlers.clone(),
            check: Arc::new(check),
            report: Arc::new(|| Ok("{}".to_owned())),
        };
        assert_eq!(start(options).unwrap().own_name(Duration::from_secs(10)), Some(true));
    }

    fn client(&self) -> Connection {
        zbus::block_on(connection::Builder::address(self.address()).build()).unwrap()
    }

    fn dbus_send(&self, path: &str, rest: &[&str]) -> String {
        let out = Command::new("dbus-send")
            .arg(format!("--bus={}", self.address()))
            .args(["--print-reply", &format!("--dest={NAME}"), path])
            .args(rest)
            .output()
            .expect("dbus-send cannot be run: install the Debian package dbus-bin");
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    }
}

type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;

fn objects(client: &Connection) -> Vec<String> {
    let om = "org.freedesktop.DBus.ObjectManager";
    let reply =
        zbus::block_on(client.call_method(Some(NAME), PATH, Some(om), "GetManagedObjects", &()));
    let objects: Objects = reply.unwrap().body().deserialize().unwrap();
    let mut found: Vec<_> = objects
        .iter()
        .map(|(path, interfaces)| format!("{} {:?}", path.as_str(), interfaces[NAME]["ConfigDesc"]))
        .map(|text| text.replace(PATH, "").replace("OwnedVariant", ""))
        .collect();
    found.sort();
    found
}

fn call(
    client: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    args: &[&str],
) -> (bool, String) {
    let reply = zbus::block_on(async {
        match args {
            [a] => client.call_method(Some(NAME), path, Some(interface), method, &(a,)).await,
            [a, b] => client.call_method(Some(NAME), path, Some(interface), method, &(a, b)).await,
            _ => unreachable!(),
        }
    });
    match reply {
        Ok(reply) => reply.body().deserialize().unwrap(),
        Err(error) => (false, format!("ERROR {error}")),
    }
}

fn register(client: &Connection, subtype: &str, text: &str) -> (bool, String) {
    call(client, MANAGER_PATH, MANAGER_NAME, "RegisterHandler", &[subtype, text])
}

fn check(client: &Connection, subtype: &str, config: &str) -> (bool, String) {
    call(client, &format!("{PATH}/{subtype}"), NAME, "CheckConfig", &[config])
}

fn eventually(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < end, "it did not happen within 10 s");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_find_one_object_per_handler_and_the_manager_is_not_among_them() {
    let bus = Bus::start();
    bus.serve(|_| Ok(()));
    let found = objects(&bus.client());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("/file ") && found[0].contains("about file"), "{found:?}");
    assert!(found[1].starts_with("/qcow ") && found[1].contains("about qcow"), "{found:?}");
}

#[test]
fn introspection_shows_the_interfaces_of_the_c_daemon() {
    let bus = Bus::start();
    bus.serve(|_| Ok(()));
    let introspect = "org.freedesktop.DBus.Introspectable.Introspect";
    let tree = bus.dbus_send(PATH, &[introspect]);
    for part in ["<node name=\"file\">", "<node name=\"HandlerManager1\">", "ObjectManager"] {
        assert!(tree.contains(part), "{part} is missing in {tree}");
    }
    let strip = |xml: String| xml.split_whitespace().collect::<Vec<_>>().join(" ");
    let handler = strip(bus.dbus_send("/org/kernel/TCMUService1/qcow", &[introspect]));
    for part in [
        "<interface name=\"org.kernel.TCMUService1\">",
        "<method name=\"CheckConfig\"> <arg name=\"configstr\" type=\"s\" direction=\"in\"/> \
         <arg name=\"is_valid\" type=\"b\" direction=\"out\"/> \
         <arg name=\"message\" type=\"s\" direction=\"out\"/> </method>",
        "<property name=\"ConfigDesc\" type=\"s\" access=\"read\"",
    ] {
        assert!(handler.contains(part), "{part} is missing in {handler}");
    }
    let manager = strip(bus.dbus_send(MANAGER_PATH, &[introspect]));
    let part = "<method name=\"RegisterHandler\"> <arg name=\"subtype\" type=\"s\" \
                direction=\"in\"/> <arg name=\"cfgstr_desc\" type=\"s\" direction=\"in\"/> \
                <arg name=\"succeeded\" type=\"b\" direction=\"out\"/> \
                <arg name=\"message\" type=\"s\" direction=\"out\"/> </method>";
    assert!(manager.contains(part), "{part} is missing in {manager}");
}

#[test]
fn a_bad_configuration_is_refused_with_its_reason() {
    let bus = Bus::start();
    bus.serve(|config| match config {
        "qcow//good" => Ok(()),
        other => Err(format!("{other}: no such file")),
    });
    let path = "/org/kernel/TCMUService1/qcow";
    let method = format!("{NAME}.CheckConfig");
    let good = bus.dbus_send(path, &[&method, "string:qcow//good"]);
    assert!(good.contains("boolean true") && good.contains("string \"success\""), "{good}");
    let bad = bus.dbus_send(path, &[&method, "string:qcow//bad"]);
    assert!(bad.contains("boolean false"), "{bad}");
    assert!(bad.contains("string \"qcow//bad: no such file\""), "{bad}");
    let property = "org.freedesktop.DBus.Properties.Get";
    let text = bus.dbus_send(path, &[property, &format!("string:{NAME}"), "string:ConfigDesc"]);
    assert!(text.contains("about qcow"), "{text}");
}

#[test]
fn a_check_that_hangs_leaves_the_bus_free_for_others() {
    let bus = Bus::start();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    bus.serve(move |config| {
        if config == "hang" {
            let _ = held.lock().unwrap().recv();
        }
        Ok(())
    });
    let (a, b) = (bus.client(), bus.client());
    let hung = thread::spawn(move || check(&a, "file", "hang"));
    let start = Instant::now();
    assert!(check(&b, "file", "good").0);
    assert_eq!(objects(&b).len(), 2);
    assert!(start.elapsed() < TIME_LIMIT / 2);
    assert!(!hung.is_finished());
    release.send(()).unwrap();
    assert!(hung.join().unwrap().0);
}

/// An external handler's answer to CheckConfig.
struct External;

#[zbus::interface(name = "org.kernel.TCMUService1")]
impl External {
    fn check_config(&self, config: String) -> (bool, String) {
        (false, format!("external says no to {config}"))
    }
}

#[test]
fn an_external_handler_is_there_while_its_bus_name_is() {
    let bus = Bus::start();
    bus.serve(|_| Ok(()));
    let (watcher, ext) = (bus.client(), bus.client());
    let mut signals = zbus::block_on(MessageStream::for_match_rule(
        MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface("org.freedesktop.DBus.ObjectManager")
            .build()
            .unwrap(),
        &watcher,
        None,
    ))
    .unwrap();
    let mut signal = || {
        let message = zbus::block_on(next(&mut signals)).unwrap().unwrap();
        message.header().member().unwrap().to_string()
    };
    let name = format!("{MANAGER_NAME}.ext");

    let (done, why) = register(&ext, "ext", "about ext");
    assert!(!done && why.contains(&name), "{why}");
    assert_eq!(objects(&watcher).len(), 2);

    let path = format!("{MANAGER_PATH}/ext");
    zbus::block_on(ext.object_server().at(path, External)).unwrap();
    zbus::block_on(ext.request_name(name.as_str())).unwrap();
    assert_eq!(register(&ext, "ext", "about ext"), (true, "succeeded".into()));
    assert_eq!(signal(), "InterfacesAdded");
    assert!(objects(&watcher)[0].contains("about ext"));
    assert!(bus.handlers.has_external("ext") && !bus.handlers.has_external("file"));
    assert_eq!(check(&watcher, "ext", "a"), (false, "external says no to a".into()));
    assert!(register(&ext, "ext", "updated").0, "registering again is no error");
    assert_eq!(signal(), "InterfacesAdded");
    assert!(objects(&watcher)[0].contains("updated"));

    zbus::block_on(ext.release_name(name.as_str())).unwrap();
    assert_eq!(signal(), "InterfacesRemoved");
    assert_eq!(objects(&watcher).len(), 2);
    assert!(!bus.handlers.has_external("ext"));
    assert!(check(&watcher, "ext", "a").1.starts_with("ERROR"), "the object is still there");

    zbus::block_on(ext.request_name(name.as_str())).unwrap();
    assert!(register(&ext, "ext", "back").0);
    drop(ext);
    eventually(|| objects(&watcher).len() == 2);
}

#[test]
fn registrations_that_would_do_harm_are_refused() {
    let bus = Bus::start();
    bus.serve(|_| Ok(()));
    let client = bus.client();
    zbus::block_on(client.request_name(format!("{MANAGER_NAME}.qcow"))).unwrap();
    assert_eq!(register(&client, "qcow", "x"), (false, "the handler qcow is built in".into()));
    for subtype in ["", "a/b", "1a", "a.b", "a-b", "HandlerManager1", &"x".repeat(65)] {
        let (done, why) = register(&client, subtype, "x");
        assert!(!done && why.starts_with("not a subtype"), "{subtype}: {why}");
    }
    let (done, why) = register(&client, "long", &"x".repeat(20_000));
    assert!(!done && why.contains("longer"), "{why}");
    assert_eq!(objects(&client).len(), 2);
}

#[test]
fn without_a_bus_the_caller_is_told_and_a_bus_that_comes_later_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let options = Options {
        address: Some(format!("unix:path={}", socket.display())),
        handlers: Arc::new(Handlers::new([])),
        check: Arc::new(|_| Ok(())),
        report: Arc::new(|| Ok("{}".to_owned())),
    };
    let starting = start(options).unwrap();
    assert_eq!(starting.own_name(Duration::from_secs(5)), Some(false));
    let bus = Bus::with(tcmu_sim::Bus::start_at(dir, &socket).unwrap());
    assert_eq!(starting.own_name(RETRY * 3), Some(true));
    assert_eq!(objects(&bus.client()), [""; 0]);
}

#[test]
fn the_name_is_owned_when_the_daemon_is_ready_for_clients_and_not_before() {
    let bus = Bus::start();
    let options = Options {
        address: Some(bus.address().to_owned()),
        handlers: bus.handlers.clone(),
        check: Arc::new(|_| Ok(())),
        report: Arc::new(|| Ok("{}".to_owned())),
    };
    let starting = start(options).unwrap();
    let client = bus.client();
    let ask = |method: &str| {
        let dbus = "org.freedesktop.DBus";
        zbus::block_on(client.call_method(Some(dbus), "/", Some(dbus), method, &())).unwrap()
    };
    // The bus, the client and the service, which has connected by itself.
    let names = || ask("ListNames").body().deserialize::<Vec<String>>().unwrap();
    eventually(|| names().len() >= 3);
    thread::sleep(Duration::from_millis(300));
    assert!(!names().contains(&NAME.to_owned()), "{:?}", names());
    let start = Instant::now();
    assert_eq!(starting.own_name(Duration::from_secs(10)), Some(true));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(objects(&client).len(), 2);
}
