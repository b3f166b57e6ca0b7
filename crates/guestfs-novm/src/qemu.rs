// SPDX-License-Identifier: Apache-2.0
//! The command line of QEMU, as the `direct` backend of libguestfs 1.40 to 1.56 writes it: what matters
//! of it, which is drives, channel, kernel command line and network.
//!
//! A drive is described by `-drive`, or by `-blockdev` (key=value or JSON, nested or by the names of
//! other nodes), and becomes a disk by the `-device` that names it. Everything else is ignored.

use crate::error::{Error, Result};
use crate::nbd::Server;
use block::Locking;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Memory of a machine for which the client does not say how much it is to have, in MiB.
pub const MEMORY: u32 = 1280;

/// Most disks; libguestfs has at most 255.
const MAX_DISKS: usize = 256;
/// Longest value of an option.
const MAX_VALUE: usize = 256 << 10;
/// How deep nodes of `-blockdev` may be nested.
const MAX_DEPTH: usize = 16;
/// The `id` of libguestfs's own disk, which is not used here.
const APPLIANCE: &str = "appliance";

/// What libguestfs wants started.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Disks in the client's order.
    pub drives: Vec<Drive>,
    /// The daemon is to say what it does.
    pub verbose: bool,
    /// Programs may use the network.
    pub network: bool,
    /// The client is virt-rescue, which shows what a shell at the console says.
    pub rescue: bool,
    /// Memory in MiB.
    pub memory: u32,
    /// What the kernel is told: for User-Mode Linux.
    pub append: String,
}

/// A disk that the client added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drive {
    /// The image, if it is a file.
    pub file: PathBuf,
    /// The NBD server that has it.
    pub server: Option<Server>,
    /// Its format, if the client said it.
    pub format: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The label that the client gave it, its serial number.
    pub serial: Option<String>,
    /// Bytes of a sector, if not 512.
    pub sector: Option<u32>,
    /// Which of its files are locked; the client asks for less beside a running VM.
    pub locking: Locking,
    /// Nobody wants its content after a loss of power (`cache=unsafe`): it is an overlay or a disk
    /// that libguestfs throws away, or the client has said so.
    pub scratch: bool,
}

/// Options of one kind: `format=raw,file.driver=file`. Names of files may be any bytes.
type Options = BTreeMap<String, OsString>;

impl Machine {
    /// Reads a command line.
    pub fn parse(args: &[OsString]) -> Result<Self> {
        let mut machine = Self { memory: MEMORY, ..Self::default() };
        let mut nodes: BTreeMap<String, Options> = BTreeMap::new();
        let mut words = args.iter().map(OsString::as_os_str);
        let mut devices = Vec::new();
        while let Some(option) = words.next() {
            let option = option.to_string_lossy();
            let mut value = || -> Result<&OsStr> {
                let text = words.next().unwrap_or_default();
                if text.len() > MAX_VALUE {
                    return Err(Error::Usage(format!("{option}: longer than {MAX_VALUE} bytes")));
                }
                Ok(text)
            };
            match option.as_ref() {
                "-drive" => {
                    let drive = options(value()?, "file")?;
                    let id = text(&drive, "id").unwrap_or_else(|| format!("#{}", nodes.len()));
                    match text(&drive, "if").as_deref() {
                        None | Some("none") => {}
                        // Firmware.
                        Some("pflash") => continue,
                        // A disk without a -device of its own.
                        Some(_) => {
                            devices.push(Options::from([("drive".into(), id.clone().into())]))
                        }
                    }
                    nodes.insert(id, drive);
                }
                "-blockdev" => {
                    let node = options(value()?, "driver")?;
                    if let Some(name) = text(&node, "node-name") {
                        nodes.insert(name, node);
                    }
                }
                "-device" => {
                    let device = options(value()?, "driver")?;
                    if device.contains_key("drive") {
                        devices.push(device);
                    }
                }
                "-append" => machine.append = value()?.to_string_lossy().into_owned(),
                "-netdev" => {
                    value()?;
                    machine.network = true;
                }
                "-m" => {
                    let text = value()?.to_string_lossy();
                    machine.memory = text.parse().map_err(|_| {
                        Error::Usage(format!("-m {text}: expecting a number of MiB"))
                    })?;
                }
                _ => {}
            }
        }
        if devices.len() > MAX_DISKS + 1 {
            return Err(Error::Usage(format!(
                "{} disks: at most {MAX_DISKS} are served",
                devices.len()
            )));
        }
        for device in devices {
            let Some(id) = text(&device, "drive").filter(|id| id != APPLIANCE) else { continue };
            machine.drives.push(drive(&id, &nodes, &device)?);
        }
        let flag = |name: &str| machine.append.split_whitespace().any(|w| w == name);
        machine.verbose = flag("guestfs_verbose=1");
        machine.network |= flag("guestfs_network=1");
        machine.rescue = flag("guestfs_rescue=1");
        Ok(machine)
    }
}

/// The socket at which the client waits for the daemon, even if the rest cannot be read.
pub fn channel(args: &[OsString]) -> Result<PathBuf> {
    let chardevs = args.windows(2).filter(|pair| pair[0] == "-chardev");
    let mut paths = chardevs
        .filter_map(|pair| options(&pair[1], "backend").ok()?.remove("path").map(PathBuf::from));
    paths.next().ok_or_else(|| {
        Error::Usage(
            "no -chardev socket,path=...: this is started by libguestfs, see --help".into(),
        )
    })
}

/// The disk that a device shows.
fn drive(id: &str, nodes: &BTreeMap<String, Options>, device: &Options) -> Result<Drive> {
    let refused = |what: &str| Error::Usage(format!("drive {id}: {what}"));
    let node = nodes.get(id).ok_or_else(|| refused("there is no such drive"))?;
    if is_on(node, "snapshot") {
        return Err(refused("snapshot=on: add it read-only instead"));
    }
    let mut found = Drive {
        serial: text(device, "serial").or_else(|| text(node, "serial")),
        ..Drive::default()
    };
    if let Some(sector) = text(device, "logical_block_size") {
        let bytes = sector.parse().ok().filter(|b| matches!(b, 512 | 1024 | 2048 | 4096));
        let bytes = bytes.ok_or_else(|| {
            refused(&format!("sectors of {sector} bytes: expecting 512, 1024, 2048 or 4096"))
        })?;
        found.sector = (bytes != 512).then_some(bytes);
    }
    // Down to the file: a -drive is one level, a -blockdev one for the format and one for the file.
    let mut level = node.clone();
    for _ in 0..MAX_DEPTH {
        found.read_only |= is_on(&level, "read-only") || is_on(&level, "readonly");
        found.scratch |= is_one_of(&level, "cache", &["unsafe"]) || is_on(&level, "cache.no-flush");
        // Locking is a property of a file; what is below a backing file follows it.
        if is_off(&level, "locking") || is_off(&level, "file.locking") {
            found.locking = Locking::None;
        } else if found.locking == Locking::All
            && let Some(backing) = child(&level, "backing", nodes)?
            && is_unlocked(&backing, nodes)?
        {
            found.locking = Locking::Image;
        }
        if let Some(format) = text(&level, "format") {
            found.format = Some(format);
        }
        if let Some(protocol) = text(&level, "driver") {
            match protocol.as_str() {
                "file" | "host_device" => {}
                "copy-on-read" | "throttle" => {}
                "nbd" => {
                    let server = Server::from_options(|name| level.get(name));
                    found.server = Some(server.map_err(|e| refused(&e))?);
                    return Ok(found);
                }
                "ssh" | "iscsi" | "rbd" | "gluster" | "http" | "https" | "ftp" | "ftps"
                | "sheepdog" | "nfs" | "curl" => {
                    return Err(refused(&format!(
                        "protocol {protocol}: only files and block devices of this host, and NBD, are served"
                    )));
                }
                format => found.format = found.format.or_else(|| Some(format.to_owned())),
            }
        }
        if let Some(name) = level.get("filename") {
            found.set_source(name).map_err(|e| refused(&e))?;
            return Ok(found);
        }
        if let Some(below) = child(&level, "file", nodes)? {
            level = below;
            continue;
        }
        let text = level.get("file").ok_or_else(|| refused("it has no file"))?;
        found.set_source(text).map_err(|e| refused(&e))?;
        return Ok(found);
    }
    Err(refused("its nodes are nested too deeply"))
}

/// The node below this one that is called `name`: described in place, or a node of that name.
fn child(
    level: &Options,
    name: &str,
    nodes: &BTreeMap<String, Options>,
) -> Result<Option<Options>> {
    if let Some(value) = level.get(name) {
        let node = value.to_str().and_then(|name| nodes.get(name));
        return match value.as_bytes().strip_prefix(b"json:") {
            Some(json) if node.is_none() => options(OsStr::from_bytes(json), "").map(Some),
            _ => Ok(node.cloned()),
        };
    }
    let below: Options = level
        .iter()
        .filter_map(|(k, v)| Some((k.strip_prefix(name)?.strip_prefix('.')?.to_owned(), v.clone())))
        .collect();
    Ok((!below.is_empty()).then_some(below))
}

/// Whether the file of a backing node is not to be locked.
fn is_unlocked(backing: &Options, nodes: &BTreeMap<String, Options>) -> Result<bool> {
    let mut level = backing.clone();
    for _ in 0..MAX_DEPTH {
        if is_off(&level, "locking") {
            return Ok(true);
        }
        let Some(below) = child(&level, "file", nodes)? else { break };
        level = below;
    }
    Ok(false)
}

/// An option that is no name of a file.
fn text(options: &Options, name: &str) -> Option<String> {
    options.get(name).map(|value| value.to_string_lossy().into_owned())
}

fn is_one_of(options: &Options, name: &str, values: &[&str]) -> bool {
    options.get(name).is_some_and(|value| values.iter().any(|known| value == known))
}

fn is_off(options: &Options, name: &str) -> bool {
    is_one_of(options, name, &["off", "false", "no"])
}

fn is_on(options: &Options, name: &str) -> bool {
    is_one_of(options, name, &["on", "true", "yes"])
}

impl Drive {
    /// Sets where the image is, by its name in QEMU's syntax.
    fn set_source(&mut self, name: &OsStr) -> std::result::Result<(), String> {
        match name.to_str().and_then(Server::parse) {
            Some(server) => self.server = Some(server?),
            None => self.file = path_of(name)?,
        }
        Ok(())
    }
}

/// A file's name in QEMU's syntax, in which `nbd:...` is something else.
fn path_of(name: &OsStr) -> std::result::Result<PathBuf, String> {
    let bytes = name.as_bytes();
    let first = bytes.split(|&c| c == b'/').next().unwrap_or_default();
    let Some(colon) = first.iter().position(|&c| c == b':') else { return Ok(name.into()) };
    let (protocol, rest) = (&bytes[..colon], &bytes[colon + 1..]);
    match protocol {
        b"file" => Ok(OsStr::from_bytes(rest.strip_prefix(b"//").unwrap_or(rest)).into()),
        // Those that are UTF-8 have been read.
        b"nbd" | b"nbd+unix" => Err(format!("{}: an NBD server's name is UTF-8", name.display())),
        _ => Err(format!(
            "protocol {}: only files and block devices of this host, and NBD, are served",
            String::from_utf8_lossy(protocol)
        )),
    }
}

/// Options as key=value, the first key of which may be left out, or as JSON.
fn options(text: &OsStr, first: &str) -> Result<Options> {
    let mut found = Options::new();
    if text.as_bytes().starts_with(b"{") {
        let value = serde_json::from_slice(text.as_bytes())
            .map_err(|e| Error::Usage(format!("options in JSON: {e}: {}", shorten(text))))?;
        flatten("", &value, &mut found);
        return Ok(found);
    }
    for (n, part) in split_commas(text.as_bytes()).into_iter().enumerate() {
        let (key, value) = match part.iter().position(|&c| c == b'=') {
            Some(at) => {
                (String::from_utf8_lossy(&part[..at]).into_owned(), part[at + 1..].to_vec())
            }
            None if n == 0 => (first.to_owned(), part),
            None => (String::from_utf8_lossy(&part).into_owned(), b"on".to_vec()),
        };
        found.insert(key, OsString::from_vec(value));
    }
    Ok(found)
}

/// Nested objects as keys with dots.
fn flatten(prefix: &str, value: &Value, found: &mut Options) {
    let text = match value {
        Value::Object(members) => {
            for (key, value) in members {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, found);
            }
            return;
        }
        Value::Null | Value::Array(_) => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    found.insert(prefix.to_owned(), text.into());
}

/// Splits at commas, of which two stand for one that does not split.
fn split_commas(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().peekable();
    while let Some(&c) = bytes.next() {
        if c == b',' && bytes.next_if_eq(&&b',').is_none() {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn shorten(text: &OsStr) -> String {
    text.to_string_lossy().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A command line as libguestfs 1.48 writes it, with these drives.
    fn line(drives: &str) -> Vec<OsString> {
        let text = format!(
            "-global|virtio-blk-pci.scsi=off|-no-user-config|-nodefaults|-display|none|-machine|\
             accel=kvm:tcg|-cpu|max,la57=off|-m|1280|-no-reboot|-kernel|/a/kernel|-initrd|\
             /a/initrd|-device|virtio-scsi-pci,id=scsi|{drives}|-drive|\
             file=/a/root,snapshot=on,id=appliance,cache=unsafe,if=none,format=raw|-device|\
             scsi-hd,drive=appliance|-device|virtio-serial-pci|-serial|stdio|-chardev|\
             socket,path=/tmp/g/guestfsd.sock,id=channel0|-device|\
             virtserialport,chardev=channel0,name=org.libguestfs.channel.0|-append|\
             panic=1 guestfs_verbose=1 TERM=linux"
        );
        text.split('|').map(OsString::from).collect()
    }

    fn parse(drives: &str) -> Result<Machine> {
        Machine::parse(&line(drives))
    }

    fn one(drives: &str) -> Drive {
        let mut machine = parse(drives).unwrap();
        assert_eq!(machine.drives.len(), 1, "{drives}");
        machine.drives.remove(0)
    }

    fn drive_of(file: &str, format: &str) -> Drive {
        let format = (!format.is_empty()).then(|| format.to_owned());
        Drive { file: file.into(), format, ..Drive::default() }
    }

    #[test]
    fn channel_and_flags_are_found() {
        let machine = parse("-drive|file=/x,id=hd0,if=none|-device|scsi-hd,drive=hd0").unwrap();
        assert_eq!(channel(&line("")).unwrap(), PathBuf::from("/tmp/g/guestfsd.sock"));
        assert_eq!((machine.verbose, machine.network, machine.memory), (true, false, 1280));
    }

    #[test]
    fn a_file_may_have_any_bytes_in_its_name() {
        let name = OsStr::from_bytes(b"/\xff\xfe,\xc3.img");
        for option in [&b"file="[..], b"file=file:", b"file.driver=file,file.filename="] {
            let doubled = b"/\xff\xfe,,\xc3.img,format=raw,id=hd0,if=none";
            let words =
                line("-drive|@|-device|scsi-hd,drive=hd0").into_iter().map(|word| match word {
                    word if word == "@" => OsString::from_vec([option, doubled].concat()),
                    word => word,
                });
            let machine = Machine::parse(&words.collect::<Vec<_>>()).unwrap();
            assert_eq!(machine.drives, [Drive { file: name.into(), ..drive_of("", "raw") }]);
        }
        let socket = OsString::from_vec(b"socket,path=/\xff/s,id=channel0".to_vec());
        let path = channel(&["-chardev".into(), socket]).unwrap();
        assert_eq!(path.as_os_str().as_bytes(), b"/\xff/s");
    }

    #[test]
    fn a_drive_is_what_its_options_say() {
        let device = "scsi-hd,drive=hd0";
        for (drive, want) in [
            ("file=/x.img,cache=writeback,format=raw,id=hd0,if=none", drive_of("/x.img", "raw")),
            (
                "file=/a,,b.img,cache=unsafe,id=hd0,if=none",
                Drive { scratch: true, ..drive_of("/a,b.img", "") },
            ),
            (
                "file=/x,readonly=on,cache=writeback,format=qcow2,id=hd0,if=none",
                Drive { read_only: true, ..drive_of("/x", "qcow2") },
            ),
            (
                "file.driver=file,file.filename=/x,format=raw,id=hd0,if=none,read-only=on",
                Drive { read_only: true, ..drive_of("/x", "raw") },
            ),
            (
                "file=json:{\"driver\":\"raw\"},,\"file\":{\"driver\":\"file\"}},id=hd0",
                drive_of("", ""),
            ),
            ("/x,id=hd0", drive_of("/x", "")),
            ("file=file:/x,id=hd0", drive_of("/x", "")),
            ("file=./odd:name,id=hd0", drive_of("./odd:name", "")),
        ] {
            let parsed = parse(&format!("-drive|{drive}|-device|{device}"));
            if want.file.as_os_str().is_empty() {
                assert!(parsed.is_err(), "{drive}");
            } else {
                assert_eq!(parsed.unwrap().drives, [want], "{drive}");
            }
        }
    }

    #[test]
    fn a_disk_may_be_on_an_nbd_server() {
        for nodes in [
            "-drive|file=nbd:unix:/s:exportname=e,cache=writeback,format=raw,id=hd0,if=none",
            "-drive|file=nbd+unix:///e?socket=/s,format=raw,id=hd0,if=none",
            "-drive|file.driver=nbd,file.server.type=unix,file.server.path=/s,file.export=e,format=raw,id=hd0",
            r#"-blockdev|{"node-name":"hd0","driver":"raw","file":{"driver":"nbd","server":{"type":"unix","path":"/s"},"export":"e"}}"#,
        ] {
            let drive = one(&format!("{nodes}|-device|scsi-hd,drive=hd0"));
            assert_eq!(drive.server.unwrap().to_string(), "nbd:unix:/s:exportname=e", "{nodes}");
        }
    }

    #[test]
    fn a_drive_that_is_not_flushed_is_a_scratch_drive() {
        for (nodes, scratch) in [
            ("-drive|file=/x,cache=unsafe,format=qcow2,id=hd0", true),
            ("-drive|file=/x,cache=writeback,format=qcow2,id=hd0", false),
            ("-drive|file=/x,format=qcow2,id=hd0", false),
            (
                r#"-blockdev|{"node-name":"hd0","driver":"qcow2","cache":{"no-flush":true},"file":{"driver":"file","filename":"/x"}}"#,
                true,
            ),
            (
                r#"-blockdev|{"node-name":"f","driver":"file","filename":"/x","cache":{"no-flush":true}}|-blockdev|{"node-name":"hd0","driver":"qcow2","file":"f"}"#,
                true,
            ),
            (
                "-blockdev|file,node-name=f,filename=/x,cache.no-flush=off|\
                 -blockdev|qcow2,node-name=hd0,file=f",
                false,
            ),
        ] {
            let drive = one(&format!("{nodes}|-device|scsi-hd,drive=hd0"));
            assert_eq!(drive.scratch, scratch, "{nodes}");
        }
    }

    #[test]
    fn label_and_sector_size_are_the_devices() {
        let drive = one("-drive|file=/x,format=raw,id=hd0,if=none|-device|\
             scsi-hd,drive=hd0,serial=top,physical_block_size=4096,logical_block_size=4096");
        assert_eq!((drive.serial.as_deref(), drive.sector), (Some("top"), Some(4096)));
    }

    #[test]
    fn block_nodes_are_followed_to_the_file() {
        for nodes in [
            r#"-blockdev|{"node-name":"hd0","driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"/x"}}"#,
            r#"-blockdev|{"node-name":"f","driver":"file","filename":"/x"}|-blockdev|{"node-name":"hd0","driver":"qcow2","read-only":true,"file":"f"}"#,
            "-blockdev|file,node-name=f,filename=/x|-blockdev|qcow2,node-name=hd0,file=f,read-only=on",
            "-blockdev|driver=qcow2,node-name=hd0,file.driver=file,file.filename=/x,read-only=on",
            r#"-blockdev|{"node-name":"q","driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"/x"}}|-blockdev|driver=copy-on-read,node-name=hd0,file=q"#,
        ] {
            let want = Drive { read_only: true, ..drive_of("/x", "qcow2") };
            assert_eq!(one(&format!("{nodes}|-device|scsi-hd,drive=hd0")), want, "{nodes}");
        }
    }

    #[test]
    fn a_file_is_locked_unless_the_client_says_otherwise() {
        for (nodes, locking) in [
            ("-drive|file=/x,format=raw,id=hd0,if=none", Locking::All),
            ("-drive|file=/x,file.locking=auto,id=hd0", Locking::All),
            ("-drive|file=/x,format=raw,file.locking=off,id=hd0", Locking::None),
            ("-drive|file.filename=/x,file.locking=off,format=raw,id=hd0,if=none", Locking::None),
            (
                "-drive|file.file.filename=/x,file.driver=qcow2,file.backing.file.locking=off,\
                 cache=unsafe,id=hd0,if=none",
                Locking::Image,
            ),
            (
                r#"-blockdev|{"node-name":"hd0","driver":"qcow2","file":{"driver":"file","filename":"/x"},"backing":{"driver":"raw","file":{"driver":"file","filename":"/y","locking":"off"}}}"#,
                Locking::Image,
            ),
            (
                r#"-blockdev|{"node-name":"hd0","driver":"raw","file":{"driver":"file","filename":"/x","locking":"off"}}"#,
                Locking::None,
            ),
            (
                "-blockdev|file,node-name=y,filename=/y,locking=off|\
                 -blockdev|qcow2,node-name=b,file=y|\
                 -blockdev|file,node-name=x,filename=/x|\
                 -blockdev|qcow2,node-name=hd0,file=x,backing=b",
                Locking::Image,
            ),
            (
                "-blockdev|file,node-name=x,filename=/x,locking=off|\
                 -blockdev|qcow2,node-name=hd0,file=x,backing=hd0",
                Locking::None,
            ),
        ] {
            let drive = one(&format!("{nodes}|-device|scsi-hd,drive=hd0"));
            assert_eq!((drive.file, drive.locking), ("/x".into(), locking), "{nodes}");
        }
    }

    #[test]
    fn disks_are_in_the_order_of_their_devices() {
        let machine = parse(
            "-drive|file=/b,id=hd1,if=none|-drive|file=/a,id=hd0,if=none|-device|\
             virtio-blk-pci,drive=hd0|-device|{\"driver\":\"scsi-hd\",\"drive\":\"hd1\"}|-drive|\
             file=/c,if=virtio",
        );
        let files: Vec<_> = machine.unwrap().drives.into_iter().map(|d| d.file).collect();
        assert_eq!(files, ["/a", "/b", "/c"].map(PathBuf::from));
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        for (drives, text) in [
            ("-drive|file=nbd:localhost:x,id=hd0", "drive hd0: nbd:localhost:x: port x: expecting"),
            ("-drive|file.driver=nbd,id=hd0", "drive hd0: neither server.path nor server.host"),
            ("-drive|file=ssh://u@h/x,id=hd0", "drive hd0: protocol ssh: only files"),
            ("-drive|file.driver=https,file.url=x,id=hd0", "drive hd0: protocol https: only"),
            ("-drive|file=/x,snapshot=on,id=hd0", "drive hd0: snapshot=on"),
            ("-drive|id=hd0", "drive hd0: it has no file"),
            ("-blockdev|raw,node-name=hd0,file=hd0", "drive hd0: its nodes are nested too deeply"),
            ("-drive|file=/x,id=hd1", "drive hd0: there is no such drive"),
        ] {
            let e = parse(&format!("{drives}|-device|scsi-hd,drive=hd0")).unwrap_err().to_string();
            assert!(e.starts_with(text), "{drives}: {e}");
        }
        assert!(channel(&[]).unwrap_err().to_string().contains("started by libguestfs"));
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_or_refused(
            words in proptest::collection::vec(
                prop_oneof![
                    Just("-drive".to_owned()), Just("-device".to_owned()),
                    Just("-blockdev".to_owned()), Just("-chardev".to_owned()),
                    "(file|driver|drive|id|node-name|path)=[a-c/:,{}.]{0,6}(,(file|driver|drive|id|node-name|filename)=[a-c]{1,2}){0,4}",
                    "\\{\"[a-z]{1,4}\":.{0,20}\\}?",
                ],
                0..24,
            )
        ) {
            let words: Vec<_> = words.into_iter().map(OsString::from).collect();
            let _ = Machine::parse(&words);
        }
    }
}
