// SPDX-License-Identifier: Apache-2.0
//! Feeds a ring with arbitrary bytes: what the fuzz target and the property tests share.

use tcmu::{Entry, Response};

use crate::{Kernel, Options};

/// Puts `bytes` in the ring, as entries, and serves them as a daemon does: reads all, looks at
/// the data, completes every other command at once and the rest at the end. Whatever the bytes,
/// this returns; with what is wrong in them the ring deals.
pub fn feed_ring(bytes: &[u8], in_order: bool) {
    let Ok((mut kernel, parts)) = Kernel::new(&Options { blocks: 4, ..Options::default() }) else {
        return;
    };
    let Ok(mut ring) = parts.ring() else { return };
    ring.set_out_of_order(!in_order);
    let bytes = bytes.get(..32 << 10).unwrap_or(bytes);
    if kernel.send_raw(bytes, None).is_err() {
        return;
    }
    let mut late = Vec::new();
    let mut checksum = 0u64;
    while let Ok(Some(entry)) = ring.next() {
        let Entry::Command(command) = entry else { continue };
        let mut block = [0; 512];
        let len = command.data().read_at(0, &mut block);
        checksum += block.iter().take(len).map(|&byte| u64::from(byte)).sum::<u64>();
        command.data().fill(0..16, 1);
        checksum += command.cdb().len() as u64;
        if command.id() % 2 == 0 {
            late.push(command);
        } else {
            let _ = ring.complete(command.id(), &Response::GOOD);
        }
    }
    std::hint::black_box(checksum);
    for command in late {
        let _ = ring.complete(command.id(), &Response::INTERNAL_FAILURE);
    }
    let _ = ring.kick();
    // Every id here is unknown to the kernel's side; it must say so, not lose its way.
    let _ = kernel.take_completions();
}
