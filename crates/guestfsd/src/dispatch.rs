// SPDX-License-Identifier: Apache-2.0
//! From a message to the function that serves it, and back.
//!
//! The handlers are generated from the table of procedures (`build.rs`): each decodes the arguments,
//! gives them their meaning (`argument`), calls `crate::procedures::NAME` and encodes the result.
//! What goes wrong before, in or after the function becomes the reply's error.

use crate::channel::{Channel, Closed};
use crate::procedures;
use crate::session::Session;
use crate::transfer::{FileIn, FileOut, Progress, refuse_incoming};
use guest_error::{Errno, Error, Result};
use guestfs_api::frame::{self, ErrorBody, Header};
use guestfs_api::xdr::{Decoder, Encoder, Text};
use guestfs_api::{Kind, Procedure, Wire, args};
use std::time::Instant;
use zeroize::Zeroize;

/// A call that is being served.
pub(crate) struct Call<'m> {
    header: Header,
    body: &'m [u8],
    session: &'m mut Session,
    channel: &'m mut Channel,
}

impl<'m> Call<'m> {
    fn args<A: guestfs_api::Call<'m>>(&self) -> Result<A> {
        A::decode(&mut Decoder::new(self.body), self.header.optargs_bitmask).map_err(|e| {
            Error::new(Errno::EINVAL, format!("daemon failed to decode procedure arguments: {e}"))
        })
    }
}

/// Serves one procedure.
type Handler = for<'a, 'm> fn(&'a mut Call<'m>, &'a mut Reply) -> Result<()>;

/// A reply that is being written.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    sent: bool,
}

/// Where the reply's body begins: after the length word and the head.
const BODY: usize = 4 + frame::HEADER_LEN;

impl Reply {
    fn encode(
        &mut self,
        f: impl FnOnce(&mut Encoder<'_>) -> std::result::Result<(), guestfs_api::xdr::Error>,
    ) -> Result<()> {
        f(&mut Encoder::new(&mut self.bytes))
            .map_err(|e| Error::new(Errno::EINVAL, format!("result cannot be sent: {e}")))
    }

    fn nothing(&mut self) -> Result<()> {
        Ok(())
    }

    /// A file has been sent, and with it the reply, or not.
    fn sent(&mut self, sent: bool) -> Result<()> {
        self.sent = sent;
        Ok(())
    }

    fn int(&mut self, v: i32) -> Result<()> {
        self.encode(|e| {
            e.i32(v);
            Ok(())
        })
    }

    fn int64(&mut self, v: i64) -> Result<()> {
        self.encode(|e| {
            e.i64(v);
            Ok(())
        })
    }

    fn bool(&mut self, v: bool) -> Result<()> {
        self.int(i32::from(v))
    }

    fn string(&mut self, v: &(impl Text + ?Sized)) -> Result<()> {
        self.encode(|e| e.string(v))
    }

    fn buffer(&mut self, v: &[u8]) -> Result<()> {
        self.encode(|e| e.opaque(v))
    }

    fn strings<T: Text>(&mut self, v: &[T]) -> Result<()> {
        self.encode(|e| e.strings(v))
    }

    fn pairs<K: Text, V: Text>(&mut self, v: &[(K, V)]) -> Result<()> {
        self.encode(|e| e.pairs(v))
    }

    fn structure(&mut self, v: &impl Wire) -> Result<()> {
        self.encode(|e| v.encode(e))
    }

    fn structures<T: Wire>(&mut self, v: &[T]) -> Result<()> {
        self.encode(|e| T::encode_list(v, e))
    }
}

/// Arguments with their meaning.
mod argument {
    use super::*;
    use crate::devices::{self, Device};
    use crate::mountable::{DevOrPath, Mountable, MountableOrPath};
    use guest_fs::paths::GuestPath;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    pub(super) fn device(s: &mut Session, name: &str, value: &OsStr) -> Result<Device> {
        s.device(name, value)
    }

    pub(super) fn devices(s: &mut Session, name: &str, values: &[&OsStr]) -> Result<Vec<Device>> {
        values.iter().map(|v| s.device(name, v)).collect()
    }

    pub(super) fn mountable(s: &mut Session, name: &str, value: &OsStr) -> Result<Mountable> {
        s.mountable(name, value)
    }

    pub(super) fn path<'a>(s: &mut Session, name: &str, value: &'a OsStr) -> Result<GuestPath<'a>> {
        let path = GuestPath::new(name, value)?;
        s.need_root()?;
        Ok(path)
    }

    pub(super) fn paths<'a>(
        s: &mut Session,
        name: &str,
        values: &[&'a OsStr],
    ) -> Result<Vec<GuestPath<'a>>> {
        values.iter().map(|v| path(s, name, v)).collect()
    }

    /// A device where there is one of this name, or could be; else a path.
    pub(super) fn device_or_path<'a>(
        s: &mut Session,
        name: &str,
        value: &'a OsStr,
    ) -> Result<DevOrPath<'a>> {
        if value.as_bytes().starts_with(b"/dev/") {
            match s.device(name, value) {
                Ok(device) => return Ok(DevOrPath::Device(device)),
                Err(e) if e.errno() == Errno::ENODEV || devices::is_disk_name(value) => {
                    return Err(e);
                }
                Err(_) => {}
            }
        }
        path(s, name, value).map(DevOrPath::Path)
    }

    pub(super) fn mountable_or_path<'a>(
        s: &mut Session,
        name: &str,
        value: &'a OsStr,
    ) -> Result<MountableOrPath<'a>> {
        if value.as_bytes().starts_with(b"btrfsvol:") {
            return s.mountable(name, value).map(MountableOrPath::Mountable);
        }
        Ok(match device_or_path(s, name, value)? {
            DevOrPath::Device(_) => MountableOrPath::Mountable(s.mountable(name, value)?),
            DevOrPath::Path(path) => MountableOrPath::Path(path),
        })
    }

    pub(super) fn filenames<'a>(
        _: &mut Session,
        name: &str,
        values: &[&'a OsStr],
    ) -> Result<Vec<&'a OsStr>> {
        match values.iter().find(|v| v.as_bytes().contains(&b'/')) {
            Some(v) => Err(Error::argument(name, v, "a name with a / character in it")),
            None => Ok(values.to_vec()),
        }
    }
}

/// Results with their meaning.
mod result {
    use super::*;
    use crate::mountable;
    use probe::mountable::MountableName;
    use std::ffi::OsString;
    use std::path::Path;

    pub(super) fn device(s: &mut Session, device: impl AsRef<Path>) -> OsString {
        s.client_name(device.as_ref())
    }

    pub(super) fn mountable(s: &mut Session, mountable: &MountableName) -> OsString {
        mountable::to_client(mountable, s.devices())
    }
}

include!(concat!(env!("OUT_DIR"), "/handlers.rs"));

fn handler(number: u32) -> Option<Handler> {
    HANDLERS.get(usize::try_from(number).ok()?).copied().flatten()
}

/// Serves a client until it hangs up. Only what ends a session too early is an error.
pub(crate) fn serve(
    session: &mut Session,
    channel: &mut Channel,
) -> std::result::Result<(), Closed> {
    let mut message = Vec::new();
    let mut reply = Reply::default();
    channel.launch()?;
    crate::launched::tell();
    loop {
        match channel.message(&mut message) {
            Err(Closed::End) => return Ok(()),
            read => read?,
        }
        match answer(session, channel, &mut message, &mut reply) {
            Err(Closed::End) => return Ok(()),
            answered => answered?,
        }
        if let Some(why) = channel.take_broken() {
            return Err(why);
        }
    }
}

/// Answers one message.
fn answer(
    session: &mut Session,
    channel: &mut Channel,
    message: &mut Vec<u8>,
    reply: &mut Reply,
) -> std::result::Result<(), Closed> {
    let mut d = Decoder::new(message);
    let header = Header::decode(&mut d).map_err(|e| Closed::Garbage(format!("header: {e}")))?;
    let procedure = guestfs_api::procedure(header.procedure);
    let sends_file = procedure.is_some_and(|p| p.args.iter().any(|a| a.kind == Kind::FileIn));
    channel.set_incoming(sends_file);
    // Calls on files come in rows; any other may mount or unmount something, or have a program do so.
    if !procedure.is_some_and(|p| p.args.first().is_some_and(|a| a.kind == Kind::Pathname)) {
        session.release_root();
    }

    let started = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
    reply.sent = false;
    reply.bytes.clear();
    reply.bytes.shrink_to(64 << 10);
    reply.bytes.resize(4, 0);
    Header::reply(header.procedure, header.serial, frame::STATUS_OK).encode(&mut reply.bytes);
    let mut call = Call { header, body: d.rest(), session, channel };
    let done =
        accept(&mut call, procedure).and_then(|handler| handler(&mut call, reply)).and_then(|()| {
            match reply.bytes.len() - 4 {
                len if len > frame::MAX_MESSAGE => Err(Error::new(
                    Errno::EMSGSIZE,
                    format!("result of {len} bytes is longer than a reply can be"),
                )),
                _ => Ok(()),
            }
        });
    if procedure.is_some_and(|p| p.args.iter().any(|a| a.kind == Kind::Key)) {
        message.zeroize();
        channel.wipe();
    }
    if session.quitting() {
        return Err(Closed::End);
    }
    if let Some(started) = started {
        let name = procedure.map_or("unknown", |p| p.name);
        // A number: the sign for micro is not ASCII, and what shows the log may not know it.
        let elapsed_us = started.elapsed().as_micros();
        tracing::debug!(name, elapsed_us, error = ?done.as_ref().err(), "served");
    }
    if let Err(e) = &done {
        refuse_incoming(channel)?;
        reply.bytes.truncate(4);
        Header::reply(header.procedure, header.serial, frame::STATUS_ERROR)
            .encode(&mut reply.bytes);
        let encoded = ErrorBody::encode(e.errno().name(), e.message(), &mut reply.bytes);
        encoded.map_err(|e| Closed::Garbage(e.to_string()))?;
    } else if channel.incoming() {
        // The procedure had enough before the end: that is no error.
        let mut rest = FileIn::new(channel, &Header { progress_hint: 0, ..header });
        rest.skip().ok();
    }
    if reply.sent {
        return Ok(());
    }
    let len = u32::try_from(reply.bytes.len().saturating_sub(4)).unwrap_or(u32::MAX);
    reply.bytes[..4].copy_from_slice(&len.to_be_bytes());
    debug_assert!(reply.bytes.len() >= BODY);
    channel.send(&reply.bytes)
}

/// The handler of a call that may be served. The texts of the first five errors are known to clients.
fn accept(call: &mut Call<'_>, procedure: Option<&'static Procedure>) -> Result<Handler> {
    let header = &call.header;
    let invalid = |message: String| Err(Error::new(Errno::EINVAL, message));
    if header.program != frame::PROGRAM {
        return invalid(format!("wrong program ({})", header.program));
    }
    if header.version != frame::VERSION {
        return invalid(format!("wrong protocol version ({})", header.version));
    }
    if header.direction != frame::DIRECTION_CALL {
        return invalid(format!("unexpected message direction ({})", header.direction));
    }
    if header.status != frame::STATUS_OK {
        return invalid(format!("unexpected message status ({})", header.status));
    }
    let Some(procedure) = procedure else {
        return Err(Error::not_supported(format!(
            "dispatch_incoming_message: unknown procedure number {}, set LIBGUESTFS_PATH to point \
             to the matching libguestfs appliance directory",
            header.procedure
        )));
    };
    if header.optargs_bitmask & !procedure.optargs_mask() != 0 {
        return invalid(match procedure.options {
            [] => "header optargs_bitmask field must be passed as 0 for calls that don't take \
                   optional arguments"
                .to_owned(),
            _ => "unknown option in optional arguments bitmask (this can happen if a program is \
                  compiled against a newer version of libguestfs, then run against an older \
                  version of the daemon)"
                .to_owned(),
        });
    }
    crate::reach::check(call.session.config(), procedure)?;
    call.session.features().check(procedure)?;
    // What has been checked is done, and so has a handler.
    handler(procedure.number).ok_or_else(|| Error::not_supported(procedure.name))
}
