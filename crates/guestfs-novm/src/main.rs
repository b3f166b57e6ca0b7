// SPDX-License-Identifier: Apache-2.0
//! `guestfs-novm`: see the library.

fn main() -> std::process::ExitCode {
    guestfs_novm::cli::main()
}
