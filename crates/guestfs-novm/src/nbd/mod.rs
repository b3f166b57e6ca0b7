// SPDX-License-Identifier: Apache-2.0
//! Disks on NBD servers: the address of a server ([`Server`]), and the connection to it ([`Nbd`]).
//!
//! The protocol is that of doc/proto.md of <https://github.com/NetworkBlockDevice/nbd>: fixed newstyle negotiation,
//! simple replies, no TLS. A server is not trusted: what it sends is bounded in size, and every request in
//! time. Once the connection has failed, every request fails. There is no reconnecting, because what was
//! written before may be lost.

mod client;
mod store;

pub use client::Nbd;
pub(crate) use store::NbdStore;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// The port of servers that name none.
const PORT: u16 = 10809;
/// Longest name of an export, in the protocol.
const MAX_NAME: usize = 4096;

/// Where a server is, and which of its exports is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it is reached.
    pub address: Address,
    /// The name of the export; empty: the server's default.
    pub export: String,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the filesystem.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(path) => write!(f, "nbd:unix:{}", path.display())?,
            Address::Tcp(host, port) => write!(f, "nbd:{host}:{port}")?,
        }
        if !self.export.is_empty() {
            write!(f, ":exportname={}", self.export)?;
        }
        Ok(())
    }
}

impl Server {
    /// Reads a name as QEMU has it: `nbd:unix:PATH:exportname=NAME`, `nbd:HOST:PORT:exportname=NAME`,
    /// `nbd://HOST:PORT/NAME` or `nbd+unix:///NAME?socket=PATH`. None: it is no such name.
    pub fn parse(name: &str) -> Option<Result<Self, String>> {
        let server = if let Some(rest) = name.strip_prefix("nbd+unix://") {
            unix_uri(rest)
        } else if let Some(rest) = name.strip_prefix("nbd://") {
            let (place, export) = rest.split_once('/').unwrap_or((rest, ""));
            tcp(place).and_then(|address| Self::new(address, decode(export)?))
        } else if name.starts_with("nbds:") || name.starts_with("nbds+unix:") {
            Err("NBD with TLS is not supported".to_owned())
        } else {
            let rest = name.strip_prefix("nbd:")?;
            let (place, export) = rest.split_once(":exportname=").unwrap_or((rest, ""));
            let address = match place.strip_prefix("unix:") {
                Some(path) => Ok(Address::Unix(path.into())),
                None => tcp(place),
            };
            address.and_then(|address| Self::new(address, export.to_owned()))
        };
        Some(server.map_err(|why| format!("{name}: {why}")))
    }

    /// Reads the options of a node of the driver `nbd`, of which `get` yields one.
    pub fn from_options<'o>(get: impl Fn(&str) -> Option<&'o OsString>) -> Result<Self, String> {
        let one = |names: &[&str]| names.iter().find_map(|name| get(name));
        let text = |names: &[&str]| one(names).map(|value| value.to_string_lossy().into_owned());
        let export = text(&["export"]).unwrap_or_default();
        if one(&["tls-creds"]).is_some() {
            return Err("NBD with TLS is not supported".to_owned());
        }
        let address = if let Some(path) = one(&["server.path", "path"]) {
            Address::Unix(path.into())
        } else if let Some(host) = text(&["server.host", "host"]) {
            let port = text(&["server.port", "port"]);
            Address::Tcp(host, port.map_or(Ok(PORT), |port| parse_port(&port))?)
        } else {
            return Err("neither server.path nor server.host says where the NBD server is".into());
        };
        Self::new(address, export)
    }

    fn new(address: Address, export: String) -> Result<Self, String> {
        if export.len() > MAX_NAME {
            return Err(format!("the export's name is longer than {MAX_NAME} bytes"));
        }
        match &address {
            Address::Unix(path) if path.as_os_str().is_empty() => Err("no socket is named".into()),
            Address::Tcp(host, _) if host.is_empty() => Err("no host is named".into()),
            _ => Ok(Self { address, export }),
        }
    }
}

/// `/NAME?socket=PATH`
fn unix_uri(rest: &str) -> Result<Server, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let export = path.strip_prefix('/').ok_or("a path is expected")?;
    let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket="));
    let socket = decode(socket.ok_or("socket=PATH is missing")?)?;
    Server::new(Address::Unix(socket.into()), decode(export)?)
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`
fn tcp(place: &str) -> Result<Address, String> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    Ok(Address::Tcp(host.to_owned(), port.map_or(Ok(PORT), parse_port)?))
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("port {text}: expecting a number up to 65535"))
}

/// Undoes the %XX of a URI.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(byte.ok_or("% is not followed by two hexadecimal digits")?);
            rest = &after[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unix(path: &str, export: &str) -> Server {
        Server { address: Address::Unix(path.into()), export: export.into() }
    }

    fn inet(host: &str, port: u16, export: &str) -> Server {
        Server { address: Address::Tcp(host.into(), port), export: export.into() }
    }

    #[test]
    fn a_server_is_named_as_qemu_names_it() {
        for (name, server) in [
            ("nbd:unix:/a/b.sock", unix("/a/b.sock", "")),
            ("nbd:unix:/a b:exportname=x/y", unix("/a b", "x/y")),
            ("nbd:localhost:10809", inet("localhost", 10809, "")),
            ("nbd:localhost:1:exportname=", inet("localhost", 1, "")),
            ("nbd:[::1]:2:exportname=e", inet("::1", 2, "e")),
            ("nbd://host", inet("host", PORT, "")),
            ("nbd://host:5/a%20b", inet("host", 5, "a b")),
            ("nbd+unix:///?socket=/tmp/s", unix("/tmp/s", "")),
            ("nbd+unix:///e?x=y&socket=/tmp/%73", unix("/tmp/s", "e")),
        ] {
            assert_eq!(Server::parse(name), Some(Ok(server)), "{name}");
        }
        assert_eq!(Server::parse("/nbd:unix:/x"), None);
        for name in ["nbd:unix:", "nbd:", "nbd:h:99999", "nbd+unix:///e", "nbd://h/%f", "nbds://h"]
        {
            assert!(matches!(Server::parse(name), Some(Err(_))), "{name}");
        }
    }

    #[test]
    fn a_node_says_where_its_server_is() {
        let of = |pairs: &[(&str, &str)]| {
            let map: std::collections::BTreeMap<String, OsString> =
                pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            Server::from_options(|name| map.get(name))
        };
        let node = [("server.type", "unix"), ("server.path", "/s"), ("export", "e")];
        assert_eq!(of(&node), Ok(unix("/s", "e")));
        assert_eq!(of(&[("host", "h"), ("port", "7")]), Ok(inet("h", 7, "")));
        assert!(of(&[]).is_err() && of(&[("path", "/s"), ("tls-creds", "t")]).is_err());
    }

    proptest! {
        #[test]
        fn any_name_is_read_or_refused(name in "nbd(s|\\+unix)?:(//)?.{0,40}") {
            let _ = Server::parse(&name);
        }
    }
}
