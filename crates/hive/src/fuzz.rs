// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: hives of any bytes, and changes of good ones. What must hold of what comes out is
//! asserted here; the tests are a short run of the same.

use crate::format::{HEADER, checksum, header};
use crate::{Hive, Node, made};
use guest_fs::source::Source;

/// A hive of these bytes: asked, checked, and changed.
pub fn hive(bytes: &[u8]) {
    if let Ok(hive) = Hive::open(bytes.to_vec()) {
        look(&hive, hive.root(), 0);
    }
    let mut bytes = bytes.to_vec();
    if bytes.len() >= HEADER {
        // Few bytes that come along have the right checksum.
        let sum = checksum(&bytes[..HEADER]);
        bytes[header::CHECKSUM..header::CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
    }
    for lenient in [false, true] {
        let Ok(mut hive) = Hive::checked(bytes.clone(), lenient) else { continue };
        look(&hive, hive.root(), 0);
        change(&mut hive);
        let written = hive.to_be_written().map(<[u8]>::to_vec);
        if !lenient {
            let again = written.and_then(|written| Hive::checked(written, false));
            assert!(again.is_ok(), "what was good is good after a change: {:?}", again.err());
        }
    }
}

/// Changes of an empty hive, as the bytes say.
pub fn changes(script: &[u8]) {
    const NAMES: [&str; 4] = ["", "a", "B", "\u{20ac}"];
    let Some((minor, script)) = script.split_first() else { return };
    let made = made::empty(u32::from(*minor) % 7);
    let Ok(mut hive) = Hive::checked(made, false) else { return };
    let mut nodes = vec![hive.root()];
    for step in script.chunks_exact(3).take(256) {
        let node = nodes[usize::from(step[1]) % nodes.len()];
        let name = NAMES[usize::from(step[2]) % NAMES.len()];
        let size = usize::from(step[2]) * 97;
        match step[0] % 4 {
            0 => nodes.extend(hive.add_child(node, name)),
            1 => drop(hive.delete(node)),
            _ => drop(hive.set_value(node, name, u32::from(step[0]), &vec![step[1]; size])),
        }
    }
    let written = hive.to_be_written().map(<[u8]>::to_vec);
    let again = written.and_then(|written| Hive::checked(written, false));
    assert!(again.is_ok_and(|again| look(&again, again.root(), 0)), "all can be read");
}

/// Reads what is below a key, to some depth; false if something could not be read.
fn look<S: Source + ?Sized>(hive: &Hive<S>, node: Node, depth: u32) -> bool {
    if depth > 4 {
        return true;
    }
    let mut good = hive.name(node).is_ok();
    if depth > 0 {
        good &= hive.parent(node).is_ok();
    }
    let Ok(values) = hive.values(node) else { return false };
    for entry in values.into_iter().take(16) {
        good &= hive.read_value(entry).map(|value| (value.text(), value.number())).is_ok();
    }
    let Ok(children) = hive.children(node) else { return false };
    children.into_iter().take(8).fold(good, |good, child| good & look(hive, child, depth + 1))
}

/// Adds, sets and deletes.
fn change(hive: &mut Hive<Vec<u8>>) {
    let root = hive.root();
    if let Ok(added) = hive.add_child(root, "added") {
        assert!(hive.name(added).is_ok_and(|name| name == "added"), "what was added is there");
        hive.set_value(added, "value", 1, &[7; 20000]).ok();
        hive.delete(added).ok();
    }
    hive.set_value(root, "", 3, b"set").ok();
    for child in hive.children(root).unwrap_or_default().into_iter().take(4) {
        hive.delete(child).ok();
    }
}
