// SPDX-License-Identifier: Apache-2.0
//! Compressed clusters.
use crate::ErrorKind;
use crate::layout::header::Compression;

/// Inflates `input`, which may be followed by anything, to exactly `out`.
pub(crate) fn decompress(kind: Compression, input: &[u8], out: &mut [u8]) -> Result<(), ErrorKind> {
    if kind != Compression::Deflate {
        return Err(ErrorKind::Unsupported("zstd".into()));
    }
    let flags = miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = miniz_oxide::inflate::core::DecompressorOxide::new();
    let (_, _, len) = miniz_oxide::inflate::core::decompress(&mut state, input, out, 0, flags);
    if len == out.len() { Ok(()) } else { Err(ErrorKind::invalid("its data is damaged")) }
}
