// SPDX-License-Identifier: Apache-2.0
//! Any CDB with any buffer: always a status, sense with CHECK CONDITION alone, and never more
//! data-in than the buffer has room for or than was written.
use std::io;

use block::Discard;
use lun::alua::{AccessState, Alua, Later, Snapshot};
use proptest::prelude::*;
use scsi::block_device::BLOCK_DEVICE;
use scsi::sense::Status;
use std::future::ready;

use crate::support::*;

struct Explicit;

impl Alua for Explicit {
    fn snapshot(&self) -> Snapshot {
        Snapshot { explicit: true, ..Snapshot::default() }
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(ready(()))
    }

    fn set_state(&self, _: u16, _: AccessState) -> Later<'_, io::Result<()>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// A CDB of a command that exists, with some bytes of it changed: pure noise hardly ever passes
/// the opcode and the reserved bits.
fn cdbs() -> impl Strategy<Value = Vec<u8>> {
    let row = (
        0..BLOCK_DEVICE.opcodes.all().len(),
        prop::collection::vec(any::<u8>(), 16),
        any::<bool>(),
    );
    let likely = row.prop_map(|(row, noise, small)| {
        let row = &BLOCK_DEVICE.opcodes.all()[row];
        let mut cdb: Vec<u8> =
            row.usage().iter().zip(&noise).map(|(mask, byte)| mask & byte).collect();
        cdb[0] = row.opcode;
        if let Some(action) = row.action {
            cdb[1] = cdb[1] & 0xe0 | action;
        }
        if small && cdb.len() >= 10 {
            // Near the start of the medium, and short.
            cdb[2..8].fill(0);
        }
        cdb
    });
    prop_oneof![8 => likely, 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn memories() -> impl Strategy<Value = Memory> {
    let discard = prop_oneof![
        Just(None),
        any::<bool>().prop_map(|zeroes| Some(Discard { granularity: 4096, zeroes })),
    ];
    (discard, any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(discard, zeroes, read_only)| {
        Memory::new(512).with(|facts| {
            facts.discard = discard;
            facts.write_zeroes = zeroes;
            facts.read_only = read_only;
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_cdb_with_any_buffer_ends_in_a_status(
        memory in memories(),
        cdb in cdbs(),
        mut data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            (0..5000usize).prop_map(|len| vec![0; len]),
        ],
        alua in any::<bool>(),
        fault in prop::option::weighted(0.2, prop_oneof![Just(5), Just(12), Just(28)]),
    ) {
        let mut lun = lun(memory);
        if alua {
            lun = lun.with_alua(Box::new(Explicit));
        }
        lun.store().fail(move |_| fault);
        let len = data.len();
        let before = data.clone();
        let outcome = run(&lun, &cdb, &mut data);
        prop_assert_eq!(outcome.sense.is_some(), outcome.status == Status::CheckCondition);
        prop_assert!(outcome.read_len <= len);
        prop_assert_eq!(&data[outcome.read_len..], &before[outcome.read_len..]);
        if outcome.status != Status::Good {
            prop_assert_eq!(outcome.read_len, 0);
        }
    }
}
