// SPDX-License-Identifier: Apache-2.0
//! REPORT and SET TARGET PORT GROUPS, and the state that commands are checked against.
use block::Store;
use scsi::alua::{PortGroup, parse_set_groups, report_groups};
use scsi::sense::Sense;
use sgl::Sgl;

use crate::alua::{AccessState, Snapshot};
use crate::buffer::{parameter_list, reply};
use crate::failure::Answer;
use crate::unit::Lun;

/// The most bytes of a SET TARGET PORT GROUPS parameter list.
const MAX_LIST: usize = 4096;

/// T_SUP, O_SUP, U_SUP ...: the bit of a state among those that a group supports.
fn support_bit(state: AccessState) -> u8 {
    match state {
        AccessState::Optimized => 0x01,
        AccessState::NonOptimized => 0x02,
        AccessState::Standby => 0x04,
        AccessState::Unavailable => 0x08,
        AccessState::LbaDependent => 0x10,
        AccessState::Offline => 0x40,
        AccessState::Transitioning => 0x80,
    }
}

/// The group of a logical unit of which nothing is known.
fn default_group() -> PortGroup {
    PortGroup {
        id: 0,
        state: AccessState::Optimized,
        preferred: false,
        supported: support_bit(AccessState::Optimized),
        status: 0,
        ports: vec![1],
    }
}

impl<S: Store> Lun<S> {
    /// What is known of the port groups now; the state that commands are checked against follows.
    pub fn port_groups(&self) -> Snapshot {
        let snapshot = self.alua.as_ref().map_or_else(Snapshot::default, |alua| alua.snapshot());
        self.access.set(snapshot.access());
        snapshot
    }

    /// Looks at the port groups again. The commands that depend on them do so too, and multipath
    /// initiators send these all the time.
    pub async fn refresh_access(&self) {
        if let Some(alua) = &self.alua {
            alua.refresh().await;
            self.access.set(alua.snapshot().access());
        }
    }

    /// REPORT TARGET PORT GROUPS.
    pub(crate) fn report_target_port_groups(
        &self,
        extended: bool,
        alloc: usize,
        data: &Sgl<'_>,
    ) -> Answer {
        let mut snapshot = self.port_groups();
        if snapshot.groups.is_empty() {
            snapshot.groups.push(default_group());
        }
        let answer = report_groups(&snapshot.groups, extended, snapshot.transition_seconds);
        reply(data, &answer, alloc)
    }

    /// SET TARGET PORT GROUPS. All of the list is checked before a state is set.
    pub(crate) async fn set_target_port_groups(&self, list_len: usize, data: &Sgl<'_>) -> Answer {
        let snapshot = self.port_groups();
        let Some(alua) = self.alua.as_ref().filter(|_| snapshot.explicit) else {
            return Err(Sense::INVALID_COMMAND_OPERATION_CODE.into());
        };
        let list = parse_set_groups(&parameter_list(data, list_len, MAX_LIST)?)?;
        for (i, set) in list.iter().enumerate() {
            let at = 4 + 4 * i;
            let supported = support_bit(set.state);
            // Offline concerns a port, not a group; the kernel cannot do that.
            if set.state == AccessState::Offline {
                return Err(Sense::list_field(at, Some(3)).into());
            }
            match snapshot.groups.iter().find(|group| group.id == set.id) {
                None => return Err(Sense::list_field(at + 2, Some(7)).into()),
                Some(group) if group.supported & supported == 0 => {
                    return Err(Sense::list_field(at, Some(3)).into());
                }
                Some(_) => {}
            }
        }
        for set in list {
            if let Err(error) = alua.set_state(set.id, set.state).await {
                let (name, id, state) = (&self.name, set.id, set.state);
                tracing::warn!("{name}: target port group {id} does not become {state:?}: {error}");
                self.refresh_access().await;
                return Err(Sense::SET_TARGET_PORT_GROUPS_COMMAND_FAILED.into());
            }
        }
        self.refresh_access().await;
        Ok(0)
    }
}
