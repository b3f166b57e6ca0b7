// SPDX-License-Identifier: Apache-2.0
//! The process that libaugeas works in.
//!
//! Between requests its root directory is this machine's. During one it is the sysroot, so that every path
//! that augeas makes up, and every link that it follows, is inside. Its working directory is always that of
//! the lenses, which relative paths lead to from inside the sysroot too; augeas makes relative paths
//! of nothing else.

use super::library::{Functions, NO_STDINC, Tree};
use super::messages::{Answer, Operation, Request, receive};
use guest_error::{Context, Errno, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::process::{chroot, fchdir};
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Most memory that it may use. All lenses and a large guest's files take some tens of MiB.
const MEMORY: u64 = 2 << 30;
/// Where lenses are installed.
const LENSES: [&str; 2] = ["/usr/share/augeas/lenses", "/usr/local/share/augeas/lenses"];

/// Serves the session that holds the other end of standard input.
pub(crate) fn main() -> Result<()> {
    crate::confined::limit("augeas", MEMORY)?;
    let mut stream = UnixStream::from(crate::listen::take_stdin()?);
    let functions = Functions::load();
    let mut server = None;
    while let Some(message) = receive(&mut stream).on("augeas")? {
        let answer = Request::decode(&message).and_then(|request| {
            let functions = functions.as_ref().map_err(Clone::clone)?;
            if request.operation == Operation::Open {
                let (opened, answer) = Server::open(functions, &request)?;
                server = Some(opened);
                return Ok(answer);
            }
            let server: &mut Server<'_> =
                server.as_mut().ok_or_else(|| Error::new(Errno::EINVAL, "no tree is open"))?;
            server.answer(&request)
        });
        let bytes = Answer::encode(&answer).or_else(|e| Answer::encode(&Err(e)))?;
        stream.write_all(&bytes).on("augeas")?;
    }
    // A tree closed by augeas would only free memory.
    std::mem::forget(server);
    Ok(())
}

/// The two worlds: this machine, and the sysroot.
struct Worlds {
    machine: OwnedFd,
    lenses: OwnedFd,
    sysroot: PathBuf,
}

impl Worlds {
    fn new(sysroot: &OsStr) -> Result<Self> {
        let open = |path: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
        };
        let machine = open("/").on("/")?;
        let lenses = LENSES.iter().find_map(|dir| open(dir).ok());
        // With no lenses there is a tree anyway, but nothing in it.
        let lenses = lenses.map_or_else(|| open("/").on("/"), Ok)?;
        Ok(Self { machine, lenses, sysroot: Path::new(sysroot).to_owned() })
    }

    /// Does something in the sysroot.
    fn inside<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        fchdir(&self.lenses).on("augeas")?;
        chroot(&self.sysroot).on(&self.sysroot)?;
        let done = work();
        let back = fchdir(&self.machine)
            .and_then(|()| chroot("."))
            .and_then(|()| fchdir(&self.lenses))
            .on("augeas");
        back.and(done)
    }
}

struct Server<'f> {
    worlds: Worlds,
    tree: Tree<'f>,
}

impl<'f> Server<'f> {
    fn open(functions: &'f Functions, request: &Request<'_>) -> Result<(Self, Answer)> {
        let [root, sysroot, _] = texts(request)?;
        let worlds = Worlds::new(OsStr::from_bytes(sysroot.to_bytes()))?;
        // Flags are a set of bits; augeas ignores those that it does not know.
        let flags = u32::from_ne_bytes(request.number.to_ne_bytes());
        let lenses = if flags & NO_STDINC == 0 { c".:dist" } else { c"" };
        let open = || Tree::open(functions, &root, lenses, flags | NO_STDINC);
        let tree = worlds.inside(open)?;
        Ok((Self { worlds, tree }, Answer::default()))
    }

    fn answer(&self, request: &Request<'_>) -> Result<Answer> {
        let [a, b, c] = texts(request)?;
        let b_or_none = request.texts[1].map(|_| b.as_c_str());
        let flag = request.number != 0;
        let tree = &self.tree;
        self.worlds.inside(|| {
            let number = |number| Answer { number, ..Answer::default() };
            Ok(match request.operation {
                Operation::Open => Answer::default(),
                Operation::DefVar => number(tree.defvar(&a, b_or_none)?),
                Operation::DefNode => {
                    let (number, made) = tree.defnode(&a, &b, &c)?;
                    Answer { number, made, ..Answer::default() }
                }
                Operation::Get => found(tree.get(&a)?),
                Operation::Label => found(tree.label(&a)?),
                Operation::Set => number(tree.set(&a, b_or_none)?),
                Operation::SetMany => number(tree.setm(&a, b_or_none, &c)?),
                Operation::Insert => number(tree.insert(&a, &b, flag)?),
                Operation::Remove => number(tree.rm(&a)?),
                Operation::Move => number(tree.mv(&a, &b)?),
                Operation::Match => many(tree.find(&a)?),
                Operation::Save => number(tree.save()?),
                Operation::Load => number(tree.load()?),
                Operation::Transform => number(tree.transform(&a, &b, flag)?),
            })
        })
    }
}

/// The strings of a request, empty where there is none.
fn texts(request: &Request<'_>) -> Result<[CString; 3]> {
    let text = |i: usize| {
        let bytes = request.texts[i].map_or(&b""[..], OsStr::as_bytes);
        CString::new(bytes).map_err(|_| Error::new(Errno::EINVAL, "a text with a NUL byte"))
    };
    Ok([text(0)?, text(1)?, text(2)?])
}

fn found(node: Option<Option<CString>>) -> Answer {
    let number = node.is_some().into();
    Answer { number, ..many(node.flatten().into_iter().collect()) }
}

fn many(texts: Vec<CString>) -> Answer {
    let number = i32::try_from(texts.len()).unwrap_or(i32::MAX);
    let texts = texts.into_iter().map(|t| std::ffi::OsString::from_vec(t.into_bytes())).collect();
    Answer { number, made: 0, texts }
}
