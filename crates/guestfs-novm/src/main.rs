//! `guestfs-novm`: see the library.

fn main() -> std::process::ExitCode {
    guestfs_novm::cli::main()
}
