// SPDX-License-Identifier: Apache-2.0
//! What a session is asked to be: what the command line makes, and all below it asks.

use std::path::{Path, PathBuf};

/// What a session is asked to be.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where the client's filesystems are mounted; `/` to serve this machine itself.
    pub sysroot: PathBuf,
    /// Say what is done on standard error.
    pub verbose: bool,
    /// The network is there for programs.
    pub network: bool,
    /// The client may do what reaches outside of the guest ([`crate::reach`]).
    pub host_access: bool,
    /// The machine is the client's own: an appliance, or what stands in for one. On any other one there may be other
    /// sessions.
    pub own_machine: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sysroot: "/sysroot".into(),
            verbose: false,
            network: false,
            host_access: false,
            own_machine: false,
        }
    }
}

impl Config {
    /// Whether this machine itself is served (`-r`) and not a sysroot.
    pub(crate) fn serves_machine(&self) -> bool {
        self.sysroot == Path::new("/")
    }
}
