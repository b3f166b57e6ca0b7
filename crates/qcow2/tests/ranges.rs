// SPDX-License-Identifier: Apache-2.0
//! Operations on ranges that are chosen by hand: on the same bytes, side by side, in a chosen order;
//! and at the end of an image.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests' helpers")]
#![allow(clippy::cast_possible_truncation, reason = "of small numbers")]
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use qcow2::{CreateOptions, Extent, Image, Options, Parts, Storage, create};
use sgl::Sgl;

const CLUSTER: usize = 65536;

/// Memory, the guest's data in which may be held up on its way; syncs as well.
#[derive(Clone, Default)]
struct Memory(Rc<State>);

#[derive(Default)]
struct State {
    bytes: RefCell<Vec<u8>>,
    /// A write that begins with this byte waits.
    held: Cell<Option<u8>>,
    syncs_held: Cell<bool>,
}

impl Memory {
    async fn wait(&self, held: impl Fn(&State) -> bool) {
        poll_fn(|_| if held(&self.0) { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

impl Storage for Memory {
    async fn length(&self) -> io::Result<u64> {
        Ok(self.0.bytes.borrow().len() as u64)
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let bytes = self.0.bytes.borrow();
        let start = (offset as usize).min(bytes.len());
        let end = (start + data.len()).min(bytes.len());
        data.write_at(0, &bytes[start..end]);
        data.fill(end - start..data.len(), 0);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let mut new = vec![0; data.len()];
        data.read_at(0, &mut new);
        self.wait(|state| state.held.get() == Some(new[0])).await;
        let (mut bytes, start) = (self.0.bytes.borrow_mut(), offset as usize);
        let end = bytes.len().max(start + new.len());
        bytes.resize(end, 0);
        bytes[start..start + new.len()].copy_from_slice(&new);
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64, _punch: bool) -> io::Result<()> {
        let mut bytes = self.0.bytes.borrow_mut();
        let end = ((offset + len) as usize).min(bytes.len());
        bytes[offset as usize..end].fill(0);
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.bytes.borrow_mut().resize(len as usize, 0);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.wait(|state| state.syncs_held.get()).await;
        Ok(())
    }

    async fn map(&self, _offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        Ok((Extent::Data, len))
    }
}

/// Polls a future some times; whether it is at its end.
fn goes_on<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut cx = Context::from_waker(Waker::noop());
    (0..50).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

fn end<T>(future: impl Future<Output = T>) -> T {
    goes_on(&mut pin!(future)).expect("it waits")
}

fn new_image(memory: &Memory, options: &CreateOptions) -> Image<Memory> {
    end(create(memory, None, options)).unwrap();
    let parts = Parts { storage: memory.clone(), data_file: None, backing: None };
    end(Image::open(parts, &Options::default())).unwrap()
}

#[test]
fn zeroes_where_a_write_is_on_its_way_do_not_bring_back_what_was_there_before_them() {
    let memory = Memory::default();
    let image = new_image(&memory, &CreateOptions::new(1 << 20));
    let write = async |value: u8, len: usize| {
        let mut bytes = vec![value; len];
        image.write(&Sgl::from_slice(&mut bytes), 0).await
    };
    let zero = |len: usize| image.write_zeroes(0, len as u64, false);
    end(write(1, CLUSTER)).unwrap();

    // A write into the cluster, which becomes zero meanwhile by a flag.
    memory.0.held.set(Some(2));
    let mut first = pin!(write(2, 512));
    assert!(goes_on(&mut first).is_none());
    end(zero(CLUSTER)).unwrap();
    // Another one, which has to take the flag away: its data get there before those of the first,
    // and it waits for the sync.
    memory.0.syncs_held.set(true);
    let mut second = pin!(write(3, CLUSTER));
    assert!(goes_on(&mut second).is_none());
    memory.0.held.set(None);
    goes_on(&mut first).expect("the first is done").unwrap();
    // The first was done before these zeroes were asked for.
    let mut zeroes = pin!(zero(512));
    let done = goes_on(&mut zeroes);
    memory.0.syncs_held.set(false);
    goes_on(&mut second).expect("the second is done").unwrap();
    done.or_else(|| goes_on(&mut zeroes)).expect("the zeroes are there").unwrap();

    let mut found = vec![0; 512];
    end(image.read(&Sgl::from_slice(&mut found), 0)).unwrap();
    assert_ne!(found[0], 2, "what the zeroes have overwritten is there again");
}

#[test]
fn zeroes_reach_the_end_of_an_image_that_ends_anywhere_in_a_cluster_or_subcluster() {
    for extended_l2 in [false, true] {
        for size in (65536..=2 * 65536).step_by(512 * 7) {
            let memory = Memory::default();
            let options = CreateOptions { extended_l2, ..CreateOptions::new(size) };
            let image = new_image(&memory, &options);
            let mut ones = vec![1; size as usize];
            end(image.write(&Sgl::from_slice(&mut ones), 0)).unwrap();
            for (len, may_unmap) in [(0, true), (0, false), (512, true), (1024, false)] {
                end(image.write_zeroes(size - len, len, may_unmap)).unwrap();
                end(image.discard(size - len, len)).unwrap();
            }
            let mut found = vec![7; size as usize];
            end(image.read(&Sgl::from_slice(&mut found), 0)).unwrap();
            assert!(found[..found.len() - 1024].iter().all(|byte| *byte == 1), "{size}");
            assert!(found[found.len() - 1024..].iter().all(|byte| *byte == 0), "{size}");
        }
    }
}
