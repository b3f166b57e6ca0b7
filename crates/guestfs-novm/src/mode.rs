// SPDX-License-Identifier: Apache-2.0
//! What runs the daemon.

use crate::error::{Error, Result};

/// The variable that says it.
pub const VARIABLE: &str = "GUESTFS_NOVM_MODE";

/// What runs the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The host's kernel, in namespaces.
    Instant,
    /// User-Mode Linux.
    Uml,
}

const ALL: &[Mode] = &[Mode::Instant, Mode::Uml];

impl Mode {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Uml => "uml",
        }
    }

    /// The mode that the environment asks for, or else the one that this user can have.
    pub fn from_environment() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(name) => ALL.iter().copied().find(|m| m.name() == name).ok_or_else(|| {
                let names: Vec<_> = ALL.iter().map(|m| m.name()).collect();
                Error::Usage(format!("{VARIABLE}={name}: expecting {}", names.join(" or ")))
            }),
            Err(_) if rustix::process::geteuid().is_root() => Ok(Self::Instant),
            Err(_) => Ok(Self::Uml),
        }
    }
}
