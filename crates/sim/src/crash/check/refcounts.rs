// SPDX-License-Identifier: Apache-2.0
//! Whether refcounts, and the flags that tell of them, agree with who refers to a cluster.
use super::owners::Image;
use super::{Flag, Found, index};

/// Refcount `n` of a block; 0 past its end.
pub(super) fn refcount(block: &[u8], order: u32, n: usize) -> u64 {
    if order < 3 {
        let (bits, per) = (1 << order, 8 >> order);
        let byte = block.get(n / per).copied().unwrap_or(0);
        return u64::from(byte >> (n % per * bits)) & ((1 << bits) - 1);
    }
    let width = 1 << (order - 3);
    let bytes = block.get(n * width..(n + 1) * width).unwrap_or_default();
    bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// Compares owners with the refcounts in `blocks` (their offsets, or 0).
pub(super) fn compare(image: &Image<'_>, blocks: &[u64], flags: &[Flag]) -> Result<Found, String> {
    let order = image.refcount_order;
    let per_block = (image.cluster * 8) >> order;
    let counted = |number: u64| match blocks.get(index(number / per_block)) {
        None | Some(0) => 0,
        Some(&block) => refcount(image.cluster_bytes(block), order, index(number % per_block)),
    };
    let owners = |number: u64| image.owners.get(index(number)).map_or(0, |&(_, count)| count);
    for (number, &(who, owners)) in (0..).zip(&image.owners) {
        let count = counted(number);
        if count < owners {
            let at = number * image.cluster;
            let why = format!("has refcount {count} and {owners} owners");
            return Err(format!("the cluster at {at:#x} ({who}) {why}"));
        }
    }
    let mut found = Found::default();
    for &(host, copied, who) in flags {
        let number = host / image.cluster;
        if copied && owners(number) > 1 {
            let owners = owners(number);
            return Err(format!("{who} says of refcount 1, but its cluster has {owners} owners"));
        }
        found.flags += u64::from(copied != (counted(number) == 1));
    }
    // What is counted past the end of the file takes no space.
    let there = (image.bytes.len() as u64).div_ceil(image.cluster);
    for (i, &block) in (0..).zip(blocks).filter(|&(_, &block)| block != 0) {
        let bytes = image.cluster_bytes(block);
        // Most of most blocks is zero.
        let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at as u64 + 1);
        let used = (used * 8).div_ceil(1 << order).min(per_block);
        let used = used.min(there.saturating_sub(i * per_block));
        for n in 0..used {
            let count = refcount(bytes, order, index(n));
            found.leaks += u64::from(count > owners(i * per_block + n));
        }
    }
    Ok(found)
}
