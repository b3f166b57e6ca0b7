// SPDX-License-Identifier: Apache-2.0
//! What a command costs from the CDB to the file in the page cache and back; run it under
//! callgrind (`--toggle-collect='*work*'`) or `time`:
//!
//! ```text
//! cost read|write COUNT [CONFIG]
//! ```
//!
//! READ (10) and WRITE (10) of 4 KiB, one at a time. CONFIG (default: `ram//64M`) is what the
//! logical unit lies on; it is overwritten.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]
use block::OpenOptions;
use io_engine::{Backend, Engine};
use lun::{Config, Identity, Lun};
use scsi::sense::Status;
use sgl::Sgl;

const BLOCKS: u32 = 8;
const LBAS: u32 = (64 << 20) / 512;

#[inline(never)]
async fn work(lun: &Lun<block::AnyStore>, opcode: u8, count: u32) {
    let mut buffer = vec![1; 512 * BLOCKS as usize];
    let data = Sgl::from_slice(&mut buffer);
    for i in 0..count {
        let mut cdb = [opcode, 0, 0, 0, 0, 0, 0, 0, BLOCKS.to_le_bytes()[0], 0];
        cdb[2..6].copy_from_slice(&(i * BLOCKS % LBAS).to_be_bytes());
        assert_eq!(lun.execute(&cdb, &data).await.status, Status::Good);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, count, config @ ..] = &args[..] else {
        println!("usage: cost read|write COUNT [CONFIG]");
        return;
    };
    let count = count.parse().unwrap();
    let opcode = if mode == "write" { 0x2a } else { 0x28 };
    let config = config.first().map_or("ram//64M", String::as_str);
    let all = async {
        let options = OpenOptions { size: Some(64 << 20), ..OpenOptions::default() };
        let store = block::open(config, &options).await.unwrap();
        let settings = Config {
            name: "cost".into(),
            block_size: 512,
            max_transfer: 1 << 20,
            write_cache: true,
            identity: Identity::new("cost"),
        };
        let lun = Lun::new(store, settings).unwrap();
        work(&lun, 0x2a, LBAS / BLOCKS).await;
        work(&lun, opcode, count).await;
    };
    Engine::new(Backend::IoUring).unwrap().block_on(all).unwrap();
}
