// SPDX-License-Identifier: Apache-2.0
//! Target port groups as configfs has them, for the logical unit. The kernel does not say through
//! which port a command came: only a device that is seen through a single port has one here.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use io_engine::{timeout, unblock};
use lun::alua::{AccessState, Alua, Later, Snapshot};
use scsi::alua::PortGroup;
use scsi::inquiry::TargetPort;
use tcmu::configfs::{AluaGroup, Device, Port, PortName};

/// Status code of a state that SET TARGET PORT GROUPS has set (SPC-4 table 308).
const SET_BY_INITIATOR: u8 = 1;
/// What a group supports where the kernel does not tell: active, optimized or not.
const ACTIVE: u8 = 0x03;

/// How long a command waits for a look at configfs. Whoever links a device to a tcm_loop port holds
/// that folder's lock until the initiator's INQUIRY has been answered: a look takes as long, and
/// commands must not wait for it, nor for one that is under way already.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// The groups of one device.
pub(super) struct ConfigfsAlua(Arc<Shared>);

struct Shared {
    device: Device,
    snapshot: Mutex<Snapshot>,
    /// A look is under way, on a thread of the pool.
    looking: AtomicBool,
}

impl ConfigfsAlua {
    /// The groups of a device, at which nobody has looked yet.
    pub(super) fn new(device: Device) -> Self {
        let (snapshot, looking) = (Mutex::default(), AtomicBool::new(false));
        ConfigfsAlua(Arc::new(Shared { device, snapshot, looking }))
    }
}

impl Shared {
    fn snapshot(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        match read(&self.device) {
            Ok(snapshot) => *self.snapshot() = snapshot,
            Err(error) => tracing::warn!("target port groups: {error}"),
        }
        self.looking.store(false, Ordering::Release);
    }
}

fn read(device: &Device) -> Result<Snapshot, tcmu::Error> {
    let (groups, ports) = (device.alua_groups()?, device.ports()?);
    let numbers = relative_ids(&ports);
    // Where a cluster is configured alike on all hosts, the ports of the others are disabled here.
    let used: Vec<_> = ports.iter().filter(|port| port.enabled != Some(false)).collect();
    let local: BTreeSet<_> = used.iter().filter_map(|port| group_of(port, &groups)).collect();
    let port = match &used[..] {
        [port] => numbers
            .get(&port.name)
            .map(|&relative| TargetPort { relative, group: group_of(port, &groups) }),
        _ => None,
    };
    // How access changes is said of the groups that commands come through: there is always a
    // default group, which the kernel makes for both ways.
    let is_local =
        |group: &&AluaGroup| local.is_empty() || group.id.is_some_and(|id| local.contains(&id));
    let counts = || groups.iter().filter(is_local);
    Ok(Snapshot {
        implicit: counts().any(|group| group.implicit),
        explicit: counts().any(|group| group.explicit),
        transition_seconds: groups.iter().filter_map(|g| g.implicit_trans_secs).max().unwrap_or(0),
        groups: groups.iter().filter_map(|group| port_group(group, &numbers)).collect(),
        port,
        local: local.into_iter().collect(),
    })
}

fn set_state(device: &Device, id: u16, state: AccessState) -> io::Result<()> {
    let groups = device.alua_groups().map_err(io::Error::other)?;
    let group = groups.iter().find(|group| group.id == Some(id));
    let group = group.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    group.set_access_state(state as u8).map_err(io::Error::other)?;
    // Older kernels do not let it be set; the state is what counts.
    if let Err(error) = group.set_access_status(SET_BY_INITIATOR) {
        tracing::debug!("status of group {id}: {error}");
    }
    Ok(())
}

/// The relative identifier of each port. Where the kernel does not tell them, ports are numbered by
/// their names, which is as stable as the configuration is.
fn relative_ids(ports: &[Port]) -> BTreeMap<PortName, u16> {
    let by_name: BTreeMap<_, _> = ports.iter().map(|port| (&port.name, port.relative_id)).collect();
    let numbered = (1..=u16::MAX).zip(by_name);
    numbered.map(|(n, (name, told))| (name.clone(), told.unwrap_or(n))).collect()
}

fn group_of(port: &Port, groups: &[AluaGroup]) -> Option<u16> {
    let name = port.alua_group.as_ref()?;
    groups.iter().find(|group| group.name == *name)?.id
}

/// What the standard calls a group; `None` for one that is not set up yet, without an identifier.
fn port_group(group: &AluaGroup, numbers: &BTreeMap<PortName, u16>) -> Option<PortGroup> {
    Some(PortGroup {
        id: group.id?,
        state: AccessState::from_number(group.access_state?)?,
        preferred: group.preferred,
        supported: group.supported.unwrap_or(ACTIVE),
        status: group.access_status.unwrap_or(0),
        ports: group.members.iter().filter_map(|member| numbers.get(member).copied()).collect(),
    })
}

impl Alua for ConfigfsAlua {
    fn snapshot(&self) -> Snapshot {
        self.0.snapshot().clone()
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(async {
            if self.0.looking.swap(true, Ordering::Acquire) {
                return;
            }
            let shared = self.0.clone();
            // When time is over the look goes on by itself, for the next command.
            let _ = timeout(PATIENCE, unblock(move || shared.look())).await;
        })
    }

    fn set_state(&self, id: u16, state: AccessState) -> Later<'_, io::Result<()>> {
        let shared = self.0.clone();
        Box::pin(unblock(move || set_state(&shared.device, id, state)))
    }
}
