// SPDX-License-Identifier: Apache-2.0
//! Compressed clusters. In: the bytes from where a cluster's data begins to where it may end, from
//! a file that may be hostile. Out: exactly one cluster, or an error; no input makes it take more
//! memory than that and a few fixed tables.
//!
//! Each thread keeps its tables: making them anew costs as much as a cluster.
use std::cell::RefCell;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};
use zstd_safe::{CCtx, DCtx};

use crate::ErrorKind;
use crate::layout::header::Compression;

/// The window that QEMU reads deflate with, as a power of two: farther back nothing may be referred
/// to.
const WINDOW_BITS: u8 = 12;
/// The levels that QEMU writes with.
const DEFLATE_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;

thread_local! {
    static INFLATE: RefCell<Inflate> = RefCell::new(Inflate::new(false, WINDOW_BITS));
    static DEFLATE: RefCell<Deflate> =
        RefCell::new(Deflate::new(DEFLATE_LEVEL, false, WINDOW_BITS));
    static UNZSTD: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
    static ZSTD: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
}

/// Decompresses the beginning of `input`, whatever follows it, to exactly `out`.
///
/// # Errors
/// When `input` is damaged, or has less than `out` wants.
pub fn decompress(kind: Compression, input: &[u8], out: &mut [u8]) -> Result<(), ErrorKind> {
    match kind {
        Compression::Deflate => inflate(input, out),
        Compression::Zstd => unzstd(input, out),
    }
}

fn damaged(kind: &str, why: &str) -> ErrorKind {
    ErrorKind::hopeless(format_args!("its {kind} data is damaged: {why}"))
}

fn too_short(kind: &str, there: usize, wanted: usize) -> ErrorKind {
    damaged(kind, &format!("it has {there} bytes of a cluster of {wanted}"))
}

fn inflate(input: &[u8], out: &mut [u8]) -> Result<(), ErrorKind> {
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        let wanted = out.len();
        let ended = inflate.decompress(input, out, InflateFlush::Finish);
        let there = usize::try_from(inflate.total_out()).unwrap_or(0);
        match ended {
            Err(e) => Err(damaged("deflate", e.as_str())),
            // More may follow: the cluster is there.
            Ok(_) if there == wanted => Ok(()),
            Ok(_) => Err(too_short("deflate", there, wanted)),
        }
    })
}

fn unzstd(input: &[u8], out: &mut [u8]) -> Result<(), ErrorKind> {
    let error = |code| damaged("zstd", zstd_safe::get_error_name(code));
    // One frame, at once: what its header says of windows is then of no account.
    let frame = zstd_safe::find_frame_compressed_size(input).map_err(error)?;
    let frame = input.get(..frame).unwrap_or_default();
    let wanted = out.len();
    let there = UNZSTD.with_borrow_mut(|zstd| zstd.decompress(out, frame)).map_err(error)?;
    if there == wanted { Ok(()) } else { Err(too_short("zstd", there, wanted)) }
}

/// Compresses a cluster, as QEMU would; `None` when that makes it no smaller.
pub fn compress(kind: Compression, cluster: &[u8]) -> Option<Vec<u8>> {
    // With room for stored blocks: zlib-rs 0.6.8 does not wholly reset a stream that ran out of
    // room, and panics in the next.
    let mut out = vec![0; cluster.len() + cluster.len() / 8 + 64];
    let len = match kind {
        Compression::Deflate => DEFLATE.with_borrow_mut(|deflate| {
            deflate.reset();
            let ended = deflate.compress(cluster, &mut out, DeflateFlush::Finish);
            let len = usize::try_from(deflate.total_out()).unwrap_or(usize::MAX);
            matches!(ended, Ok(Status::StreamEnd)).then_some(len)
        }),
        Compression::Zstd => {
            ZSTD.with_borrow_mut(|zstd| zstd.compress(out.as_mut_slice(), cluster, ZSTD_LEVEL).ok())
        }
    };
    out.truncate(len?);
    (out.len() < cluster.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Compression; 2] = [Compression::Deflate, Compression::Zstd];

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| b"some words that come again"[i * i / 7 % 26]).collect()
    }

    #[test]
    fn a_cluster_is_what_it_was_whatever_follows_its_data() {
        for kind in KINDS {
            for size in [512, 4096, 65536, 2 << 20] {
                let cluster = text(size);
                let mut input = compress(kind, &cluster).unwrap();
                assert!(input.len() < size);
                for padding in [0, 1, 511, 600] {
                    input.resize(input.len() + padding, 0xa5);
                    let mut out = vec![0; size];
                    decompress(kind, &input, &mut out).unwrap();
                    assert!(out == cluster);
                }
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_not_compressed() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(65536)
        .collect();
        for kind in KINDS {
            for len in [4096, 65536, 65536, 65536] {
                assert_eq!(compress(kind, &noise[..len]), None);
            }
            // The same thread goes on.
            assert!(compress(kind, &text(4096)).is_some());
        }
    }

    #[test]
    fn data_of_a_smaller_cluster_and_data_that_was_cut_off_are_refused() {
        for kind in KINDS {
            let input = compress(kind, &text(4096)).unwrap();
            let error = decompress(kind, &input, &mut vec![0; 65536]).unwrap_err().to_string();
            assert!(error.contains("it has 4096 bytes of a cluster of 65536"), "{error}");
            let cut = &input[..input.len() / 2];
            assert!(decompress(kind, cut, &mut vec![0; 4096]).is_err());
            assert!(decompress(kind, &[], &mut vec![0; 4096]).is_err());
        }
    }

    proptest! {
        #[test]
        fn damaged_data_is_no_more_than_an_error(
            zstd in any::<bool>(),
            at in any::<proptest::sample::Index>(),
            with in any::<u8>(),
            noise in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let kind = KINDS[usize::from(zstd)];
            let mut input = compress(kind, &text(4096)).unwrap();
            let at = at.index(input.len());
            input[at] = with;
            let mut out = vec![0; 4096];
            let _ = decompress(kind, &input, &mut out);
            let _ = decompress(kind, &noise, &mut out);
            // And the next one is not touched by it.
            decompress(kind, &compress(kind, &text(4096)).unwrap(), &mut out).unwrap();
            prop_assert!(out == text(4096));
        }
    }
}
