// SPDX-License-Identifier: Apache-2.0
//! Measuring, side by side with the C daemons. The tables go into BENCHMARKS.md: each subcommand writes
//! its own section there.

mod block;
mod guestfs;
mod luks;
mod sections;
mod tcmu;

use std::process::ExitCode;

use anyhow::Result;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The SCSI target's daemon, tcmu-runner
    Tcmu(tcmu::Options),
    /// The qcow2 engine, beside `qemu-img bench`
    Block(block::Options),
    /// LUKS volumes: ciphers beside OpenSSL's, passphrases beside cryptsetup's
    Luks(luks::Options),
    /// The daemon behind libguestfs, guestfsd
    Guestfs(guestfs::Options),
    /// One session of `bench guestfs`: a libguestfs client, started by it
    #[command(hide = true)]
    GuestfsClient(guestfs::client::Options),
}

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    match &options.what {
        What::Tcmu(options) => tcmu::main(options),
        What::Block(options) => block::main(options),
        What::Luks(options) => luks::main(options),
        What::Guestfs(options) => guestfs::main(options),
        What::GuestfsClient(options) => guestfs::client::main(options),
    }
}

/// The one in the middle, or halfway between the two; of none, NaN.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let (lower, upper) = (all.len().saturating_sub(1) / 2, all.len() / 2);
    match (all.get(lower), all.get(upper)) {
        (Some(lower), Some(upper)) => lower.midpoint(*upper),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
