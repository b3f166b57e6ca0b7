//! The smallest daemon: serves every device whose configuration begins with `zeroes/` as a disk
//! that reads as zeroes and forgets what is written. It shows how the parts of the crate work
//! together: netlink for devices that come and go, discovery for those that are there already, a
//! reset of rings that a predecessor left in use, batches with one kick.
//!
//! As root: `cargo run -p tcmu --example serve_zeroes`, then, in configfs,
//! `mkdir -p core/user_0/z; echo dev_config=zeroes/z,dev_size=1048576 >core/user_0/z/control;
//! echo 1 >core/user_0/z/enable`.
#![allow(clippy::print_stdout, reason = "an example talks to a terminal")]

use std::collections::HashMap;

use rustix::event::{PollFd, PollFlags, poll};
use tcmu::module::Module;
use tcmu::netlink::{EventKind, Incoming};
use tcmu::uio::Sysfs;
use tcmu::{Command, Configfs, Entry, Error, Netlink, Response, Ring, UioDevice};

const BLOCK: u64 = 512;
/// CHECK CONDITION, ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
const INVALID_OPCODE: Response<'static> = Response {
    status: 2,
    sense: &[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0],
    read_len: None,
};

struct Disk {
    ring: Ring,
    size: u64,
    served: u64,
}

impl Disk {
    fn open(device: &UioDevice) -> Result<Self, Error> {
        let configfs = Configfs::default().device(device.name.hba, &device.name.name)?;
        let mut ring = Ring::open(device)?;
        if configfs.can_reset_ring() {
            if ring.has_leftovers() {
                println!("{}: resetting the ring of a predecessor", device.name.name);
                ring.reset(&configfs)?;
            }
            ring.set_out_of_order(true);
        }
        configfs.enable_tmr_notification()?;
        let size = configfs.dev_size()?.unwrap_or(0);
        println!("opened {:?}, {size} bytes, mailbox flags {:#x}", device.name, ring.flags());
        let mut disk = Disk { ring, size, served: 0 };
        disk.serve()?;
        Ok(disk)
    }

    /// Serves what there is, the last first: the kernel does not mind.
    fn serve(&mut self) -> Result<(), Error> {
        let mut batch = Vec::new();
        while let Some(entry) = self.ring.next()? {
            match entry {
                Entry::Command(command) => batch.push(command),
                Entry::Tmr(tmr) => println!("task management: {tmr:?}"),
            }
        }
        for command in batch.into_iter().rev() {
            let response = self.execute(&command);
            self.ring.complete(command.id(), &response)?;
            self.served += 1;
        }
        self.ring.kick()
    }

    fn execute(&self, command: &Command) -> Response<'static> {
        let last = (self.size / BLOCK).saturating_sub(1);
        match command.cdb() {
            [0x00 | 0x35 | 0x91 | 0x0a | 0x2a | 0x8a, ..] => Response::GOOD,
            [0x08 | 0x28 | 0x88, ..] => {
                command.data().fill(0..usize::MAX, 0);
                Response::GOOD
            }
            [0x12, evpd, ..] if evpd & 1 == 0 => {
                let mut inquiry = [0; 36];
                inquiry[..8].copy_from_slice(&[0, 0, 5, 2, 31, 0, 0, 2]);
                inquiry[8..36].copy_from_slice(b"LUNETTE zeroes          0001");
                answer(command, &inquiry)
            }
            [0x25, ..] => {
                let last = u32::try_from(last).unwrap_or(u32::MAX);
                answer(command, &[last.to_be_bytes(), [0, 0, 2, 0]].concat())
            }
            [0x9e, 0x10, ..] => {
                let mut capacity = [0; 32];
                capacity[..8].copy_from_slice(&last.to_be_bytes());
                capacity[10] = 2;
                answer(command, &capacity)
            }
            _ => INVALID_OPCODE,
        }
    }
}

/// Data that are shorter than the initiator's buffer; what lay in the buffer before goes.
fn answer(command: &Command, bytes: &[u8]) -> Response<'static> {
    let written = command.data().write_at(0, bytes);
    command.data().fill(written..usize::MAX, 0);
    Response { read_len: u32::try_from(written).ok(), ..Response::GOOD }
}

fn main() -> Result<(), Error> {
    let module = Module::default();
    module.load()?;
    module.reset_netlink()?;
    let mut netlink = Netlink::open()?;
    println!("listening; the kernel waits for replies: {}", netlink.kernel_waits());
    let ours = |device: &UioDevice| device.name.subtype() == "zeroes";
    let mut disks = HashMap::new();
    for device in Sysfs::default().scan()?.iter().filter(|device| ours(device)) {
        disks.insert(device.minor, Disk::open(device)?);
    }
    loop {
        while let Some(incoming) = netlink.receive()? {
            let Incoming::Event(event) = incoming else { continue };
            if event.device.subtype() != "zeroes" {
                continue;
            }
            println!("{event:?}");
            let mut status = 0;
            match &event.kind {
                EventKind::Added => {
                    let device = Sysfs::default().device(event.minor)?;
                    match device.map(|device| Disk::open(&device)) {
                        Some(Ok(disk)) => drop(disks.insert(event.minor, disk)),
                        failed => {
                            println!("cannot open it: {:?}", failed.map(Result::err));
                            status = libc::ENODEV;
                        }
                    }
                }
                EventKind::Removed => {
                    let served = disks.remove(&event.minor).map(|disk| disk.served);
                    println!("closed after {} commands", served.unwrap_or(0));
                }
                EventKind::Reconfig { size: Some(size), .. } => {
                    if let Some(disk) = disks.get_mut(&event.minor) {
                        disk.size = *size;
                    }
                }
                EventKind::Reconfig { .. } => status = libc::EOPNOTSUPP,
            }
            netlink.reply(&event, status)?;
        }
        let minors: Vec<u32> = {
            let mut fds = vec![PollFd::new(&netlink, PollFlags::IN)];
            let polled: Vec<_> = disks.iter().collect();
            fds.extend(polled.iter().map(|(_, disk)| PollFd::new(&disk.ring, PollFlags::IN)));
            poll(&mut fds, None).map_err(|errno| Error::Netlink(errno.to_string()))?;
            let ready = fds.iter().skip(1).map(|fd| !fd.revents().is_empty());
            polled
                .iter()
                .zip(ready)
                .filter(|(_, ready)| *ready)
                .map(|((minor, _), _)| **minor)
                .collect()
        };
        for minor in minors {
            let Some(disk) = disks.get_mut(&minor) else { continue };
            if let Err(error) = disk.ring.acknowledge().and_then(|()| disk.serve()) {
                println!("uio{minor}: {error}; closing it");
                disks.remove(&minor);
            }
        }
    }
}
