// SPDX-License-Identifier: Apache-2.0
//! The daemon behind libguestfs: it mounts, inspects and changes what is inside disk images, and serves
//! unmodified libguestfs clients over their protocol.
//!
//! # The way of a call
//!
//! [`channel`] reads a message, [`dispatch`] decodes it with the types that `guestfs-api` generated from the
//! table of procedures, gives the arguments their meaning, and calls one plain function, in one of the areas
//! below `procedures`. Its result, or its [`guest_error::Error`], is the reply. Files go in and out as chunks
//! ([`transfer`]).
//!
//! # How to add a procedure
//!
//! 1. Add it to the table of `guestfs-api`. Now the build says which function is missing: `cannot find function `NAME`
//!    in module `procedures``.
//! 2. Write the function in the module of its area, `src/procedures/AREA.rs`, as
//!    `pub(crate) fn NAME(s: &mut Session, ARGUMENTS) -> Result<RESULT>`. A new area is a new file, and two
//!    lines in `src/procedures/mod.rs`. The name is the table's in lower case (`sfdisk_N` is `sfdisk_n`,
//!    `sfdiskM` is `sfdisk_m`); arguments are in the table's order:
//!
//!    | in the table | parameter |
//!    |---|---|
//!    | `String`, `Key`, `GUID` | `&OsStr`: any bytes but NUL; compare with `== "text"` |
//!    | `OptString` | `Option<&OsStr>` |
//!    | `Bool`, `Int`, `Int64` | `bool`, `i32`, `i64` |
//!    | `StringList`, `FilenameList` | `&[&OsStr]` |
//!    | `BufferIn` | `&[u8]` |
//!    | `Pathname` | [`guest_fs::paths::GuestPath`]: absolute, and something is mounted on `/` |
//!    | `PathnameList` | `&[GuestPath]` |
//!    | `Device`, `DeviceList` | [`devices::Device`], `&[Device]`: there, udev has settled |
//!    | `Mountable` | [`mountable::Mountable`] |
//!    | `DevOrPath`, `MountableOrPath` | [`mountable::DevOrPath`], [`mountable::MountableOrPath`] |
//!    | `FileIn` | `&mut` [`transfer::FileIn`]: is `Read`; [`transfer::FileIn::copy_to`] is faster |
//!    | `FileOut` | `&mut` [`transfer::FileOut`]: is `Write`; [`transfer::FileOut::copy_from`] is faster |
//!    | optional arguments | last, except for progress: `&guestfs_api::options::TypeName`, a field `Option<T>` each |
//!    | flag `progress`, no file | last: `&mut` [`transfer::Progress`] |
//!
//!    | result | returned |
//!    |---|---|
//!    | none | `()` |
//!    | `Bool`, `Int`, `Int64` | `bool`, `i32`, `i64` |
//!    | `String` | `String`, `OsString`, `Vec<u8>`, `&'static str`, ... ([`guestfs_api::xdr::Text`]) |
//!    | `Buffer` | `Vec<u8>` |
//!    | `StringList` | `Vec` of what may be a `String` |
//!    | `Device`, `DeviceList` | `PathBuf`, `Vec<PathBuf>`: this machine's names; dispatch translates |
//!    | `MountableList` | `Vec<`[`probe::mountable::MountableName`]`>` |
//!    | `Hashtable(K, V)` | `Vec<(K, V)>` of these |
//!    | `Struct(x)`, `StructList(x)` | [`guestfs_api::structs`]`::X`, `Vec` of it |
//!
//! 3. Files of the guest: [`session::Session::open`] and [`session::Session::entry`]. A guest's path is never
//!    joined to another path, and never given to a program: what has to be, goes as
//!    [`guest_fs::paths::proc_path`] of a descriptor.
//! 4. Programs: [`tool::Tool`]. Programs of the guest: [`tool::Tool::in_guest`], after
//!    [`session::Session::need_root`] if no argument is a path.
//! 5. Changing a partition table, or what is on a device: say `s.udev().changed()` afterwards. Whatever
//!    lists devices asks [`session::Session::settled_devices`].
//! 6. Names of devices in other arguments (`String`) or in texts are translated by hand:
//!    [`session::Session::device`], [`session::Session::client_name`].
//! 7. What is kept from call to call: a type of the area's own, `s.state::<MyState>()`. Its `Drop` runs at the
//!    end of the session.
//! 8. Errors name what they are about: `.on(path)` ([`guest_error::Context`]), [`guest_error::Error::argument`],
//!    [`guest_error::Error::within`]. The client puts the procedure's name before it.
//! 9. A group of its own that needs programs or the kernel: a line in `NEEDS` in [`features`]; a procedure that
//!    needs something else than its group: a line in `OWN` there.
//! 10. What procedures for any filesystem do in another way for one type: a column of its row in [`drivers`].
//! 11. What reaches outside of the guest is refused to clients of a listener: a line in [`reach`].
//! 12. What makes devices of the session's disks goes through [`session::Session::noting`].
//! 13. Compare with the reference daemon: the same calls by `guestfish`, field by field.
//!
//! What only touches files must stay cheap: no program, no walk through /proc, hardly any allocation.

// This documentation is for those who work on the daemon: it is of what nobody else sees.
#![allow(rustdoc::private_intra_doc_links)]

mod augeas;
mod base64;
mod block;
mod btrfs;
mod channel;
mod children;
pub mod cli;
mod compression;
mod config;
mod confined;
mod contents;
mod crc;
mod devices;
mod dispatch;
mod drivers;
mod features;
mod filesystems;
mod flush;
#[doc(hidden)]
pub mod fuzz;
mod initramfs;
mod inspection;
mod kernel;
mod keys;
mod launched;
mod library;
mod listen;
mod listing;
mod localtime;
mod loops;
mod lvm;
mod mountable;
mod mounting;
mod mounts;
mod procedures;
mod reach;
mod rpm;
mod scratch;
mod serial;
mod session;
mod signals;
mod swap;
mod teardown;
mod tool;
mod transfer;
mod trim;
mod tsk;
mod udev;
mod yara;
