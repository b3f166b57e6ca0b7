// SPDX-License-Identifier: Apache-2.0
//! Snapshots that QEMU made, as we and as it list them.
use std::fs;

use qcow2::snapshots::list;

use crate::memory::{Memory, now, qemu_img};

#[test]
fn snapshots_are_listed_as_qemu_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for compat in ["compat=0.10", "compat=1.1"] {
        qemu_img(path, &["create", "-q", "-f", "qcow2", "-o", compat, "image", "1M"]);
        for name in ["first", "a name of more than eight letters", "ümlaut"] {
            let (code, text) = qemu_img(path, &["snapshot", "-c", name, "image"]);
            assert_eq!(code, Some(0), "{text}");
        }
        assert_eq!(
            qemu_img(path, &["resize", "-q", "image", "2M"]).0 == Some(0),
            compat == "compat=1.1"
        );
        assert_eq!(qemu_img(path, &["snapshot", "-d", "first", "image"]).0, Some(0));
        let image = Memory::default();
        *image.0.borrow_mut() = fs::read(path.join("image")).unwrap();
        let ours = now(list(&image)).unwrap();
        let (_, info) = qemu_img(path, &["info", "--output=json", "image"]);
        let fields = |name: &str| -> Vec<String> {
            let parts = info.split("\"snapshots\": [").nth(1).unwrap().split(']').next().unwrap();
            let found = parts.lines().filter_map(|line| line.split_once(&format!("\"{name}\": ")));
            found.map(|(_, value)| value.trim_matches([',', '"', ' ']).to_owned()).collect()
        };
        assert_eq!(ours.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), fields("id"));
        assert_eq!(
            ours.iter().map(|s| s.name.clone()).collect::<Vec<_>>(),
            ["a name of more than eight letters", "ümlaut"]
        );
        assert_eq!(fields("name").len(), 2);
        let seconds: Vec<_> = ours.iter().map(|s| s.date.as_secs().to_string()).collect();
        assert_eq!(seconds, fields("date-sec"));
        let nanos: Vec<_> = ours.iter().map(|s| s.date.subsec_nanos().to_string()).collect();
        assert_eq!(nanos, fields("date-nsec"));
        let states: Vec<_> = ours.iter().map(|s| s.vm_state_size.to_string()).collect();
        assert_eq!(states, fields("vm-state-size"));
        assert!(ours.iter().all(|s| s.disk_size == 1 << 20 && s.clock.is_zero()));
    }
}

#[test]
fn a_damaged_table_of_snapshots_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    qemu_img(path, &["create", "-q", "-f", "qcow2", "image", "1M"]);
    qemu_img(path, &["snapshot", "-c", "one", "image"]);
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(path.join("image")).unwrap();
    let at = u64::from_be_bytes(image.0.borrow()[64..72].try_into().unwrap()) as usize;
    image.0.borrow_mut()[at + 36..at + 40].fill(0xff);
    let error = now(list(&image)).unwrap_err().to_string();
    assert!(error.contains("the snapshot 0 has 4294967295 bytes of extra data"), "{error}");
}
