// SPDX-License-Identifier: Apache-2.0
//! Netlink messages as bytes (RFC 3549 2.3; `linux/netlink.h`, `linux/genetlink.h`): a header of
//! 16 bytes with the length, the generic header of 4 bytes with the command, attributes of type,
//! length and value; all in the machine's own byte order, aligned to 4.
//!
//! Both directions are here: the daemon parses events and packs replies, a stand-in for the kernel
//! does the reverse.

use zerocopy::native_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Event, EventKind};
use crate::DeviceName;

/// The family's name.
pub const FAMILY: &str = "TCM-USER";
const FAMILY_VERSION: u8 = 2;
const GROUP: &str = "config";

// enum tcmu_genl_cmd; the reply to command N is N + 3.
const ADDED_DEVICE: u8 = 1;
const REMOVED_DEVICE: u8 = 2;
const RECONFIG_DEVICE: u8 = 3;
const TO_DONE: u8 = 3;
const SET_FEATURES: u8 = 7;
// enum tcmu_genl_attr
const ATTR_DEVICE: u16 = 1;
const ATTR_MINOR: u16 = 2;
const ATTR_DEV_CFG: u16 = 4;
const ATTR_DEV_SIZE: u16 = 5;
const ATTR_WRITECACHE: u16 = 6;
const ATTR_CMD_STATUS: u16 = 7;
const ATTR_DEVICE_ID: u16 = 8;
const ATTR_SUPP_KERN_CMD_REPLY: u16 = 9;

// The controller: the family of families.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_NEWFAMILY: u8 = 1;
const CTRL_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// The bits of an attribute's type that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
const ALIGN: usize = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    len: U32,
    pub(super) kind: U16,
    flags: U16,
    sequence: U32,
    port: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GenericHeader {
    command: u8,
    version: u8,
    reserved: U16,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AttributeHeader {
    len: U16,
    kind: U16,
}

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// About a device.
    Event(Event),
    /// Where the family is, and its group `config`.
    Family {
        /// The family's message type.
        id: u16,
        /// The multicast group.
        config_group: Option<u32>,
    },
    /// The end of a request: 0 or a positive errno.
    Ack {
        /// Of the request.
        sequence: u32,
        /// What came of it.
        errno: i32,
    },
    /// Messages were dropped.
    Lost,
}

/// A reply, as the kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The event's command: 1 added, 2 removed, 3 reconfigured.
    pub command: u8,
    /// The device.
    pub device_id: u32,
    /// 0 or a negative errno.
    pub status: i32,
}

/// The messages of one datagram. What is malformed, or of no interest, is left out.
pub fn parse(mut datagram: &[u8], family: u16) -> Vec<Message> {
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let Some((header, body, rest)) = split_message(datagram) else {
            tracing::warn!("dropped {} bytes of malformed netlink message", datagram.len());
            break;
        };
        datagram = rest;
        let message = match header.kind.get() {
            NLMSG_OVERRUN => Some(Message::Lost),
            // Before the family is known, its number is 0, which is no type of message.
            NLMSG_ERROR => parse_ack(body),
            GENL_ID_CTRL => parse_family(body),
            kind if kind == family && family > GENL_ID_CTRL => parse_event(body),
            _ => continue,
        };
        match message {
            Some(message) => messages.push(message),
            None => tracing::warn!("dropped a malformed netlink message"),
        }
    }
    messages
}

/// The first message's header and body, and what follows it.
pub(super) fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let len = usize::try_from(header.len.get()).ok()?;
    let body = bytes.get(size_of::<Header>()..len)?;
    Some((header, body, bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default()))
}

fn parse_ack(body: &[u8]) -> Option<Message> {
    let (error, rest) = body.split_first_chunk::<4>()?;
    let (request, _) = Header::read_from_prefix(rest).ok()?;
    let errno = i32::from_ne_bytes(*error).checked_neg()?;
    Some(Message::Ack { sequence: request.sequence.get(), errno })
}

fn parse_family(body: &[u8]) -> Option<Message> {
    let (header, attributes) = GenericHeader::read_from_prefix(body).ok()?;
    if header.command != CTRL_NEWFAMILY {
        return None;
    }
    let mut id = None;
    let mut config_group = None;
    for attribute in Attributes(attributes) {
        let (kind, value) = attribute?;
        match kind {
            CTRL_ATTR_FAMILY_NAME if text(value) != FAMILY => return None,
            CTRL_ATTR_FAMILY_ID => id = Some(u16::from_ne_bytes(value.try_into().ok()?)),
            CTRL_ATTR_MCAST_GROUPS => {
                for group in Attributes(value) {
                    let (mut name, mut number) = (String::new(), None);
                    for attribute in Attributes(group?.1) {
                        match attribute? {
                            (CTRL_ATTR_MCAST_GRP_NAME, value) => name = text(value),
                            (CTRL_ATTR_MCAST_GRP_ID, value) => number = Some(u32_of(value)?),
                            _ => {}
                        }
                    }
                    if name == GROUP {
                        config_group = number;
                    }
                }
            }
            _ => {}
        }
    }
    Some(Message::Family { id: id?, config_group })
}

fn parse_event(body: &[u8]) -> Option<Message> {
    let (header, attributes) = GenericHeader::read_from_prefix(body).ok()?;
    let (mut device, mut minor, mut device_id) = (None, None, None);
    let (mut config, mut size, mut write_cache) = (None, None, None);
    for attribute in Attributes(attributes) {
        let (kind, value) = attribute?;
        match kind {
            ATTR_DEVICE => device = Some(DeviceName::parse(&text(value))?),
            ATTR_MINOR => minor = Some(u32_of(value)?),
            ATTR_DEVICE_ID => device_id = Some(u32_of(value)?),
            ATTR_DEV_CFG => config = Some(text(value)),
            ATTR_DEV_SIZE => size = Some(u64::from_ne_bytes(value.try_into().ok()?)),
            ATTR_WRITECACHE => write_cache = Some(value.first()? != &0),
            _ => {}
        }
    }
    let kind = match header.command {
        ADDED_DEVICE => EventKind::Added,
        REMOVED_DEVICE => EventKind::Removed,
        RECONFIG_DEVICE => EventKind::Reconfig { config, size, write_cache },
        _ => return None,
    };
    Some(Message::Event(Event { kind, device: device?, minor: minor?, device_id }))
}

/// Asks for the family and its groups.
pub fn get_family(sequence: u32) -> Vec<u8> {
    let mut message = Packer::new(GENL_ID_CTRL, NLM_F_REQUEST, sequence, CTRL_GETFAMILY, 1);
    message.text(CTRL_ATTR_FAMILY_NAME, FAMILY);
    message.finish()
}

/// Tells the kernel that its events get replies.
pub fn set_features(family: u16, sequence: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = Packer::new(family, flags, sequence, SET_FEATURES, FAMILY_VERSION);
    message.attribute(ATTR_SUPP_KERN_CMD_REPLY, &[1]);
    message.finish()
}

/// The reply to an event; `status` is 0 or a negative errno.
pub fn reply(family: u16, sequence: u32, kind: &EventKind, device_id: u32, status: i32) -> Vec<u8> {
    let command = command_of(kind) + TO_DONE;
    let mut message = Packer::new(family, NLM_F_REQUEST, sequence, command, FAMILY_VERSION);
    message.attribute(ATTR_CMD_STATUS, &status.to_ne_bytes());
    message.attribute(ATTR_DEVICE_ID, &device_id.to_ne_bytes());
    message.finish()
}

/// An event as the kernel sends it.
pub fn event(family: u16, event: &Event) -> Vec<u8> {
    let mut message = Packer::new(family, 0, 0, command_of(&event.kind), FAMILY_VERSION);
    let DeviceName { hba, name, config } = &event.device;
    message.text(ATTR_DEVICE, &format!("tcm-user/{hba}/{name}/{config}"));
    message.attribute(ATTR_MINOR, &event.minor.to_ne_bytes());
    if let Some(id) = event.device_id {
        message.attribute(ATTR_DEVICE_ID, &id.to_ne_bytes());
    }
    if let EventKind::Reconfig { config, size, write_cache } = &event.kind {
        if let Some(config) = config {
            message.text(ATTR_DEV_CFG, config);
        }
        if let Some(size) = size {
            message.attribute(ATTR_DEV_SIZE, &size.to_ne_bytes());
        }
        if let Some(write_cache) = write_cache {
            message.attribute(ATTR_WRITECACHE, &[u8::from(*write_cache)]);
        }
    }
    message.finish()
}

/// Reads a reply as the kernel does; `None` if it is none.
pub fn parse_reply(bytes: &[u8], family: u16) -> Option<Reply> {
    let (header, body, _) = split_message(bytes)?;
    let (generic, attributes) = GenericHeader::read_from_prefix(body).ok()?;
    let command = generic.command.checked_sub(TO_DONE)?;
    let (mut device_id, mut status) = (None, None);
    for attribute in Attributes(attributes) {
        match attribute? {
            (ATTR_DEVICE_ID, value) => device_id = Some(u32_of(value)?),
            (ATTR_CMD_STATUS, value) => status = Some(i32::from_ne_bytes(value.try_into().ok()?)),
            _ => {}
        }
    }
    let ours = header.kind.get() == family && (ADDED_DEVICE..=RECONFIG_DEVICE).contains(&command);
    ours.then_some(Reply { command, device_id: device_id?, status: status? })
}

fn command_of(kind: &EventKind) -> u8 {
    match kind {
        EventKind::Added => ADDED_DEVICE,
        EventKind::Removed => REMOVED_DEVICE,
        EventKind::Reconfig { .. } => RECONFIG_DEVICE,
    }
}

fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// A string up to its NUL, if there is one.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Type and value of each attribute in turn; `None`, and then the end, where they are malformed.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Ok((header, _)) = AttributeHeader::read_from_prefix(bytes) else { return Some(None) };
        let len = usize::from(header.len.get());
        let Some(value) = bytes.get(size_of::<AttributeHeader>()..len) else { return Some(None) };
        self.0 = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Some((header.kind.get() & NLA_TYPE_MASK, value)))
    }
}

/// Packs one message.
struct Packer {
    header: Header,
    body: Vec<u8>,
}

impl Packer {
    fn new(kind: u16, flags: u16, sequence: u32, command: u8, version: u8) -> Self {
        let header = Header {
            len: 0.into(),
            kind: kind.into(),
            flags: flags.into(),
            sequence: sequence.into(),
            port: 0.into(),
        };
        let generic = GenericHeader { command, version, reserved: 0.into() };
        Packer { header, body: generic.as_bytes().to_vec() }
    }

    /// A value that does not fit an attribute (64 KiB) is cut off.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let room = usize::from(u16::MAX) - size_of::<AttributeHeader>();
        let value = value.get(..room).unwrap_or(value);
        let len = u16::try_from(size_of::<AttributeHeader>() + value.len()).unwrap_or(u16::MAX);
        let header = AttributeHeader { len: len.into(), kind: kind.into() };
        self.body.extend_from_slice(header.as_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(ALIGN), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = size_of::<Header>() + self.body.len();
        self.header.len = u32::try_from(len).unwrap_or(u32::MAX).into();
        let mut message = self.header.as_bytes().to_vec();
        message.append(&mut self.body);
        message
    }
}

#[cfg(test)]
mod tests;
