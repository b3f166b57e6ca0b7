// SPDX-License-Identifier: Apache-2.0
//! How fast sectors are encrypted and decrypted, on one thread, in memory: what `cargo xtask bench
//! luks` runs. Arguments: the cipher, such as `aes-xts-plain64`, the length of its key in bits, and
//! that of a sector in bytes. It prints MiB of encryption, and of decryption, for each second of the
//! thread's CPU time: what else the machine does counts little.
#![allow(clippy::print_stdout, reason = "a program")]
use luks::{Cipher, SectorCipher};
use rustix::time::{ClockId, clock_gettime};

/// What is encrypted in one go, in bytes, as by `cryptsetup benchmark`.
const LEN: usize = 1 << 20;
/// How long each direction is measured, in seconds.
const TIME: f64 = 1.0;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let cipher = match args.as_slice() {
        [name, bits, sector] => prepare(name, bits, sector),
        _ => None,
    };
    let Some(cipher) = cipher else {
        println!("usage: speed CIPHER BITS SECTOR, such as: speed aes-xts-plain64 512 512");
        return;
    };
    let mut data = vec![7; LEN];
    let encrypted = measure(|n| cipher.encrypt(n, &mut data));
    let decrypted = measure(|n| cipher.decrypt(n, &mut data));
    println!("{encrypted:.1} {decrypted:.1}");
}

fn prepare(name: &str, bits: &str, sector: &str) -> Option<SectorCipher> {
    let key: Vec<u8> = (1u8..).take(bits.parse::<usize>().ok()? / 8).collect();
    SectorCipher::with_sectors(Cipher::of_name(name)?, &key, sector.parse().ok()?).ok()
}

/// The thread's CPU time, in seconds.
#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// In MiB/s.
fn measure(mut work: impl FnMut(u64)) -> f64 {
    let start = cpu_time();
    let mut done = 0u32;
    loop {
        work(u64::from(done) * (LEN as u64 / 512));
        done += 1;
        let took = cpu_time() - start;
        if took >= TIME {
            return f64::from(done) / took;
        }
    }
}
