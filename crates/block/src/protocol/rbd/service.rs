// SPDX-License-Identifier: Apache-2.0
//! What the cluster's status says of a client (`ceph status`, `ceph service dump`, `ceph service
//! status`): which image this host serves, whether it has its lock, and what has gone wrong. It is said
//! in the words of the C daemon's handler, so that what watches the gateways of that one sees ours, too.
//! A cluster that cannot be told is served all the same.
use std::cell::Cell;
use std::path::Path;

use rbd::{Cluster, Image, Pairs};

use super::Target;

/// What is told of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// This host has the lock, for a target port group.
    pub(super) owner: bool,
    pub(super) counts: Counts,
}

/// How often something has gone wrong since the image was opened first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// The cluster has shut the client out.
    pub(super) lock_lost: u64,
    /// An operation has failed because a server was not there.
    pub(super) connection_lost: u64,
    /// An operation has failed because no OSD answered it in time.
    pub(super) timed_out: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Service {
    counts: Cell<Counts>,
    /// That the state is to be told is on its way.
    pub(super) telling: Cell<bool>,
}

impl Service {
    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Counts one more.
    pub(super) fn count(&self, what: impl FnOnce(&mut Counts) -> &mut u64) {
        let mut counts = self.counts.get();
        let one = what(&mut counts);
        *one = one.saturating_add(1);
        self.counts.set(counts);
    }
}

/// Tells the cluster that this client serves an image. Blocks.
pub(super) fn register(target: &Target, cluster: &Cluster, image: &Image) {
    let Some(service) = target.service else { return };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let names = target.path();
    let names = names.strip_prefix("rbd").unwrap_or(&names);
    let daemon = format!("{host}:{}", names.display());
    let registered = image.id().and_then(|id| {
        let mut properties: Pairs = vec![
            ("pool_name", target.pool.clone()),
            ("image_name", target.image.clone()),
            ("image_id", id),
            ("daemon_type", "portal".into()),
            ("daemon_prefix", host),
        ];
        let more = [("namespace", &target.namespace), ("snapshot", &target.snapshot)];
        let more = more.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        properties.extend(more);
        cluster.register_service(service, &daemon, &properties)
    });
    if let Err(error) = registered {
        let path = target.path();
        tracing::warn!("{}: the cluster's status does not show it: {error}", path.display());
    }
}

/// Tells the cluster in which state it is. Blocks.
pub(super) fn update(path: &Path, cluster: &Cluster, state: State) {
    let State { owner, counts } = state;
    let state = vec![
        ("lock_owner", owner.to_string()),
        ("lock_lost_cnt", counts.lock_lost.to_string()),
        ("conn_lost_cnt", counts.connection_lost.to_string()),
        ("cmd_timed_out_cnt", counts.timed_out.to_string()),
    ];
    // That it is not shown at all was said before.
    if let Err(error) = cluster.update_service(&state) {
        tracing::debug!("{}: {error}", path.display());
    }
}
