// SPDX-License-Identifier: Apache-2.0
//! COMPARE AND WRITE, alone and under concurrent commands.
use std::cell::Cell;
use std::rc::Rc;

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
