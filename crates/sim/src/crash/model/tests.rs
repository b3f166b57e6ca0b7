// SPDX-License-Identifier: Apache-2.0
//! What may be found after what was done.
use super::*;
use crate::crash::check::bitmaps::bitmaps;
use crate::crash::image::{Below, Filled, Format, KEPT, TRACKING, create};

const UNIT: usize = 512;
const FORMAT: Format = Format {
    version: 3,
    cluster_bits: 12,
    refcount_order: 4,
    extended_l2: false,
    lazy_refcounts: false,
    data_file: false,
    below: Below::Nothing,
    bitmaps: None,
    unknown: false,
    filled: Filled { data: 0, preallocated: 0, zero: 0, compressed: 0 },
};

fn disk(model: &Model, values: &[Value]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * UNIT];
    for ((sector, &value), bytes) in (0..).zip(values).zip(bytes.chunks_mut(UNIT)) {
        fill(model.seed, sector, value, bytes);
    }
    bytes
}

fn judge(model: &Model, after: After, values: &[Value]) -> bool {
    model.judge_all(after, values.len() as u64, &disk(model, values)).is_ok()
}

#[test]
fn what_is_acknowledged_survives_a_kill_and_what_is_flushed_a_loss_of_power() {
    let mut model = Model::new(9, UNIT, 2, |sector| Value::from(sector == 1));
    let write = model.begin(0..2, 5);
    for values in [[0, 1], [5, 1], [0, 5], [5, 5]] {
        assert!(judge(&model, After::Kill, &values) && judge(&model, After::Power, &values));
    }
    let flush_beside = model.begin_flush();
    model.end(0..2, write, Fate::Done);
    model.flushed(flush_beside);
    assert!(!judge(&model, After::Kill, &[0, 5]) && judge(&model, After::Power, &[0, 5]));
    let flush = model.begin_flush();
    model.flushed(flush);
    assert!(!judge(&model, After::Power, &[0, 5]) && judge(&model, After::Power, &[5, 5]));
    let failed = model.begin(0..1, 6);
    model.end(0..1, failed, Fate::Open);
    assert!(judge(&model, After::Kill, &[6, 5]) && judge(&model, After::Kill, &[5, 5]));
}

#[test]
fn what_a_kill_left_is_there_and_may_be_lost_with_the_power() {
    let mut model = Model::new(9, UNIT, 1, |_| ZERO);
    model.begin(0..1, 5);
    let found = disk(&model, &[5]);
    model.adopt(After::Kill, 1, &found, &[]);
    assert!(judge(&model, After::Kill, &[5]) && !judge(&model, After::Kill, &[0]));
    assert!(judge(&model, After::Power, &[5]) && judge(&model, After::Power, &[0]));
    model.adopt(After::Power, 1, &found, &[]);
    assert!(judge(&model, After::Power, &[5]) && !judge(&model, After::Power, &[0]));
}

#[test]
fn a_foreign_sector_is_named_and_a_late_one_refused() {
    let mut model = Model::new(9, UNIT, 4, |_| ZERO);
    for value in [5, 6] {
        let write = model.begin(0..4, value);
        model.end(0..4, write, Fate::Done);
    }
    let mut bytes = disk(&model, &[6, 6, 6, 6]);
    bytes.copy_within(0..512, 1024);
    let why = model.judge_all(After::Kill, 4, &bytes).unwrap_err();
    assert!(why.contains("sector 2") && why.contains("content of sector 0"), "{why}");
    let read = model.begin_read();
    let old = disk(&model, &[5]);
    assert!(model.end_read(read, 0, &old).unwrap_err().contains("operation 5"));
}

#[test]
fn a_shrunk_and_grown_disk_reads_as_zeroes() {
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let shrink = model.begin_resize(1);
    assert!(judge(&model, After::Kill, &[1]) && judge(&model, After::Kill, &[1, 1]));
    model.end_resize(shrink, Fate::Done);
    assert!(!judge(&model, After::Kill, &[1, 1]));
    let grow = model.begin_resize(2);
    model.end_resize(grow, Fate::Done);
    assert!(judge(&model, After::Kill, &[1, 0]) && !judge(&model, After::Kill, &[1, 1]));
    assert!(judge(&model, After::Power, &[1, 1]));
}

#[test]
fn what_is_durable_by_itself_survives_a_loss_of_power_without_a_flush() {
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let write = model.begin(0..2, 5);
    model.end(0..2, write, Fate::Durable);
    assert!(judge(&model, After::Power, &[5, 5]) && !judge(&model, After::Power, &[1, 5]));
    let later = model.begin(0..1, 6);
    model.end(0..1, later, Fate::Done);
    assert!(judge(&model, After::Power, &[5, 5]) && judge(&model, After::Power, &[6, 5]));
    assert!(!judge(&model, After::Kill, &[5, 5]));
}

#[test]
fn what_is_withdrawn_was_never_there_and_certainty_ends_where_another_writes() {
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let own = model.begin(0..2, 5);
    assert!(model.is_certain(own, 0, &[INITIAL; 2]) && !model.is_certain(own, 0, &[ZERO; 2]));
    let other = model.begin(1..2, 6);
    assert!(!model.is_certain(own, 0, &[INITIAL; 2]) && model.latest(1) == 6);
    model.withdraw(0..2, own);
    model.end(1..2, other, Fate::Done);
    assert!(judge(&model, After::Kill, &[1, 6]) && !judge(&model, After::Kill, &[5, 6]));
}

fn saved(model: &Model, number: Value, values: &[Value]) -> Vec<Read> {
    vec![Read { number, size: values.len() as u64, bytes: disk(model, values) }]
}

#[test]
fn a_snapshot_that_was_acknowledged_is_there_after_a_crash_and_one_that_is_being_made_may_be() {
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let beside = model.begin(0..1, 5);
    let create = model.begin_create(7);
    for after in [After::Kill, After::Power] {
        assert_eq!(model.judge_snapshots(after, &[]), Ok(()));
        assert_eq!(model.judge_snapshots(after, &saved(&model, 7, &[5, 1])), Ok(()));
    }
    model.end(0..1, beside, Fate::Done);
    model.end_create(7, create, Fate::Durable);
    let later = model.begin(0..2, 8);
    model.end(0..2, later, Fate::Done);
    for after in [After::Kill, After::Power] {
        assert_eq!(model.judge_snapshots(after, &saved(&model, 7, &[5, 1])), Ok(()));
        assert_eq!(model.judge_snapshots(after, &saved(&model, 7, &[1, 1])), Ok(()));
        let late = model.judge_snapshots(after, &saved(&model, 7, &[8, 1])).unwrap_err();
        assert!(late.contains("sector 0 of the snapshot 7 has content of operation 8"), "{late}");
        let missing = model.judge_snapshots(after, &[]).unwrap_err();
        assert!(missing.contains("is not there"), "{missing}");
    }
    let delete = model.begin_delete(7);
    assert_eq!(model.judge_snapshots(After::Kill, &[]), Ok(()));
    model.end_presence(7, delete, Fate::Durable);
    let back = model.judge_snapshots(After::Power, &saved(&model, 7, &[5, 1])).unwrap_err();
    assert!(back.contains("there is a snapshot 7"), "{back}");
}

#[test]
fn what_was_found_in_a_snapshot_stays() {
    let mut model = Model::new(9, UNIT, 1, |_| INITIAL);
    model.begin(0..1, 5);
    let create = model.begin_create(7);
    model.end_create(7, create, Fate::Durable);
    let found = saved(&model, 7, &[5]);
    let now = disk(&model, &[5]);
    model.adopt(After::Kill, 1, &now, &found);
    assert_eq!(model.judge_snapshots(After::Power, &found), Ok(()));
    assert!(model.judge_snapshots(After::Power, &saved(&model, 7, &[1])).is_err());
}

#[test]
fn a_disk_goes_back_to_a_snapshot_wholly_or_not_at_all() {
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let create = model.begin_create(7);
    model.end_create(7, create, Fate::Durable);
    let write = model.begin(0..2, 8);
    model.end(0..2, write, Fate::Durable);
    let resize = model.begin_resize(3);
    model.end_resize(resize, Fate::Durable);
    assert!(!model.has_same_size(7));
    let apply = model.begin_apply(7);
    for after in [After::Kill, After::Power] {
        assert!(judge(&model, after, &[8, 8, 0]) && judge(&model, after, &[1, 1]));
        assert!(!judge(&model, after, &[8, 1, 0]) && !judge(&model, after, &[8, 8]));
    }
    model.end_apply(apply, Fate::Durable);
    assert!(judge(&model, After::Power, &[1, 1]) && !judge(&model, After::Power, &[8, 8, 0]));
    assert!(model.has_same_size(7));
    let refused = model.begin_apply(7);
    model.withdraw_apply(refused);
    assert!(judge(&model, After::Power, &[1, 1]));
}

#[test]
fn a_disk_that_goes_back_to_a_snapshot_may_do_so_before_or_after_a_write_beside_that() {
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let create = model.begin_create(7);
    model.end_create(7, create, Fate::Durable);
    let before = model.begin(0..2, 8);
    model.end(0..2, before, Fate::Done);
    let apply = model.begin_apply(7);
    let beside = model.begin(0..1, 9);
    model.end(0..1, beside, Fate::Done);
    for acknowledged in [false, true] {
        if acknowledged {
            model.end_apply(apply, Fate::Durable);
        }
        assert!(judge(&model, After::Kill, &[1, 1]), "the write was first");
        assert!(judge(&model, After::Kill, &[9, 1]), "it was second");
        assert_eq!(judge(&model, After::Kill, &[9, 8]), !acknowledged, "nothing went back");
        assert!(!judge(&model, After::Kill, &[8, 1]) && !judge(&model, After::Kill, &[8, 8]));
    }
    let later = model.begin(0..1, 10);
    model.end(0..1, later, Fate::Done);
    assert!(judge(&model, After::Kill, &[10, 1]) && !judge(&model, After::Kill, &[1, 1]));
}

#[test]
fn a_bitmap_that_counts_has_to_tell_of_what_was_written() {
    let format = Format { bitmaps: Some(9), ..FORMAT };
    let (image, _) = create(&format, &[0; 2 * UNIT], 0);
    let found = bitmaps(&image).unwrap();
    let [tracking, kept] = &found[..] else { panic!("{found:?}") };
    assert!((&*tracking.name, &*kept.name) == (TRACKING, KEPT) && kept.judge_kept(1024).is_ok());
    let mut model = Model::new(9, UNIT, 2, |_| INITIAL);
    let old = disk(&model, &[1, 1]);
    assert_eq!(model.judge_bitmap(tracking, &old), Ok(()));
    let new = disk(&model, &[1, 5]);
    assert!(model.judge_bitmap(tracking, &new).unwrap_err().contains("sector 1 has changed"));
    assert_eq!(model.judge_bitmap(kept, &new), Ok(()));
    let write = model.begin(0..1, 5);
    model.end(0..1, write, Fate::Done);
    assert!(model.judge_bitmap(tracking, &old).unwrap_err().contains("sector 0 has changed"));
}
