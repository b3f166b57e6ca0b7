// SPDX-License-Identifier: Apache-2.0
//! Paths: what they really are, and which ones match.

use crate::session::Session;
use guest_error::{Calling, Context, Errno, Error, Result};
use guest_fs::casefold;
use guest_fs::glob::Pattern;
use guest_fs::paths::{GuestPath, path_of};
use guestfs_api::frame::MAX_MESSAGE;
use guestfs_api::options;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A path without links, `.` and `..` in it.
pub(crate) fn realpath(s: &mut Session, path: GuestPath<'_>) -> Result<OsString> {
    let file = s.open(path, OFlags::PATH).calling("realpath")?;
    Ok(s.sysroot().client_path(&path_of(&file).on(path)?))
}

/// A path with the capitals that its names have on the disk. What is not there is only its last name.
pub(crate) fn case_sensitive_path(s: &mut Session, path: GuestPath<'_>) -> Result<OsString> {
    let mut components = path.bytes().split(|&b| b == b'/').filter(|c| !c.is_empty()).peekable();
    let mut found = Vec::new();
    while let Some(name) = components.next() {
        if matches!(name, b"." | b"..") {
            return Err(Error::argument("path", path, "must not have . or .. in it"));
        }
        let dir = GuestPath::new(
            "path",
            OsStr::from_bytes(if found.is_empty() { b"/" } else { &found }),
        )?;
        let open = s.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let real = casefold::find(Dir::new(open).on(dir)?, name).on(dir)?;
        found.push(b'/');
        match real {
            Some(real) => found.extend_from_slice(&real),
            None if components.peek().is_none() => found.extend_from_slice(name),
            None => {
                found.extend_from_slice(name);
                return Err(Raw::NOENT).on(OsString::from_vec(found)).map_err(|e| e.within("path"));
            }
        }
    }
    if found.is_empty() {
        found.push(b'/');
    }
    Ok(OsString::from_vec(found))
}

/// Paths that match a pattern of the shell; directories end in a slash unless that is turned off.
pub(crate) fn glob_expand(
    s: &mut Session,
    pattern: GuestPath<'_>,
    options: &options::GlobExpand,
) -> Result<Vec<Vec<u8>>> {
    if pattern.bytes().len() >= MAX_PATH {
        return Err(Raw::NAMETOOLONG).on("pattern");
    }
    let mark = options.directoryslash != Some(false);
    let mut all = Vec::new();
    for pattern in alternatives(pattern.bytes())? {
        let mut search = Search { s, mark, found: Vec::new(), size: 0 };
        search.go_on(&mut Vec::new(), &pattern)?;
        search.found.sort_unstable();
        all.append(&mut search.found);
    }
    Ok(all)
}

/// No path is longer (the kernel's own limit), and so no pattern need be.
const MAX_PATH: usize = 4096;
/// Most patterns that braces may make of one.
const MAX_ALTERNATIVES: usize = 4096;

/// What braces stand for: `a{b,c}` for `ab` and `ac`. A brace that nothing closes is one.
fn alternatives(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut done = Vec::new();
    let mut todo = vec![pattern.to_vec()];
    while let Some(pattern) = todo.pop() {
        match braces(&pattern) {
            None => done.push(pattern),
            Some(_) if done.len() + todo.len() >= MAX_ALTERNATIVES => {
                let why = "braces make too many patterns of this";
                return Err(Error::argument("pattern", OsStr::from_bytes(&pattern), why));
            }
            Some((begin, end, commas)) => {
                let mut parts = Vec::new();
                let mut from = begin + 1;
                for to in commas.into_iter().chain([end]) {
                    parts.push(
                        [&pattern[..begin], &pattern[from..to], &pattern[end + 1..]].concat(),
                    );
                    from = to + 1;
                }
                todo.extend(parts.into_iter().rev());
            }
        }
    }
    Ok(done)
}

/// The first braces that stand for something: where they are, and the commas in them.
fn braces(pattern: &[u8]) -> Option<(usize, usize, Vec<usize>)> {
    let mut begin = 0;
    while let Some(open) = find(pattern, begin, b'{') {
        let (mut depth, mut commas, mut i) = (0, Vec::new(), open);
        while i < pattern.len() {
            match pattern[i] {
                b'\\' => i += 1,
                b'{' => depth += 1,
                b'}' if depth == 1 => return Some((open, i, commas)),
                b'}' => depth -= 1,
                b',' if depth == 1 => commas.push(i),
                _ => {}
            }
            i += 1;
        }
        begin = open + 1;
    }
    None
}

/// A byte that no backslash makes ordinary.
fn find(pattern: &[u8], begin: usize, byte: u8) -> Option<usize> {
    let mut i = begin;
    while i < pattern.len() {
        match pattern[i] {
            b'\\' => i += 1,
            b if b == byte => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

/// A search for paths, one component of the pattern after the other.
struct Search<'s> {
    s: &'s Session,
    /// Directories get a slash.
    mark: bool,
    found: Vec<Vec<u8>>,
    /// Bytes that they take in the reply.
    size: usize,
}

impl Search<'_> {
    /// Goes on at a path, which ends in a slash or is empty, with the rest of the pattern.
    fn go_on(&mut self, path: &mut Vec<u8>, pattern: &[u8]) -> Result<()> {
        let slashes = pattern.iter().take_while(|&&b| b == b'/').count();
        path.extend_from_slice(&pattern[..slashes]);
        let pattern = &pattern[slashes..];
        if pattern.is_empty() {
            return self.exists(path);
        }
        let end = pattern.iter().position(|&b| b == b'/').unwrap_or(pattern.len());
        let (component, rest) = pattern.split_at(end);
        let len = path.len();
        if !component.iter().any(|b| matches!(b, b'*' | b'?' | b'[')) {
            path.extend(unescaped(component));
            if rest.is_empty() {
                self.exists(path)?
            } else {
                self.go_on(path, rest)?
            }
            path.truncate(len);
            return Ok(());
        }
        let matcher = Pattern::new(component);
        for (name, kind) in self.names(path) {
            let hidden = name.first() == Some(&b'.') && component.first() != Some(&b'.');
            if hidden || !matcher.matches(&name) {
                continue;
            }
            path.extend_from_slice(&name);
            if rest.is_empty() {
                self.is_found(path, kind)?;
            } else if matches!(kind, FileType::Directory | FileType::Symlink | FileType::Unknown) {
                self.go_on(path, rest)?;
            }
            path.truncate(len);
        }
        Ok(())
    }

    /// Names in a directory; none if it cannot be read.
    fn names(&self, path: &[u8]) -> Vec<(Vec<u8>, FileType)> {
        let read = || -> Result<Vec<(Vec<u8>, FileType)>> {
            let dir = GuestPath::new("pattern", OsStr::from_bytes(path))?;
            let open = self.s.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
            Ok(Dir::new(open)
                .on(dir)?
                .filter_map(|entry| entry.ok())
                .map(|entry| (entry.file_name().to_bytes().to_vec(), entry.file_type()))
                .collect())
        };
        read().unwrap_or_default()
    }

    /// Adds a path without a pattern in its last component, if there is something of this name.
    fn exists(&mut self, path: &[u8]) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match self.s.root()?.open(OsStr::from_bytes(path), flags, Mode::empty()) {
            Ok(_) => self.is_found(path, FileType::Unknown),
            Err(_) => Ok(()),
        }
    }

    fn is_found(&mut self, path: &[u8], kind: FileType) -> Result<()> {
        let mut path = path.to_vec();
        if self.mark && path.last() != Some(&b'/') && self.is_directory(&path, kind) {
            path.push(b'/');
        }
        self.size += 4 + path.len().next_multiple_of(4);
        if self.size > MAX_MESSAGE {
            let why = "more paths match than fit into a reply";
            return Err(Error::new(Errno::EMSGSIZE, why).within("pattern"));
        }
        self.found.push(path);
        Ok(())
    }

    /// Whether it is a directory, or leads to one.
    fn is_directory(&self, path: &[u8], kind: FileType) -> bool {
        match kind {
            FileType::Directory => true,
            FileType::Symlink | FileType::Unknown => self.s.root().is_ok_and(|root| {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                root.open(OsStr::from_bytes(path), flags, Mode::empty()).is_ok()
            }),
            _ => false,
        }
    }
}

fn unescaped(component: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(component.len());
    let mut bytes = component.iter();
    while let Some(&b) = bytes.next() {
        out.push(if b == b'\\' { *bytes.next().unwrap_or(&b) } else { b });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_alternatives() {
        let of = |p: &str| -> Vec<String> {
            let all = alternatives(p.as_bytes()).unwrap().into_iter();
            all.map(|p| String::from_utf8(p).unwrap()).collect()
        };
        assert_eq!(of("/a{b,c}d"), ["/abd", "/acd"]);
        assert_eq!(of("/{a,b{c,d}}"), ["/a", "/bc", "/bd"]);
        assert_eq!(of("/{a,}x{1,2}"), ["/ax1", "/ax2", "/x1", "/x2"]);
        assert_eq!(of("/a{}b"), ["/ab"]);
        assert_eq!(of("/a{b"), ["/a{b"]);
        assert_eq!(of("/\\{a,b}"), ["/\\{a,b}"]);
        assert!(alternatives("{a,b}".repeat(20).as_bytes()).is_err());
    }

    #[test]
    fn a_backslash_makes_the_next_byte_ordinary() {
        assert_eq!(unescaped(b"a\\*b\\\\c\\"), b"a*b\\c\\");
    }
}
