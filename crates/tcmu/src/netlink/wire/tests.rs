// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

const ID: u16 = 0x1b;

fn events() -> Vec<Event> {
    let reconfig = |config: Option<&str>, size, write_cache| EventKind::Reconfig {
        config: config.map(Into::into),
        size,
        write_cache,
    };
    [
        EventKind::Added,
        EventKind::Removed,
        reconfig(Some("qcow//a b"), None, None),
        reconfig(None, Some(1 << 40), None),
        reconfig(None, None, Some(true)),
        reconfig(None, None, Some(false)),
    ]
    .into_iter()
    .map(|kind| Event {
        kind,
        device: DeviceName { hba: 3, name: "disk".into(), config: "file//x/y".into() },
        minor: 7,
        device_id: Some(9),
    })
    .collect()
}

#[test]
fn events_survive_the_wire() {
    for sent in events() {
        assert_eq!(parse(&event(ID, &sent), ID), [Message::Event(sent)]);
    }
}

#[test]
fn several_messages_in_one_datagram_are_all_seen() {
    let datagram: Vec<u8> = events().iter().flat_map(|sent| event(ID, sent)).collect();
    assert_eq!(parse(&datagram, ID).len(), events().len());
}

#[test]
fn an_event_of_the_kernel_byte_by_byte() {
    if cfg!(target_endian = "big") {
        return;
    }
    // ADDED of tcm-user/0/a/b, minor 2, device 5; the value of the first attribute ends in NUL.
    #[rustfmt::skip]
    let bytes = [
        56, 0, 0, 0,  0x1b, 0,  0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        1, 2, 0, 0,
        19, 0, 1, 0, b't', b'c', b'm', b'-', b'u', b's', b'e', b'r', b'/', b'0', b'/', b'a',
        b'/', b'b', 0, 0,
        8, 0, 2, 0, 2, 0, 0, 0,
        8, 0, 8, 0, 5, 0, 0, 0,
    ];
    let expected = Event {
        kind: EventKind::Added,
        device: DeviceName { hba: 0, name: "a".into(), config: "b".into() },
        minor: 2,
        device_id: Some(5),
    };
    assert_eq!(parse(&bytes, ID), [Message::Event(expected)]);
}

#[test]
fn a_reply_carries_command_status_and_device() {
    let commands = [ADDED_DEVICE, REMOVED_DEVICE, RECONFIG_DEVICE];
    for (event, command) in events().iter().zip(commands) {
        let bytes = reply(ID, 1, &event.kind, 9, -libc::ENOENT);
        let expected = Reply { command, device_id: 9, status: -libc::ENOENT };
        assert_eq!(parse_reply(&bytes, ID), Some(expected));
        assert_eq!(parse_reply(&bytes, ID + 1), None);
    }
}

#[test]
fn the_family_and_its_group_are_found() {
    let mut group = Vec::new();
    for (name, id) in [("other", 4u32), ("config", 6)] {
        let mut inner = Packer::new(0, 0, 0, 0, 0);
        inner.body.clear();
        inner.attribute(CTRL_ATTR_MCAST_GRP_ID, &id.to_ne_bytes());
        inner.text(CTRL_ATTR_MCAST_GRP_NAME, name);
        let mut outer = Packer::new(0, 0, 0, 0, 0);
        outer.body.clear();
        outer.attribute(1, &inner.body);
        group.extend(outer.body);
    }
    let mut message = Packer::new(GENL_ID_CTRL, 0, 1, CTRL_NEWFAMILY, 2);
    message.text(CTRL_ATTR_FAMILY_NAME, FAMILY);
    message.attribute(CTRL_ATTR_FAMILY_ID, &ID.to_ne_bytes());
    message.attribute(CTRL_ATTR_MCAST_GROUPS, &group);
    let expected = Message::Family { id: ID, config_group: Some(6) };
    assert_eq!(parse(&message.finish(), 0), [expected]);
}

#[test]
fn an_acknowledgement_tells_the_errno() {
    for errno in [0, libc::ENOENT] {
        let request = get_family(42);
        let mut message = Packer::new(NLMSG_ERROR, 0, 42, 0, 0);
        message.body = (-errno).to_ne_bytes().to_vec();
        message.body.extend(&request);
        assert_eq!(parse(&message.finish(), ID), [Message::Ack { sequence: 42, errno }]);
    }
}

#[test]
fn an_event_that_lacks_its_device_is_dropped() {
    let mut message = Packer::new(ID, 0, 0, ADDED_DEVICE, FAMILY_VERSION);
    message.attribute(ATTR_MINOR, &2u32.to_ne_bytes());
    assert_eq!(parse(&message.finish(), ID), []);
}

#[test]
fn attributes_of_the_wrong_length_are_dropped() {
    for (kind, value) in [
        (ATTR_MINOR, &[1, 2][..]),
        (ATTR_DEVICE_ID, &[1, 2, 3, 4, 5]),
        (ATTR_DEV_SIZE, &[0; 4]),
        (ATTR_WRITECACHE, &[]),
        (ATTR_DEVICE, b"uio_pci/0/a/b"),
    ] {
        let mut message = Packer::new(ID, 0, 0, RECONFIG_DEVICE, FAMILY_VERSION);
        message.text(ATTR_DEVICE, "tcm-user/0/a/b");
        message.attribute(ATTR_MINOR, &[0; 4]);
        message.attribute(kind, value);
        assert_eq!(parse(&message.finish(), ID), [], "{kind}");
    }
}

#[test]
fn messages_of_other_families_are_no_events() {
    let bytes = event(ID, &events()[0]);
    assert_eq!(parse(&bytes, ID + 1), []);
    assert_eq!(parse(&bytes, 0), []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// The entry point of the fuzz target `netlink`.
    #[test]
    fn damaged_messages_do_not_panic(
        which in 0usize..6,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = event(ID, &events()[which]);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        parse(&bytes, ID);
        parse_reply(&bytes, ID);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), family: u16) {
        parse(&bytes, family);
        parse_reply(&bytes, family);
    }
}
