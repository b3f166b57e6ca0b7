// SPDX-License-Identifier: Apache-2.0
//! Announces a program's handlers on the system bus, so that targetcli knows of them: as external
//! handlers of the daemon that owns `org.kernel.TCMUService1`.
//!
//! ```text
//! org.kernel.TCMUService1.HandlerManager1.SUBTYPE      a name that we own for each handler
//! /org/kernel/TCMUService1/HandlerManager1/SUBTYPE     CheckConfig, ConfigDesc: at that name
//! ```
//! When the daemon comes, or comes again, each is registered with its HandlerManager1. Where another
//! program has a name, ours waits in the bus's queue: the handler is registered when that program has
//! gone. All of it is a thread's, which tries again and again where there is no bus; nobody waits for
//! it.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use zbus::export::futures_core::Stream;
use zbus::fdo::{NameOwnerChanged, RequestNameFlags, RequestNameReply};
use zbus::{Connection, MatchRule, MessageStream, connection, interface};

use crate::checks::Checks;

/// The daemon's name, and the interface of a handler.
const NAME: &str = "org.kernel.TCMUService1";
/// The interface of who registers handlers, and the beginning of the names that we own.
const MANAGER_NAME: &str = "org.kernel.TCMUService1.HandlerManager1";
/// Where handlers are registered; ours are below it.
const MANAGER_PATH: &str = "/org/kernel/TCMUService1/HandlerManager1";

/// Between two tries to connect.
const RETRY: Duration = Duration::from_secs(5);
/// For an answer of the bus or the daemon.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Changes of name owners that may wait; more than all handlers make at once.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A handler as others see it: its subtype, and what people read about its configuration strings.
type Described = (String, String);

/// Handlers that are announced; ends when it is dropped.
pub(crate) struct Announced(Arc<Stop>);

impl Announced {
    /// Starts to announce them, on the system bus or another one.
    pub(crate) fn start(
        address: Option<String>,
        handlers: Vec<Described>,
        checks: Arc<Checks>,
    ) -> io::Result<Announced> {
        let stop = Arc::<Stop>::default();
        let stopped = stop.clone();
        thread("tcmu-dbus", move || run(address.as_deref(), &handlers, &checks, &stopped))?;
        Ok(Announced(stop))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Starts a thread that gets none of the program's signals.
pub(crate) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let old = crate::signals::block_all();
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    crate::signals::restore(&old);
    started.map(drop)
}

/// A wish to end, which wakes futures and sleepers.
#[derive(Default)]
struct Stop {
    state: Mutex<(bool, Option<Waker>)>,
    changed: Condvar,
}

impl Stop {
    fn state(&self) -> MutexGuard<'_, (bool, Option<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut state = self.state();
        state.0 = true;
        self.changed.notify_all();
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    /// Waits so long, or until the end; whether it is the end.
    fn sleep(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), time, |state| !state.0);
        waited.map_or(true, |(state, _)| state.0)
    }

    /// Runs a future; `None` if the end comes first.
    async fn unless<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let mut state = self.state();
            if state.0 {
                return Poll::Ready(None);
            }
            state.1 = Some(cx.waker().clone());
            drop(state);
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

fn run(address: Option<&str>, handlers: &[Described], checks: &Arc<Checks>, stop: &Stop) {
    let mut told = false;
    loop {
        match zbus::block_on(stop.unless(serve(address, handlers, checks))) {
            None => return,
            Some(Ok(())) => tracing::info!("the D-Bus connection was closed; connecting again"),
            Some(Err(error)) if !told => {
                told = true;
                tracing::warn!("handlers are not announced over D-Bus: {error}; trying again");
            }
            Some(Err(error)) => tracing::debug!("no D-Bus: {error}"),
        }
        if stop.sleep(RETRY) {
            return;
        }
    }
}

/// Owns the handlers' names and registers them whenever the daemon comes, until the connection ends.
async fn serve(
    address: Option<&str>,
    handlers: &[Described],
    checks: &Arc<Checks>,
) -> zbus::Result<()> {
    let builder = match address {
        Some(address) => connection::Builder::address(address),
        None => connection::Builder::system(),
    };
    let connection = builder.method_timeout(TIME_LIMIT).build().await?;
    // The daemon's name, and those of handlers, which begin with it.
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg0ns(NAME)
        .build()?;
    // Before the first look, so that no change is missed.
    let mut changes = MessageStream::for_match_rule(rule, &connection, Some(QUEUE)).await?;
    let mut owned = BTreeSet::new();
    for (subtype, description) in handlers {
        let object = HandlerObject {
            subtype: subtype.clone(),
            description: description.clone(),
            checks: checks.clone(),
        };
        connection.object_server().at(format!("{MANAGER_PATH}/{subtype}"), object).await?;
        if own(&connection, subtype).await? {
            owned.insert(subtype.as_str());
        }
    }
    let ours = |owned: &BTreeSet<&str>| {
        let owned = handlers.iter().filter(|(subtype, _)| owned.contains(subtype.as_str()));
        owned.collect::<Vec<_>>()
    };
    register(&connection, &ours(&owned)).await;
    let unique = connection.unique_name().map(ToString::to_string);
    while let Some(message) = poll_fn(|cx| Pin::new(&mut changes).poll_next(cx)).await {
        let Some(change) = NameOwnerChanged::from_message(message?) else { continue };
        let args = change.args()?;
        let Some(new_owner) = args.new_owner.as_ref() else { continue };
        if args.name == NAME {
            register(&connection, &ours(&owned)).await;
            continue;
        }
        let subtype = args.name.strip_prefix(MANAGER_NAME).and_then(|rest| rest.strip_prefix('.'));
        let handler = handlers.iter().find(|(ours, _)| Some(ours.as_str()) == subtype);
        let is_ours = unique.as_deref() == Some(new_owner.as_str());
        if let Some(handler) = handler.filter(|_| is_ours)
            && owned.insert(&handler.0)
        {
            tracing::info!("the handler {} has its name on the bus now", handler.0);
            register(&connection, &[handler]).await;
        }
    }
    Ok(())
}

/// Asks for the name of a handler: whether it is ours at once. Otherwise it will be when the program
/// that has it has gone; none takes another's away.
async fn own(connection: &Connection, subtype: &str) -> zbus::Result<bool> {
    let name = format!("{MANAGER_NAME}.{subtype}");
    let reply = connection.request_name_with_flags(name, RequestNameFlags::empty()).await?;
    let is_ours = reply != RequestNameReply::InQueue;
    if !is_ours {
        tracing::warn!(
            "another program on the bus is the handler {subtype}: this one's is announced when \
             that has gone"
        );
    }
    Ok(is_ours)
}

/// Registers handlers with the daemon, if there is one.
async fn register(connection: &Connection, handlers: &[&Described]) {
    for (subtype, description) in handlers {
        let arguments = (subtype, description);
        let answer = connection
            .call_method(
                Some(NAME),
                MANAGER_PATH,
                Some(MANAGER_NAME),
                "RegisterHandler",
                &arguments,
            )
            .await
            .and_then(|reply| reply.body().deserialize::<(bool, String)>());
        match answer {
            Ok((true, _)) => tracing::info!("the handler {subtype} is registered over D-Bus"),
            Ok((false, why)) => tracing::error!("the daemon refuses the handler {subtype}: {why}"),
            Err(error) => tracing::info!("the handler {subtype} is not registered: {error}"),
        }
    }
}

/// A handler on the bus.
struct HandlerObject {
    subtype: String,
    description: String,
    checks: Arc<Checks>,
}

#[interface(name = "org.kernel.TCMUService1", introspection_docs = false)]
impl HandlerObject {
    #[zbus(out_args("is_valid", "message"))]
    async fn check_config(&self, configstr: String) -> (bool, String) {
        match self.checks.ask(&self.subtype, configstr).await {
            Ok(()) => (true, "success".to_owned()),
            Err(reason) => (false, reason),
        }
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn config_desc(&self) -> String {
        self.description.clone()
    }
}

#[cfg(test)]
mod tests;
