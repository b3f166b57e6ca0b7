// SPDX-License-Identifier: Apache-2.0
//! The D-Bus objects and their interfaces. Names of arguments are those of the C daemon.
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use zbus::message::{Header, Message};
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedObjectPath, Variant, interface};

use super::check::{self, CheckConfig, Report, TIME_LIMIT};
use super::handlers::{self, Handler, Handlers};
use super::{MANAGER_NAME, MANAGER_PATH, NAME, PATH};

/// Interfaces with their properties, as ObjectManager tells them.
type Interfaces = HashMap<String, HashMap<String, Variant<'static>>>;

fn interfaces(description: &str) -> Interfaces {
    let description = Variant::from(description.to_owned());
    HashMap::from([(NAME.to_owned(), HashMap::from([("ConfigDesc".to_owned(), description)]))])
}

/// A handler: built in, or external, to which checks are forwarded.
pub(super) struct HandlerObject {
    subtype: String,
    kind: Kind,
}

enum Kind {
    BuiltIn { description: String, check: CheckConfig },
    External(Arc<Handlers>),
}

impl HandlerObject {
    pub(super) fn builtin(handler: Handler, check: CheckConfig) -> HandlerObject {
        let Handler { subtype, description } = handler;
        HandlerObject { subtype, kind: Kind::BuiltIn { description, check } }
    }
}

#[interface(name = "org.kernel.TCMUService1", introspection_docs = false)]
impl HandlerObject {
    #[zbus(out_args("is_valid", "message"))]
    async fn check_config(
        &self,
        configstr: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> (bool, String) {
        let result = match &self.kind {
            Kind::BuiltIn { check, .. } => match user(connection, &header).await {
                Ok(user) => {
                    let check = check.clone();
                    check::start(move || check(&configstr), user, TIME_LIMIT).await
                }
                Err(error) => Err(format!("the bus does not tell who asks: {error}")),
            },
            Kind::External(_) => match forward(connection, &self.subtype, &configstr).await {
                Ok(answer) => return answer,
                Err(error) => Err(format!("the external handler did not answer: {error}")),
            },
        };
        match result {
            Ok(()) => (true, "success".to_owned()),
            Err(reason) => (false, reason),
        }
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn config_desc(&self) -> String {
        match &self.kind {
            Kind::BuiltIn { description, .. } => description.clone(),
            Kind::External(handlers) => handlers.description(&self.subtype).unwrap_or_default(),
        }
    }
}

/// Asks an external handler.
async fn forward(
    connection: &Connection,
    subtype: &str,
    config: &str,
) -> zbus::Result<(bool, String)> {
    let destination = format!("{MANAGER_NAME}.{subtype}");
    let path = format!("{MANAGER_PATH}/{subtype}");
    let reply = connection
        .call_method(Some(destination), path, Some(NAME), "CheckConfig", &(config,))
        .await?;
    reply.body().deserialize()
}

/// Tells how the daemon does.
pub(super) struct StatusObject {
    pub(super) report: Report,
}

#[interface(name = "org.kernel.TCMUService1.Status1", introspection_docs = false)]
impl StatusObject {
    /// The report that "tcmu-runner status --json" prints.
    #[zbus(out_args("report"))]
    async fn get_status(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> zbus::fdo::Result<String> {
        let user = user(connection, &header).await?;
        let report = self.report.clone();
        let answer = check::start(move || report(), user, TIME_LIMIT).await;
        answer.map_err(zbus::fdo::Error::Failed)
    }
}

/// Where external handlers register.
pub(super) struct HandlerManager {
    pub(super) handlers: Arc<Handlers>,
}

#[interface(name = "org.kernel.TCMUService1.HandlerManager1", introspection_docs = false)]
impl HandlerManager {
    #[zbus(out_args("succeeded", "message"))]
    async fn register_handler(
        &self,
        subtype: String,
        cfgstr_desc: String,
        #[zbus(connection)] connection: &Connection,
    ) -> (bool, String) {
        let handler = Handler { subtype, description: cfgstr_desc };
        match self.register(connection, &handler).await {
            Ok(()) => {
                tracing::info!("handler {} is registered over D-Bus", handler.subtype);
                (true, "succeeded".to_owned())
            }
            Err(reason) => {
                tracing::warn!("a handler could not register over D-Bus: {reason}");
                (false, reason)
            }
        }
    }
}

impl HandlerManager {
    async fn register(&self, connection: &Connection, handler: &Handler) -> Result<(), String> {
        if let Some(reason) = self.handlers.refuses(handler) {
            return Err(reason);
        }
        let subtype = &handler.subtype;
        let name = format!("{MANAGER_NAME}.{subtype}");
        let owner = owner(connection, &name).await.map_err(|error| {
            format!("the handler must own the bus name {name} before it registers: {error}")
        })?;
        let failed = |error: zbus::Error| format!("cannot announce the handler: {error}");
        if self.handlers.add_external(handler, owner) {
            let kind = Kind::External(self.handlers.clone());
            let object = HandlerObject { subtype: subtype.clone(), kind };
            let server = connection.object_server();
            // This announces it.
            server.at(handlers::path(subtype), object).await.map_err(failed)?;
            return Ok(());
        }
        announce(connection, handler).await.map_err(failed)
    }
}

/// Who owns a name.
async fn owner(connection: &Connection, name: &str) -> zbus::Result<String> {
    ask_bus(connection, "GetNameOwner", name).await?.body().deserialize()
}

/// The user whose process has sent a message.
async fn user(connection: &Connection, header: &Header<'_>) -> zbus::Result<u32> {
    let sender = header.sender().ok_or(zbus::Error::InvalidReply)?;
    ask_bus(connection, "GetConnectionUnixUser", sender).await?.body().deserialize()
}

async fn ask_bus(connection: &Connection, method: &str, name: &str) -> zbus::Result<Message> {
    let (bus, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    connection.call_method(Some(bus), path, Some(bus), method, &(name,)).await
}

/// Tells clients of a handler's new description.
async fn announce(connection: &Connection, handler: &Handler) -> zbus::Result<()> {
    let path = ObjectPath::try_from(handler.path())?;
    let emitter = SignalEmitter::new(connection, PATH)?;
    ObjectManager::interfaces_added(&emitter, path, interfaces(&handler.description)).await
}

/// Takes the object of an external handler away; this announces it.
pub(super) async fn withdraw(connection: &Connection, subtype: &str) -> zbus::Result<()> {
    let path = handlers::path(subtype);
    connection.object_server().remove::<HandlerObject, _>(path).await?;
    Ok(())
}

/// Lists the handlers, and them alone: targetcli makes a backstore of each object in the answer, so
/// that the manager at [`MANAGER_PATH`] must not be in it, as it is in zbus's own implementation.
pub(super) struct ObjectManager {
    pub(super) handlers: Arc<Handlers>,
}

#[interface(name = "org.freedesktop.DBus.ObjectManager", introspection_docs = false)]
impl ObjectManager {
    #[zbus(out_args("object_paths_interfaces_and_properties"))]
    async fn get_managed_objects(&self) -> zbus::fdo::Result<HashMap<OwnedObjectPath, Interfaces>> {
        let object = |handler: Handler| {
            let path = OwnedObjectPath::try_from(handler.path())?;
            Ok((path, interfaces(&handler.description)))
        };
        let objects: zbus::Result<_> = self.handlers.all().into_iter().map(object).collect();
        Ok(objects?)
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: Interfaces,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Cow<'_, [InterfaceName<'_>]>,
    ) -> zbus::Result<()>;
}
