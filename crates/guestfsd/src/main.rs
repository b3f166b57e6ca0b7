// SPDX-License-Identifier: Apache-2.0
//! `guestfsd`: see the library, which is the daemon.

fn main() -> std::process::ExitCode {
    guestfsd::cli::main()
}
