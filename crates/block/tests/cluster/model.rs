// SPDX-License-Identifier: Apache-2.0
//! Random operations on a store, and a model of what it should read as after them.
use block::{Provisioning, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{MIB, open, read, run, write};

/// Bytes of the store.
const SIZE: u64 = 9 * MIB;

#[derive(Clone, Debug)]
enum Op {
    Write(u8),
    Discard,
    Zero(bool),
}

/// Does random operations on stores that `make` gives, by their configuration string, `cases` times;
/// `content` is what another client reads at the end, and removes.
pub(crate) fn compare(cases: u32, make: impl Fn(u64) -> String, content: impl Fn() -> Vec<u8>) {
    let op = prop_oneof![
        3 => (1..=255u8).prop_map(Op::Write),
        1 => Just(Op::Discard),
        1 => any::<bool>().prop_map(Op::Zero),
    ];
    // Ceph's objects are of 4 MiB.
    let places = prop_oneof![0..SIZE, (0..9u64).prop_map(|at| at * MIB), 4 * MIB - 600..4 * MIB];
    let ops = prop::collection::vec((op, places, prop_oneof![1..2000u64, 1..3 * MIB]), 1..24);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&ops, |ops| {
        let config = make(SIZE);
        let mut model = vec![0u8; SIZE as usize];
        run(async {
            let store = open(&config).await.unwrap();
            for (op, offset, len) in &ops {
                let len = (*len).min(SIZE - offset);
                let range = *offset as usize..(offset + len) as usize;
                match op {
                    Op::Write(byte) => {
                        write(&store, *byte, *offset, len as usize).await.unwrap();
                        model[range].fill(*byte);
                        continue;
                    }
                    Op::Discard => store.discard(*offset, len).await.unwrap(),
                    Op::Zero(unmap) => store.write_zeroes(*offset, len, *unmap).await.unwrap(),
                }
                model[range].fill(0);
            }
            assert!(read(&store, 0, SIZE as usize).await == model, "it reads differently");
            let mut at = 0;
            while at < SIZE {
                let (kind, len) = store.provisioning(at, SIZE - at).await.unwrap();
                let range = at as usize..(at + len) as usize;
                let empty = kind == Provisioning::Deallocated;
                assert!(!empty || model[range.clone()].iter().all(|byte| *byte == 0), "{range:?}");
                at += len;
            }
            store.close().await.unwrap();
        });
        prop_assert!(content() == model, "another client reads differently");
        Ok(())
    });
    result.unwrap();
}
