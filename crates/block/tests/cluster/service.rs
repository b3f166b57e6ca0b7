// SPDX-License-Identifier: Apache-2.0
//! What the cluster's status says of who serves an image.
use std::time::{Duration, Instant};

use block::{ErrorClass, OpenOptions, Store};
use io_engine::{sleep, unblock};
use serde_json::Value;

use crate::lock::owner;
use crate::servers::{Ceph, ceph};
use crate::{MIB, beside, run, write};

/// What a command of `ceph` says, in a thread of its own.
async fn ceph_says(cluster: &'static Ceph, command: &'static [&'static str]) -> String {
    unblock(move || cluster.run("ceph", command)).await
}

/// Waits until what a command of `ceph` says, in JSON, is what is meant. The manager and the monitor
/// do not know of a daemon at the same time.
async fn said(
    cluster: &'static Ceph,
    command: &'static [&'static str],
    what: impl Fn(&Value) -> bool,
) -> Value {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let state = ceph_says(cluster, command).await;
        let state: Value = serde_json::from_str(&state).unwrap();
        if what(&state) {
            return state;
        }
        assert!(Instant::now() < end, "{state}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the cluster says of a daemon of the service what is meant.
async fn until(cluster: &'static Ceph, daemon: &str, what: impl Fn(&Value) -> bool) {
    let status = &["service", "status", "--format=json"];
    said(cluster, status, |state| what(&state["tcmu-runner"][daemon])).await;
}

/// Does some work while the events of a store are looked at, as a device does.
async fn heard<T>(store: &impl Store, work: impl Future<Output = T>) -> T {
    let events = async {
        loop {
            store.event().await;
        }
    };
    beside(events, work).await
}

#[test]
fn the_clusters_status_shows_who_serves_an_image_and_has_its_lock() {
    let cluster = ceph();
    cluster.create("served", "8M");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let daemon = format!("{}:rbd/served", host.trim_end());
    let options = OpenOptions { service: Some("tcmu-runner"), ..OpenOptions::default() };
    // Such a user may tell it.
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("keyring").display().to_string();
    let mut user = vec!["auth", "get-or-create", "client.gateway", "-o", &keyring];
    ["mon", "osd", "mgr"].iter().for_each(|what| user.extend([what, "profile rbd"]));
    cluster.run("ceph", &user);
    let user = format!("id=gateway;keyring={keyring}");
    let config = format!("{};{user};osd_op_timeout=4", cluster.config("served"));
    run(async {
        // There is no manager yet; it hears of the image when it comes.
        let store = block::open(&config, &options).await.unwrap();
        heard(&store, async {
            unblock(|| cluster.start_manager()).await;
            until(cluster, &daemon, |it| it["status"]["lock_owner"] == "false").await;
            let dump = &["service", "dump", "--format=json"];
            let metadata = |services: &Value| {
                services["services"]["tcmu-runner"]["daemons"][&daemon]["metadata"].clone()
            };
            let properties = metadata(&said(cluster, dump, |it| !metadata(it).is_null()).await);
            for (name, value) in [
                ("pool_name", "rbd"),
                ("image_name", "served"),
                ("daemon_type", "portal"),
                ("daemon_prefix", host.trim_end()),
            ] {
                assert_eq!(properties[name], value, "{properties}");
            }
            let info = cluster.rbd(&["info", "served"]);
            assert!(info.contains(properties["image_id"].as_str().unwrap()), "{info}");
            let status = ceph_says(cluster, &["status"]).await;
            assert!(status.contains("tcmu-runner: 1 portal active"), "{status}");

            let lock = store.lock().unwrap();
            lock.acquire(7).await.unwrap();
            until(cluster, &daemon, |it| it["status"]["lock_owner"] == "true").await;
            // The next client has the same name, and stays when the last traces of the first go.
            let client = owner(cluster, "served");
            cluster.run("ceph", &["osd", "blocklist", "add", &client]);
            assert!(write(&store, 1, MIB, 4096).await.is_err());
            lock.acquire(7).await.unwrap();
            write(&store, 1, MIB, 4096).await.unwrap();
            let again = |it: &Value| {
                it["status"]["lock_lost_cnt"] == "1" && it["status"]["lock_owner"] == "true"
            };
            until(cluster, &daemon, again).await;
            sleep(Duration::from_secs(8)).await;
            until(cluster, &daemon, again).await;

            // What no OSD has answered in time.
            cluster.signal_osd("-STOP");
            let late = write(&store, 2, MIB, 4096).await;
            cluster.signal_osd("-CONT");
            assert_eq!(late.unwrap_err().class(), ErrorClass::TimedOut);
            until(cluster, &daemon, |it| it["status"]["cmd_timed_out_cnt"] == "1").await;
            write(&store, 3, MIB, 4096).await.unwrap();
        })
        .await;
        store.close().await.unwrap();
        until(cluster, &daemon, Value::is_null).await;
    });
}
