// SPDX-License-Identifier: Apache-2.0
//! Asymmetric logical unit access (SPC-4 5.15): target port groups, and in which state the port is
//! that commands come through. States live outside, in the kernel's configfs; an [`Alua`] reads and
//! sets them. Without one, or where it knows of no group, there is one group,
//! active and optimized, and INQUIRY does not speak of asymmetric access.
use std::io;

use block::Guard;
use scsi::alua::PortGroup;
use scsi::inquiry::TargetPort;

use crate::failure::Failure;

pub use block::exclusive::Later;
pub use scsi::alua::AccessState;

/// The target port groups of a logical unit, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The groups; none: the one default group stands in.
    pub groups: Vec<PortGroup>,
    /// States change by themselves, as far as the ports are concerned that commands come through.
    pub implicit: bool,
    /// SET TARGET PORT GROUPS changes states; the same.
    pub explicit: bool,
    /// The port that commands come through, where there is just one, and its group.
    pub port: Option<TargetPort>,
    /// The groups of all ports that commands come through, each once.
    pub local: Vec<u16>,
    /// How long an implicit transition takes at most, in seconds; 0: not told.
    pub transition_seconds: u8,
}

/// Where target port groups are kept. Asked for INQUIRY, TEST UNIT READY, MODE SENSE, REPORT and
/// SET TARGET PORT GROUPS, and for reads and writes only where it guards them.
pub trait Alua {
    /// The groups as they were at the last look.
    fn snapshot(&self) -> Snapshot;
    /// Looks again. It must not wait for ever: the kernel can hold the very locks that a look
    /// needs until a command is answered.
    fn refresh(&self) -> Later<'_, ()>;
    /// Moves the group with this identifier into a state.
    fn set_state(&self, group: u16, state: AccessState) -> Later<'_, io::Result<()>>;
    /// Whether commands that need access to the medium have to be let through ([`Alua::admit`]).
    fn guards(&self) -> bool {
        false
    }
    /// Lets a command through that needs access to the medium, which stays as long as the guard does.
    /// The error is how the command ends that is not let through.
    fn admit(&self) -> Later<'_, Result<Option<Guard<'_>>, Failure>> {
        Box::pin(async { Ok(None) })
    }
    /// Whether no other host gets at the medium while a command is let through here.
    fn is_alone(&self) -> bool {
        false
    }
    /// Whether no command is let through before all that came earlier are answered.
    fn awaits_drain(&self) -> bool {
        false
    }
    /// All commands that came are answered.
    fn drained(&self) {}
    /// Gives access away whenever another host asks for it. It never ends.
    fn give_way(&self) -> Later<'_, ()> {
        Box::pin(std::future::pending())
    }
}

impl Snapshot {
    /// The state of the port that commands come through.
    pub(crate) fn access(&self) -> AccessState {
        let local = match &self.local[..] {
            [id] => Some(*id),
            _ => self.port.and_then(|port| port.group),
        };
        let group = match (local, &self.groups[..]) {
            (Some(id), groups) => groups.iter().find(|group| group.id == id),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        group.map_or(AccessState::Optimized, |group| group.state)
    }
}
