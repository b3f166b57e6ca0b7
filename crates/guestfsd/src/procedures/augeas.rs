// SPDX-License-Identifier: Apache-2.0
//! Configuration files of the guest, through augeas.

use crate::augeas::State;
use crate::augeas::messages::{Answer, Operation, Request};
use crate::session::Session;
use guest_error::{Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::{options, structs};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Opens a tree of the files below a directory.
pub(crate) fn aug_init(s: &mut Session, root: GuestPath<'_>, flags: i32) -> Result<()> {
    let sysroot = s.sysroot().path().to_owned();
    s.state::<State>().open(&sysroot, root.as_os_str(), flags).map_err(|e| e.within(root))
}

fn ask(
    s: &mut Session,
    operation: Operation,
    texts: [Option<&OsStr>; 3],
    number: i32,
) -> Result<Answer> {
    s.state::<State>().ask(&Request { operation, texts, number })
}

/// Defines a variable; without an expression it is taken away.
pub(crate) fn aug_defvar(s: &mut Session, name: &OsStr, expr: Option<&OsStr>) -> Result<i32> {
    Ok(ask(s, Operation::DefVar, [Some(name), expr, None], 0)?.number)
}

/// Defines a variable and makes its node if there is none.
pub(crate) fn aug_defnode(
    s: &mut Session,
    name: &OsStr,
    expr: &OsStr,
    val: &OsStr,
) -> Result<structs::IntBool> {
    let answer = ask(s, Operation::DefNode, [Some(name), Some(expr), Some(val)], 0)?;
    Ok(structs::IntBool { i: answer.number, b: answer.made })
}

/// The value of the one node of this path.
pub(crate) fn aug_get(s: &mut Session, augpath: &OsStr) -> Result<OsString> {
    let answer = ask(s, Operation::Get, [Some(augpath), None, None], 0)?;
    one(answer, augpath, "node has no value")
}

/// The label of the one node of this path.
pub(crate) fn aug_label(s: &mut Session, augpath: &OsStr) -> Result<OsString> {
    let answer = ask(s, Operation::Label, [Some(augpath), None, None], 0)?;
    one(answer, augpath, "node has no label")
}

fn one(answer: Answer, augpath: &OsStr, without: &str) -> Result<OsString> {
    if answer.number == 0 {
        return Err(Error::new(Errno::ENOENT, "no matching node").within(augpath));
    }
    let text = answer.texts.into_iter().next();
    text.ok_or_else(|| Error::new(Errno::ENODATA, without).within(augpath))
}

/// Sets the value of a node, which is made.
pub(crate) fn aug_set(s: &mut Session, augpath: &OsStr, val: &OsStr) -> Result<()> {
    ask(s, Operation::Set, [Some(augpath), Some(val), None], 0).map(drop)
}

/// Takes a node's value away.
pub(crate) fn aug_clear(s: &mut Session, augpath: &OsStr) -> Result<()> {
    ask(s, Operation::Set, [Some(augpath), None, None], 0).map(drop)
}

/// Sets the values of many nodes; returns their number.
pub(crate) fn aug_setm(
    s: &mut Session,
    base: &OsStr,
    sub: Option<&OsStr>,
    val: &OsStr,
) -> Result<i32> {
    Ok(ask(s, Operation::SetMany, [Some(base), sub, Some(val)], 0)?.number)
}

/// Makes a sibling of a node, before or after it.
pub(crate) fn aug_insert(
    s: &mut Session,
    augpath: &OsStr,
    label: &OsStr,
    before: bool,
) -> Result<()> {
    // augeas refuses that too, but gives no reason.
    if label.as_bytes().contains(&b'/') {
        return Err(Error::argument("label", label, "a label has no / in it"));
    }
    ask(s, Operation::Insert, [Some(augpath), Some(label), None], before.into()).map(drop)
}

/// Removes nodes with everything below them; returns their number.
pub(crate) fn aug_rm(s: &mut Session, augpath: &OsStr) -> Result<i32> {
    Ok(ask(s, Operation::Remove, [Some(augpath), None, None], 0)?.number)
}

/// Moves a node.
pub(crate) fn aug_mv(s: &mut Session, src: &OsStr, dest: &OsStr) -> Result<()> {
    ask(s, Operation::Move, [Some(src), Some(dest), None], 0).map(drop)
}

/// Paths of the nodes that match.
pub(crate) fn aug_match(s: &mut Session, augpath: &OsStr) -> Result<Vec<OsString>> {
    Ok(ask(s, Operation::Match, [Some(augpath), None, None], 0)?.texts)
}

/// Paths of a node's children, sorted.
pub(crate) fn aug_ls(s: &mut Session, augpath: &OsStr) -> Result<Vec<OsString>> {
    let mut pattern = match augpath.as_bytes() {
        b"/" => OsString::new(),
        [.., b'/' | b']' | b'*'] => {
            let why = "a path that ends in / ] or * is for aug-match";
            return Err(Error::argument("augpath", augpath, why));
        }
        _ => augpath.to_owned(),
    };
    pattern.push("/*");
    let mut found = aug_match(s, &pattern)?;
    found.sort_unstable();
    Ok(found)
}

/// Writes what was changed to files.
pub(crate) fn aug_save(s: &mut Session) -> Result<()> {
    ask(s, Operation::Save, [None; 3], 0).map(drop)
}

/// Reads files, so far as they are not read yet.
pub(crate) fn aug_load(s: &mut Session) -> Result<()> {
    ask(s, Operation::Load, [None; 3], 0).map(drop)
}

/// Closes the tree.
pub(crate) fn aug_close(s: &mut Session) -> Result<()> {
    if s.state::<State>().close() {
        return Ok(());
    }
    let message = "you must call 'aug-init' first to initialize Augeas";
    Err(Error::new(Errno::EINVAL, message))
}

/// Gives files to a lens, or takes them from it.
pub(crate) fn aug_transform(
    s: &mut Session,
    lens: &OsStr,
    file: &OsStr,
    options: &options::AugTransform,
) -> Result<()> {
    let remove = options.remove == Some(true);
    ask(s, Operation::Transform, [Some(lens), Some(file), None], remove.into()).map(drop)
}
