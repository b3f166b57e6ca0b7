// SPDX-License-Identifier: Apache-2.0
//! Of which operations there are how many in a run, as a seed draws it.
use io_engine::sim::Rng;

use crate::crash::workload::one_of;

/// Which operations there are: chances are in a million.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) count: u32,
    /// In sectors.
    pub(crate) longest: u64,
    /// In the first quarter.
    pub(crate) hot: u32,
    pub(crate) cancels: u32,
    pub(crate) resizes: u32,
    pub(crate) snapshots: u32,
    pub(crate) reopens: u32,
    pub(crate) durable: u32,
    /// Of reads, flushes, discards, zeroes, what is rarer, writes.
    pub(crate) shares: [u64; 6],
}

impl Mix {
    pub(crate) fn drawn(rng: &mut Rng) -> Mix {
        let mut shares = [0; 6].map(|_| rng.below(10));
        shares[5] += 10;
        Mix {
            count: one_of(rng, &[10, 40, 150, 400]),
            longest: one_of(rng, &[1, 8, 64, 300]),
            hot: one_of(rng, &[0, 500_000, 900_000]),
            cancels: one_of(rng, &[0, 0, 50_000, 300_000]),
            resizes: one_of(rng, &[0, 0, 20_000, 100_000]),
            snapshots: one_of(rng, &[0, 0, 0, 20_000, 100_000]),
            reopens: one_of(rng, &[0, 5000, 50_000]),
            durable: one_of(rng, &[0, 0, 50_000]),
            shares,
        }
    }

    /// The number of a share.
    pub(crate) fn share(&self, rng: &mut Rng) -> usize {
        let mut drawn = rng.below(self.shares.iter().sum());
        for (n, &share) in self.shares.iter().enumerate() {
            if drawn < share {
                return n;
            }
            drawn -= share;
        }
        self.shares.len()
    }
}
