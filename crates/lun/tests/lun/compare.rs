// SPDX-License-Identifier: Apache-2.0
//! COMPARE AND WRITE, alone and under concurrent commands.
use std::cell::Cell;
use std::io;
use std::rc::Rc;

use block::{Facts, Guard};
use lun::alua::{AccessState, Alua, Later, Snapshot};
use lun::{Failure, Lun};
use scsi::sense::{Sense, Status};
use sgl::Sgl;

use crate::support::*;

#[test]
fn compare_and_write_writes_what_matches() {
    let lun = lun(Memory::new(16).patterned());
    let mut data = [[pattern(2); BS], [9; BS]].concat();
    good(&lun, &caw(2, 1), &mut data);
    assert_eq!(lun.store().block(2), [9; BS]);
}

#[test]
fn compare_and_write_miscompare_reports_offset() {
    let lun = lun(Memory::new(16).patterned());
    let mut data = [[pattern(2); BS], [pattern(3); BS], [9; BS], [9; BS]].concat();
    data[BS + 17] = 0;
    let miscompare = Sense::MISCOMPARE_DURING_VERIFY.with_information(BS as u64 + 17);
    assert_eq!(sense(&lun, &caw(2, 2), &mut data), miscompare);
    assert_eq!(lun.store().block(2), [pattern(2); BS]);
    assert_eq!(lun.store().block(3), [pattern(3); BS]);
}

#[test]
fn compare_and_write_of_nothing_does_nothing() {
    let lun = lun(Memory::new(16));
    good(&lun, &caw(2, 0), &mut []);
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn compare_and_write_with_less_or_more_data_than_it_names_is_refused() {
    let lun = lun(Memory::new(16));
    for len in [0, BS, 2 * BS - 1, 2 * BS + 1, 4 * BS] {
        let refused = sense(&lun, &caw(2, 1), &mut vec![0; len]);
        assert_eq!(refused, Sense::INVALID_FIELD_IN_CDB, "{len} bytes");
    }
    assert_eq!(sense(&lun, &caw(2, 0), &mut [0; BS]), Sense::INVALID_FIELD_IN_CDB);
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn compare_and_write_past_the_end_is_out_of_range() {
    let lun = lun(Memory::new(16));
    assert_eq!(sense(&lun, &caw(15, 2), &mut [0; 4 * BS]), Sense::LBA_OUT_OF_RANGE);
    assert_eq!(sense(&lun, &caw(u64::MAX, 1), &mut [0; 4 * BS]), Sense::LBA_OUT_OF_RANGE);
}

/// Of many that want to take a lock which is a block of zeroes, exactly one gets it.
#[test]
fn of_concurrent_compare_and_writes_one_wins() {
    let lun = lun(Memory::new(16));
    lun.store().delay.set(3);
    let wins = Cell::new(0);
    let mut tasks = Tasks::new();
    for i in 1..=20u8 {
        let (lun, wins) = (&lun, &wins);
        tasks.spawn(async move {
            let mut data = [[0; BS], [i; BS]].concat();
            let outcome = lun.execute(&caw(4, 1), &Sgl::from_slice(&mut data)).await;
            match outcome.status {
                Status::Good => wins.set(wins.get() + 1),
                _ => assert_eq!(triple(outcome.sense.unwrap()), (0xe, 0x1d, 0)),
            }
        });
    }
    tasks.run();
    assert_eq!(wins.get(), 1);
}

/// A write that overlaps comes before the comparison or after the write, whenever it was sent:
/// whatever the interleaving, the last to succeed is what the block holds.
#[test]
fn a_concurrent_write_is_never_lost_between_comparison_and_write() {
    for lead in 0..20 {
        for start in 0..20 {
            let lun = lun(Memory::new(16));
            lun.store().delay.set(3);
            let order = Rc::new(std::cell::RefCell::new(Vec::new()));
            let mut tasks = Tasks::new();
            let (l, o) = (&lun, order.clone());
            tasks.spawn(async move {
                pause(lead).await;
                let mut data = [[0; BS], [1; BS]].concat();
                let outcome = l.execute(&caw(4, 1), &Sgl::from_slice(&mut data)).await;
                o.borrow_mut().push((1, outcome.status));
            });
            let (l, o) = (&lun, order.clone());
            tasks.spawn(async move {
                pause(start).await;
                let mut data = [2; BS];
                let cdb = cdb10(WRITE10, 0, 4, 1);
                let outcome = l.execute(&cdb, &Sgl::from_slice(&mut data)).await;
                o.borrow_mut().push((2, outcome.status));
            });
            tasks.run();
            // The write always succeeds; if the comparison did too, the write came after it.
            assert_eq!(lun.store().block(4), [2; BS], "{lead} {start}: {order:?}");
        }
    }
}

#[test]
fn a_dropped_compare_and_write_lets_the_next_one_in() {
    let lun = lun(Memory::new(16));
    lun.store().delay.set(1000);
    let mut tasks = Tasks::new();
    let first = tasks.spawn(async {
        let mut data = [[0; BS], [1; BS]].concat();
        lun.execute(&caw(4, 1), &Sgl::from_slice(&mut data)).await;
        panic!("it was aborted");
    });
    tasks.spawn(async {
        let mut data = [[0; BS], [2; BS]].concat();
        let outcome = lun.execute(&caw(4, 1), &Sgl::from_slice(&mut data)).await;
        assert_eq!(outcome, done(0));
    });
    for _ in 0..100 {
        tasks.step();
    }
    tasks.drop_task(first);
    lun.store().delay.set(0);
    tasks.run();
    assert_eq!(lun.store().block(4), [2; BS]);
}

#[test]
fn reads_elsewhere_go_on_while_a_compare_and_write_is_under_way() {
    let lun = lun(Memory::new(16).patterned());
    lun.store().delay.set(1000);
    let read = Cell::new(false);
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let mut data = [[pattern(4); BS], [1; BS]].concat();
        lun.execute(&caw(4, 1), &Sgl::from_slice(&mut data)).await;
        assert!(read.get(), "the read waited");
    });
    tasks.spawn(async {
        pause(1).await;
        lun.store().delay.set(0);
        let mut data = [0; BS];
        let outcome = lun.execute(&cdb10(READ10, 0, 5, 1), &Sgl::from_slice(&mut data)).await;
        assert_eq!((outcome, data), (done(BS), [pattern(5); BS]));
        read.set(true);
    });
    tasks.run();
}

#[test]
fn where_other_hosts_write_no_more_is_compared_than_the_store_does_in_one_step() {
    let shared = |bytes| {
        let several = |facts: &mut Facts| {
            (facts.shared, facts.compare_and_write) = (true, Some(bytes));
        };
        lun(Memory::new(16).with(several))
    };
    let told = |lun: &Lun<Memory>| read_data(lun, &[0x12, 1, 0xb0, 0, 64, 0], 64)[5];
    let none = shared(0);
    assert_eq!(told(&none), 0);
    let refused = sense(&none, &caw(2, 1), &mut [0; 2 * BS]);
    assert_eq!(refused, Sense::INVALID_COMMAND_OPERATION_CODE);
    let one = shared(BS as u32);
    assert_eq!(told(&one), 1);
    assert_eq!(sense(&one, &caw(2, 2), &mut [0; 4 * BS]), Sense::INVALID_FIELD_IN_CDB);
    good(&one, &caw(2, 1), &mut [0; 2 * BS]);
    let alone = shared(0).with_alua(Box::new(Door::default()));
    assert_eq!(told(&alone), u8::MAX);
    good(&alone, &caw(2, 2), &mut [0; 4 * BS]);
}

/// Lets commands through while it is open, to a medium that no other host gets at.
#[derive(Clone, Default)]
struct Door {
    closed: Rc<Cell<bool>>,
    asked: Rc<Cell<u32>>,
}

impl Alua for Door {
    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }

    fn set_state(&self, _: u16, _: AccessState) -> Later<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn guards(&self) -> bool {
        true
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn admit(&self) -> Later<'_, Result<Option<Guard<'_>>, Failure>> {
        self.asked.set(self.asked.get() + 1);
        let standby = Failure::Check(Sense::LUN_NOT_READY_ALUA_STANDBY);
        Box::pin(async move { if self.closed.get() { Err(standby) } else { Ok(None) } })
    }
}

#[test]
fn commands_that_need_the_medium_ask_for_it_and_others_do_not() {
    let door = Door::default();
    let lun = lun(Memory::new(16)).with_alua(Box::new(door.clone()));
    read_data(&lun, &cdb10(READ10, 0, 0, 1), BS);
    good(&lun, &caw(2, 1), &mut [0; 2 * BS]);
    assert_eq!(door.asked.get(), 2);
    read_data(&lun, &[0x12, 1, 0xb0, 0, 64, 0], 64);
    read_data(&lun, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16);
    assert_eq!(door.asked.get(), 2);
    door.closed.set(true);
    let standby = Sense::LUN_NOT_READY_ALUA_STANDBY;
    assert_eq!(sense(&lun, &cdb10(READ10, 0, 0, 1), &mut [0; BS]), standby);
    assert!(block_on(lun.admit(&cdb10(READ10, 0, 0, 1))).is_err());
    assert!(block_on(lun.admit(&[0x12, 0, 0, 0, 0, 0])).is_ok());
}
