// SPDX-License-Identifier: Apache-2.0
//! How fast sectors are encrypted and decrypted, on one thread, in memory, beside OpenSSL's libcrypto:
//! what `cargo xtask bench luks` runs. Arguments: the cipher, such as `aes-xts-plain64`, the length of
//! its key in bits, that of a sector in bytes, and how many rounds.
//!
//! The first line is libcrypto's version. Each round is a line of MiB for each second of the thread's CPU
//! time, so that what else the machine does counts little: encryption and decryption, by this crate; by
//! libcrypto with the same sectors; and by libcrypto with units of 64 KiB, which are those of `cryptsetup
//! benchmark`. Where libcrypto lacks the cipher, there are only the first two. Both have to encrypt alike.
#![allow(clippy::print_stdout, reason = "a program")]
mod libcrypto;

use std::fmt::Write;

use luks::{Cipher, SectorCipher};
use rustix::time::{ClockId, clock_gettime};

use libcrypto::Libcrypto;

/// What is encrypted between two looks at the clock, in bytes.
const LEN: usize = 1 << 20;
/// How long each direction is measured in a round, in seconds.
const TIME: f64 = 0.1;
/// The bytes of a unit of `cryptsetup benchmark`.
const UNIT: usize = 64 << 10;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, bits, sector, rounds] = args.as_slice() else {
        return Err("usage: speed CIPHER BITS SECTOR ROUNDS, such as: \
                    speed aes-xts-plain64 512 4096 10"
            .into());
    };
    let (bits, sector): (usize, usize) = (bits.parse()?, sector.parse()?);
    let key: Vec<u8> = (1u8..).take(bits / 8).collect();
    let cipher = Cipher::of_name(name).ok_or_else(|| format!("there is no cipher {name}"))?;
    let ours = SectorCipher::with_sectors(cipher, &key, sector)?;
    let theirs = Libcrypto::load()?;
    println!("{}", theirs.version());
    let theirs = theirs.cipher(name, &key)?;
    let mut data = vec![7; LEN];
    if let Some(theirs) = &theirs {
        let mut other = data.clone();
        ours.encrypt(3, &mut data);
        theirs.change(true, 3, &mut other, sector)?;
        if data != other {
            return Err(format!("{name}: libcrypto encrypts in another way").into());
        }
    }
    for _ in 0..rounds.parse::<u32>()? {
        let mut line = String::new();
        let mut column = |work: &mut dyn FnMut(u64) -> Result<(), Failure>| {
            write!(line, "{:.1} ", measure(work)?).map_err(Failure::from)
        };
        column(&mut |n| {
            ours.encrypt(n, &mut data);
            Ok(())
        })?;
        column(&mut |n| {
            ours.decrypt(n, &mut data);
            Ok(())
        })?;
        if let Some(theirs) = &theirs {
            for unit in [sector, UNIT] {
                for encrypt in [true, false] {
                    column(&mut |n| theirs.change(encrypt, n, &mut data, unit))?;
                }
            }
        }
        println!("{}", line.trim_end());
    }
    Ok(())
}

/// The thread's CPU time, in seconds.
#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// In MiB/s.
fn measure(work: &mut dyn FnMut(u64) -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = cpu_time();
    let mut done = 0u32;
    loop {
        work(u64::from(done) * (LEN as u64 / 512))?;
        done += 1;
        let took = cpu_time() - start;
        if took >= TIME {
            return Ok(f64::from(done) / took);
        }
    }
}
