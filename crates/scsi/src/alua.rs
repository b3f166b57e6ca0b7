//! Asymmetric logical unit access: states, the answer to REPORT TARGET PORT GROUPS (SPC-4 6.37) and
//! the parameter list of SET TARGET PORT GROUPS (SPC-4 6.45).

/// Asymmetric access state of a target port group (SPC-4 table 306).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AccessState {
    /// Active/optimized.
    Optimized = 0x0,
    /// Active/non-optimized.
    NonOptimized = 0x1,
    /// Standby.
    Standby = 0x2,
    /// Unavailable.
    Unavailable = 0x3,
    /// Logical block dependent.
    LbaDependent = 0x4,
    /// Offline.
    Offline = 0xe,
    /// Transitioning between states.
    Transitioning = 0xf,
}

impl AccessState {
    /// The state of a number, as in configfs (`alua_access_state`) and parameter data.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x0 => AccessState::Optimized,
            0x1 => AccessState::NonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0x4 => AccessState::LbaDependent,
            0xe => AccessState::Offline,
            0xf => AccessState::Transitioning,
            _ => return None,
        })
    }
}
