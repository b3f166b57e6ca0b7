// SPDX-License-Identifier: Apache-2.0
//! The smallest daemon: serves every device whose configuration begins with `zeroes/` as a disk
//! that reads as zeroes and forgets what is written. It shows how the parts of the crate work
//! together: netlink for devices that come and go, discovery for those that are there already, a
//! reset of rings that a predecessor left in use, batches with one kick, a thread for each ring.
//!
//! As it waits by a blocking read, and asks nothing else of the kernel but the kick, no daemon can
//! cost less: `cargo xtask bench tcmu` measures it together with the others.
//!
//! As root: `cargo run -p tcmu --example serve_zeroes`, then, in configfs,
//! `mkdir -p core/user_0/z; echo dev_config=zeroes/z,dev_size=1048576 >core/user_0/z/control;
//! echo 1 >core/user_0/z/enable`.
#![allow(clippy::print_stdout, reason = "an example talks to a terminal")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
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
    size: Arc<AtomicU64>,
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
        let blocking = fcntl_getfl(&ring).map(|flags| flags & !OFlags::NONBLOCK);
        blocking
            .and_then(|flags| fcntl_setfl(&ring, flags))
            .map_err(|errno| Error::Channel { action: "set to block", source: errno.into() })?;
        let size = configfs.dev_size()?.unwrap_or(0);
        println!("opened {:?}, {size} bytes, mailbox flags {:#x}", device.name, ring.flags());
        Ok(Disk { ring, size: Arc::new(AtomicU64::new(size)), served: 0 })
    }

    /// Serves a device on a thread of its own; returns its size, which may be changed.
    fn start(device: UioDevice) -> Result<Arc<AtomicU64>, Error> {
        let (opened, outcome) = mpsc::sync_channel(1);
        std::thread::spawn(move || match Disk::open(&device) {
            Ok(mut disk) => {
                let _ = opened.send(Ok(disk.size.clone()));
                // Ends when the kernel removes the device.
                let end = disk.run();
                println!("{}: {} commands served: {end:?}", device.name.name, disk.served);
            }
            Err(error) => drop(opened.send(Err(error))),
        });
        outcome.recv().unwrap_or_else(|_| Err(Error::Netlink("the thread panicked".into())))
    }

    fn run(&mut self) -> Result<(), Error> {
        loop {
            self.serve()?;
            self.ring.acknowledge()?;
        }
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
        let last = (self.size.load(Ordering::Relaxed) / BLOCK).saturating_sub(1);
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
    let mut sizes = HashMap::new();
    for device in Sysfs::default().scan()?.into_iter().filter(ours) {
        sizes.insert(device.minor, Disk::start(device)?);
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
                    match device.map(Disk::start) {
                        Some(Ok(size)) => drop(sizes.insert(event.minor, size)),
                        failed => {
                            println!("cannot open it: {:?}", failed.map(Result::err));
                            status = libc::ENODEV;
                        }
                    }
                }
                EventKind::Removed => drop(sizes.remove(&event.minor)),
                EventKind::Reconfig { size: Some(new), .. } => {
                    if let Some(size) = sizes.get(&event.minor) {
                        size.store(*new, Ordering::Relaxed);
                    }
                }
                EventKind::Reconfig { .. } => status = libc::EOPNOTSUPP,
            }
            netlink.reply(&event, status)?;
        }
        poll(&mut [PollFd::new(&netlink, PollFlags::IN)], None)
            .map_err(|errno| Error::Channel { action: "poll", source: errno.into() })?;
    }
}
