// SPDX-License-Identifier: Apache-2.0
//! Files of a guest: what is done to them below a directory of this machine, the sysroot, and never outside of it.
//!
//! Paths as the guest has them come in and are resolved by descriptor ([`paths`]); on that stand walks through
//! directories ([`tree`]), copies, removal, new content ([`replace`]), archives ([`tar`], [`cpio`]), and what files have
//! beside their content ([`xattr`], [`acl`], [`capabilities`], [`inode`]). Parsers read bytes of files through
//! [`source`]. Nothing here runs programs or mounts anything.

pub mod acl;
pub mod capabilities;
pub mod casefold;
pub mod copy;
pub mod cpio;
#[doc(hidden)]
pub mod fuzz;
pub mod glob;
pub mod inode;
pub mod interrupt;
pub mod mntent;
pub mod paths;
pub mod remove;
pub mod replace;
pub mod source;
pub mod tar;
pub mod tree;
pub mod xattr;
