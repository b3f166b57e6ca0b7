// SPDX-License-Identifier: Apache-2.0
//! Questions about operating systems: inspecting, and asking what was found.

use crate::mountable::Mountable;
use crate::rpm;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Errno, Error, Result};
use guestfs_api::structs;
use inspect::{Os, Root};
use probe::mountable::MountableName;
use std::ffi::OsString;
use std::path::PathBuf;

/// What is returned where something could not be found out.
const UNKNOWN: &str = "unknown";

/// What the last inspection has found.
#[derive(Debug, Default)]
struct Found(Vec<Root>);

/// Inspects all disks; returns the root filesystems that were found.
pub(crate) fn inspect_os(s: &mut Session) -> Result<Vec<MountableName>> {
    if s.config().serves_machine() {
        return Err(Error::not_supported("not where the machine itself is served (-r)"));
    }
    s.state::<Found>().0.clear();
    let roots = inspect::inspect(s)?;
    s.state::<Found>().0 = roots;
    inspect_get_roots(s)
}

/// The root filesystems that were found.
pub(crate) fn inspect_get_roots(s: &mut Session) -> Result<Vec<MountableName>> {
    Ok(s.state::<Found>().0.iter().map(|r| r.name.clone()).collect())
}

/// The operating system with this root.
fn root<'s>(s: &'s mut Session, root: &Mountable) -> Result<&'s Root> {
    let name = MountableName::from(root);
    let roots = &s.state::<Found>().0;
    if roots.is_empty() {
        return Err(Error::new(Errno::EINVAL, "no inspection data: call inspect-os first"));
    }
    roots.iter().find(|r| r.name == name).ok_or_else(|| {
        let why = "root device not found: only one that inspect-os returned";
        Error::argument("root", root, why)
    })
}

fn os<'s>(s: &'s mut Session, root: &Mountable) -> Result<&'s Os> {
    Ok(&self::root(s, root)?.os)
}

fn or_unknown(text: Option<&OsString>) -> OsString {
    text.cloned().unwrap_or_else(|| UNKNOWN.into())
}

/// `installed`: installers are not looked for.
pub(crate) fn inspect_get_format(_: &mut Session, _: Mountable) -> Result<&'static str> {
    Ok("installed")
}

/// Linux, Windows, ...
pub(crate) fn inspect_get_type(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.kind)
}

/// Which distribution.
pub(crate) fn inspect_get_distro(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.distro.unwrap_or(UNKNOWN))
}

/// Format of packages.
pub(crate) fn inspect_get_package_format(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.package_format.unwrap_or(UNKNOWN))
}

/// What manages packages.
pub(crate) fn inspect_get_package_management(
    s: &mut Session,
    root: Mountable,
) -> Result<&'static str> {
    Ok(os(s, &root)?.package_management.unwrap_or(UNKNOWN))
}

/// What people call it.
pub(crate) fn inspect_get_product_name(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.product_name.as_ref()))
}

/// Which kind of the product.
pub(crate) fn inspect_get_product_variant(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.product_variant.as_ref()))
}

/// Major version, or 0.
pub(crate) fn inspect_get_major_version(s: &mut Session, root: Mountable) -> Result<i32> {
    Ok(os(s, &root)?.version.map_or(0, |(major, _)| major))
}

/// Minor version, or 0.
pub(crate) fn inspect_get_minor_version(s: &mut Session, root: Mountable) -> Result<i32> {
    Ok(os(s, &root)?.version.map_or(0, |(_, minor)| minor))
}

/// Architecture.
pub(crate) fn inspect_get_arch(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.arch.unwrap_or(UNKNOWN))
}

/// Name in the network.
pub(crate) fn inspect_get_hostname(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.hostname.as_ref()))
}

/// Which build.
pub(crate) fn inspect_get_build_id(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.build_id.as_ref()))
}

/// Something that only Windows has, or the error that there is none.
fn of_windows<T>(
    s: &mut Session,
    root: &Mountable,
    what: &str,
    get: impl Fn(&inspect::Windows) -> Option<T>,
) -> Result<T> {
    os(s, root)?.windows.as_ref().and_then(get).ok_or_else(|| {
        let why = format!("not a Windows guest, or {what}");
        Error::argument("root", root, &why)
    })
}

/// The directory of Windows' system.
pub(crate) fn inspect_get_windows_systemroot(s: &mut Session, root: Mountable) -> Result<OsString> {
    let what = "systemroot could not be determined";
    of_windows(s, &root, what, |w| Some(w.systemroot.clone()))
}

/// The file of HKLM\SOFTWARE.
pub(crate) fn inspect_get_windows_software_hive(
    s: &mut Session,
    root: Mountable,
) -> Result<OsString> {
    of_windows(s, &root, "software hive not found", |w| w.software_hive.clone())
}

/// The file of HKLM\SYSTEM.
pub(crate) fn inspect_get_windows_system_hive(
    s: &mut Session,
    root: Mountable,
) -> Result<OsString> {
    of_windows(s, &root, "system hive not found", |w| w.system_hive.clone())
}

/// The name of the key of the control set that is current.
pub(crate) fn inspect_get_windows_current_control_set(
    s: &mut Session,
    root: Mountable,
) -> Result<String> {
    let what = "CurrentControlSet could not be determined";
    of_windows(s, &root, what, |w| w.current_control_set.clone())
}

/// Whether policies of a domain have been applied to a Windows.
pub(crate) fn inspect_get_windows_group_policy(s: &mut Session, root: Mountable) -> Result<bool> {
    of_windows(s, &root, "its registry could not be read", |w| Some(w.group_policy))
}

/// False: live systems are not looked for.
pub(crate) fn inspect_is_live(_: &mut Session, _: Mountable) -> Result<bool> {
    Ok(false)
}

/// False: installers are not looked for.
pub(crate) fn inspect_is_netinst(_: &mut Session, _: Mountable) -> Result<bool> {
    Ok(false)
}

/// False: installers are not looked for.
pub(crate) fn inspect_is_multipart(_: &mut Session, _: Mountable) -> Result<bool> {
    Ok(false)
}

/// Where the system mounts what.
pub(crate) fn inspect_get_mountpoints(
    s: &mut Session,
    root: Mountable,
) -> Result<Vec<(OsString, MountableName)>> {
    Ok(self::root(s, &root)?.mountpoints.clone())
}

/// Filesystems and swap space that belong to the system.
pub(crate) fn inspect_get_filesystems(
    s: &mut Session,
    root: Mountable,
) -> Result<Vec<MountableName>> {
    Ok(self::root(s, &root)?.filesystems.clone())
}

/// Windows' letters and the partitions that they lead to.
pub(crate) fn inspect_get_drive_mappings(
    s: &mut Session,
    root: Mountable,
) -> Result<Vec<(String, PathBuf)>> {
    Ok(self::root(s, &root)?.drives.clone())
}

/// Packages in the RPM database of the guest that is mounted.
pub(crate) fn internal_list_rpm_applications(
    s: &mut Session,
) -> Result<Vec<structs::Application2>> {
    s.need_root()?;
    let mut tool = Tool::new("/proc/self/exe").arg("--helper=rpm");
    if s.config().serves_machine() {
        tool = tool.arg("-r");
    }
    let output = tool.run()?;
    if output.code == 0 {
        return rpm::parse(&output.stdout);
    }
    let text = output.stderr.trim();
    let text = text.strip_prefix("guestfsd: ").unwrap_or(text);
    match output.code {
        _ if text.is_empty() => Err(output.failure()),
        // The process cannot say more than that it failed.
        _ if text.starts_with("librpm ") => Err(Error::not_supported(text)),
        _ => Err(Error::new(Errno::EIO, text)),
    }
}
