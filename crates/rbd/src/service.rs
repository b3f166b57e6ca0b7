// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call librados.
//!
//! What a cluster's status says of its clients (`ceph status`, `ceph service dump`, `ceph service
//! status`): a client can be the daemon of a service, with properties and a state. A manager keeps
//! them; without one, or without the right to tell it, the cluster knows of none.
#![allow(unsafe_code)]

use std::ffi::CString;

use crate::Error;
use crate::cluster::Cluster;
use crate::error::checked;

/// Names and values.
pub type Pairs = Vec<(&'static str, String)>;

impl Cluster {
    /// Makes this client the daemon of a service, under a name that no other one has: the cluster
    /// knows one client of each name. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`]: EEXIST where it is one already.
    pub fn register_service(
        &self,
        service: &str,
        daemon: &str,
        properties: &Pairs,
    ) -> Result<(), Error> {
        let [service_name, daemon_name] = [CString::new(service)?, CString::new(daemon)?];
        let properties = dictionary(properties)?;
        let register = self.libraries().rados.rados_service_register;
        let (name, at) = (service_name.as_ptr(), properties.as_ptr());
        // SAFETY: the connection's handle, C strings, and a list that ends as `dictionary` says.
        let registered = unsafe { register(self.handle(), name, daemon_name.as_ptr(), at.cast()) };
        checked(registered, || format!("register {daemon} as one of the service {service}"))?;
        Ok(())
    }

    /// Replaces the state of the service's daemon that this client is. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn update_service(&self, state: &Pairs) -> Result<(), Error> {
        let state = dictionary(state)?;
        let update = self.libraries().rados.rados_service_update_status;
        // SAFETY: the connection's handle, and a list that ends as `dictionary` says.
        let updated = unsafe { update(self.handle(), state.as_ptr().cast()) };
        checked(updated, || "tell the state of a service".into())?;
        Ok(())
    }
}

/// As librados takes them: each name and each value ends with a NUL, and another one ends the list.
///
/// # Errors
/// [`Error::Nul`].
fn dictionary(pairs: &Pairs) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for (name, value) in pairs {
        bytes.extend(CString::new(*name)?.into_bytes_with_nul());
        bytes.extend(CString::new(value.as_str())?.into_bytes_with_nul());
    }
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_with_an_empty_name_and_no_value_ends_it_before() {
        let list = vec![("a", "1".to_owned()), ("bc", String::new())];
        assert_eq!(dictionary(&list).unwrap(), b"a\x001\0bc\0\0\0");
        assert_eq!(dictionary(&Vec::new()).unwrap(), b"\0");
        assert!(matches!(dictionary(&vec![("a", "1\0b".to_owned())]), Err(Error::Nul(_))));
    }
}
