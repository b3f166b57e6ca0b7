// SPDX-License-Identifier: Apache-2.0
//! Journals of systemd, through our own reader: all files of a directory, and of the directories in it that are named
//! after machines, as one journal.

use super::numbers::not_negative;
use crate::session::Session;
use crate::transfer::FileOut;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guest_fs::source::Cached;
use journal::Journal;
use rustix::fs::{Dir, OFlags};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Most files of a journal.
const MAX_FILES: usize = 4096;
/// How the names of journal files end: those in use and those that were rotated, and those that were not closed.
const ENDINGS: [&[u8]; 2] = [b".journal", b".journal~"];

/// Bytes of a field that a client is interested in, unless it says otherwise.
const THRESHOLD: i64 = 64 << 10;

/// The session's journal, if one is open.
#[derive(Debug, Default)]
struct State(Option<Opened>);

#[derive(Debug)]
struct Opened {
    journal: Journal<Cached>,
    threshold: i64,
}

fn opened(s: &mut Session) -> Result<&mut Opened> {
    let text = "you must call 'journal-open' first to initialize the journal handle";
    s.state::<State>().0.as_mut().ok_or_else(|| Error::new(Errno::EINVAL, text))
}

/// What is wrong with a journal, for the client.
fn told(e: journal::Error) -> Error {
    let errno = match &e {
        journal::Error::NotAJournal(_) | journal::Error::Damaged { .. } => Errno::EBADMSG,
        journal::Error::TooLong => Errno::EFBIG,
        journal::Error::NoEntry => Errno::EADDRNOTAVAIL,
        journal::Error::Io(e) => Errno::from(e),
    };
    Error::new(errno, e.to_string())
}

/// Opens the journals of a directory in place of those that were open. Files that are no journals are left out.
pub(crate) fn journal_open(s: &mut Session, directory: GuestPath<'_>) -> Result<()> {
    s.state::<State>().0 = None;
    let mut journal = Journal::default();
    let mut files = 0;
    let mut names = names(s, directory)?;
    names.sort();
    let top = directory.as_os_str();
    for name in names {
        let path = join(top, &name);
        if is_journal(&name) {
            add(s, &mut journal, &path, &mut files)?;
        } else if is_machine(&name) {
            let Ok(mut below) = GuestPath::new("directory", &path).and_then(|p| self::names(s, p))
            else {
                continue;
            };
            below.sort();
            for name in below.iter().filter(|name| is_journal(name)) {
                add(s, &mut journal, &join(&path, name), &mut files)?;
            }
        }
    }
    s.state::<State>().0 = Some(Opened { journal, threshold: THRESHOLD });
    Ok(())
}

/// What is in a directory.
fn names(s: &Session, directory: GuestPath<'_>) -> Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = Dir::new(s.open(directory, flags)?).on(directory)?;
    dir.map(|entry| Ok(OsString::from_vec(entry?.file_name().to_bytes().to_vec())))
        .collect::<rustix::io::Result<_>>()
        .on(directory)
}

fn join(directory: &OsStr, name: &OsStr) -> OsString {
    let mut path = directory.to_owned();
    path.push("/");
    path.push(name);
    path
}

fn is_journal(name: &OsStr) -> bool {
    ENDINGS.iter().any(|ending| name.as_bytes().ends_with(ending))
}

/// Whether this is the ID of a machine: 32 hexadecimal digits, or a UUID.
fn is_machine(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let dash = |i: usize| name.len() == 36 && [8, 13, 18, 23].contains(&i);
    let fits = |(i, b): (usize, &u8)| if dash(i) { *b == b'-' } else { b.is_ascii_hexdigit() };
    [32, 36].contains(&name.len()) && name.iter().enumerate().all(fits)
}

/// Adds a file, if it is a journal.
fn add(s: &Session, journal: &mut Journal<Cached>, path: &OsStr, files: &mut usize) -> Result<()> {
    let path = GuestPath::new("directory", path)?;
    let file = match s.open(path, OFlags::RDONLY) {
        Err(e) if [Errno::EMFILE, Errno::ENFILE].contains(&e.errno()) => return Err(e),
        Err(_) => return Ok(()),
        Ok(file) => file,
    };
    if !file.metadata().on(path)?.is_file() {
        return Ok(());
    }
    *files += 1;
    if *files > MAX_FILES {
        return Err(Error::new(Errno::E2BIG, "more than 4096 journal files").within(path));
    }
    if let Err(e) = journal.add(Cached::new(file)) {
        tracing::warn!(path = %path.as_os_str().display(), error = %e, "journal file left out");
    }
    Ok(())
}

/// Closes the journal.
pub(crate) fn journal_close(s: &mut Session) -> Result<()> {
    opened(s)?;
    s.state::<State>().0 = None;
    Ok(())
}

/// Goes to the next entry; false at the end.
pub(crate) fn journal_next(s: &mut Session) -> Result<bool> {
    opened(s)?.journal.next().map_err(told)
}

/// Goes some entries on, or back; returns how many it were.
pub(crate) fn journal_skip(s: &mut Session, skip: i64) -> Result<i64> {
    let journal = &mut opened(s)?.journal;
    if i32::try_from(skip).is_err() {
        return Err(Error::argument("skip", skip.to_string(), "more than 31 bits"));
    }
    let mut done = 0;
    while done < skip.abs() {
        let moved = if skip > 0 { journal.next() } else { journal.previous() };
        if !moved.map_err(told)? {
            break;
        }
        if guest_fs::interrupt::requested() {
            return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
        }
        done += 1;
    }
    Ok(done)
}

/// Sends the fields of this entry, each with its length before it.
pub(crate) fn internal_journal_get(s: &mut Session, filename: &mut FileOut<'_>) -> Result<()> {
    /// An error of the journal, or of sending.
    struct Failed(Error);
    impl From<journal::Error> for Failed {
        fn from(e: journal::Error) -> Self {
            Self(told(e))
        }
    }
    let sent = opened(s)?.journal.fields(|field| {
        let len = (field.len() as u64).to_be_bytes();
        let sent = filename.write_all(&len).and_then(|()| filename.write_all(field));
        sent.map_err(|e| Failed(guest_error::from_io(e, "filename")))
    });
    sent.map_err(|Failed(e)| e)
}

/// How many bytes of a field a client is interested in; 0: all.
pub(crate) fn journal_get_data_threshold(s: &mut Session) -> Result<i64> {
    Ok(opened(s)?.threshold)
}

/// Sets that. It is a hint by which fields may be cut: here, and in the library of today's systemd, they are not.
pub(crate) fn journal_set_data_threshold(s: &mut Session, threshold: i64) -> Result<()> {
    let opened = opened(s)?;
    not_negative::<u64, _>("threshold", threshold)?;
    opened.threshold = threshold;
    Ok(())
}

/// Microseconds since 1970 of this entry.
pub(crate) fn journal_get_realtime_usec(s: &mut Session) -> Result<i64> {
    let time = opened(s)?.journal.realtime().map_err(told)?;
    i64::try_from(time).map_err(Error::invalid)
}
