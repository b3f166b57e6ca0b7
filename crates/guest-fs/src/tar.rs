// SPDX-License-Identifier: Apache-2.0
//! Tar archives: made from the guest ([`create`]) and unpacked into it ([`extract`]), in this process.
//!
//! No program sees the guest's paths: members are found by descriptor, in the sysroot, so that neither an
//! archive nor a link of the guest leads out of it. Archives that are read may be of the v7, ustar, GNU and pax
//! formats, sparse files included; those that are made are ustar with pax headers where ustar is too small.

mod complete;
pub mod create;
mod directories;
mod extra;
pub mod extract;
mod fault;
mod header;
mod member;
mod names;
mod place;
mod sparse;

/// What besides contents, modes, owners and times goes in and out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Extended attributes.
    pub xattrs: bool,
    /// SELinux labels.
    pub selinux: bool,
    /// POSIX access control lists.
    pub acls: bool,
}

/// Extended attributes that have an option of their own.
const SELINUX: &str = "security.selinux";
const ACLS: [(&str, &str); 2] = [
    ("system.posix_acl_access", "SCHILY.acl.access"),
    ("system.posix_acl_default", "SCHILY.acl.default"),
];
