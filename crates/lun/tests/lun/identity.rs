// SPDX-License-Identifier: Apache-2.0
//! INQUIRY, READ CAPACITY and target port groups.
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use lun::alua::{AccessState, Alua, Later, Snapshot};
use lun::{Error, Lun};
use scsi::alua::PortGroup;
use scsi::inquiry::TargetPort;
use scsi::sense::Sense;
use std::future::ready;

use crate::support::*;

const RTPG: [u8; 12] = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];

#[test]
fn a_block_size_that_no_disk_has_is_refused() {
    for block_size in [0, 1, 256, 513, 131072] {
        let config = lun::Config { block_size, ..config() };
        assert!(matches!(Lun::new(Memory::new(16), config), Err(Error::BlockSize(_))));
    }
    let config = lun::Config { block_size: 65536, ..config() };
    assert!(matches!(Lun::new(Memory::new(16), config), Err(Error::TooSmall { .. })));
}

#[test]
fn inquiry_is_as_long_as_what_it_says_and_no_longer() {
    let lun = lun(Memory::new(16));
    let data = read_data(&lun, &[0x12, 0, 0, 0, 255, 0], 255);
    assert_eq!(data.len(), usize::from(data[4]) + 5);
    assert_eq!(&data[8..36], b"LIO-ORG TCMU device     0002");
    assert_eq!(read_data(&lun, &[0x12, 0, 0, 0, 36, 0], 255).len(), 36);
    assert_eq!(read_data(&lun, &[0x12, 0, 0, 0, 255, 0], 20).len(), 20);
}

#[test]
fn every_page_that_is_listed_is_there() {
    let lun = lun(Memory::new(16));
    let list = read_data(&lun, &[0x12, 1, 0, 0, 255, 0], 255);
    assert_eq!(list[4..], [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
    for &page in &list[4..] {
        assert_eq!(read_data(&lun, &[0x12, 1, page, 0, 255, 0], 255)[1], page);
    }
    assert_eq!(triple(sense(&lun, &[0x12, 1, 0xc0, 0, 255, 0], &mut [0; 255])), (5, 0x24, 0));
}

#[test]
fn both_read_capacities_tell_the_last_block() {
    let lun = lun(Memory::new(16));
    let ten = read_data(&lun, &cdb10(0x25, 0, 0, 0), 8);
    assert_eq!(ten, [0, 0, 0, 15, 0, 0, 2, 0]);
    let sixteen = read_data(&lun, &cdb16(0x9e, 0x10, 0, 32), 32);
    assert_eq!(sixteen[..12], [0, 0, 0, 0, 0, 0, 0, 15, 0, 0, 2, 0]);
    assert_eq!(sixteen[13], 3, "4 KiB physical blocks");
}

#[test]
fn a_part_of_a_block_at_the_end_is_not_offered() {
    let lun = lun(Memory::new(16).with(|facts| facts.size -= 1));
    assert_eq!(lun.blocks(), 15);
    assert_eq!(sense(&lun, &cdb10(READ10, 0, 15, 1), &mut [0; BS]), Sense::LBA_OUT_OF_RANGE);
}

/// Port groups that a test changes.
#[derive(Clone)]
struct Groups(Rc<RefCell<Snapshot>>);

impl Alua for Groups {
    fn snapshot(&self) -> Snapshot {
        self.0.borrow().clone()
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(ready(()))
    }

    fn set_state(&self, group: u16, state: AccessState) -> Later<'_, io::Result<()>> {
        let mut snapshot = self.0.borrow_mut();
        let found = snapshot.groups.iter_mut().find(|g| g.id == group && group != 18);
        let set = found.map(|group| group.state = state);
        Box::pin(ready(set.ok_or(io::ErrorKind::InvalidInput.into())))
    }
}

fn groups() -> Groups {
    let group = |id, state| PortGroup {
        id,
        state,
        preferred: false,
        supported: 0x4f,
        status: 0,
        ports: vec![id],
    };
    Groups(Rc::new(RefCell::new(Snapshot {
        groups: vec![
            group(16, AccessState::Optimized),
            group(17, AccessState::Standby),
            group(18, AccessState::Standby),
        ],
        implicit: true,
        explicit: true,
        local: Vec::new(),
        port: Some(TargetPort { relative: 1, group: Some(16) }),
        transition_seconds: 0,
    })))
}

fn with(groups: &Groups) -> Lun<Memory> {
    lun(Memory::new(16)).with_alua(Box::new(groups.clone()))
}

#[test]
fn without_port_groups_one_is_reported_and_inquiry_tells_of_none() {
    let bare = lun(Memory::new(16));
    let empty = with(&Groups(Rc::default()));
    for lun in [bare, empty] {
        let report = read_data(&lun, &RTPG, 64);
        assert_eq!(report, [0, 0, 0, 12, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(read_data(&lun, &[0x12, 0, 0, 0, 36, 0], 36)[5] & 0x30, 0, "TPGS");
        let stpg = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
        let refused = sense(&lun, &stpg, &mut [0; 8]);
        assert_eq!(refused, Sense::INVALID_COMMAND_OPERATION_CODE);
        let rsoc = [0xa3, 0x0c, 0x02, 0xa4, 0, 0x0a, 0, 0, 0, 64, 0, 0];
        assert_eq!(read_data(&lun, &rsoc, 64)[1] & 7, 1, "not supported");
    }
}

#[test]
fn port_groups_are_reported_and_inquiry_agrees() {
    let lun = with(&groups());
    let report = read_data(&lun, &RTPG, 64);
    assert_eq!(report.len(), 4 + 3 * 12);
    assert_eq!(report[4..8], [0x00, 0x4f, 0, 16]);
    assert_eq!(read_data(&lun, &[0x12, 0, 0, 0, 36, 0], 36)[5] & 0x30, 0x30, "TPGS");
    let page = read_data(&lun, &[0x12, 1, 0x83, 0, 255, 0], 255);
    let port_group = [1, 0x15, 0, 4, 0, 0, 0, 16];
    assert!(page.windows(8).any(|window| window == port_group));
}

#[test]
fn a_port_that_is_not_active_refuses_the_medium_with_its_state() {
    let groups = groups();
    let lun = with(&groups);
    let set = |state| {
        groups.0.borrow_mut().groups[0].state = state;
        block_on(lun.refresh_access());
    };
    let read = || sense(&lun, &cdb10(READ10, 0, 0, 1), &mut [0; BS]);
    for (state, qualifier) in [
        (AccessState::Transitioning, 0x0a),
        (AccessState::Standby, 0x0b),
        (AccessState::Unavailable, 0x0c),
        (AccessState::Offline, 0x12),
    ] {
        set(state);
        assert_eq!(triple(read()), (2, 4, qualifier), "{state:?}");
        assert_eq!(triple(sense(&lun, &TEST_UNIT_READY, &mut [])), (2, 4, qualifier));
        read_data(&lun, &[0x12, 0, 0, 0, 36, 0], 36);
    }
    // It is enough that the state changes outside.
    groups.0.borrow_mut().groups[0].state = AccessState::NonOptimized;
    read_data(&lun, &cdb10(READ10, 0, 0, 1), BS);
    groups.0.borrow_mut().groups[0].state = AccessState::Standby;
    assert_eq!(triple(sense(&lun, &TEST_UNIT_READY, &mut [])), (2, 4, 0x0b));
}

#[test]
fn set_target_port_groups_changes_the_state_that_counts() {
    let groups = groups();
    let lun = with(&groups);
    let stpg = |list: &mut [u8]| {
        let len = list.len() as u8;
        run(&lun, &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, len, 0, 0], list)
    };
    assert_eq!(stpg(&mut [0, 0, 0, 0, 2, 0, 0, 16, 0, 0, 0, 17]), done(0));
    let states: Vec<_> = groups.0.borrow().groups.iter().map(|g| g.state).collect();
    assert_eq!(states[..2], [AccessState::Standby, AccessState::Optimized]);
    assert_eq!(triple(sense(&lun, &cdb10(READ10, 0, 0, 1), &mut [0; BS])), (2, 4, 0x0b));
    // All of the list is checked before any state is set.
    let refused = stpg(&mut [0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 99]);
    assert_eq!(triple(refused.sense.unwrap()), (5, 0x26, 0));
    assert_eq!(groups.0.borrow().groups[0].state, AccessState::Standby);
    let failed = stpg(&mut [0, 0, 0, 0, 0, 0, 0, 18]);
    assert_eq!(failed.sense, Some(Sense::SET_TARGET_PORT_GROUPS_COMMAND_FAILED));
}
