// SPDX-License-Identifier: Apache-2.0
//! Netlink datagrams, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcmu::netlink::wire::{self, Message};

fuzz_target!(|datagram: &[u8]| {
    const FAMILY: u16 = 0x1b;
    for message in wire::parse(datagram, FAMILY) {
        if let Message::Event(event) = message {
            // What was understood can be said again, and means the same. (A name that is longer
            // than an attribute could hold is not.)
            if datagram.len() < 4096 {
                let again = wire::event(FAMILY, &event);
                assert_eq!(wire::parse(&again, FAMILY), [Message::Event(event)]);
            }
        }
    }
    wire::parse_reply(datagram, FAMILY);
});
