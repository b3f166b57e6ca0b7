// SPDX-License-Identifier: Apache-2.0
//! The daemon on the system bus, as targetcli and external handlers know it. All of it runs on one
//! thread; nothing that may block does so there (module `check`). Without a bus the daemon still
//! serves devices, and tries to connect from time to time.
//!
//! ```text
//! org.kernel.TCMUService1                          the name
//! /org/kernel/TCMUService1                         ObjectManager
//! /org/kernel/TCMUService1/SUBTYPE                 ConfigDesc, CheckConfig: one per handler
//! /org/kernel/TCMUService1/HandlerManager1         RegisterHandler
//! /org/kernel/TCMUService1/Status1                 GetStatus
//! ```
//! An external handler owns org.kernel.TCMUService1.HandlerManager1.SUBTYPE; it is there for as long
//! as that name is, and its CheckConfig is forwarded to
//! /org/kernel/TCMUService1/HandlerManager1/SUBTYPE of that name.
mod check;
mod handlers;
mod objects;

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use std::{io, thread};

use zbus::export::futures_core::Stream;
use zbus::fdo::{NameOwnerChanged, RequestNameFlags};
use zbus::{Connection, MatchRule, MessageStream, connection};

pub use check::{CheckConfig, Report, TIME_LIMIT};
pub use handlers::{Handler, Handlers};

use objects::{HandlerManager, HandlerObject, ObjectManager, StatusObject};

/// The daemon's name on the bus, and the interface of a handler.
pub const NAME: &str = "org.kernel.TCMUService1";
/// The object manager's path; handlers are below it.
pub const PATH: &str = "/org/kernel/TCMUService1";
/// Where the daemon tells how it does.
pub const STATUS_PATH: &str = "/org/kernel/TCMUService1/Status1";
/// Prefix of the names that external handlers own; also an interface.
pub const MANAGER_NAME: &str = "org.kernel.TCMUService1.HandlerManager1";
/// Where external handlers register.
pub const MANAGER_PATH: &str = "/org/kernel/TCMUService1/HandlerManager1";

/// Between two tries to connect.
const RETRY: Duration = Duration::from_secs(5);

/// Changes of name owners that may wait; more than all external handlers make at once.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// What the service needs to know.
pub struct Options {
    /// The bus; `None`: the system bus.
    pub address: Option<String>,
    /// The handlers: those built in, to which external ones are added while they are on the bus.
    pub handlers: Arc<Handlers>,
    /// Checks a configuration string of a built-in handler. May block, and is called from any
    /// thread.
    pub check: CheckConfig,
    /// Tells how the daemon does, in JSON, or why that cannot be told. May block.
    pub report: Report,
}

/// The service while it starts: connected to the bus, or trying to be, without its name.
pub struct Starting {
    go: SyncSender<()>,
    ready: Receiver<bool>,
}

impl Starting {
    /// Lets the service own its name, so that clients find it, and waits for that until `limit` is
    /// over: whether the name is owned, or `None` when that is still open. The service goes on
    /// trying in any case.
    pub fn own_name(&self, limit: Duration) -> Option<bool> {
        let _ = self.go.try_send(());
        self.ready.recv_timeout(limit).ok()
    }
}

/// Starts the service's thread, which connects at once.
pub fn start(options: Options) -> io::Result<Starting> {
    let (go, gone) = sync_channel(1);
    let (told, ready) = sync_channel(1);
    // zbus's futures are large; the pages that they do not touch cost nothing.
    thread::Builder::new()
        .name("dbus".into())
        .stack_size(1 << 20)
        .spawn(move || run(&options, &gone, &told))?;
    Ok(Starting { go, ready })
}

fn run(options: &Options, go: &Receiver<()>, ready: &SyncSender<bool>) {
    let mut told = false;
    let mut may_own = false;
    loop {
        let result = zbus::block_on(connect(options)).and_then(|service| {
            // An error: nobody waits any more, and the process ends.
            may_own = may_own || go.recv().is_ok();
            zbus::block_on(service.serve(|| {
                tracing::info!("own the D-Bus name {NAME}");
                told = false;
                let _ = ready.try_send(true);
            }))
        });
        options.handlers.forget_external();
        match result {
            Ok(()) => tracing::warn!("the D-Bus connection was closed; connecting again"),
            Err(error) if !told => {
                told = true;
                tracing::error!(
                    "no D-Bus service: {}. Devices are still served, but targetcli \
                     does not list our handlers; trying again every {} s. \"tcmu-runner check\" \
                     tells more",
                    reason(&error),
                    RETRY.as_secs()
                );
            }
            Err(error) => tracing::debug!("no D-Bus service: {error}"),
        }
        let _ = ready.try_send(false);
        thread::sleep(RETRY);
    }
}

/// What an error means for the service.
fn reason(error: &zbus::Error) -> String {
    match error {
        zbus::Error::NameTaken => format!("another program owns the name {NAME}"),
        error => error.to_string(),
    }
}

/// A connection with all objects, which nobody finds as long as it has no name.
struct Service {
    connection: Connection,
    handlers: Arc<Handlers>,
    changes: MessageStream,
}

async fn connect(options: &Options) -> zbus::Result<Service> {
    let builder = match &options.address {
        Some(address) => connection::Builder::address(address.as_str()),
        None => connection::Builder::system(),
    };
    let handlers = options.handlers.clone();
    let manager = HandlerManager { handlers: handlers.clone() };
    let objects = ObjectManager { handlers: handlers.clone() };
    let connection = builder
        .method_timeout(TIME_LIMIT)
        .serve_at(MANAGER_PATH, manager)
        .serve_at(PATH, objects)
        .serve_at(STATUS_PATH, StatusObject { report: options.report.clone() })
        .build()
        .await?;
    for handler in handlers.builtin() {
        let object = HandlerObject::builtin(handler.clone(), options.check.clone());
        connection.object_server().at(handler.path(), object).await?;
    }
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg0ns(MANAGER_NAME)
        .build()?;
    let changes = MessageStream::for_match_rule(rule, &connection, Some(QUEUE)).await?;
    Ok(Service { connection, handlers, changes })
}

impl Service {
    /// Owns the name, and serves until the connection ends.
    async fn serve(mut self, named: impl FnOnce()) -> zbus::Result<()> {
        // The name comes last: a client that sees it finds all objects.
        // One who has it keeps it, and so do we.
        let flags = RequestNameFlags::DO_NOT_QUEUE;
        self.connection.request_name_with_flags(NAME, flags).await?;
        named();
        while let Some(message) = next(&mut self.changes).await {
            if let Some(change) = NameOwnerChanged::from_message(message?) {
                owner_changed(&self.connection, &self.handlers, &change).await?;
            }
        }
        Ok(())
    }
}

async fn next(stream: &mut MessageStream) -> Option<zbus::Result<zbus::Message>> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// An external handler's name has lost its owner, or changed it: the handler is gone, and a new
/// owner has to register.
async fn owner_changed(
    connection: &Connection,
    handlers: &Handlers,
    change: &NameOwnerChanged,
) -> zbus::Result<()> {
    let args = change.args()?;
    let subtype = args.name.strip_prefix(MANAGER_NAME).and_then(|rest| rest.strip_prefix('.'));
    let Some(subtype) = subtype else { return Ok(()) };
    // The new owner may have registered before this signal was read.
    let owner = args.new_owner.as_ref().map(|owner| owner.as_str());
    if handlers.remove_external(subtype, owner) {
        tracing::info!("handler {subtype}: its owner has left the bus");
        objects::withdraw(connection, subtype).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
