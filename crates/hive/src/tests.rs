// SPDX-License-Identifier: Apache-2.0
//! Hives made here: what is read from them, and what is left of them after changes.

use super::*;
use crate::made::{empty, wide};
use guest_fs::source::Cached;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

fn sample() -> Vec<u8> {
    let version: &[&str] = &["Microsoft", "CurrentVersion"];
    made::with(&[
        (version, "ProductName", 1, &wide("Windows 7")),
        (version, "Number", 4, &6_u32.to_le_bytes()),
        (version, "Long", 3, &[7; 50000]),
        (&["Microsoft", "Other"], "", 1, &wide("default")),
    ])
    .unwrap()
}

#[test]
fn keys_and_values_are_found_whatever_their_case() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&sample()).unwrap();
    let hive = Hive::open(Cached::new(file)).unwrap();
    let key = hive.find(&["microsoft", "CURRENTVERSION"]).unwrap().unwrap();
    let value = |name| hive.read_value(hive.value(key, name).unwrap().unwrap()).unwrap();
    assert_eq!(value("productname").text().unwrap(), "Windows 7");
    assert_eq!(value("Number").number(), Some(6));
    assert_eq!(value("Long").data, vec![7; 50000]);
    assert_eq!(hive.value(key, "none").unwrap(), None);
    assert_eq!(hive.find(&["microsoft", "none"]).unwrap(), None);
    assert!(hive.children(key).unwrap().is_empty());
    assert_eq!(hive.parent(hive.parent(key).unwrap()).unwrap(), hive.root());
}

#[test]
fn what_is_no_hive_is_refused() {
    for short in [Vec::new(), b"regf".to_vec()] {
        assert!(matches!(Hive::open(short), Err(Error::NotAHive(_))));
    }
    assert!(matches!(Hive::open(vec![0; 5000]), Err(Error::Unsupported(_))));
    let mut bytes = sample();
    bytes[0x10] ^= 1;
    assert!(matches!(Hive::checked(bytes, true), Err(Error::NotAHive(_))));
}

#[test]
fn handles_of_anything_else_are_refused() {
    let hive = Hive::checked(sample(), false).unwrap();
    let bytes = sample().len() as i64;
    let keys = (-8..bytes).filter_map(|n| Node::from_handle(n).ok());
    assert_eq!(keys.filter(|node| hive.name(*node).is_ok()).count(), 4);
    let values = (-8..bytes).filter_map(|n| Entry::from_handle(n).ok());
    assert_eq!(values.filter(|entry| hive.value_data(*entry).is_ok()).count(), 4);
    assert!(Node::from_handle(i64::MIN).is_err() && Node::from_handle(i64::MAX).is_err());
}

#[test]
fn a_list_that_leads_to_itself_comes_to_an_end() {
    let mut bytes = sample();
    let root = Hive::open(bytes.clone()).unwrap().key(Hive::open(bytes.clone()).unwrap().root());
    let list = root.unwrap().subkey_list;
    let at = usize::try_from(format::in_file(list)).unwrap();
    bytes.resize(at + (1 << 20), 0);
    bytes[at..at + 4].copy_from_slice(&(-(1_i32 << 20)).to_le_bytes());
    bytes[at + 4..at + 8].copy_from_slice(b"ri\xff\xff");
    for entry in bytes[at + 8..at + 8 + 4 * 0xffff].chunks_exact_mut(4) {
        entry.copy_from_slice(&list.to_le_bytes());
    }
    let hive = Hive::open(bytes).unwrap();
    assert_eq!(hive.find(&["x"]).unwrap(), None);
    assert!(hive.children(hive.root()).unwrap().is_empty());
    let strict = Hive { lenient: false, ..hive };
    assert!(strict.children(strict.root()).is_err());
}

#[test]
fn a_key_below_itself_is_not_deleted() {
    let mut bytes = sample();
    let hive = Hive::checked(bytes.clone(), false).unwrap();
    let (top, key) = (hive.root(), hive.find(&["Microsoft"]).unwrap().unwrap());
    let list = usize::try_from(format::in_file(hive.key(key).unwrap().subkey_list)).unwrap();
    bytes[list + 8..list + 12].copy_from_slice(&top.0.to_le_bytes());
    let mut hive = Hive::checked(bytes.clone(), false).unwrap();
    assert!(matches!(hive.delete(key), Err(Error::Damaged { .. })));
    assert!(matches!(hive.delete(top), Err(Error::Argument(_))));
    assert_eq!(hive.source, bytes);
}

#[test]
fn what_is_deleted_is_given_back() {
    let mut hive = Hive::checked(empty(5), false).unwrap();
    let used = |hive: &Hive<Vec<u8>>| -> u32 {
        let len = u32::try_from(hive.source.len()).unwrap();
        let cells = hive.cells.as_ref().unwrap();
        (0..len).map(|at| u32::from(cells.is_used(at))).sum()
    };
    let before = used(&hive);
    let root = hive.root();
    let key = hive.add_child(root, "key").unwrap();
    for i in 0..2000 {
        hive.add_child(key, &format!("key {i}")).unwrap();
    }
    for len in [0, 4, 5, 16344, 16345, 100_000] {
        hive.set_value(key, "value", 3, &vec![1; len]).unwrap();
    }
    assert_eq!(hive.children(key).unwrap().len(), 2000);
    hive.delete(key).unwrap();
    assert!(hive.name(key).is_err());
    assert_eq!(used(&hive), before);
    let again = Hive::checked(hive.to_be_written().unwrap().to_vec(), false).unwrap();
    assert_eq!(used(&again), before);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut hive = Hive::checked(empty(5), false).unwrap();
    let root = hive.root();
    hive.add_child(root, "a").unwrap();
    assert!(matches!(hive.add_child(root, "A"), Err(Error::Exists)));
    assert!(matches!(hive.add_child(root, ""), Err(Error::Argument(_))));
    assert!(matches!(hive.add_child(root, &"x".repeat(256)), Err(Error::Argument(_))));
    assert!(matches!(hive.set_value(root, &"x".repeat(16384), 1, b""), Err(Error::Argument(_))));
    let long = vec![0; 8_000_001];
    assert!(matches!(hive.set_value(root, "x", 3, &long), Err(Error::TooMuch(_))));
}

/// What a key should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    keys: BTreeMap<String, Model>,
    values: Vec<(String, u32, Vec<u8>)>,
}

impl Model {
    fn read<S: Source + ?Sized>(hive: &Hive<S>, node: Node) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut model = Self::default();
        for child in hive.children(node).unwrap() {
            assert_eq!(hive.parent(child).unwrap(), node);
            names.push(hive.name(child).unwrap());
            model.keys.insert(names.last().unwrap().to_uppercase(), Self::read(hive, child));
        }
        assert!(names.is_sorted_by(|a, b| text::order(a, b).is_lt()), "{names:?}");
        for entry in hive.values(node).unwrap() {
            let value = hive.read_value(entry).unwrap();
            model.values.push((value.name, value.kind, value.data));
        }
        model
    }

    fn at(&mut self, path: &[String]) -> Option<&mut Self> {
        path.iter().try_fold(self, |at, name| at.keys.get_mut(&name.to_uppercase()))
    }

    fn set(&mut self, name: &str, kind: u32, data: &[u8]) {
        let new = (name.to_owned(), kind, data.to_vec());
        let old = self.values.iter_mut().find(|(n, ..)| text::same(n, name));
        match old {
            Some(old) => *old = new,
            None => self.values.push(new),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<String>, String),
    Delete(Vec<String>),
    Set(Vec<String>, String, u32, Vec<u8>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(vec!["a", "B", "aa", "b_", "ä", "\u{20ac}uro"]);
    let name = move || name().prop_map(str::to_owned);
    let path = move || prop::collection::vec(name(), 0..3);
    let data = (prop::sample::select(vec![0, 1, 4, 5, 300, 16344, 16345, 40000]), any::<u8>())
        .prop_map(|(len, byte)| vec![byte; len]);
    let step = prop_oneof![
        4 => (path(), name()).prop_map(|(path, name)| Step::Add(path, name)),
        1 => path().prop_map(Step::Delete),
        3 => (path(), name(), 0..12_u32, data).prop_map(|(p, n, k, d)| Step::Set(p, n, k, d)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..60)
}

/// Does the steps to a hive and to a model, which must stay the same.
fn replay(minor: u32, steps: &[Step]) -> (Vec<u8>, Model) {
    let mut hive = Hive::checked(empty(minor), false).unwrap();
    let mut model = Model::default();
    for step in steps {
        let find = |hive: &Hive<Vec<u8>>, path: &[String]| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            hive.find(&path).unwrap()
        };
        match step {
            Step::Add(path, name) => {
                let Some(node) = find(&hive, path) else { continue };
                let added = hive.add_child(node, name);
                let above = &mut model.at(path).unwrap().keys;
                assert_eq!(added.is_ok(), !above.contains_key(&name.to_uppercase()));
                above.entry(name.to_uppercase()).or_default();
            }
            Step::Delete(path) => {
                let Some(node) = find(&hive, path) else { continue };
                let Some((name, above)) = path.split_last() else { continue };
                hive.delete(node).unwrap();
                model.at(above).unwrap().keys.remove(&name.to_uppercase());
            }
            Step::Set(path, name, kind, data) => {
                let Some(node) = find(&hive, path) else { continue };
                hive.set_value(node, name, *kind, data).unwrap();
                model.at(path).unwrap().set(name, *kind, data);
            }
            Step::Reopen => {
                let bytes = hive.to_be_written().unwrap().to_vec();
                hive = Hive::checked(bytes, false).unwrap();
            }
        }
    }
    (hive.to_be_written().unwrap().to_vec(), model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hive_holds_what_was_put_into_it(minor in 2..7_u32, steps in steps()) {
        let (bytes, model) = replay(minor, &steps);
        let hive = Hive::checked(bytes, false).unwrap();
        prop_assert_eq!(Model::read(&hive, hive.root()), model);
    }

    #[test]
    fn a_damaged_hive_does_no_harm(changes: Vec<(u16, u8)>) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        fuzz::hive(&bytes);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(mut bytes: Vec<u8>) {
        bytes.splice(0..0, *b"regf");
        bytes.resize(bytes.len() + 4096, 0);
        fuzz::hive(&bytes);
    }

    #[test]
    fn any_changes_leave_a_hive_that_can_be_read(script: Vec<u8>) {
        fuzz::changes(&script);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn another_program_reads_what_was_written(minor in 3..6_u32, steps in steps()) {
        let (bytes, model) = replay(minor, &steps);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hive");
        std::fs::write(&path, bytes).unwrap();
        let xml = Command::new("hivexml").arg(&path).output();
        let xml = xml.expect("hivexml is missing: install libhivex-bin");
        prop_assert!(xml.status.success(), "{}", String::from_utf8_lossy(&xml.stderr));
        let xml = String::from_utf8_lossy(&xml.stdout);
        let count = |what: &str| xml.matches(what).count();
        fn all(model: &Model) -> (usize, usize) {
            let below = model.keys.values().map(all);
            let own = (1, model.values.len());
            below.fold(own, |(keys, values), (k, v)| (keys + k, values + v))
        }
        prop_assert_eq!((count("<node "), count("<value ")), all(&model));
    }
}
