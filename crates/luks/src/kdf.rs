// SPDX-License-Identifier: Apache-2.0
//! What makes a key of a passphrase (LUKS2 specification 3.2.4): PBKDF2 (RFC 8018) or Argon2 (RFC 9106),
//! with the costs that a header asks for. A header may be hostile, so the costs have limits: those of
//! what `cryptsetup luksFormat` chooses by itself on a large machine.
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use rayon::{ThreadPool, ThreadPoolBuilder};
use zeroize::Zeroizing;

use crate::Error;
use crate::digest::Digest;

/// The most rounds of PBKDF2 that a header may ask for: some 20 s at 5 million a second.
pub const MAX_ITERATIONS: u32 = 100_000_000;
/// The most memory, in KiB: 1 GiB.
const MAX_MEMORY: u32 = 1 << 20;
/// The most work: passes over memory, times KiB of it.
const MAX_WORK: u64 = 64 << 20;
/// The most lanes.
const MAX_LANES: u32 = 4;
/// The lengths that a salt can have, in bytes.
const SALT: std::ops::RangeInclusive<usize> = 8..=64;

/// At most one derivation of this process has so much memory at a time.
static MEMORY: Mutex<()> = Mutex::new(());

/// A function with its costs, which are within the limits.
#[derive(Clone, Debug)]
pub(crate) struct Kdf {
    salt: Vec<u8>,
    function: Function,
}

#[derive(Clone, Debug)]
enum Function {
    Pbkdf2 { digest: Digest, iterations: u32 },
    Argon2 { variant: Variant, passes: u32, memory: u32, lanes: u32 },
}

/// A variant of Argon2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    I,
    Id,
}

/// The costs of Argon2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    pub(crate) passes: u64,
    /// In KiB.
    pub(crate) memory: u64,
    pub(crate) lanes: u64,
}

fn invalid<T>(text: String) -> Result<T, Error> {
    Err(Error::Invalid(text))
}

fn check_salt(salt: Vec<u8>, what: &str) -> Result<Vec<u8>, Error> {
    if SALT.contains(&salt.len()) {
        return Ok(salt);
    }
    invalid(format!("the salt of {what} has {} bytes; it can have {SALT:?}", salt.len()))
}

/// The iterations of PBKDF2, if they are not too many; `what` they are of is for messages.
pub(crate) fn check_iterations(iterations: u64, what: &str) -> Result<u32, Error> {
    match u32::try_from(iterations) {
        Ok(0) => invalid(format!("the iterations of {what} are 0 in its LUKS header")),
        Ok(iterations) if iterations <= MAX_ITERATIONS => Ok(iterations),
        _ => Err(Error::Unsupported(format!(
            "{what} of its LUKS header takes {iterations} iterations, more than {MAX_ITERATIONS}; \
             give it fewer with `cryptsetup luksChangeKey --pbkdf-force-iterations` or `qemu-img \
             amend`"
        ))),
    }
}

impl Kdf {
    /// PBKDF2 by HMAC.
    pub(crate) fn pbkdf2(
        digest: Digest,
        iterations: u64,
        salt: Vec<u8>,
        what: &str,
    ) -> Result<Self, Error> {
        let iterations = check_iterations(iterations, what)?;
        let function = Function::Pbkdf2 { digest, iterations };
        Ok(Kdf { salt: check_salt(salt, what)?, function })
    }

    /// Argon2, version 1.3.
    pub(crate) fn argon2(
        variant: Variant,
        costs: Costs,
        salt: Vec<u8>,
        what: &str,
    ) -> Result<Self, Error> {
        let Costs { passes, memory, lanes } = costs;
        if passes == 0 || lanes == 0 || memory < lanes.saturating_mul(8) {
            return invalid(format!(
                "{what} takes {passes} passes of Argon2 over {memory} KiB in {lanes} lanes, which \
                 is not possible"
            ));
        }
        let too_much = || {
            Err(Error::Unsupported(format!(
                "{what} takes {passes} passes of Argon2 over {memory} KiB of memory in {lanes} \
                 lanes; at most {MAX_MEMORY} KiB (1 GiB), {MAX_LANES} lanes, and {MAX_WORK} KiB in \
                 all passes together are allowed: give it less with `cryptsetup luksConvertKey \
                 --pbkdf-memory {MAX_MEMORY} --iter-time 2000`"
            )))
        };
        let small = |value| u32::try_from(value).ok();
        let (Some(passes), Some(memory), Some(lanes)) =
            (small(passes), small(memory), small(lanes))
        else {
            return too_much();
        };
        let work = u64::from(passes) * u64::from(memory);
        if memory > MAX_MEMORY || lanes > MAX_LANES || work > MAX_WORK {
            return too_much();
        }
        let function = Function::Argon2 { variant, passes, memory, lanes };
        Ok(Kdf { salt: check_salt(salt, what)?, function })
    }

    /// How much it takes: rounds of a hash, or KiB written, about a microsecond each.
    pub(crate) fn cost(&self) -> u64 {
        match self.function {
            Function::Pbkdf2 { iterations, .. } => iterations.into(),
            Function::Argon2 { passes, memory, .. } => u64::from(passes) * u64::from(memory),
        }
    }

    /// Fills `key`. Takes seconds, and up to 1 GiB of memory; others of this process that need so
    /// much wait until it is done. Lanes of Argon2 have threads of their own meanwhile.
    ///
    /// # Errors
    /// When there is no such memory, or no thread.
    pub(crate) fn derive(&self, password: &[u8], key: &mut [u8]) -> Result<(), Error> {
        match self.function {
            Function::Pbkdf2 { digest, iterations } => {
                digest.pbkdf2(password, &self.salt, iterations, key);
                Ok(())
            }
            Function::Argon2 { variant, passes, memory, lanes } => {
                let wrong = |e: argon2::Error| Error::Invalid(format!("Argon2: {e}"));
                let params = Params::new(memory, passes, lanes, Some(key.len())).map_err(wrong)?;
                let algorithm = match variant {
                    Variant::I => Algorithm::Argon2i,
                    Variant::Id => Algorithm::Argon2id,
                };
                let _turn = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
                // What is in it would spare an attacker most of the work.
                let mut blocks = Zeroizing::new(Vec::<Block>::new());
                let count = params.block_count();
                if blocks.try_reserve_exact(count).is_err() {
                    return Err(Error::Memory(u64::from(memory)));
                }
                blocks.resize(count, Block::default());
                let argon2 = Argon2::new(algorithm, Version::V0x13, params);
                let hash = || {
                    let blocks = blocks.as_mut_slice();
                    argon2.hash_password_into_with_memory(password, &self.salt, key, blocks)
                };
                threads(lanes)?.install(hash).map_err(wrong)
            }
        }
    }
}

/// Threads for the lanes of Argon2, which end when they are dropped.
fn threads(lanes: u32) -> Result<ThreadPool, Error> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let pool = ThreadPoolBuilder::new()
        .num_threads(processors.min(lanes as usize))
        .thread_name(|index| format!("argon2-{index}"));
    pool.build().map_err(|e| Error::Io(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argon2(variant: Variant, passes: u64, memory: u64, lanes: u64) -> Result<Kdf, Error> {
        Kdf::argon2(variant, Costs { passes, memory, lanes }, vec![2; 16], "key slot 0")
    }

    #[test]
    fn costs_above_what_cryptsetup_chooses_are_refused_before_anything_is_derived() {
        for (passes, memory, lanes) in [
            (4, 4 << 20, 4),
            (4, (1 << 20) + 1, 4),
            (65, 1 << 20, 4),
            (1 << 31, 1024, 1),
            (u64::MAX, 1024, 1),
            (4, u64::MAX, 1),
            (4, 1024, 5),
        ] {
            let text = argon2(Variant::Id, passes, memory, lanes).unwrap_err().to_string();
            let told = format!("takes {passes} passes of Argon2 over {memory} KiB of memory");
            assert!(text.contains(&told) && text.contains("1 GiB"), "{text}");
        }
        for (passes, memory, lanes) in [(0, 1024, 1), (4, 1024, 0), (4, 31, 4), (4, 0, 1)] {
            let text = argon2(Variant::I, passes, memory, lanes).unwrap_err().to_string();
            assert!(text.contains("which is not possible"), "{text}");
        }
        assert!(argon2(Variant::Id, 64, 1 << 20, 4).is_ok());
        let text = Kdf::pbkdf2(Digest::Sha256, 1000, vec![0; 7], "key slot 3").unwrap_err();
        assert!(text.to_string().contains("the salt of key slot 3 has 7 bytes"), "{text}");
    }

    #[test]
    fn the_right_variant_of_argon2_is_used() {
        let derived = |variant| {
            let mut key = [0; 32];
            argon2(variant, 3, 32, 4).unwrap().derive(b"password", &mut key).unwrap();
            key
        };
        assert_ne!(derived(Variant::I), derived(Variant::Id));
    }
}
