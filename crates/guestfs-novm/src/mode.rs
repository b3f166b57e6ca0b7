//! What runs the daemon.

use crate::error::{Error, Result};

/// The variable that says it.
pub const VARIABLE: &str = "GUESTFS_NOVM_MODE";

/// What runs the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The host's kernel, in namespaces.
    Instant,
}

const ALL: &[Mode] = &[Mode::Instant];

impl Mode {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instant => "instant",
        }
    }

    /// The mode that the environment asks for, or else the one that this user can have.
    pub fn from_environment() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(name) => ALL.iter().copied().find(|m| m.name() == name).ok_or_else(|| {
                let names: Vec<_> = ALL.iter().map(|m| m.name()).collect();
                Error::Usage(format!("{VARIABLE}={name}: expecting {}", names.join(" or ")))
            }),
            Err(_) => Ok(Self::Instant),
        }
    }
}
