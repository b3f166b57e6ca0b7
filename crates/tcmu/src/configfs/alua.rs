// SPDX-License-Identifier: Apache-2.0
//! ALUA in configfs: the target port groups of a device, and the ports that it is seen through.

use std::fs;
use std::path::PathBuf;

use super::{Device, names, read_line, read_number, write};
use crate::Error;
use crate::uio::read_small;

/// A target port group of a device (`alua/GROUP`). What the kernel does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AluaGroup {
    dir: PathBuf,
    /// Its name.
    pub name: String,
    /// `tg_pt_gp_id`; `None` also if none was set.
    pub id: Option<u16>,
    /// Asymmetric access state (SPC-4 table 307).
    pub access_state: Option<u8>,
    /// Status code: why the state is as it is (SPC-4 table 308).
    pub access_status: Option<u8>,
    /// Whether states change implicitly.
    pub implicit: bool,
    /// Whether SET TARGET PORT GROUPS changes them.
    pub explicit: bool,
    /// PREF.
    pub preferred: bool,
    /// Bits of the states that are supported, as REPORT TARGET PORT GROUPS has them (byte 1);
    /// `None` if the kernel does not tell them.
    pub supported: Option<u8>,
    /// Milliseconds that a command waits in a non-optimized state.
    pub nonop_delay_msecs: Option<u32>,
    /// Milliseconds that a transition takes.
    pub trans_delay_msecs: Option<u32>,
    /// Seconds that initiators should wait for an implicit transition; 0: nothing said.
    pub implicit_trans_secs: Option<u8>,
    /// The ports in it.
    pub members: Vec<PortName>,
}

/// `alua_support_*`, and the bit of each in REPORT TARGET PORT GROUPS (SPC-4 6.36, byte 1).
const SUPPORT: [(&str, u8); 7] = [
    ("alua_support_active_optimized", 0x01),
    ("alua_support_active_nonoptimized", 0x02),
    ("alua_support_standby", 0x04),
    ("alua_support_unavailable", 0x08),
    ("alua_support_lba_dependent", 0x10),
    ("alua_support_offline", 0x40),
    ("alua_support_transitioning", 0x80),
];

/// The name of a logical unit in a target's portal group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName {
    /// The fabric, in lower case, as its folder in configfs has it (`loopback`, `iscsi`; a group's
    /// list of members says `iSCSI`).
    pub fabric: String,
    /// The target's name.
    pub wwn: String,
    /// Number of its portal group (`tpgt_N`).
    pub tpgt: u16,
    /// The logical unit number.
    pub lun: u64,
}

impl PortName {
    /// Parses `FABRIC/WWN/tpgt_N/lun_M`.
    pub fn parse(text: &str) -> Option<Self> {
        // The kernel puts a NUL after each line of a group's members.
        let mut parts = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').split('/');
        let (fabric, wwn) = (parts.next()?.to_ascii_lowercase(), parts.next()?.into());
        let tpgt = parts.next()?.strip_prefix("tpgt_")?.parse().ok()?;
        let lun = parts.next()?.strip_prefix("lun_")?.parse().ok()?;
        parts.next().is_none().then_some(PortName { fabric, wwn, tpgt, lun })
    }
}

/// Where a device can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its place.
    pub name: PortName,
    /// Whether the portal group is enabled; `None` where the fabric has no such switch (tcm_loop),
    /// which means that it always is.
    pub enabled: Option<bool>,
    /// Relative target port identifier (SPC-4 7.8.6.7), where the kernel tells it (6.4 and later).
    pub relative_id: Option<u16>,
    /// Name of the target port group that it is in.
    pub alua_group: Option<String>,
}

impl Device {
    /// The device's target port groups, by name. An attribute with nonsense in it counts as
    /// absent, with a warning.
    pub fn alua_groups(&self) -> Result<Vec<AluaGroup>, Error> {
        let dir = self.dir.join("alua");
        names(&dir)?.into_iter().map(|name| AluaGroup::read(dir.join(&name), name)).collect()
    }

    /// Where the device can be seen: all fabrics are searched for links to it.
    pub fn ports(&self) -> Result<Vec<Port>, Error> {
        let Ok(device) = fs::canonicalize(&self.dir) else { return Ok(Vec::new()) };
        let mut ports = Vec::new();
        for fabric in names(&self.root)?.into_iter().filter(|name| name != "core") {
            let fabric_dir = self.root.join(&fabric);
            for wwn in names(&fabric_dir)? {
                for tpg in names(&fabric_dir.join(&wwn))? {
                    let tpg_dir = fabric_dir.join(&wwn).join(&tpg);
                    for lun in names(&tpg_dir.join("lun"))? {
                        let Some(name) = PortName::parse(&format!("{fabric}/{wwn}/{tpg}/{lun}"))
                        else {
                            continue;
                        };
                        let lun_dir = tpg_dir.join("lun").join(&lun);
                        let links = names(&lun_dir)?.into_iter().map(|name| lun_dir.join(name));
                        let ours = |link: PathBuf| {
                            link.is_symlink() && fs::canonicalize(link).is_ok_and(|to| to == device)
                        };
                        if links.into_iter().any(ours) {
                            ports.push(Port {
                                name,
                                enabled: flag(tpg_dir.join("enable")),
                                relative_id: number(tpg_dir.join("rtpi")),
                                alua_group: group_of(&lun_dir.join("alua_tg_pt_gp"))?,
                            });
                        }
                    }
                }
            }
        }
        Ok(ports)
    }
}

/// The alias in a LUN's `alua_tg_pt_gp`.
fn group_of(path: &std::path::Path) -> Result<Option<String>, Error> {
    let text = read_small(path)?.unwrap_or_default();
    let alias = text.lines().find_map(|line| line.strip_prefix("TG Port Alias: "));
    Ok(alias.map(|alias| alias.trim().into()))
}

impl AluaGroup {
    fn read(dir: PathBuf, name: String) -> Result<Self, Error> {
        let access_type = read_line(&dir.join("alua_access_type"))?.unwrap_or_default();
        let mut supported = None;
        for (file, bit) in SUPPORT {
            if let Some(set) = flag(dir.join(file)) {
                *supported.get_or_insert(0) |= if set { bit } else { 0 };
            }
        }
        let members = read_small(&dir.join("members"))?.unwrap_or_default();
        Ok(AluaGroup {
            name,
            id: number(dir.join("tg_pt_gp_id")),
            access_state: number(dir.join("alua_access_state")),
            access_status: status_code(&dir),
            // "Implicit and Explicit", "Implicit", "Explicit", "None"
            implicit: access_type.contains("Implicit"),
            explicit: access_type.contains("Explicit"),
            preferred: flag(dir.join("preferred")).unwrap_or(false),
            supported,
            nonop_delay_msecs: number(dir.join("nonop_delay_msecs")),
            trans_delay_msecs: number(dir.join("trans_delay_msecs")),
            implicit_trans_secs: number(dir.join("implicit_trans_secs")),
            members: members.lines().filter_map(PortName::parse).collect(),
            dir,
        })
    }

    /// Sets the access state (SPC-4 table 307), as an implicit or explicit transition.
    pub fn set_access_state(&self, state: u8) -> Result<(), Error> {
        write(&self.dir.join("alua_access_state"), &state.to_string())
    }

    /// Sets why the state is as it is: 0 nothing, 1 by SET TARGET PORT GROUPS, 2 implicitly.
    pub fn set_access_status(&self, status: u8) -> Result<(), Error> {
        write(&self.dir.join("alua_access_status"), &status.to_string())
    }
}

/// The status is shown in words and set by number.
fn status_code(dir: &std::path::Path) -> Option<u8> {
    let line = read_line(&dir.join("alua_access_status")).ok()??;
    match line.trim() {
        "None" => Some(0),
        "Altered by Explicit STPG" => Some(1),
        "Altered by Implicit ALUA" => Some(2),
        other => other.parse().ok(),
    }
}

fn number<T: std::str::FromStr>(path: PathBuf) -> Option<T> {
    read_number(&path).unwrap_or_else(|error| {
        tracing::warn!("taken as absent: {error}");
        None
    })
}

fn flag(path: PathBuf) -> Option<bool> {
    number::<u8>(path).map(|value| value != 0)
}
