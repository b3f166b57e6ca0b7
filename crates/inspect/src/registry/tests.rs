// SPDX-License-Identifier: Apache-2.0
//! Hives made here, and what is read from them.

use super::*;
use proptest::prelude::*;

/// Makes hives: keys with subkeys and values.
#[derive(Default)]
pub(crate) struct Maker {
    cells: Vec<u8>,
}

impl Maker {
    fn cell(&mut self, data: &[u8]) -> u32 {
        let at = u32::try_from(self.cells.len()).unwrap();
        let size = (data.len() + 4).next_multiple_of(8);
        self.cells.extend((-i32::try_from(size).unwrap()).to_le_bytes());
        self.cells.extend_from_slice(data);
        self.cells.resize(usize::try_from(at).unwrap() + size, 0);
        at
    }

    fn value(&mut self, name: &str, kind: u32, data: &[u8]) -> u32 {
        let (len, at) = match data.len() {
            0..=4 => {
                let mut inline = [0; 4];
                inline[..data.len()].copy_from_slice(data);
                (u32::try_from(data.len()).unwrap() | 1 << 31, u32::from_le_bytes(inline))
            }
            len => (u32::try_from(len).unwrap(), self.cell(data)),
        };
        let mut vk = b"vk".to_vec();
        vk.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        vk.extend([len, at, kind].map(u32::to_le_bytes).concat());
        vk.extend([1, 0, 0, 0]);
        vk.extend(name.as_bytes());
        self.cell(&vk)
    }

    pub(crate) fn key(
        &mut self,
        name: &str,
        subkeys: &[u32],
        values: &[(&str, u32, Vec<u8>)],
    ) -> u32 {
        let mut lh = b"lh".to_vec();
        lh.extend(u16::try_from(subkeys.len()).unwrap().to_le_bytes());
        for key in subkeys {
            lh.extend(key.to_le_bytes());
            lh.extend([0; 4]);
        }
        let subkey_list = self.cell(&lh);
        let offsets: Vec<u32> =
            values.iter().map(|(name, kind, data)| self.value(name, *kind, data)).collect();
        let value_list =
            self.cell(&offsets.iter().flat_map(|o| o.to_le_bytes()).collect::<Vec<_>>());
        let mut nk = vec![0; 0x4c];
        nk[..4].copy_from_slice(b"nk\x20\0");
        for (at, number) in [
            (0x14, u32::try_from(subkeys.len()).unwrap()),
            (0x1c, subkey_list),
            (0x24, u32::try_from(values.len()).unwrap()),
            (0x28, value_list),
            (0x48, u32::try_from(name.len()).unwrap()),
        ] {
            nk[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        nk.extend(name.as_bytes());
        self.cell(&nk)
    }

    pub(crate) fn hive(self, root: u32) -> Vec<u8> {
        let mut out = b"regf".to_vec();
        out.resize(0x24, 0);
        out.extend(root.to_le_bytes());
        out.resize(4096, 0);
        out.extend(self.cells);
        out
    }
}

/// Text as the registry has it.
pub(crate) fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn sample() -> Vec<u8> {
    let mut m = Maker::default();
    let values = [
        ("ProductName", 1, wide("Windows 7")),
        ("Number", 4, 6_u32.to_le_bytes().to_vec()),
        ("Long", 3, vec![7; 5000]),
    ];
    let leaf = m.key("CurrentVersion", &[], &values);
    let other = m.key("Other", &[], &[]);
    let middle = m.key("Microsoft", &[other, leaf], &[]);
    let root = m.key("ROOT", &[middle], &[]);
    m.hive(root)
}

#[test]
fn keys_and_values_are_found_whatever_their_case() {
    let hive = Hive::open(sample()).unwrap();
    let key = hive.find(&["microsoft", "CURRENTVERSION"]).unwrap();
    assert_eq!(hive.value(key, "productname").unwrap().text().unwrap(), "Windows 7");
    assert_eq!(hive.value(key, "Number").unwrap().number(), Some(6));
    assert_eq!(hive.value(key, "Long").unwrap().data, vec![7; 5000]);
    assert_eq!(hive.value(key, "none"), None);
    assert_eq!(hive.find(&["microsoft", "none"]), None);
    assert!(hive.has_children(hive.root().unwrap()) && !hive.has_children(key));
}

#[test]
fn what_is_no_hive_is_none() {
    assert!(Hive::open(Vec::new()).is_none());
    assert!(Hive::open(vec![0; 5000]).is_none());
}

#[test]
fn a_list_that_leads_to_itself_comes_to_an_end() {
    let mut m = Maker::default();
    let mut nk = vec![0; 0x50];
    nk[..4].copy_from_slice(b"nk\x20\0");
    nk[0x14..0x18].copy_from_slice(&1_u32.to_le_bytes());
    let root = m.cell(&nk);
    let list = u32::try_from(m.cells.len()).unwrap();
    let mut ri = b"ri\xff\xff".to_vec();
    for _ in 0..0xffff {
        ri.extend(list.to_le_bytes());
    }
    m.cell(&ri);
    let at = usize::try_from(root).unwrap() + 4 + 0x1c;
    m.cells[at..at + 4].copy_from_slice(&list.to_le_bytes());
    let hive = Hive::open(m.hive(root)).unwrap();
    assert_eq!(hive.find(&["x"]), None);
}

fn ask(bytes: Vec<u8>) {
    let Some(hive) = Hive::open(bytes) else { return };
    let Some(key) = hive.find(&["Microsoft", "CurrentVersion"]) else { return };
    for value in hive.values(key) {
        value.text();
        value.number();
    }
}

proptest! {
    #[test]
    fn a_damaged_hive_does_no_harm(changes: Vec<(u16, u8)>) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = 4096 + usize::from(at) % (bytes.len() - 4096);
            bytes[at] = byte;
        }
        ask(bytes);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(mut bytes: Vec<u8>) {
        bytes.splice(0..0, *b"regf");
        bytes.resize(bytes.len() + 4096, 0);
        ask(bytes);
    }
}
