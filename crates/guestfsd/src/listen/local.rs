// SPDX-License-Identifier: Apache-2.0
//! Sockets in the filesystem: made without touching what is another's.

use guest_error::shown;
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, flock, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno as Raw;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long another daemon that makes a socket in the same directory is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A listening socket that only its owner may connect to. Its name goes with it.
#[derive(Debug)]
pub(super) struct Local {
    listener: UnixListener,
    path: PathBuf,
    made: Stat,
}

impl Local {
    /// Makes the socket. In the place of one that is left of a daemon that is gone, too; anything else of that
    /// name is an error and stays as it is.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let listener = match bind_private(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                let place = Place::open(path)?;
                place.clear()?;
                bind_private(path)?
            }
            bound => bound?,
        };
        let made = rustix::fs::lstat(path)?;
        Ok(Self { listener, path: path.to_owned(), made })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Another daemon may have been given the name meanwhile.
        if rustix::fs::lstat(&self.path).is_ok_and(|now| is_same(&now, &self.made)) {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Makes the name, with mode 0600 from the beginning: the kernel takes it from the socket (unix(7) does not say
/// so; a umask would be the whole process's). Whatever has the name already stays: that is an error.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn is_same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// A name that is taken, and its directory, in which no other daemon makes a socket as long as this lives.
struct Place<'p> {
    path: &'p Path,
    dir: OwnedFd,
    name: OsString,
}

impl<'p> Place<'p> {
    fn open(path: &'p Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let above = path.parent().filter(|p| !p.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(above.unwrap_or(Path::new(".")), flags, Mode::empty())?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            if e != Raw::WOULDBLOCK || Instant::now() > deadline {
                return Err(e.into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { path, dir, name })
    }

    /// Removes a socket that nobody has any more; an error if that is not what the name has.
    fn clear(&self) -> io::Result<()> {
        let found = match self.stat(&self.name) {
            Err(Raw::NOENT) => return Ok(()),
            found => found?,
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
            return Err(taken("there is something else of that name, which is no socket"));
        }
        if found.st_uid != rustix::process::geteuid().as_raw() {
            return Err(taken("there is a socket of another user"));
        }
        if !is_left(self.path)? {
            return Err(taken("another program has this socket"));
        }
        // What is removed has to be what was looked at: it gets a name that nobody else uses first.
        let aside = OsString::from(format!(".guestfsd-{}", std::process::id()));
        renameat_with(&self.dir, &self.name, &self.dir, &aside, RenameFlags::NOREPLACE)?;
        if !self.stat(&aside).is_ok_and(|now| is_same(&now, &found)) {
            renameat_with(&self.dir, &aside, &self.dir, &self.name, RenameFlags::NOREPLACE)?;
            return Err(taken("another program has just made a socket there"));
        }
        tracing::debug!(path = %shown(self.path.as_os_str()), "a socket that nobody listened on");
        Ok(unlinkat(&self.dir, &aside, AtFlags::empty())?)
    }

    fn stat(&self, name: &OsStr) -> rustix::io::Result<Stat> {
        statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn taken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

/// Whether no process has this socket any more, of whatever type it is. A datagram socket is refused by that
/// alone; by sockets of other types, listening or not yet, it is told that they are of another type. None of
/// them hears of it.
fn is_left(path: &Path) -> io::Result<bool> {
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(connect(&probe, &SocketAddrUnix::new(path)?) == Err(Raw::CONNREFUSED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        (dir, path)
    }

    fn is_refused(path: &Path) {
        let e = Local::bind(path).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AddrInUse, "{e}");
    }

    /// Only the name that was there is there.
    fn is_alone(path: &Path) {
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_socket_is_its_owners_only_and_its_name_goes_with_it() {
        let (_dir, path) = dir();
        let local = Local::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(local);
        assert!(!path.exists());
    }

    #[test]
    fn files_directories_and_links_of_that_name_stay_as_they_are() {
        let (dir, path) = dir();
        std::fs::write(&path, "content").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        is_refused(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        is_refused(&path);
        std::fs::remove_dir(&path).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target");
        for there in [false, true] {
            if there {
                std::fs::write(&target, "").unwrap();
                std::fs::set_permissions(&target, PermissionsExt::from_mode(0o644)).unwrap();
            }
            symlink(&target, &path).unwrap();
            is_refused(&path);
            assert_eq!(target.exists(), there);
            assert_eq!(std::fs::read_link(&path).unwrap(), target);
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o7777, 0o644);
        // A link to a socket that is left is no such socket either.
        let left = elsewhere.path().join("left");
        drop(UnixListener::bind(&left).unwrap());
        symlink(&left, &path).unwrap();
        is_refused(&path);
        assert!(left.exists());
        is_alone(&path);
        drop(dir);
    }

    #[test]
    fn a_socket_that_a_program_has_stays_whatever_its_type() {
        let (_dir, path) = dir();
        let datagram = UnixDatagram::bind(&path).unwrap();
        is_refused(&path);
        UnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
        assert_eq!(datagram.recv(&mut [0; 8]).unwrap(), 1);
        std::fs::remove_file(&path).unwrap();
        for kind in [SocketType::SEQPACKET, SocketType::STREAM] {
            let other = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
            rustix::net::bind(&other, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            // Before it listens, and when it does.
            is_refused(&path);
            rustix::net::listen(&other, 1).unwrap();
            is_refused(&path);
            std::fs::remove_file(&path).unwrap();
        }
        let listener = UnixListener::bind(&path).unwrap();
        is_refused(&path);
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "it has not even heard of it");
        is_alone(&path);
    }

    #[test]
    fn a_socket_that_nobody_has_is_replaced() {
        let (_dir, path) = dir();
        drop(UnixListener::bind(&path).unwrap());
        let local = Local::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        is_alone(&path);
        drop(local);
    }

    #[test]
    fn a_name_that_another_daemon_has_got_meanwhile_stays() {
        let (_dir, path) = dir();
        let one = Local::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let two = Local::bind(&path).unwrap();
        drop(one);
        UnixStream::connect(&path).unwrap();
        drop(two);
        assert!(!path.exists());
    }

    #[test]
    fn of_daemons_that_begin_at_once_one_gets_the_socket() {
        let (_dir, path) = dir();
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let bound: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| Local::bind(&path).ok())).collect();
                all.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(bound.len(), 1);
            UnixStream::connect(&path).unwrap();
            is_alone(&path);
            drop(bound);
        }
    }
}
