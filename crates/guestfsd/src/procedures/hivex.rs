// SPDX-License-Identifier: Apache-2.0
//! Hives of Windows' registry, through our own reader and writer.
//!
//! A hive that is opened to be read stays open as a file; one that is opened to be written is in memory, and nothing
//! is seen of its changes until they are committed. The file that a commit writes is the old one or the new one,
//! whatever happens meanwhile.

use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guest_fs::replace;
use guest_fs::source::{Cached, Source};
use guestfs_api::{options, structs};
use hive::{Entry, Hive, Node};
use rustix::fs::{AtFlags, OFlags};
use std::ffi::{OsStr, OsString};
use std::io::Read;

/// Most bytes of a hive that is changed, which is in memory.
const MAX_CHANGED: u64 = 512 << 20;
/// Types of values that are text: `REG_SZ`, `REG_EXPAND_SZ`, `REG_LINK`.
const TEXTS: [u32; 3] = [1, 2, 6];

/// The session's hive.
#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Read(Hive<Cached>),
    Write(Hive<Vec<u8>>, OsString),
}

impl State {
    fn hive(&self) -> Result<&Hive<dyn Source>> {
        match self {
            Self::Closed => Err(not_open()),
            Self::Read(hive) => Ok(hive),
            Self::Write(hive, _) => Ok(hive),
        }
    }

    fn writable(&mut self) -> Result<(&mut Hive<Vec<u8>>, &OsStr)> {
        match self {
            Self::Closed => Err(not_open()),
            Self::Read(_) => Err(Error::new(Errno::EROFS, "the hive was not opened to be written")),
            Self::Write(hive, path) => Ok((hive, path)),
        }
    }
}

fn not_open() -> Error {
    let text = "you must call 'hivex-open' first to initialize the hivex handle";
    Error::new(Errno::EINVAL, text)
}

/// What is wrong with a hive, for the client.
fn told(e: hive::Error) -> Error {
    let errno = match &e {
        hive::Error::Unsupported(_) => Errno::ENOTSUP,
        hive::Error::Damaged { .. } => Errno::EFAULT,
        hive::Error::NotAHive(_) | hive::Error::Argument(_) => Errno::EINVAL,
        hive::Error::Exists => Errno::EEXIST,
        hive::Error::TooMuch(_) => Errno::ERANGE,
        hive::Error::Io(e) => Errno::from(e),
    };
    Error::new(errno, e.to_string())
}

/// Asks the session's hive for something of the key with this handle.
fn of_node<T>(
    s: &mut Session,
    nodeh: i64,
    ask: impl FnOnce(&Hive<dyn Source>, Node) -> hive::Result<T>,
) -> Result<T> {
    let hive = s.state::<State>().hive()?;
    let found = Node::from_handle(nodeh).and_then(|node| ask(hive, node));
    found.map_err(|e| told(e).within(format!("nodeh: {nodeh}")))
}

/// Asks the session's hive for something of the value with this handle.
fn of_value<T>(
    s: &mut Session,
    valueh: i64,
    ask: impl FnOnce(&Hive<dyn Source>, Entry) -> hive::Result<T>,
) -> Result<T> {
    let hive = s.state::<State>().hive()?;
    let found = Entry::from_handle(valueh).and_then(|entry| ask(hive, entry));
    found.map_err(|e| told(e).within(format!("valueh: {valueh}")))
}

/// Opens a hive in place of the one that was open.
pub(crate) fn hivex_open(
    s: &mut Session,
    filename: GuestPath<'_>,
    optional: &options::HivexOpen,
) -> Result<()> {
    *s.state() = State::Closed;
    let file = s.open(filename, OFlags::RDONLY)?;
    let metadata = file.metadata().on(filename)?;
    if !metadata.is_file() {
        return Err(Error::argument("filename", filename, "not a regular file"));
    }
    // "verbose" and "debug" would have the C library say more in the daemon's log.
    let lenient = optional.r#unsafe.unwrap_or(false);
    let failed = |e: hive::Error| match told(e) {
        // A damaged hive is of no kind that can be opened.
        e if e.errno() == Errno::EFAULT => Error::not_supported(e.message()).within(filename),
        e => e.within(filename),
    };
    let state = if optional.write.unwrap_or(false) {
        if metadata.len() > MAX_CHANGED {
            let why = "longer than 512 MiB, which is most that can be changed";
            return Err(Error::new(Errno::EFBIG, why).within(filename));
        }
        let mut bytes = Vec::new();
        file.take(MAX_CHANGED).read_to_end(&mut bytes).on(filename)?;
        let hive = Hive::checked(bytes, lenient).map_err(failed)?;
        State::Write(hive, filename.as_os_str().to_owned())
    } else {
        State::Read(Hive::checked(Cached::new(file), lenient).map_err(failed)?)
    };
    *s.state() = state;
    Ok(())
}

/// Closes the hive; what was not committed is lost.
pub(crate) fn hivex_close(s: &mut Session) -> Result<()> {
    s.state::<State>().hive()?;
    *s.state() = State::Closed;
    Ok(())
}

/// The key at the top.
pub(crate) fn hivex_root(s: &mut Session) -> Result<i64> {
    Ok(s.state::<State>().hive()?.root().handle())
}

/// A key's name.
pub(crate) fn hivex_node_name(s: &mut Session, nodeh: i64) -> Result<String> {
    of_node(s, nodeh, |hive, node| hive.name(node))
}

/// The keys below a key.
pub(crate) fn hivex_node_children(s: &mut Session, nodeh: i64) -> Result<Vec<structs::HivexNode>> {
    let children = of_node(s, nodeh, |hive, node| hive.children(node))?;
    Ok(children
        .into_iter()
        .map(|node| structs::HivexNode { hivex_node_h: node.handle() })
        .collect())
}

/// The key of this name below a key, or 0.
pub(crate) fn hivex_node_get_child(s: &mut Session, nodeh: i64, name: &OsStr) -> Result<i64> {
    let child = of_node(s, nodeh, |hive, node| hive.child(node, &name.to_string_lossy()))?;
    Ok(child.map_or(0, Node::handle))
}

/// The key that a key is below.
pub(crate) fn hivex_node_parent(s: &mut Session, nodeh: i64) -> Result<i64> {
    of_node(s, nodeh, |hive, node| hive.parent(node)).map(Node::handle)
}

/// A key's values.
pub(crate) fn hivex_node_values(s: &mut Session, nodeh: i64) -> Result<Vec<structs::HivexValue>> {
    let values = of_node(s, nodeh, |hive, node| hive.values(node))?;
    let value = |entry: Entry| structs::HivexValue { hivex_value_h: entry.handle() };
    Ok(values.into_iter().map(value).collect())
}

/// The value of this name, or 0.
pub(crate) fn hivex_node_get_value(s: &mut Session, nodeh: i64, key: &OsStr) -> Result<i64> {
    let value = of_node(s, nodeh, |hive, node| hive.value(node, &key.to_string_lossy()))?;
    Ok(value.map_or(0, Entry::handle))
}

/// A value's name; empty for the default value.
pub(crate) fn hivex_value_key(s: &mut Session, valueh: i64) -> Result<String> {
    of_value(s, valueh, |hive, entry| hive.value_name(entry))
}

/// A value's type.
pub(crate) fn hivex_value_type(s: &mut Session, valueh: i64) -> Result<i64> {
    of_value(s, valueh, |hive, entry| hive.value_kind(entry)).map(i64::from)
}

/// A value's data.
pub(crate) fn hivex_value_value(s: &mut Session, valueh: i64) -> Result<Vec<u8>> {
    of_value(s, valueh, |hive, entry| hive.value_data(entry)).map(|(_, data)| data)
}

/// An older name of `hivex_value_string`.
pub(crate) fn hivex_value_utf8(s: &mut Session, valueh: i64) -> Result<String> {
    hivex_value_string(s, valueh)
}

/// The text of a value that is one, up to a NUL.
pub(crate) fn hivex_value_string(s: &mut Session, valueh: i64) -> Result<String> {
    let (kind, data) = of_value(s, valueh, |hive, entry| hive.value_data(entry))?;
    if !TEXTS.contains(&kind) {
        return Err(Error::argument("valueh", valueh.to_string(), "not a value that is text"));
    }
    text(&data, valueh)
}

fn text(data: &[u8], valueh: i64) -> Result<String> {
    let units = data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units)
        .map_err(|_| Error::new(Errno::EILSEQ, "not UTF-16").within(format!("valueh: {valueh}")))
}

/// Writes the hive to its file, or to another.
pub(crate) fn hivex_commit(s: &mut Session, filename: Option<&OsStr>) -> Result<()> {
    s.state::<State>().writable()?;
    let mut state = std::mem::take(s.state::<State>());
    let done = commit(s, &mut state, filename);
    *s.state() = state;
    done
}

fn commit(s: &mut Session, state: &mut State, filename: Option<&OsStr>) -> Result<()> {
    let (hive, opened) = state.writable()?;
    let path = GuestPath::new("filename", filename.unwrap_or(opened))?;
    s.need_root()?;
    // A file that is new is empty until its content is there.
    let (old, made) = match s.open(path, OFlags::RDONLY) {
        Err(e) if e.errno() == Errno::ENOENT => {
            (s.open(path, OFlags::WRONLY | OFlags::CREATE)?, true)
        }
        old => (old?, false),
    };
    if !old.metadata().on(path)?.is_file() {
        return Err(Error::argument("filename", path, "not a regular file"));
    }
    let entry = s.root()?.entry_of(s.sysroot(), &old).on(path)?;
    let done = hive.to_be_written().map_err(told);
    let done = done.and_then(|content| replace::content(&entry, &old, content));
    if done.is_err() && made {
        rustix::fs::unlinkat(&entry.dir, &entry.name, AtFlags::empty()).ok();
    }
    done
}

/// Adds a key below another.
pub(crate) fn hivex_node_add_child(s: &mut Session, parent: i64, name: &OsStr) -> Result<i64> {
    let name = utf8("name", name)?;
    let (hive, _) = s.state::<State>().writable()?;
    let added = Node::from_handle(parent).and_then(|node| hive.add_child(node, name));
    added.map(Node::handle).map_err(|e| told(e).within(format!("{parent}: {name}")))
}

/// Deletes a key and all that is below it.
pub(crate) fn hivex_node_delete_child(s: &mut Session, nodeh: i64) -> Result<()> {
    let (hive, _) = s.state::<State>().writable()?;
    let deleted = Node::from_handle(nodeh).and_then(|node| hive.delete(node));
    deleted.map_err(|e| told(e).within(format!("nodeh: {nodeh}")))
}

/// Sets a value of a key.
pub(crate) fn hivex_node_set_value(
    s: &mut Session,
    nodeh: i64,
    key: &OsStr,
    t: i64,
    val: &[u8],
) -> Result<()> {
    let key = utf8("key", key)?;
    let kind = u32::try_from(t).or_else(|_| i32::try_from(t).map(i32::cast_unsigned));
    let kind = kind.map_err(|_| Error::argument("t", t.to_string(), "not a type of values"))?;
    let (hive, _) = s.state::<State>().writable()?;
    let set = Node::from_handle(nodeh).and_then(|node| hive.set_value(node, key, kind, val));
    set.map_err(|e| told(e).within(format!("nodeh: {nodeh}: {key}")))
}

/// A name, which has to be text: in a hive it is UTF-16.
fn utf8<'a>(argument: &str, name: &'a OsStr) -> Result<&'a str> {
    name.to_str().ok_or_else(|| Error::argument(argument, name, "not UTF-8"))
}
