// SPDX-License-Identifier: Apache-2.0
//! A storage in memory, whose content can be a file for QEMU's tools; and those.
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use qcow2::{Extent, Storage};
use sgl::Sgl;

/// Bytes in memory, and since the log was emptied what was written: `None` stands for a sync.
/// Clones are the same storage.
#[derive(Clone, Default)]
pub(crate) struct Memory(
    pub(crate) Rc<RefCell<Vec<u8>>>,
    pub(crate) Rc<RefCell<Vec<Option<Write>>>>,
);

/// Offset and bytes.
pub(crate) type Write = (usize, Vec<u8>);

impl Storage for Memory {
    async fn length(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let bytes = self.0.borrow();
        let start = bytes.len().min(offset as usize);
        let there = data.len().min(bytes.len() - start);
        data.fill(0..data.len(), 0);
        data.write_at(0, &bytes[start..start + there]);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let (start, mut bytes) = (offset as usize, self.0.borrow_mut());
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        data.read_at(0, &mut bytes[start..end]);
        self.1.borrow_mut().push(Some((start, bytes[start..end].to_vec())));
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        self.0.borrow_mut()[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.borrow_mut().resize(len as usize, 0);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.1.borrow_mut().push(None);
        Ok(())
    }

    async fn map(&self, _: u64, len: u64) -> io::Result<(Extent, u64)> {
        Ok((Extent::Data, len))
    }
}

/// Runs what waits for nothing but its next turn.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let turns = 0..1_000_000;
    let mut polled = turns.map(|_| future.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    match polled.find_map(|poll| if let Poll::Ready(value) = poll { Some(value) } else { None }) {
        Some(value) => value,
        None => panic!("memory has to wait for nothing"),
    }
}

/// What a tool of QEMU prints. It is in the package qemu-utils.
pub(crate) fn qemu_img(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("the tests need qemu-img: install the package qemu-utils");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

/// A number of what `qemu-img --output=json` prints; 0 where it is missing.
pub(crate) fn number(json: &str, field: &str) -> u64 {
    let start = format!("\"{field}\": ");
    let found = json.split(&start).nth(1);
    found.map_or(0, |rest| rest.split([',', '\n']).next().unwrap().trim().parse().unwrap())
}

/// A word of an image.
pub(crate) fn word(image: &Memory, at: u64) -> u64 {
    let at = at as usize;
    u64::from_be_bytes(image.0.borrow()[at..at + 8].try_into().unwrap())
}

/// Changes a word of an image.
pub(crate) fn set(image: &Memory, at: u64, value: u64) {
    let at = at as usize;
    image.0.borrow_mut()[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
pub(crate) const COPIED: u64 = 1 << 63;

/// Where the first refcount block, the L1 and the first L2 table are.
pub(crate) fn places(image: &Memory) -> (u64, u64, u64) {
    let block = word(image, word(image, 48));
    let l1 = word(image, 40);
    (block, l1, word(image, l1) & OFFSET)
}

/// Has QEMU carry out commands on an image.
pub(crate) fn qemu_io(directory: &Path, image: &str, commands: &[&str]) {
    let mut command = Command::new("qemu-io");
    for what in commands {
        command.args(["-c", what]);
    }
    let command = command.args(["-d", "unmap", "-f", "qcow2", image]).current_dir(directory);
    let output = command.output().expect("the tests need qemu-io: install the package qemu-utils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
