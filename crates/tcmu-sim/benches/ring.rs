// SPDX-License-Identifier: Apache-2.0
//! What the ring costs per command: reading the entries of a batch, completing them, one kick
//! (a write to a socket here; in the real kernel it takes the completions within that call).
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that fails has no result")]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tcmu::{Entry, Response};
use tcmu_sim::{Data, Kernel, Options};

const READ_4K: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];

fn round_trip(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring_round_trip");
    for (order, out_of_order) in [("out_of_order", true), ("in_order", false)] {
        for batch in [1u32, 32] {
            group.throughput(Throughput::Elements(u64::from(batch)));
            group.bench_function(format!("{order}/batch_{batch}"), |b| {
                let (mut kernel, parts) = Kernel::new(&Options::default()).unwrap();
                let mut ring = parts.ring().unwrap();
                assert_eq!(ring.set_out_of_order(out_of_order), out_of_order);
                b.iter_custom(|iterations| {
                    let mut ours = Duration::ZERO;
                    for _ in 0..iterations {
                        for _ in 0..batch {
                            kernel.send(&READ_4K, Data::In(4096)).unwrap();
                        }
                        let begin = Instant::now();
                        while let Some(entry) = ring.next().unwrap() {
                            let Entry::Command(command) = entry else { continue };
                            std::hint::black_box(command.data().len());
                            ring.complete(command.id(), &Response::GOOD).unwrap();
                        }
                        ring.kick().unwrap();
                        ours += begin.elapsed();
                        ring.acknowledge().unwrap();
                        assert_eq!(kernel.take_completions().unwrap().len(), batch as usize);
                    }
                    ours
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
