//! A virtio-serial port, named as libguestfs's is, that copies between the guest and the client's socket.

use super::Device;
use super::memory::Memory;
use super::queue::{Queue, gather};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u64 = 1 << 1;
const NAME: &[u8] = b"org.libguestfs.channel.0";
const RX: usize = 0;
const TX: usize = 1;
const CONTROL_RX: usize = 2;
const CONTROL_TX: usize = 3;
/// Rings of the console itself and of one more port; ours is the first.
const QUEUES: usize = 6;
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// Bytes that wait for the client before no more are taken from the guest.
const HIGH: usize = 1 << 20;

/// The device.
#[derive(Debug)]
pub struct Console {
    client: UnixStream,
    /// The client hung up.
    ended: bool,
    to_client: VecDeque<u8>,
    control: VecDeque<Vec<u8>>,
    guest_open: bool,
}

impl Console {
    /// A port that leads to this client.
    pub fn new(client: UnixStream) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        Ok(Self {
            client,
            ended: false,
            to_client: VecDeque::new(),
            control: VecDeque::new(),
            guest_open: false,
        })
    }

    fn tell(&mut self, event: u16, value: u16, text: &[u8]) {
        let mut message = vec![0; 4];
        message.extend_from_slice(&event.to_le_bytes());
        message.extend_from_slice(&value.to_le_bytes());
        message.extend_from_slice(text);
        self.control.push_back(message);
    }

    fn flush_control(&mut self, memory: &Memory, queue: &mut Queue) -> io::Result<()> {
        while !self.control.is_empty() {
            let Some(chain) = queue.pop(memory)? else { break };
            let Some(message) = self.control.pop_front() else { break };
            let written = chain.writable.first().map_or(0, |p| p.write(&message));
            queue.push(memory, &chain, written)?;
        }
        Ok(())
    }

    fn on_control(&mut self, memory: &Memory, queue: &mut Queue) -> io::Result<()> {
        while let Some(chain) = queue.pop(memory)? {
            let message = gather(&chain.readable, 8);
            queue.push(memory, &chain, 0)?;
            let number =
                |at: usize| message.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
            let (Some(event), Some(value)) = (number(4), number(6)) else { continue };
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
        Ok(())
    }

    /// From the guest to the client.
    fn on_transmit(&mut self, memory: &Memory, queue: &mut Queue) -> io::Result<()> {
        while self.to_client.len() < HIGH {
            let Some(chain) = queue.pop(memory)? else { break };
            let bytes = gather(&chain.readable, HIGH);
            queue.push(memory, &chain, 0)?;
            if !self.ended {
                self.to_client.extend(bytes);
            }
            self.flush_client();
        }
        Ok(())
    }

    fn flush_client(&mut self) {
        while !self.to_client.is_empty() {
            let (front, _) = self.to_client.as_slices();
            match self.client.write(front) {
                Ok(n) => drop(self.to_client.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.client_gone(),
            }
        }
    }

    /// The daemon reads the end of file.
    fn client_gone(&mut self) {
        if !self.ended {
            self.ended = true;
            self.tell(PORT_OPEN, 0, b"");
        }
        self.to_client.clear();
    }

    /// From the client to the guest.
    fn on_client(&mut self, memory: &Memory, queue: &mut Queue) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while queue.is_pending(memory)? {
            // As much as the next buffer has room for is only known when it was taken: so the guest
            // gets several, of a page each.
            let Some(chain) = queue.pop(memory)? else { break };
            let room: usize = chain.writable.iter().map(|p| p.len).sum();
            let room = room.min(buffer.len());
            match self.client.read(&mut buffer[..room]) {
                Ok(n) if n > 0 => {
                    let mut done = 0;
                    for piece in &chain.writable {
                        done += piece.write(&buffer[done..n]);
                    }
                    queue.push(memory, &chain, done)?;
                }
                result => {
                    queue.unpop();
                    match result {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        _ => self.client_gone(),
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Device for Console {
    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queues(&self) -> usize {
        QUEUES
    }

    fn config(&self) -> Vec<u8> {
        // Columns, rows, number of ports, emergency write.
        [&[0; 4][..], &1u32.to_le_bytes(), &[0; 4]].concat()
    }

    fn wants(&self, memory: &Memory, queues: &[Queue]) -> (Option<BorrowedFd<'_>>, PollFlags) {
        let mut flags = PollFlags::empty();
        let room = queues.get(RX).is_some_and(|q| q.is_pending(memory).unwrap_or(false));
        flags.set(PollFlags::IN, self.guest_open && room);
        flags.set(PollFlags::OUT, !self.to_client.is_empty());
        ((!self.ended && !flags.is_empty()).then(|| self.client.as_fd()), flags)
    }

    fn serve(
        &mut self,
        memory: &Memory,
        queues: &mut [Queue],
        kicked: Option<usize>,
        ready: PollFlags,
    ) -> io::Result<()> {
        let [rx, tx, control_rx, control_tx, ..] = queues else { return Ok(()) };
        match kicked {
            Some(CONTROL_TX) => self.on_control(memory, control_tx)?,
            Some(TX) => self.on_transmit(memory, tx)?,
            Some(RX | CONTROL_RX) | Some(_) => {}
            None => {
                if ready.intersects(PollFlags::OUT) {
                    self.flush_client();
                    self.on_transmit(memory, tx)?;
                }
                if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.on_client(memory, rx)?;
                }
            }
        }
        self.flush_control(memory, control_rx)
    }
}
