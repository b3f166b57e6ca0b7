// SPDX-License-Identifier: Apache-2.0
//! The buffer of a command: parameter lists out of it, answers into it.
use scsi::sense::Sense;
use sgl::Sgl;

use crate::failure::{Answer, Failure};

/// All of a parameter list of `list_len` bytes. Lists longer than `max` are refused: no list that
/// is honest is so long.
pub(crate) fn parameter_list(
    data: &Sgl<'_>,
    list_len: usize,
    max: usize,
) -> Result<Vec<u8>, Failure> {
    if list_len > max || list_len > data.len() {
        return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into());
    }
    let mut list = vec![0; list_len];
    data.read_at(0, &mut list);
    Ok(list)
}

/// Sends an answer, of which the initiator takes `alloc` bytes at most.
pub(crate) fn reply(data: &Sgl<'_>, answer: &[u8], alloc: usize) -> Answer {
    Ok(data.write_at(0, answer.get(..alloc).unwrap_or(answer)))
}
