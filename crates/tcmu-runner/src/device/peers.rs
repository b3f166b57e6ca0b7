// SPDX-License-Identifier: Apache-2.0
//! The devices of this process as EXTENDED COPY sees them: found by designator, spoken to by
//! messages. A device is in the book from its opening to its end.
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use block::Store;
use io_engine::{Receiver, Sender, channel};
use lun::Lun;
use lun::peers::{CopyPeer, CopyPeers, PeerError, PeerReply, PeerRequest};

use super::Control;

type Naa = [u8; 16];

static BOOK: LazyLock<Mutex<HashMap<Naa, Sender<Control>>>> = LazyLock::new(Mutex::default);

fn book() -> MutexGuard<'static, HashMap<Naa, Sender<Control>>> {
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one device wants of another, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Job {
    request: PeerRequest,
    answer: Sender<Result<PeerReply, PeerError>>,
}

/// Does a job on the logical unit that it is for.
pub(super) async fn serve<B: Store>(lun: Rc<Lun<B>>, job: Job) {
    // Whoever asked may have gone in the meantime.
    let _ = job.answer.send(lun.serve_peer(job.request).await);
}

/// A device's place in the book. Two devices with one serial number cannot be told apart: the one
/// that came first stays in it.
pub(super) struct Listing(Option<Naa>);

impl Listing {
    pub(super) fn new(naa: Naa, control: Sender<Control>) -> Self {
        match book().entry(naa) {
            std::collections::hash_map::Entry::Occupied(_) => Listing(None),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(control);
                Listing(Some(naa))
            }
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(naa) = self.0 {
            book().remove(&naa);
        }
    }
}

/// The book, as a logical unit looks into it.
pub(super) struct Peers;

impl CopyPeers for Peers {
    fn find(&self, naa: &Naa) -> Option<Rc<dyn CopyPeer>> {
        let control = book().get(naa)?.clone();
        Some(Rc::new(Peer(control)))
    }
}

struct Peer(Sender<Control>);

impl CopyPeer for Peer {
    fn call(
        &self,
        request: PeerRequest,
    ) -> Pin<Box<dyn Future<Output = Result<PeerReply, PeerError>> + '_>> {
        let (answer, receiver): (_, Receiver<Result<PeerReply, PeerError>>) = channel();
        Box::pin(async move {
            let mut receiver = receiver;
            self.0.send(Control::Job(Job { request, answer })).map_err(|_| PeerError::Gone)?;
            // The answer's sender goes with the other thread.
            receiver.recv().await.unwrap_or(Err(PeerError::Gone))
        })
    }
}
