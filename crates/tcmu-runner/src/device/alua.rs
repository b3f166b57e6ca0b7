//! Target port groups as configfs has them, for the logical unit. The kernel does not say through
//! which port a command came: only a device that is seen through a single port has one here.
use std::collections::BTreeMap;
use std::io;

use lun::alua::{AccessState, Alua, Snapshot};
use scsi::alua::PortGroup;
use scsi::inquiry::TargetPort;
use tcmu::configfs::{AluaGroup, Device, Port, PortName};

/// Status code of a state that SET TARGET PORT GROUPS has set (SPC-4 table 308).
const SET_BY_INITIATOR: u8 = 1;
/// What a group supports where the kernel does not tell: active, optimized or not.
const ACTIVE: u8 = 0x03;

/// The groups of one device.
pub(super) struct ConfigfsAlua {
    device: Device,
}

impl ConfigfsAlua {
    pub(super) fn new(device: Device) -> Self {
        ConfigfsAlua { device }
    }

    fn read(&self) -> Result<Snapshot, tcmu::Error> {
        let (groups, ports) = (self.device.alua_groups()?, self.device.ports()?);
        let numbers = relative_ids(&ports);
        let port = match &ports[..] {
            [port] => numbers
                .get(&port.name)
                .map(|&relative| TargetPort { relative, group: group_of(port, &groups) }),
            _ => None,
        };
        Ok(Snapshot {
            implicit: groups.iter().any(|group| group.implicit),
            explicit: groups.iter().any(|group| group.explicit),
            transition_seconds: groups
                .iter()
                .filter_map(|g| g.implicit_trans_secs)
                .max()
                .unwrap_or(0),
            groups: groups.iter().filter_map(|group| port_group(group, &numbers)).collect(),
            port,
        })
    }
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
        self.read().unwrap_or_else(|error| {
            tracing::warn!("target port groups: {error}");
            Snapshot::default()
        })
    }

    fn set_state(&self, id: u16, state: AccessState) -> io::Result<()> {
        let groups = self.device.alua_groups().map_err(io::Error::other)?;
        let group = groups.iter().find(|group| group.id == Some(id));
        let group = group.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        group.set_access_state(state as u8).map_err(io::Error::other)?;
        // Older kernels do not let it be set; the state is what counts.
        if let Err(error) = group.set_access_status(SET_BY_INITIATOR) {
            tracing::debug!("status of group {id}: {error}");
        }
        Ok(())
    }
}
