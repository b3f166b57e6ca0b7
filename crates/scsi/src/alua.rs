// SPDX-License-Identifier: Apache-2.0
//! Asymmetric logical unit access: states, the answer to REPORT TARGET PORT GROUPS (SPC-4 6.37) and
//! the parameter list of SET TARGET PORT GROUPS (SPC-4 6.45).

use crate::answer::Answer;
use crate::sense::Sense;

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

/// A target port group, as REPORT TARGET PORT GROUPS describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Target port group identifier (`tg_pt_gp_id`).
    pub id: u16,
    /// Its state.
    pub state: AccessState,
    /// PREF: it is the preferred group.
    pub preferred: bool,
    /// T_SUP, O_SUP, LBD_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP: the states that it can be in.
    pub supported: u8,
    /// Status code: 0 none, 1 changed by SET TARGET PORT GROUPS, 2 changed by itself.
    pub status: u8,
    /// Relative identifiers of its target ports; 255 are told at most.
    pub ports: Vec<u16>,
}

/// REPORT TARGET PORT GROUPS. `extended` is the header format that was asked for; then
/// `transition_seconds` (0: not told) is in it.
pub fn report_groups(groups: &[PortGroup], extended: bool, transition_seconds: u8) -> Answer {
    let mut a = Answer::new();
    a.zeroes(4);
    if extended {
        a.bytes(&[0x10, transition_seconds, 0, 0]);
    }
    for group in groups {
        let count = u8::try_from(group.ports.len()).unwrap_or(u8::MAX);
        a.bytes(&[u8::from(group.preferred) << 7 | group.state as u8, group.supported]);
        a.be16(group.id);
        a.bytes(&[0, group.status, 0, count]);
        for port in group.ports.iter().take(usize::from(count)) {
            a.be16(0);
            a.be16(*port);
        }
    }
    a.set_length32(0);
    a
}

/// One descriptor of SET TARGET PORT GROUPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetState {
    /// The state to go to; never `Transitioning` or `LbaDependent`.
    pub state: AccessState,
    /// The target port group; for `Offline` a relative target port.
    pub id: u16,
}

/// The descriptors of a SET TARGET PORT GROUPS parameter list. An empty list has none.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a list that ends within its header or a descriptor; INVALID FIELD
/// IN PARAMETER LIST for a state that cannot be set.
pub fn parse_set_groups(list: &[u8]) -> Result<Vec<SetState>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let Some((_, descriptors)) = list.split_at_checked(4) else {
        return Err(Sense::PARAMETER_LIST_LENGTH_ERROR);
    };
    let mut set = Vec::new();
    for (i, descriptor) in descriptors.chunks(4).enumerate() {
        let [state, _, high, low] = descriptor else {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR);
        };
        let state = match AccessState::from_number(state & 0x0f) {
            None | Some(AccessState::Transitioning | AccessState::LbaDependent) => {
                return Err(Sense::list_field(4 + 4 * i, Some(3)));
            }
            Some(state) => state,
        };
        set.push(SetState { state, id: u16::from_be_bytes([*high, *low]) });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> PortGroup {
        PortGroup {
            id: 16,
            state: AccessState::NonOptimized,
            preferred: true,
            supported: 0x4f,
            status: 2,
            ports: vec![1, 0x0203],
        }
    }

    #[test]
    fn groups_are_reported_with_their_ports() {
        let a = report_groups(&[group()], false, 9);
        assert_eq!(a[..12], [0, 0, 0, 16, 0x81, 0x4f, 0, 16, 0, 2, 0, 2]);
        assert_eq!(a[12..], [0, 0, 0, 1, 0, 0, 2, 3]);
        let a = report_groups(&[group(), group()], true, 9);
        assert_eq!(a[..8], [0, 0, 0, 36, 0x10, 9, 0, 0]);
        assert_eq!(a.len(), 40);
    }

    #[test]
    fn a_count_of_ports_never_contradicts_the_list() {
        let a = report_groups(&[PortGroup { ports: vec![7; 300], ..group() }], false, 0);
        assert_eq!(a[11], 255);
        assert_eq!(a.len(), 12 + 4 * 255);
    }

    #[test]
    fn set_target_port_groups_takes_the_states_that_can_be_set() {
        let set = parse_set_groups(&[0, 0, 0, 0, 0x02, 0, 0, 16, 0xf0, 0, 1, 0]).unwrap();
        assert_eq!(
            set,
            [
                SetState { state: AccessState::Standby, id: 16 },
                SetState { state: AccessState::Optimized, id: 256 },
            ]
        );
        assert_eq!(parse_set_groups(&[]), Ok(vec![]));
        for state in [4, 5, 0x0d, 0x0f] {
            let sense = parse_set_groups(&[0, 0, 0, 0, 0, 0, 0, 1, state, 0, 0, 1]);
            assert_eq!(sense, Err(Sense::list_field(8, Some(3))));
        }
    }

    #[test]
    fn a_list_that_ends_early_is_a_length_error() {
        for len in [1, 3, 5, 7, 11] {
            let sense = parse_set_groups(&[0; 12][..len]);
            assert_eq!(sense, Err(Sense::PARAMETER_LIST_LENGTH_ERROR), "{len} bytes");
        }
    }
}
