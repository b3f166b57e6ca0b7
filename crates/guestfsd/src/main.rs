//! `guestfsd`: see the library, which is the daemon.

fn main() -> std::process::ExitCode {
    guestfsd::cli::main()
}
