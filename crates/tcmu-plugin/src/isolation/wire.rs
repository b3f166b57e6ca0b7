// SPDX-License-Identifier: Apache-2.0
//! The messages between the daemon and the process of a plugin: one packet each, on a socket that
//! keeps packets apart. Both ends are the same program, so that numbers are in its own byte order;
//! what comes from a plugin's process is looked at as if anybody had sent it all the same.
use tcmu_abi::Properties;

use crate::operation::Operation;

/// The longest message in bytes.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;
/// The most bytes of a text of the log.
pub(crate) const MAX_TEXT: usize = 16 << 10;

/// What can be a part of a message.
pub(crate) trait Wire: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it from the front; `None` where that is none.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// A message from bytes, of which nothing may be left.
pub(crate) fn decode<T: Wire>(mut bytes: &[u8]) -> Option<T> {
    let message = T::take(&mut bytes)?;
    bytes.is_empty().then_some(message)
}

macro_rules! number {
    ($($type:ty)*) => {
        $(impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_ne_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (head, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$type>::from_ne_bytes(*head))
            }
        })*
    };
}

number!(u8 u16 u32 u64 i32);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(u8::take(from)? != 0)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let count = u32::take(from)?;
        // The message's length bounds it: every item is a byte at least.
        (0..count).map(|_| T::take(from)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        T::take(from).map(Box::new)
    }
}

/// Bytes that are not UTF-8 are replaced.
impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let len = usize::try_from(u32::take(from)?).ok()?;
        let (head, rest) = from.split_at_checked(len)?;
        *from = rest;
        Some(String::from_utf8_lossy(head).into_owned())
    }
}

/// A structure that is put field by field.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$note])* pub(crate) $field: $type,)*
        }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                Some($name { $($field: Wire::take(from)?,)* })
            }
        }
    };
}

/// An enum whose variants have a number each.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$note:meta])* $number:literal $variant:ident { $($field:ident: $type:ty),* },)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$note])* $variant { $($field: $type),* },)*
        }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant { $($field),* } => {
                        out.push($number);
                        $($field.put(out);)*
                    })*
                }
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                match u8::take(from)? {
                    $($number => Some($name::$variant { $($field: Wire::take(from)?),* }),)*
                    _ => None,
                }
            }
        }
    };
}

choice! {
    /// What the daemon tells a plugin's process.
    ToPlugin {
        /// Load the plugin, unless the daemon is gone. A lock of the daemon's may come with it,
        /// which is held for as long as the process runs.
        0 Load { daemon: u32, built_in: Vec<String>, taken: Vec<String>, level: u8, directory: String },
        /// So much is logged from now on, in this directory.
        1 Log { level: u8, directory: String },
        /// Answered by `FromPlugin::Reply` with the same number.
        2 Call { number: u64, call: Call },
        /// The command with this id in the device's ring has taken too long.
        3 Overdue { device: u32, id: u16 },
    }
}

choice! {
    /// A call of a function of the plugin's.
    Call {
        /// The device's socket and memory come with it.
        0 Open { device: u32, handler: u16, again: bool, setup: Box<DeviceSetup> },
        /// `last`: it is not opened again.
        1 Close { device: u32, last: bool },
        2 SetConfig { device: u32, config: String },
        3 SetSize { device: u32, size: u64 },
        4 SetWriteCache { device: u32, on: bool },
        5 Lock { device: u32, tag: u16 },
        6 Unlock { device: u32 },
        /// Answered with a number of the interface.
        7 LockState { device: u32 },
        8 LockTag { device: u32 },
        9 ReportEvent { device: u32 },
        10 CheckConfig { handler: u16, config: String },
        11 UpdateLogDir { handler: u16 },
        /// All devices are closed; the end follows.
        12 Destroy {},
    }
}

choice! {
    /// What a plugin's process tells the daemon.
    FromPlugin {
        /// The plugin has registered a handler.
        0 Handler { facts: Facts },
        /// It has registered all that it has.
        1 Loaded {},
        2 Reply { number: u64, reply: Reply },
        /// A command has ended; with what is in its sense buffer, unless it is done.
        3 Completed { device: u32, key: u64, status: i32, sense: Option<Vec<u8>> },
        4 Properties { device: u32, snapshot: Snapshot },
        /// A handler tells of another size, in bytes.
        5 Resized { device: u32, size: u64 },
        /// A handler tells of a loss, by the number of its event.
        6 Lost { device: u32, event: u8 },
        /// A line of the plugin's for the log.
        7 Line { level: u8, device: Option<u32>, function: String, line: i32, text: String },
        /// A line of the process itself.
        8 Own { level: u8, text: String },
        /// The plugin, or a handler of it, is not used, and why: `text` is a subtype that is built
        /// in, or the whole story.
        9 Refused { built_in: bool, text: String },
    }
}

record! {
    /// What a call has returned: a number of the function's own kind, and what goes with it.
    Reply {
        result: i32,
        value: u64,
        text: String,
    }
}

record! {
    /// What a handler is, without its functions.
    Facts {
        name: String,
        subtype: String,
        description: String,
        threads: i32,
        /// Bits of `Functions`.
        functions: u32,
    }
}

record! {
    /// A device, as its handler finds it.
    DeviceSetup {
        /// "user_0/disk0".
        name: String,
        minor: u32,
        hba: u32,
        /// In configfs.
        device: String,
        /// The configuration string of the beginning.
        first_config: String,
        /// The one of now.
        config: String,
        /// The folder of the target in configfs.
        configfs: String,
        properties: Snapshot,
        slots: u16,
        /// In bytes.
        slot_len: u32,
    }
}

record! {
    /// The properties of a device.
    Snapshot {
        num_lbas: u64,
        block_size: u32,
        max_xfer_len: u32,
        opt_xcopy_rw_len: u32,
        max_unmap_len: u32,
        opt_unmap_gran: u32,
        split_unmaps: bool,
        unmap_gran_align: u32,
        write_cache_enabled: bool,
        solid_state_media: bool,
        unmap_enabled: bool,
        write_protect_enabled: bool,
    }
}

macro_rules! properties {
    ($($field:ident $set:ident)*) => {
        impl Snapshot {
            /// The properties as they are.
            pub(crate) fn of(properties: &Properties) -> Snapshot {
                Snapshot { $($field: properties.$field(),)* }
            }

            /// Makes them those of a device.
            pub(crate) fn apply(&self, properties: &Properties) {
                $(properties.$set(self.$field);)*
            }
        }
    };
}

properties! {
    num_lbas set_num_lbas
    block_size set_block_size
    max_xfer_len set_max_xfer_len
    opt_xcopy_rw_len set_opt_xcopy_rw_len
    max_unmap_len set_max_unmap_len
    opt_unmap_gran set_opt_unmap_gran
    split_unmaps set_split_unmaps
    unmap_gran_align set_unmap_gran_align
    write_cache_enabled set_write_cache_enabled
    solid_state_media set_solid_state_media
    unmap_enabled set_unmap_enabled
    write_protect_enabled set_write_protect_enabled
}

record! {
    /// A command, on its device's socket. Without a slot, its memory comes with it.
    Command {
        key: u64,
        operation: Operation,
        /// The kernel's name for it.
        id: u16,
        slot: Option<u16>,
        /// Of its data, in bytes.
        len: u32,
        cdb: Vec<u8>,
    }
}

impl Wire for Operation {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, offset, len) = match *self {
            Operation::HandleCommand => (0u8, 0, 0),
            Operation::Read { offset } => (1, offset, 0),
            Operation::Write { offset } => (2, offset, 0),
            Operation::Flush => (3, 0, 0),
            Operation::Unmap { offset, len } => (4, offset, len),
            Operation::WriteSame { offset, len } => (5, offset, len),
            Operation::CompareAndWrite { offset, len } => (6, offset, len),
        };
        kind.put(out);
        offset.put(out);
        len.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let kind = u8::take(from)?;
        let (offset, len) = (u64::take(from)?, u64::take(from)?);
        Some(match kind {
            0 => Operation::HandleCommand,
            1 => Operation::Read { offset },
            2 => Operation::Write { offset },
            3 => Operation::Flush,
            4 => Operation::Unmap { offset, len },
            5 => Operation::WriteSame { offset, len },
            6 => Operation::CompareAndWrite { offset, len },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &impl Wire) -> Vec<u8> {
        let mut out = Vec::new();
        message.put(&mut out);
        out
    }

    fn snapshot() -> Snapshot {
        Snapshot::of(&Properties::default())
    }

    fn messages() -> Vec<FromPlugin> {
        let facts = Facts {
            name: "a".into(),
            subtype: "b".into(),
            description: "ä".into(),
            threads: -1,
            functions: 7,
        };
        let reply = Reply { result: -5, value: u64::MAX, text: "why".into() };
        vec![
            FromPlugin::Handler { facts },
            FromPlugin::Loaded {},
            FromPlugin::Refused { built_in: true, text: "qcow".into() },
            FromPlugin::Reply { number: 9, reply },
            FromPlugin::Completed { device: 1, key: 2, status: 2, sense: Some(vec![0x70; 96]) },
            FromPlugin::Properties { device: 1, snapshot: snapshot() },
            FromPlugin::Line {
                level: 3,
                device: None,
                function: "f".into(),
                line: -1,
                text: String::new(),
            },
        ]
    }

    #[test]
    fn what_is_put_is_taken() {
        for message in messages() {
            assert_eq!(decode(&bytes(&message)), Some(message));
        }
        for operation in [
            Operation::HandleCommand,
            Operation::Read { offset: 1 },
            Operation::Write { offset: 2 },
            Operation::Flush,
            Operation::Unmap { offset: 3, len: 4 },
            Operation::WriteSame { offset: 5, len: 6 },
            Operation::CompareAndWrite { offset: 7, len: 8 },
        ] {
            let command =
                Command { key: 1, operation, id: 2, slot: Some(3), len: 4, cdb: vec![0x28; 10] };
            assert_eq!(decode(&bytes(&command)), Some(command));
        }
    }

    #[test]
    fn properties_come_back_as_they_were() {
        let (from, to) = (Properties::default(), Properties::default());
        from.set_num_lbas(1 << 40);
        from.set_block_size(4096);
        from.set_split_unmaps(true);
        from.set_write_protect_enabled(true);
        Snapshot::of(&from).apply(&to);
        assert_eq!(Snapshot::of(&to), Snapshot::of(&from));
        assert_eq!((to.num_lbas(), to.block_size()), (1 << 40, 4096));
    }

    #[test]
    fn messages_that_are_cut_off_or_too_long_or_of_no_kind_are_none() {
        for message in messages() {
            let whole = bytes(&message);
            for len in 0..whole.len() {
                assert_eq!(decode::<FromPlugin>(&whole[..len]), None, "{message:?} to {len}");
            }
            assert_eq!(decode::<FromPlugin>(&[&whole[..], &[0]].concat()), None);
        }
        assert_eq!(decode::<FromPlugin>(&[200, 0, 0, 0, 0]), None);
        // Whatever comes, it is a message or none.
        let mut random = 1u64;
        for len in (0..64).cycle().take(20_000) {
            let mut next = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random.to_le_bytes()[5]
            };
            let mut noise: Vec<u8> = (0..len).map(|_| next()).collect();
            if let Some(kind) = noise.first_mut() {
                *kind %= 11;
            }
            if let Some(message) = decode::<FromPlugin>(&noise) {
                assert_eq!(decode(&bytes(&message)), Some(message));
            }
        }
        // A length that nothing follows takes no memory.
        assert_eq!(decode::<Vec<u8>>(&[0xff; 5]), None);
        assert_eq!(decode::<String>(&[0xff; 5]), None);
    }
}
