// SPDX-License-Identifier: Apache-2.0
//! A virtio-serial port, named as libguestfs's is, that copies between the guest and the client's
//! socket.

use super::Device;
use super::ring::Ring;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u64 = 1 << 1;
const NAME: &[u8] = b"org.libguestfs.channel.0";
/// Rings of the console itself and of one more port; ours is the first.
const QUEUES: usize = 6;
const RX: usize = 0;
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// Bytes that wait for the client before no more are taken from the guest; the longest message of
/// the guest, too.
const HIGH: usize = 1 << 20;
/// Bytes that are taken from the client at once.
const FROM_CLIENT: usize = 64 << 10;
/// Control messages that wait for the guest before no more of its own are taken.
const MAX_CONTROL: usize = 64;

/// The device.
#[derive(Debug)]
pub struct Console {
    client: UnixStream,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The client hung up.
    ended: bool,
    to_client: VecDeque<u8>,
    to_guest: VecDeque<u8>,
    control: VecDeque<Vec<u8>>,
    guest_open: bool,
    /// Something has been written to the client.
    launched: Arc<AtomicBool>,
}

impl Console {
    /// A port that leads to this client.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(client: UnixStream) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        Ok(Self { client, state: RefCell::default() })
    }

    /// Whether anything has been written to the client, now and later.
    pub(crate) fn launched(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.state.borrow().launched)
    }
}

impl State {
    fn tell(&mut self, event: u16, value: u16, text: &[u8]) {
        let mut message = vec![0; 4];
        message.extend_from_slice(&event.to_le_bytes());
        message.extend_from_slice(&value.to_le_bytes());
        message.extend_from_slice(text);
        self.control.push_back(message);
    }

    /// Control messages both ways.
    fn control(&mut self, to_guest: &Ring, from_guest: &Ring) -> io::Result<()> {
        loop {
            while let Some(message) = self.control.front() {
                let told = to_guest.serve_one(|_, mut writer| {
                    let len = writer.available_bytes().min(message.len());
                    writer.write_all(&message[..len])?;
                    Ok(len)
                })?;
                if !told {
                    break;
                }
                self.control.pop_front();
            }
            if self.control.len() >= MAX_CONTROL {
                return Ok(());
            }
            let mut message = [0; 8];
            let taken = from_guest.serve_one(|reader, _| {
                let len = reader.available_bytes().min(message.len());
                reader.read_exact(&mut message[..len])?;
                Ok(0)
            })?;
            if !taken {
                return Ok(());
            }
            let [_, _, _, _, event @ .., value_low, value_high] = message;
            let (event, value) =
                (u16::from_le_bytes(event), u16::from_le_bytes([value_low, value_high]));
            match event {
                DEVICE_READY if value == 1 => self.tell(PORT_ADD, 1, b""),
                PORT_READY if value == 1 => {
                    self.tell(PORT_NAME, 1, NAME);
                    self.tell(PORT_OPEN, u16::from(!self.ended), b"");
                }
                PORT_OPEN => self.guest_open = value == 1,
                _ => {}
            }
        }
    }

    /// From the guest to the client, until either has no more room or nothing more.
    fn transmit(&mut self, mut client: &UnixStream, from_guest: &Ring) -> io::Result<()> {
        loop {
            while !self.to_client.is_empty() {
                let (front, _) = self.to_client.as_slices();
                match client.write(front) {
                    Ok(n) => {
                        self.launched.store(true, Ordering::Relaxed);
                        self.to_client.drain(..n);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => self.client_gone(),
                }
            }
            if self.to_client.len() >= HIGH {
                return Ok(());
            }
            let (ended, to_client) = (self.ended, &mut self.to_client);
            let taken = from_guest.serve_one(|reader, _| {
                if !ended {
                    let mut bytes = vec![0; reader.available_bytes().min(HIGH)];
                    reader.read_exact(&mut bytes)?;
                    to_client.extend(bytes);
                }
                Ok(0)
            })?;
            if !taken {
                return Ok(());
            }
        }
    }

    /// From the client to the guest, likewise.
    fn receive(&mut self, mut client: &UnixStream, to_guest: &Ring) -> io::Result<()> {
        while self.guest_open && to_guest.is_pending()? {
            if self.to_guest.is_empty() {
                if self.ended {
                    return Ok(());
                }
                let mut bytes = vec![0; FROM_CLIENT];
                match client.read(&mut bytes) {
                    Ok(n) if n > 0 => self.to_guest.extend(&bytes[..n]),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    _ => {
                        self.client_gone();
                        return Ok(());
                    }
                }
            }
            let bytes = &mut self.to_guest;
            to_guest.serve_one(|_, mut writer| {
                let n = writer.available_bytes().min(bytes.len());
                writer.write_all(&bytes.make_contiguous()[..n])?;
                bytes.drain(..n);
                Ok(n)
            })?;
        }
        Ok(())
    }

    /// The daemon reads the end of file.
    fn client_gone(&mut self) {
        if !self.ended {
            self.ended = true;
            self.tell(PORT_OPEN, 0, b"");
        }
        self.to_client.clear();
    }
}

impl Device for Console {
    fn queues(&self) -> usize {
        QUEUES
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn config(&self) -> Vec<u8> {
        // Columns, rows, number of ports, emergency write.
        [&[0; 4][..], &1u32.to_le_bytes(), &[0; 4]].concat()
    }

    fn wants(&self, rings: &[Ring]) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let state = self.state.borrow();
        let room = rings.get(RX).is_some_and(|ring| ring.is_pending().unwrap_or(false));
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, state.guest_open && room);
        flags.set(PollFlags::OUT, !state.to_client.is_empty());
        (!state.ended && !flags.is_empty()).then(|| (self.client.as_fd(), flags))
    }

    fn serve(&self, rings: &[Ring]) -> io::Result<()> {
        let [rx, tx, control_rx, control_tx, ..] = rings else { return Ok(()) };
        let state = &mut *self.state.borrow_mut();
        state.control(control_rx, control_tx)?;
        state.transmit(&self.client, tx)?;
        state.receive(&self.client, rx)?;
        // The client may have gone meanwhile.
        state.control(control_rx, control_tx)
    }
}
