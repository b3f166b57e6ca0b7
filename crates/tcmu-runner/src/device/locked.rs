// SPDX-License-Identifier: Apache-2.0
//! Target port groups of a device whose handler has an exclusive lock, which a host has for one of
//! its groups: access follows the lock, wherever it is.
//!
//! - Where access changes by itself (implicitly), all groups can be used: the first command takes the
//!   lock. The group that has it is optimized; those that would have to take it are not.
//! - Where SET TARGET PORT GROUPS alone changes it (explicitly), that command takes the lock, or
//!   gives it back; the group that has it is optimized, and the others are in standby.
use std::io;
use std::rc::Rc;

use io_engine::timeout;
use lun::alua::{AccessState, Alua, Later, Snapshot};
use tcmu_plugin::{LockView, PluginDevice, Status};

use super::alua::{ConfigfsAlua, PATIENCE};

/// The group that every device has, and that a lock is never taken for.
const DEFAULT_GROUP: u16 = 0;
/// AN_SUP.
const NON_OPTIMIZED: u8 = 0x02;
/// T_SUP, S_SUP and AO_SUP: the states that a lock can bring about.
const OF_LOCK: u8 = 0x85;

/// The groups of configfs, in the states that the lock gives them.
pub(super) struct LockedAlua {
    groups: ConfigfsAlua,
    device: Rc<PluginDevice>,
}

impl LockedAlua {
    pub(super) fn new(groups: ConfigfsAlua, device: Rc<PluginDevice>) -> Self {
        LockedAlua { groups, device }
    }
}

impl Alua for LockedAlua {
    fn snapshot(&self) -> Snapshot {
        follow(self.groups.snapshot(), self.device.lock_view())
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(async {
            self.groups.refresh().await;
            // When time is over the handler's answer is for the next command.
            let _ = timeout(PATIENCE, self.device.look_at_lock()).await;
        })
    }

    fn set_state(&self, id: u16, state: AccessState) -> Later<'_, io::Result<()>> {
        Box::pin(async move {
            let changed = match state {
                AccessState::Optimized => self.device.acquire(id).await,
                _ => self.device.release(id).await,
            };
            changed.map_err(|status| io::Error::other(format!("{status} of its handler")))?;
            // Of a group whose access does not change by itself the kernel takes no state.
            match self.groups.snapshot().implicit {
                true => self.groups.set_state(id, state).await,
                false => Ok(()),
            }
        })
    }
}

/// The groups of this host that a lock is taken for.
fn lockable(snapshot: &Snapshot) -> impl Iterator<Item = u16> {
    snapshot.local.iter().copied().filter(|&id| id != DEFAULT_GROUP)
}

/// The states that a lock gives groups.
fn follow(mut snapshot: Snapshot, lock: LockView) -> Snapshot {
    let local: Vec<_> = lockable(&snapshot).collect();
    let (implicit, explicit) = (snapshot.implicit, snapshot.explicit);
    for group in snapshot.groups.iter_mut().filter(|group| group.id != DEFAULT_GROUP) {
        let here = local.contains(&group.id);
        // A lock that a former life of this host has left is to be taken again.
        let holds = lock.group == Some(group.id) && (lock.ours || !here);
        if implicit {
            group.state = match group.state {
                AccessState::NonOptimized if holds => AccessState::Optimized,
                AccessState::Optimized
                    if !holds && lock.group.is_some() && group.supported & NON_OPTIMIZED != 0 =>
                {
                    AccessState::NonOptimized
                }
                state => state,
            };
        } else if explicit {
            group.supported = OF_LOCK;
            group.state = match (here && lock.changing, holds) {
                (true, _) => AccessState::Transitioning,
                (false, true) => AccessState::Optimized,
                (false, false) => AccessState::Standby,
            };
        }
    }
    snapshot
}

/// Lets a command through that needs access to the medium, while this host does not have the lock.
///
/// # Errors
/// With which status the command ends.
pub(super) async fn admit(snapshot: &Snapshot, device: &PluginDevice) -> Result<(), Status> {
    let Some(group) = lockable(snapshot).next() else { return Ok(()) };
    if snapshot.implicit {
        return device.acquire(group).await.map_err(implicitly);
    }
    match (snapshot.explicit, device.lock_view().changing) {
        (true, true) => Err(Status::TRANSITION),
        // The sense of standby.
        (true, false) => Err(Status::FENCED),
        (false, _) => Ok(()),
    }
}

/// What a command ends with when the lock was not to be had. What another attempt may overcome stays as
/// the handler says it; all else is a transition that has failed (SPC-4 5.15.2.5).
fn implicitly(status: Status) -> Status {
    const AS_IT_IS: [Status; 5] =
        [Status::BUSY, Status::TIMEOUT, Status::NO_RESOURCE, Status::TRANSITION, Status::FENCED];
    if AS_IT_IS.contains(&status) { status } else { Status::IMPL_TRANSITION_ERR }
}

#[cfg(test)]
mod tests {
    use scsi::alua::PortGroup;

    use super::*;

    /// The default group and groups 7 and 8, of which 7 is this host's.
    fn snapshot(implicit: bool, explicit: bool) -> Snapshot {
        let group = |id| PortGroup {
            id,
            state: AccessState::Optimized,
            preferred: false,
            supported: 0x03,
            status: 0,
            ports: vec![1],
        };
        let groups = [0, 7, 8].map(group).into();
        Snapshot { groups, implicit, explicit, local: vec![7], ..Snapshot::default() }
    }

    fn states(snapshot: Snapshot, lock: LockView) -> [AccessState; 3] {
        let groups = follow(snapshot, lock).groups;
        [groups[0].state, groups[1].state, groups[2].state]
    }

    fn held(group: u16, ours: bool) -> LockView {
        LockView { group: Some(group), ours, changing: false }
    }

    #[test]
    fn explicit_access_is_where_the_lock_is() {
        use AccessState::{Optimized, Standby, Transitioning};
        let explicit = || snapshot(false, true);
        let nobody = LockView::default();
        assert_eq!(states(explicit(), nobody), [Optimized, Standby, Standby]);
        assert_eq!(states(explicit(), held(7, true)), [Optimized, Optimized, Standby]);
        assert_eq!(states(explicit(), held(8, false)), [Optimized, Standby, Optimized]);
        let stale = held(7, false);
        assert_eq!(states(explicit(), stale), [Optimized, Standby, Standby], "not by this process");
        let changing = LockView { changing: true, ..held(8, false) };
        assert_eq!(states(explicit(), changing), [Optimized, Transitioning, Optimized]);
        assert_eq!(follow(explicit(), nobody).groups[1].supported, 0x85);
    }

    #[test]
    fn implicit_access_is_never_out_of_reach() {
        use AccessState::{NonOptimized, Optimized};
        let implicit = || snapshot(true, true);
        assert_eq!(states(implicit(), LockView::default()), [Optimized; 3]);
        assert_eq!(states(implicit(), held(8, false)), [Optimized, NonOptimized, Optimized]);
        assert_eq!(states(implicit(), held(7, true)), [Optimized, Optimized, NonOptimized]);
        let mut one_state = implicit();
        one_state.groups[2].supported = 0x01;
        assert_eq!(states(one_state, held(7, true)), [Optimized; 3]);
    }

    #[test]
    fn a_lock_belongs_to_a_group_that_somebody_has_made() {
        let groups = |local: &[u16]| Snapshot { local: local.into(), ..snapshot(true, false) };
        assert_eq!(lockable(&groups(&[7])).next(), Some(7));
        assert_eq!(lockable(&groups(&[0])).next(), None, "the default group");
        assert_eq!(lockable(&groups(&[0, 8])).next(), Some(8));
        assert_eq!(states(snapshot(false, false), held(8, false)), [AccessState::Optimized; 3]);
    }

    #[test]
    fn a_lock_that_is_not_to_be_had_is_a_failed_transition_unless_it_may_be_had_later() {
        assert_eq!(implicitly(Status::BUSY), Status::BUSY);
        assert_eq!(implicitly(Status::FENCED), Status::FENCED);
        assert_eq!(implicitly(Status(13)), Status::IMPL_TRANSITION_ERR);
        assert_eq!(implicitly(Status::NOT_HANDLED), Status::IMPL_TRANSITION_ERR);
    }
}
