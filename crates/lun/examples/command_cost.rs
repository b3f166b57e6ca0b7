// SPDX-License-Identifier: Apache-2.0
//! What a command costs from the CDB to the file in the page cache and back: `cargo xtask bench
//! block --instructions` runs it under callgrind and strace, and compares different counts.
//!
//! ```text
//! command_cost read|write|allocate COUNT [CONFIG]
//! ```
//!
//! READ (10) and WRITE (10) of 4 KiB, one at a time. CONFIG (default: `ram//64M`) is what the
//! logical unit lies on; it is overwritten. `read` and `write` go through its first 64 MiB, which
//! have been written before; `allocate` writes once into every 64 KiB of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]
use block::{OpenOptions, Store};
use io_engine::{Backend, Engine};
use lun::{Config, Identity, Lun};
use scsi::sense::Status;
use sgl::Sgl;

/// Length of a command, in blocks.
const BLOCKS: u32 = 8;
/// What `read` and `write` go through, in blocks.
const WINDOW: u32 = (64 << 20) / 512;
/// From one command of `allocate` to the next, in blocks.
const CLUSTER: u32 = (64 << 10) / 512;

/// Does `count` commands, `step` blocks apart, in the first `len` blocks.
async fn work(lun: &Lun<block::AnyStore>, opcode: u8, count: u32, step: u32, len: u32) {
    let mut buffer = vec![1; 512 * BLOCKS as usize];
    let data = Sgl::from_slice(&mut buffer);
    for i in 0..count {
        let mut cdb = [opcode, 0, 0, 0, 0, 0, 0, 0, BLOCKS.to_le_bytes()[0], 0];
        cdb[2..6].copy_from_slice(&(i * step % len).to_be_bytes());
        assert_eq!(lun.execute(&cdb, &data).await.status, Status::Good);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, count, config @ ..] = &args[..] else {
        println!("usage: command_cost read|write|allocate COUNT [CONFIG]");
        return;
    };
    let count = count.parse().unwrap();
    let opcode = if mode == "read" { 0x28 } else { 0x2a };
    let config = config.first().map_or("ram//64M", String::as_str);
    let all = async {
        let store = block::open(config, &OpenOptions::default()).await.unwrap();
        let settings = Config {
            name: "cost".into(),
            device_type: &scsi::block_device::BLOCK_DEVICE,
            block_size: 512,
            max_transfer: 1 << 20,
            write_cache: true,
            identity: Identity::new("cost"),
        };
        let blocks = u32::try_from(store.facts().size / 512).unwrap();
        let lun = Lun::new(store, settings).unwrap();
        if mode == "allocate" {
            work(&lun, opcode, count, CLUSTER, blocks).await;
        } else {
            let window = WINDOW.min(blocks);
            work(&lun, 0x2a, window / BLOCKS, BLOCKS, window).await;
            work(&lun, opcode, count, BLOCKS, window).await;
        }
    };
    Engine::new(Backend::IoUring).unwrap().block_on(all).unwrap();
}
