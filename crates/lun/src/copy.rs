// SPDX-License-Identifier: Apache-2.0
//! EXTENDED COPY (SPC-4 6.4) inside a logical unit and between those of one daemon, and RECEIVE
//! COPY RESULTS.
//!
//! A copy moves [`MAX_PEER_TRANSFER`] bytes at a time through one buffer.
use std::rc::Rc;

use block::{CHUNK, Store};
use scsi::command::CopyService;
use scsi::copy::{self, CopyList, CopyStatus, Cscd, Segment};
use scsi::sense::Sense;
use sgl::Sgl;

use crate::alua::AccessState::{LbaDependent, NonOptimized, Optimized};
use crate::buffer::{parameter_list, reply};
use crate::failure::{Answer, Doing, Failure};
use crate::peers::{CopyPeer, MAX_PEER_TRANSFER, PeerError, PeerReply, PeerRequest};
use crate::unit::Lun;

/// How many copies run at a time, as initiators are told.
const CONCURRENT: u8 = 4;

/// A source or destination that was found.
#[derive(Clone)]
struct Party {
    naa: [u8; 16],
    /// `None`: this logical unit.
    peer: Option<Rc<dyn CopyPeer>>,
    block_size: u32,
    blocks: u64,
    read_only: bool,
}

/// A segment whose ranges exist. Places are in bytes.
struct Move {
    source: Party,
    from: u64,
    destination: Party,
    to: u64,
    len: u64,
}

impl<S: Store> Lun<S> {
    /// EXTENDED COPY (LID1). Everything that can be checked is, before anything is copied; a copy
    /// that does not begin leaves no status, nor that of an earlier one with its list identifier.
    pub(crate) async fn extended_copy(&self, list_len: usize, data: &Sgl<'_>) -> Answer {
        let list = copy::parse(&parameter_list(data, list_len, copy::MAX_LIST)?)?;
        if let Some(list_id) = list.list_id {
            self.copies.take(list_id);
        }
        let moves = self.plan(&list).await?;
        let mut status = CopyStatus { failed: false, segments: 0, bytes: 0 };
        let result = self.run_copy(&moves, &mut status).await;
        status.failed = result.is_err();
        if let Some(list_id) = list.list_id {
            self.copies.record(list_id, status);
        }
        result.map(|()| 0)
    }

    /// The ranges of all segments, if they exist and fit each other. Only the CSCDs that segments
    /// name are looked for.
    async fn plan(&self, list: &CopyList) -> Result<Vec<Move>, Failure> {
        let mut parties = vec![None; list.cscds.len()];
        let start = 16 + 32 * list.cscds.len();
        let mut moves = Vec::with_capacity(list.segments.len());
        for (i, segment) in list.segments.iter().enumerate() {
            let at = start + 28 * i;
            for (index, field) in [(segment.source, 4), (segment.destination, 6)] {
                match (list.cscds.get(index), parties.get_mut(index)) {
                    (Some(cscd), Some(party @ None)) => {
                        *party = Some(self.find_party(cscd, 16 + 32 * index).await?);
                    }
                    (Some(_), Some(Some(_))) => {}
                    _ => {
                        let unreachable = Sense::UNREACHABLE_COPY_TARGET;
                        return Err(unreachable.in_list(at + field, Some(7)).into());
                    }
                }
            }
            if let (Some(Some(source)), Some(Some(destination))) =
                (parties.get(segment.source), parties.get(segment.destination))
            {
                moves.push(plan_move(segment, source, destination, at)?);
            }
        }
        Ok(moves)
    }

    /// The logical unit that the CSCD descriptor at `at` of the list names.
    async fn find_party(&self, cscd: &Cscd, at: usize) -> Result<Party, Failure> {
        /// Binary, of the logical unit, NAA.
        const NAA: (u8, u8, u8) = (1, 0, 3);
        let unreachable = Sense::COPY_TARGET_DEVICE_NOT_REACHABLE.in_list(at + 4, None);
        let kind = (cscd.code_set, cscd.association, cscd.kind);
        if cscd.null {
            return Err(Sense::UNREACHABLE_COPY_TARGET.in_list(at + 1, Some(5)).into());
        }
        let naa = <[u8; 16]>::try_from(cscd.designator())
            .ok()
            .filter(|_| kind == NAA)
            .ok_or(unreachable)?;
        let party = if naa == self.identity.naa() {
            Party {
                naa,
                peer: None,
                block_size: self.block_size(),
                blocks: self.blocks(),
                read_only: self.disk.read_only(),
            }
        } else {
            let peer = self.peers.as_ref().and_then(|peers| peers.find(&naa)).ok_or(unreachable)?;
            let PeerReply { block_size, blocks, read_only, .. } =
                peer.call(PeerRequest::Describe).await?;
            Party { naa, peer: Some(peer), block_size, blocks, read_only }
        };
        if cscd.block_size != party.block_size {
            return Err(Sense::list_field(at + 29, Some(7)).into());
        }
        Ok(party)
    }

    /// Copies, and counts what was done.
    async fn run_copy(&self, moves: &[Move], status: &mut CopyStatus) -> Result<(), Failure> {
        // The buffer travels between threads: it is no `Sgl`.
        let _slot = self.disk.slot().await;
        let mut buffer = Vec::new();
        for segment in moves {
            self.run_move(segment, &mut buffer, &mut status.bytes).await?;
            status.segments += 1;
        }
        Ok(())
    }

    async fn run_move(
        &self,
        m: &Move,
        buffer: &mut Vec<u8>,
        copied: &mut u64,
    ) -> Result<(), Failure> {
        // A destination that begins within its source is filled from the end, lest a piece be
        // read that was overwritten.
        let backwards = m.source.naa == m.destination.naa && m.to > m.from && m.to < m.from + m.len;
        let mut done = 0;
        while done < m.len {
            let n = (CHUNK as u64).min(m.len - done);
            let at = if backwards { m.len - done - n } else { done };
            buffer.resize(usize::try_from(n).unwrap_or(CHUNK), 0);
            self.fetch(&m.source, m.from + at, buffer).await?;
            self.put(&m.destination, m.to + at, buffer).await?;
            done += n;
            *copied += n;
        }
        Ok(())
    }

    /// Fills the buffer from a place in bytes.
    async fn fetch(&self, from: &Party, at: u64, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let lba = at / u64::from(from.block_size);
        let Some(peer) = &from.peer else {
            let result = self.read_own(lba, buffer).await;
            return result.map_err(during_copy);
        };
        let len = buffer.len();
        let request = PeerRequest::Read { lba, buffer: std::mem::take(buffer) };
        *buffer = peer.call(request).await?.buffer;
        // The peer answers with the buffer that it was given; else the copy would be garbage.
        if buffer.len() == len { Ok(()) } else { Err(PeerError::Failed.into()) }
    }

    /// Writes the buffer to a place in bytes.
    async fn put(&self, to: &Party, at: u64, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let lba = at / u64::from(to.block_size);
        let Some(peer) = &to.peer else {
            let result = self.write_own(lba, buffer).await;
            return result.map_err(during_copy);
        };
        let request = PeerRequest::Write { lba, buffer: std::mem::take(buffer) };
        *buffer = peer.call(request).await?.buffer;
        Ok(())
    }

    async fn read_own(&self, lba: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        self.extent(lba, (buffer.len() >> self.block_shift) as u64)?;
        let read = self.disk.read(&Sgl::from_slice(buffer), self.bytes(lba)).await;
        read.map_err(|error| self.failed(&error, Doing::Read, lba))
    }

    async fn write_own(&self, lba: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        self.extent(lba, (buffer.len() >> self.block_shift) as u64)?;
        self.writable()?;
        let written = self.disk.write(&Sgl::from_slice(buffer), self.bytes(lba), false).await;
        written.map_err(|error| self.failed(&error, Doing::Write, lba))
    }

    /// Does its part in the copy of another logical unit; called on this one's thread.
    pub async fn serve_peer(&self, request: PeerRequest) -> Result<PeerReply, PeerError> {
        let failed = |_: Failure| PeerError::Failed;
        if !matches!(self.access.get(), Optimized | NonOptimized | LbaDependent) {
            return Err(PeerError::Failed);
        }
        let whole = |buffer: &[u8]| {
            buffer.len() <= MAX_PEER_TRANSFER && buffer.len().is_multiple_of(self.block_len())
        };
        let buffer = match request {
            PeerRequest::Describe => Vec::new(),
            PeerRequest::Read { lba, mut buffer } if whole(&buffer) => {
                self.read_own(lba, &mut buffer).await.map_err(failed)?;
                buffer
            }
            PeerRequest::Write { lba, mut buffer } if whole(&buffer) => {
                self.write_own(lba, &mut buffer).await.map_err(failed)?;
                buffer
            }
            PeerRequest::Read { .. } | PeerRequest::Write { .. } => return Err(PeerError::Failed),
        };
        Ok(PeerReply {
            block_size: self.block_size(),
            blocks: self.blocks(),
            read_only: self.disk.read_only(),
            buffer,
        })
    }

    /// RECEIVE COPY RESULTS. Copies are done when their status comes: none is in progress.
    pub(crate) fn receive_copy_results(
        &self,
        service: CopyService,
        list_id: u8,
        alloc: usize,
        data: &Sgl<'_>,
    ) -> Answer {
        let unknown = Sense::cdb_field(2, Some(7));
        let answer = match service {
            CopyService::OperatingParameters => {
                copy::operating_parameters(self.block_size(), CONCURRENT)
            }
            CopyService::Status => copy::status(&self.copies.take(list_id).ok_or(unknown)?),
            CopyService::FailedSegment => copy::no_failure_details(),
        };
        reply(data, &answer, alloc)
    }
}

/// The ranges of the segment descriptor at `at` of the list, if they exist and fit each other.
fn plan_move(
    segment: &Segment,
    source: &Party,
    destination: &Party,
    at: usize,
) -> Result<Move, Failure> {
    let unit = if segment.destination_blocks { destination } else { source };
    let len = u64::from(segment.blocks) * u64::from(unit.block_size);
    for (party, lba, field) in
        [(source, segment.source_lba, 12), (destination, segment.destination_lba, 20)]
    {
        let block_size = u64::from(party.block_size);
        if !len.is_multiple_of(block_size) {
            return Err(Sense::COPY_SEGMENT_GRANULARITY_VIOLATION.in_list(at + 10, Some(7)).into());
        }
        if lba > party.blocks || len / block_size > party.blocks - lba {
            return Err(Sense::COPY_ABORTED.in_list(at + field, Some(7)).into());
        }
    }
    if destination.read_only {
        return Err(Sense::COPY_DESTINATION_WRITE_PROTECTED.into());
    }
    Ok(Move {
        from: segment.source_lba * u64::from(source.block_size),
        to: segment.destination_lba * u64::from(destination.block_size),
        source: source.clone(),
        destination: destination.clone(),
        len,
    })
}

/// A failure of this logical unit in the middle of a copy: part of it is done, so that it must not
/// look like a command that was not executed. A lack of space says so, for initiators that act on
/// it.
fn during_copy(failure: Failure) -> Failure {
    match failure {
        Failure::Check(Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT) => failure,
        _ => PeerError::Failed.into(),
    }
}
