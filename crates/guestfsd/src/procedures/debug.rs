// SPDX-License-Identifier: Apache-2.0
//! What is inside the daemon, for debugging: `debug help 0` lists it.

use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::Progress;
use guest_error::{Context, Errno, Error, Result, shown};
use guestfs_api::frame::MAX_MESSAGE;
use rustix::fs::OFlags;
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Subcommand = fn(&mut Session, &[&OsStr], &mut Progress<'_>) -> Result<Vec<u8>>;

/// Subcommands, their arguments, and the functions that do them.
const SUBCOMMANDS: &[(&str, &str, Subcommand)] = &[
    ("help", "", help),
    ("binaries", "", binaries),
    ("device_speed", "<device> <r|w> <secs>", device_speed),
    ("env", "", env),
    ("error", "<length of the message>", error),
    ("fds", "", fds),
    ("ldd", "<path>", ldd),
    ("ls", "<path> ...", ls),
    ("ll", "<path> ...", ll),
    ("print", "<text> ...", print),
    ("progress", "<secs> [rate in microseconds]", progress),
    ("segv", "", segv),
    ("setenv", "<name> <value>", setenv),
    ("sh", "<command> ...", sh),
    ("spew", "<number of lines>", spew),
    ("unsetenv", "<name>", unsetenv),
];
/// Longest time that a subcommand takes.
const MAX_SECONDS: u64 = 60 * 60;
/// Most lines that are spewed.
const MAX_LINES: u64 = 1_000_000;

/// What `setenv` has added to the environment of programs that `sh` runs.
#[derive(Debug, Default)]
struct Environment(Vec<(OsString, OsString)>);

/// Does a subcommand.
pub(crate) fn debug(
    s: &mut Session,
    subcmd: &OsStr,
    extraargs: &[&OsStr],
    progress: &mut Progress<'_>,
) -> Result<Vec<u8>> {
    crate::reach::check_debug(s.config(), subcmd)?;
    match SUBCOMMANDS.iter().find(|(name, ..)| subcmd == *name) {
        Some((_, _, run)) => run(s, extraargs, progress),
        None => Err(Error::argument(
            "subcmd",
            subcmd,
            "use 'debug help 0' to list the supported commands",
        )),
    }
}

/// That arguments are missing, or make no sense.
fn usage(subcommand: &str) -> Error {
    let takes = SUBCOMMANDS.iter().find(|(name, ..)| *name == subcommand).map_or("", |(_, t, _)| t);
    Error::new(Errno::EINVAL, format!("extraargs: {subcommand}: expecting {takes}"))
}

/// An argument that is a number from 1 to `max`.
fn number(subcommand: &str, arg: Option<&&OsStr>, max: u64) -> Result<u64> {
    arg.and_then(|a| a.to_str()?.parse().ok())
        .filter(|n| (1..=max).contains(n))
        .ok_or_else(|| usage(subcommand))
}

fn done() -> Result<Vec<u8>> {
    Ok(b"ok".to_vec())
}

fn help(_: &mut Session, _: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let names: Vec<&str> = SUBCOMMANDS.iter().map(|(name, ..)| *name).collect();
    Ok(format!("Commands supported: {}", names.join(" ")).into_bytes())
}

/// Bytes that can be read from (or, destroying what is there, written to) a device in so many seconds.
fn device_speed(s: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let [device, way, seconds] = args else { return Err(usage("device_speed")) };
    let write = match way.as_bytes() {
        b"r" | b"read" => false,
        b"w" | b"write" => true,
        _ => return Err(usage("device_speed")),
    };
    let seconds = number("device_speed", Some(seconds), MAX_SECONDS)?;
    let device: Device = s.device("device", device)?;
    let file = device.open(if write { OFlags::WRONLY } else { OFlags::RDONLY })?;
    let size = super::transfer::size_of(&file).on(&device)?;
    if write {
        s.udev().changed();
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut buffer = vec![0; 64 << 10];
    let (mut total, mut offset) = (0u64, 0u64);
    while Instant::now() < end && !guest_fs::interrupt::requested() {
        let moved = match write {
            true => rustix::io::pwrite(&file, &buffer, offset),
            false => rustix::io::pread(&file, &mut buffer[..], offset),
        };
        match moved {
            // Once more from the beginning.
            Ok(0) | Err(Raw::NOSPC) if offset > 0 => offset = 0,
            Ok(0) => break,
            Ok(n) => {
                total += n as u64;
                offset = (offset + n as u64) % size.max(1);
            }
            Err(Raw::INTR) => {}
            Err(e) => return Err(e).on(&device),
        }
    }
    Ok(total.to_string().into_bytes())
}

fn env(s: &mut Session, _: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let own = s.state::<Environment>().0.clone();
    let inherited = std::env::vars_os().filter(|(n, _)| !own.iter().any(|(name, _)| name == n));
    let mut text = Vec::new();
    for (name, value) in inherited.chain(own.clone()) {
        text.extend([name.as_bytes(), b"=", value.as_bytes(), b"\n"].concat());
    }
    Ok(text)
}

/// Fails with a message of this length, and the errno by which clients' tests know it.
fn error(_: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let len = args.first().and_then(|len| len.to_str()?.parse::<usize>().ok());
    let len = len.filter(|len| *len <= MAX_MESSAGE / 2).ok_or_else(|| usage("error"))?;
    Err(Error::new(Errno::EROFS, "a".repeat(len)))
}

/// Programs and libraries of the machine that runs the daemon, one a line: tests of an appliance look whether all of
/// them can be loaded (`ldd`).
fn binaries(_: &mut Session, _: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    const DIRS: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib64", "/usr"];
    let mut text = Vec::new();
    let mut todo: Vec<PathBuf> = DIRS.iter().rev().map(PathBuf::from).collect();
    // Where they are links into /usr, they are listed there.
    todo.retain(|dir| std::fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir()));
    while let Some(dir) = todo.pop() {
        // What cannot be read cannot be loaded either.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                todo.push(path);
            } else if metadata.is_file() && metadata.mode() & 0o111 != 0 && is_elf(&path) {
                text.extend([path.as_os_str().as_bytes(), b"\n"].concat());
            }
            if text.len() > MAX_MESSAGE / 2 {
                return Err(Error::new(Errno::EFBIG, "more names than a reply has room for"));
            }
        }
        if guest_fs::interrupt::requested() {
            return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
        }
    }
    Ok(text)
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"\x7fELF"
}

/// The libraries that a program of the machine that runs the daemon loads.
fn ldd(_: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let [path] = args else { return Err(usage("ldd")) };
    // As `ldd` does, which is a script: relocations show symbols that no library has.
    let mut output = Tool::new("ldd").args(["-r", "--"]).arg(path).run()?.success()?;
    output.stdout.extend_from_slice(output.stderr.as_bytes());
    Ok(output.stdout)
}

/// Open descriptors and what they lead to.
fn fds(_: &mut Session, _: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    const DIR: &str = "/proc/self/fd";
    let mut found = Vec::new();
    for entry in std::fs::read_dir(DIR).on(DIR)? {
        let entry = entry.on(DIR)?;
        let number: Option<u32> = entry.file_name().to_str().and_then(|n| n.parse().ok());
        if let (Some(number), Ok(target)) = (number, std::fs::read_link(entry.path())) {
            found.push((number, target));
        }
    }
    found.sort_unstable();
    let mut text = Vec::new();
    for (number, target) in found {
        text.extend(format!("{number:2} ").into_bytes());
        text.extend([target.as_os_str().as_bytes(), b"\n"].concat());
    }
    Ok(text)
}

/// Lists files of the daemon's own root.
fn ls(_: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    Tool::new("ls").args(["-a", "--"]).args(args).output()
}

fn ll(_: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    Tool::new("ls").args(["-la", "--"]).args(args).output()
}

/// Puts a text into the daemon's log.
fn print(_: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    writeln!(std::io::stderr(), "{}", shown(&args.join(OsStr::new(" ")))).ok();
    done()
}

/// Takes this time, and has something to tell of progress at this rate.
fn progress(_: &mut Session, args: &[&OsStr], progress: &mut Progress<'_>) -> Result<Vec<u8>> {
    let total = Duration::from_secs(number("progress", args.first(), MAX_SECONDS)?);
    let rate = match args.get(1) {
        None => 100_000,
        rate => number("progress", rate, 1_000_000)?,
    };
    let begin = Instant::now();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    while begin.elapsed() < total && !guest_fs::interrupt::requested() {
        progress.at(micros(begin.elapsed()), micros(total));
        std::thread::sleep(Duration::from_micros(rate).min(total.saturating_sub(begin.elapsed())));
    }
    progress.at(micros(total), micros(total));
    done()
}

/// Ends the daemon as a memory error would.
fn segv(_: &mut Session, _: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let signal = rustix::process::Signal::SEGV;
    rustix::process::kill_process(rustix::process::getpid(), signal).on("segv")?;
    done()
}

fn setenv(s: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let [name, value] = args else { return Err(usage("setenv")) };
    let environment = named(s, "setenv", name)?;
    environment.push(((*name).to_owned(), (*value).to_owned()));
    done()
}

fn unsetenv(s: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    let [name] = args else { return Err(usage("unsetenv")) };
    named(s, "unsetenv", name)?;
    done()
}

/// The environment without this name, which has to be one.
fn named<'s>(
    s: &'s mut Session,
    subcommand: &str,
    name: &OsStr,
) -> Result<&'s mut Vec<(OsString, OsString)>> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(usage(subcommand));
    }
    let environment = &mut s.state::<Environment>().0;
    environment.retain(|(n, _)| n != name);
    Ok(environment)
}

/// Has this machine's shell run a command; returns all that it says.
fn sh(s: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    if args.is_empty() {
        return Err(usage("sh"));
    }
    let mut script = OsString::from("exec 2>&1\n");
    script.push(args.join(OsStr::new(" ")));
    let mut tool = Tool::new("sh").arg("-c").arg(script);
    for (name, value) in &s.state::<Environment>().0 {
        tool = tool.env(name, value);
    }
    let mut output = tool.run()?;
    // A shell that does not understand the script says so before it does anything.
    output.stdout.extend_from_slice(output.stderr.as_bytes());
    while output.stdout.last() == Some(&b'\n') {
        output.stdout.pop();
    }
    if output.code == 0 {
        return Ok(output.stdout);
    }
    match output.text() {
        said if said.is_empty() => Err(output.failure()),
        said => Err(Error::new(Errno::EIO, said)),
    }
}

/// Writes so many lines to the daemon's log.
fn spew(_: &mut Session, args: &[&OsStr], _: &mut Progress<'_>) -> Result<Vec<u8>> {
    for n in 0..number("spew", args.first(), MAX_LINES)? {
        let line = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        writeln!(std::io::stderr(), "{n:08} {line}").ok();
    }
    done()
}
