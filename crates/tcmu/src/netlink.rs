// SPDX-License-Identifier: Apache-2.0
//! Generic netlink, family `TCM-USER` version 2. The kernel reports that a device was enabled, is
//! being removed or is being changed. Once we have said that we reply, it waits for our reply,
//! which becomes the result of the write to configfs that caused the event.
//!
//! [`wire`] packs and parses messages; [`Netlink`] is the socket. Messages that are not from the
//! kernel are dropped. Everything is checked; malformed messages are dropped with a warning.
//!
//! Several daemons may listen, each for subtypes of its own: an event for a subtype that is not
//! ours must get no reply while another one listens ([`Netlink::has_other_listeners`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, sendto,
    socket_with,
};

use crate::{DeviceName, Error};

mod members;
mod membership;
mod rights;
pub mod wire;

use wire::Message;

/// How long the kernel may take to answer a request; it answers at once.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The kernel's messages are a page at most.
const BUFFER_LEN: usize = 16 << 10;

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was enabled: open and serve it.
    Added,
    /// It is being removed: close it.
    Removed,
    /// An attribute is being changed: accept the change or refuse it. The kernel sends one at a
    /// time.
    Reconfig {
        /// A new configuration string.
        config: Option<String>,
        /// A new capacity in bytes.
        size: Option<u64>,
        /// Whether the device is to have a volatile write cache.
        write_cache: Option<bool>,
    },
}

/// A message of the kernel about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Which device; its configuration is that of the device's UIO name.
    pub device: DeviceName,
    /// N of `uioN`.
    pub minor: u32,
    /// What the reply names the device by; `None` from kernels that take no replies.
    pub device_id: Option<u32>,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// An event.
    Event(Event),
    /// The kernel had to drop messages (ENOBUFS): scan all devices again ([`crate::uio`]).
    /// Those who wait for a reply to a dropped message wait until netlink is reset
    /// ([`crate::module::Module::reset_netlink`]).
    Lost,
}

/// The socket; nonblocking, readable when there is something to receive.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    family: u16,
    /// The multicast group of events; `None` for a stand-in.
    group: Option<u32>,
    sequence: u32,
    /// False for a stand-in, whose messages have no netlink address.
    from_kernel_only: bool,
    kernel_waits: bool,
    /// Events that came while an answer was waited for.
    early: VecDeque<Incoming>,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Joins the group `config` of the family `TCM-USER`, and tells the kernel that we reply. The
    /// module has to be loaded.
    pub fn open() -> Result<Self, Error> {
        let (mut netlink, group) = Self::find()?;
        membership::join(&netlink.fd, group).map_err(Error::channel("join the netlink group"))?;

        let request = wire::set_features(netlink.family, netlink.next_sequence());
        netlink.kernel_waits = match netlink.ask(&request)? {
            Message::Ack { errno: 0, .. } => true,
            Message::Ack { errno, .. } if errno == libc::EPERM => {
                return Err(Error::Netlink("not permitted: CAP_NET_ADMIN is needed".into()));
            }
            other => {
                tracing::info!("this kernel takes no netlink replies ({other:?})");
                false
            }
        };
        Ok(netlink)
    }

    /// Checks that the family exists. Changes nothing: the kernel does not start to wait for
    /// replies.
    pub fn probe() -> Result<(), Error> {
        Self::find().map(drop)
    }

    /// Opens a socket and looks up the family and its group `config`.
    fn find() -> Result<(Self, u32), Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(GENERIC))
            .map_err(Error::channel("open a netlink socket"))?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))
            .map_err(Error::channel("bind a netlink socket"))?;
        let mut netlink = Self::over(fd, 0, true);

        let request = wire::get_family(netlink.next_sequence());
        let answer = netlink.ask(&request)?;
        let Message::Family { id, config_group } = answer else {
            let told = match answer {
                Message::Ack { errno, .. } => Errno::from_raw_os_error(errno).to_string(),
                _ => "something else".to_owned(),
            };
            return Err(Error::Netlink(format!(
                "no family {}: is the module {} loaded? (the kernel's answer: {told})",
                wire::FAMILY,
                crate::module::NAME
            )));
        };
        let Some(group) = config_group else {
            return Err(Error::Netlink(format!("family {} has no group 'config'", wire::FAMILY)));
        };
        (netlink.family, netlink.group) = (id, Some(group));
        Ok((netlink, group))
    }

    /// Over a socket whose other end stands in for the kernel, for tests. `fd` is nonblocking and
    /// keeps messages apart (`SOCK_SEQPACKET`).
    pub fn from_stand_in(fd: OwnedFd, family: u16) -> Self {
        Self::over(fd, family, false)
    }

    fn over(fd: OwnedFd, family: u16, from_kernel_only: bool) -> Self {
        Netlink {
            fd,
            family,
            group: None,
            sequence: 0,
            from_kernel_only,
            kernel_waits: true,
            early: VecDeque::new(),
            buffer: vec![0; BUFFER_LEN],
        }
    }

    /// Whether the kernel waits for replies.
    pub fn kernel_waits(&self) -> bool {
        self.kernel_waits
    }

    /// Whether another socket, of whatever program and network namespace, gets the kernel's events
    /// as well, and its owner may answer them: who serves what we do not. Groups above 32 are known
    /// of our own network namespace alone. False for a stand-in.
    pub fn has_other_listeners(&self) -> Result<bool, Error> {
        let Some(group) = self.group else { return Ok(false) };
        let own = rustix::fs::fstat(&self.fd).map_err(Error::channel("look at a socket"))?.st_ino;
        let mut others = members::of_group(group)?;
        others.remove(&own);
        rights::may_answer(Path::new("/proc"), &others)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// The next message; `None` when there is none at the moment.
    pub fn receive(&mut self) -> Result<Option<Incoming>, Error> {
        loop {
            if let Some(incoming) = self.early.pop_front() {
                return Ok(Some(incoming));
            }
            let Some(messages) = self.receive_messages()? else { return Ok(None) };
            for message in messages {
                self.take(message);
            }
        }
    }

    /// Queues an event; logs what else came.
    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.early.push_back(Incoming::Event(event)),
            Message::Lost => self.early.push_back(Incoming::Lost),
            Message::Ack { errno: 0, .. } | Message::Family { .. } => {}
            Message::Ack { errno, sequence } => tracing::warn!(
                "the kernel refused netlink message {sequence}: {}",
                io::Error::from_raw_os_error(errno)
            ),
        }
    }

    /// One datagram's messages; `None` when there is no datagram.
    fn receive_messages(&mut self) -> Result<Option<Vec<Message>>, Error> {
        let received =
            retry_on_intr(|| recvfrom(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC));
        let (_, len, sender) = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::NOBUFS) => return Ok(Some(vec![Message::Lost])),
            Err(errno) => return Err(Error::channel("receive from netlink")(errno)),
        };
        if self.from_kernel_only {
            let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
            if sender.is_none_or(|sender| sender.pid() != 0) {
                tracing::warn!("dropped a netlink message that is not the kernel's");
                return Ok(Some(Vec::new()));
            }
        } else if len == 0 {
            let gone = io::ErrorKind::UnexpectedEof;
            return Err(Error::channel("receive from netlink")(gone));
        }
        let Some(datagram) = self.buffer.get(..len) else {
            tracing::warn!("a netlink message of {len} bytes was cut off");
            return Ok(Some(vec![Message::Lost]));
        };
        Ok(Some(wire::parse(datagram, self.family)))
    }

    /// Sends a request and waits for what answers it.
    fn ask(&mut self, request: &[u8]) -> Result<Message, Error> {
        self.send(request)?;
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            let ready = retry_on_intr(|| poll(&mut fds, timeout.as_ref()));
            if ready.map_err(Error::channel("wait for netlink"))? == 0 {
                return Err(Error::Netlink("the kernel does not answer".into()));
            }
            let mut answer = None;
            for message in self.receive_messages()?.unwrap_or_default() {
                match message {
                    Message::Family { .. } => answer = Some(message),
                    // An acknowledgement also follows the family itself; it belongs to an
                    // earlier request then.
                    Message::Ack { sequence, .. } if sequence == self.sequence => {
                        answer.get_or_insert(message);
                    }
                    other => self.take(other),
                }
            }
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    fn send(&self, message: &[u8]) -> Result<(), Error> {
        let sent = retry_on_intr(|| {
            if self.from_kernel_only {
                sendto(&self.fd, message, SendFlags::NOSIGNAL, &SocketAddrNetlink::new(0, 0))
            } else {
                send(&self.fd, message, SendFlags::NOSIGNAL)
            }
        });
        sent.map(drop).map_err(Error::channel("send to netlink"))
    }

    /// Answers an event with 0 or a positive errno; with an errno, the write to configfs that
    /// caused the event fails. Does nothing for kernels that take no replies. Call it once for each
    /// event of a device that is ours, and not for other devices.
    pub fn reply(&mut self, event: &Event, status: i32) -> Result<(), Error> {
        let Some(device_id) = event.device_id.filter(|_| self.kernel_waits) else { return Ok(()) };
        let sequence = self.next_sequence();
        // The kernel takes errors as negative numbers.
        let status = -status.saturating_abs();
        self.send(&wire::reply(self.family, sequence, &event.kind, device_id, status))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
