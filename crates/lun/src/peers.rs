// SPDX-License-Identifier: Apache-2.0
//! What logical units of one daemon do for each other's copies.
//!
//! Other logical units live on other threads. They are found by their NAA designator through
//! [`CopyPeers`], and spoken to by messages that own their buffer: [`CopyPeer::call`] carries a
//! [`PeerRequest`] to the thread of the other device, which answers it with
//! [`Lun::serve_peer`](crate::Lun::serve_peer).
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use block::CHUNK;
use scsi::copy::CopyStatus;
use scsi::sense::Sense;

use crate::failure::Failure;

/// The most bytes of one [`PeerRequest::Read`] or [`PeerRequest::Write`].
pub const MAX_PEER_TRANSFER: usize = CHUNK;

/// Finds the other logical units of this daemon.
pub trait CopyPeers {
    /// The logical unit with this NAA designator (see [`Identity::naa`](crate::Identity::naa)).
    fn find(&self, naa: &[u8; 16]) -> Option<Rc<dyn CopyPeer>>;
}

/// Another logical unit.
pub trait CopyPeer {
    /// Has its thread execute a request with [`Lun::serve_peer`](crate::Lun::serve_peer).
    fn call(
        &self,
        request: PeerRequest,
    ) -> Pin<Box<dyn Future<Output = Result<PeerReply, PeerError>> + '_>>;
}

/// What a logical unit does for the copy of another.
#[derive(Debug)]
pub enum PeerRequest {
    /// Says how large it is.
    Describe,
    /// Fills the buffer: whole blocks, at most [`MAX_PEER_TRANSFER`] bytes.
    Read {
        /// First block.
        lba: u64,
        /// As long as what is to be read.
        buffer: Vec<u8>,
    },
    /// Writes the buffer: the same.
    Write {
        /// First block.
        lba: u64,
        /// What to write.
        buffer: Vec<u8>,
    },
}

/// The answer to a [`PeerRequest`].
#[derive(Debug)]
pub struct PeerReply {
    /// Block size in bytes.
    pub block_size: u32,
    /// Capacity in blocks.
    pub blocks: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// The request's buffer.
    pub buffer: Vec<u8>,
}

/// Why a [`PeerRequest`] was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The device has gone.
    Gone,
    /// It could not do it; its log says why.
    Failed,
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Failure::Check(match error {
            PeerError::Gone => Sense::COPY_TARGET_DEVICE_NOT_REACHABLE,
            PeerError::Failed => Sense::COPY_THIRD_PARTY_DEVICE_FAILURE,
        })
    }
}

/// How many results are kept for RECEIVE COPY RESULTS.
const RESULTS: usize = 16;

/// How the last copies ended.
#[derive(Default)]
pub(crate) struct Results(RefCell<VecDeque<(u8, CopyStatus)>>);

impl Results {
    /// Notes how a copy ended.
    pub(crate) fn record(&self, list_id: u8, status: CopyStatus) {
        let mut results = self.0.borrow_mut();
        results.retain(|(id, _)| *id != list_id);
        results.truncate(RESULTS - 1);
        results.push_front((list_id, status));
    }

    /// How this copy ended. It is told once; RECEIVE COPY STATUS discards it (SPC-4).
    pub(crate) fn take(&self, list_id: u8) -> Option<CopyStatus> {
        let mut results = self.0.borrow_mut();
        let at = results.iter().position(|(id, _)| *id == list_id)?;
        results.remove(at).map(|(_, status)| status)
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
