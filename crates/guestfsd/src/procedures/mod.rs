//! The procedures, one module per area. `crate::lib` says how to add one.
//!
//! Each procedure is one function named as in the table. What is `pub(crate)` here and not called by the
//! generated dispatch is an error: a function without a procedure.
#![deny(dead_code)]

mod archives;
mod augeas;
mod blockdev;
mod checksums;
mod contents;
mod copy;
mod daemon;
mod debug;
mod devices;
mod directories;
mod e2attrs;
mod encode;
mod ext;
mod files;
mod filesystems;
mod grep;
mod initrd;
mod inotify;
mod labels;
mod machine;
mod mke2fs;
mod mkfs;
mod mount;
mod ntfs;
mod parts;
mod programs;
mod space;
mod stat;
mod strings;
mod swap;
mod transfer;
mod xattrs;
mod xfs;

pub(crate) use archives::*;
pub(crate) use augeas::*;
pub(crate) use blockdev::*;
pub(crate) use checksums::*;
pub(crate) use contents::*;
pub(crate) use copy::*;
pub(crate) use daemon::*;
pub(crate) use debug::*;
pub(crate) use devices::*;
pub(crate) use directories::*;
pub(crate) use e2attrs::*;
pub(crate) use encode::*;
pub(crate) use ext::*;
pub(crate) use files::*;
pub(crate) use filesystems::*;
pub(crate) use grep::*;
pub(crate) use initrd::*;
pub(crate) use inotify::*;
pub(crate) use labels::*;
pub(crate) use machine::*;
pub(crate) use mke2fs::*;
pub(crate) use mkfs::*;
pub(crate) use mount::*;
pub(crate) use ntfs::*;
pub(crate) use parts::*;
pub(crate) use programs::*;
pub(crate) use space::*;
pub(crate) use stat::*;
pub(crate) use strings::*;
pub(crate) use swap::*;
pub(crate) use transfer::*;
pub(crate) use xattrs::*;
pub(crate) use xfs::*;
