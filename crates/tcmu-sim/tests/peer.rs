// SPDX-License-Identifier: Apache-2.0
//! The netlink socket against a stand-in for the kernel.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tcmu::DeviceName;
use tcmu::netlink::{Event, EventKind, Incoming};
use tcmu_sim::Peer;

fn added(id: u32) -> Event {
    Event {
        kind: EventKind::Added,
        device: DeviceName { hba: 0, name: format!("d{id}"), config: "file//x".into() },
        minor: id,
        device_id: Some(id),
    }
}

#[test]
fn events_arrive_in_order_and_replies_name_their_device() {
    let (peer, mut netlink) = Peer::new().unwrap();
    assert_eq!(netlink.receive().unwrap(), None);
    peer.send(&added(1)).unwrap();
    peer.send(&Event { kind: EventKind::Removed, ..added(2) }).unwrap();
    assert_eq!(netlink.receive().unwrap(), Some(Incoming::Event(added(1))));
    let Some(Incoming::Event(removed)) = netlink.receive().unwrap() else { unreachable!() };
    assert_eq!(netlink.receive().unwrap(), None);

    netlink.reply(&removed, 0).unwrap();
    netlink.reply(&added(1), 2).unwrap();
    let soon = Duration::from_secs(5);
    let reply = peer.reply(soon).unwrap().unwrap();
    assert_eq!((reply.command, reply.device_id, reply.status), (2, 2, 0));
    let reply = peer.reply(soon).unwrap().unwrap();
    assert_eq!((reply.command, reply.device_id, reply.status), (1, 1, -2));
}

#[test]
fn a_device_without_id_gets_no_reply() {
    let (peer, mut netlink) = Peer::new().unwrap();
    netlink.reply(&Event { device_id: None, ..added(1) }, 0).unwrap();
    assert_eq!(peer.reply(Duration::ZERO).unwrap(), None);
}

#[test]
fn nonsense_between_events_is_dropped() {
    let (peer, mut netlink) = Peer::new().unwrap();
    peer.send_raw(&[1, 2, 3]).unwrap();
    peer.send_raw(&[0; 64]).unwrap();
    peer.send(&added(5)).unwrap();
    assert_eq!(netlink.receive().unwrap(), Some(Incoming::Event(added(5))));
}

#[test]
fn a_message_that_is_too_long_counts_as_lost() {
    let (peer, mut netlink) = Peer::new().unwrap();
    peer.send_raw(&[0; 20_000]).unwrap();
    assert_eq!(netlink.receive().unwrap(), Some(Incoming::Lost));
}

#[test]
fn a_peer_that_is_gone_is_an_error() {
    let (peer, mut netlink) = Peer::new().unwrap();
    drop(peer);
    assert!(netlink.receive().is_err());
}
