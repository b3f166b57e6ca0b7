// SPDX-License-Identifier: Apache-2.0
//! xz, zst and gz.
use std::fs;
use std::path::{Path, PathBuf};

use block::{OpenOptions, Store};

use super::common::{
    Dir, KIB, MIB, Random, compare, disk, on_engine, open_image, read, refusal, run, try_open,
};

/// What programs with these arguments write to their standard output.
const FILES: [(&str, &str, &[&str]); 17] = [
    ("xz", "xz", &["-1"]),
    ("xz", "xz", &["-6", "-T1"]),
    ("xz", "xz", &["-9"]),
    ("xz", "xz", &["-1", "--block-size=1MiB"]),
    ("xz", "xz", &["-0", "--block-size=100KiB", "--check=crc32"]),
    ("xz", "xz", &["-0", "--block-size=1000000", "--check=sha256"]),
    ("xz", "xz", &["-0", "--check=none"]),
    ("xz", "xz", &["-0", "-T2", "--block-size=512KiB"]),
    ("zst", "zstd", &["-1"]),
    ("zst", "zstd", &["-10", "--no-check"]),
    ("zst", "zstd", &["-3", "--long=27"]),
    ("zst", "zstd", &["-3", "-T2", "-B1MiB"]),
    ("zst", "zstd", &["-1", "--no-content-size"]),
    ("gz", "gzip", &["-1"]),
    ("gz", "gzip", &["-6", "-N"]),
    ("gz", "gzip", &["-9"]),
    ("gz", "gzip", &["-6", "-n"]),
];

fn compress(dir: &Dir, program: &str, args: &[&str], raw: &Path) -> PathBuf {
    let output = run(program, &[args, &["-q", "-c", raw.to_str().unwrap()]].concat());
    dir.raw(&format!("packed.{program}"), &output)
}

/// A member of bgzf.
fn bgzf(content: &[u8]) -> Vec<u8> {
    let deflated = miniz_oxide::deflate::compress_to_vec(content, 6);
    let size = u16::try_from(18 + deflated.len() + 8 - 1).unwrap();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, content);
    [
        &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0],
        &size.to_le_bytes()[..],
        &deflated,
        &u32::try_from(sum).unwrap().to_le_bytes(),
        &u32::try_from(content.len()).unwrap().to_le_bytes(),
    ]
    .concat()
}

/// The seekable format of zstd.
fn seekable(dir: &Dir, content: &[u8], checksums: bool) -> PathBuf {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    let mut frames = 0_u32;
    for part in content.chunks(700_000) {
        let part_file = dir.raw("part", part);
        let frame = fs::read(compress(dir, "zstd", &["-1"], &part_file)).unwrap();
        table.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        table.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        if checksums {
            table.extend([1, 2, 3, 4]);
        }
        file.extend(frame);
        frames += 1;
    }
    file.extend(0x184d_2a5e_u32.to_le_bytes());
    file.extend(u32::try_from(table.len() + 9).unwrap().to_le_bytes());
    file.extend(table);
    file.extend(frames.to_le_bytes());
    file.push(if checksums { 0x80 } else { 0 });
    file.extend(0x8f92_eab1_u32.to_le_bytes());
    dir.raw("seekable.zst", &file)
}

#[test]
fn what_each_program_compresses_is_read_in_any_order() {
    let dir = Dir::new();
    let content = disk(5 * MIB + 513, 11);
    let raw = dir.raw("raw", &content);
    for (i, (subtype, program, args)) in FILES.iter().enumerate() {
        let packed = compress(&dir, program, args, &raw);
        on_engine(async {
            let store = open_image(subtype, &packed).await;
            compare(&store, &content, i as u64, &format!("{program} {args:?}")).await;
        });
        block::check(&format!("{subtype}/{}", packed.display()), &OpenOptions::default()).unwrap();
    }
}

#[test]
fn files_of_several_parts_are_read() {
    let dir = Dir::new();
    let content = disk(3 * MIB + 100, 5);
    let parts: Vec<_> =
        content.chunks(1_100_000).map(|part| dir.raw("part", part).clone()).collect();
    assert!(parts.len() > 2);
    for (subtype, program, between) in
        [("xz", "xz", &[0; 8][..]), ("xz", "xz", &[]), ("zst", "zstd", &[]), ("gz", "gzip", &[])]
    {
        let mut file = Vec::new();
        for part in content.chunks(1_100_000) {
            let raw = dir.raw("part", part);
            file.extend(fs::read(compress(&dir, program, &["-1"], &raw)).unwrap());
            file.extend(between);
        }
        let packed = dir.raw("parts", &file);
        on_engine(async {
            let store = open_image(subtype, &packed).await;
            compare(&store, &content, 3, program).await;
        });
    }
    // Frames that are to be skipped, at the start, between and at the end.
    let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"hello"].concat();
    let raw = dir.raw("raw", &content);
    let frame = fs::read(compress(&dir, "zstd", &["-1"], &raw)).unwrap();
    let packed = dir.raw("skipped", &[&skipped[..], &frame, &skipped, &skipped].concat());
    on_engine(async {
        compare(&open_image("zst", &packed).await, &content, 3, "skipped").await;
    });
    // Zeroes after a gzip file, as on tapes; and what is not gzip.
    let frame = fs::read(compress(&dir, "gzip", &["-1"], &raw)).unwrap();
    for tail in [&[0; 1000][..], b"junk"] {
        let packed = dir.raw("tail", &[&frame[..], tail].concat());
        on_engine(async {
            compare(&open_image("gz", &packed).await, &content, 3, "tail").await;
        });
    }
}

#[test]
fn bgzf_and_seekable_zstd_are_read_by_their_indices() {
    let dir = Dir::new();
    let content = disk(3 * MIB + 100, 6);
    let mut file: Vec<u8> = content.chunks(65_000).flat_map(bgzf).collect();
    file.extend(bgzf(b""));
    let packed = dir.raw("packed.bgz", &file);
    on_engine(async {
        compare(&open_image("gz", &packed).await, &content, 3, "bgzf").await;
    });
    for checksums in [false, true] {
        let packed = seekable(&dir, &content, checksums);
        on_engine(async {
            compare(&open_image("zst", &packed).await, &content, 3, "seekable").await;
        });
    }
}

#[test]
fn many_reads_at_the_same_time_get_what_each_of_them_wants() {
    let dir = Dir::new();
    let content = disk(4 * MIB, 8);
    let raw = dir.raw("raw", &content);
    for (subtype, program, args) in [
        ("xz", "xz", &["-0", "--block-size=1MiB"][..]),
        ("zst", "zstd", &["-1"]),
        ("gz", "gzip", &["-1"]),
    ] {
        let packed = compress(&dir, program, args, &raw);
        on_engine(async {
            let store = open_image(subtype, &packed).await;
            let (store, content) = (&store, &content);
            let reads = (0..32_u64).map(|i| async move {
                let mut random = Random(i);
                for _ in 0..4 {
                    let at = random.below(4 * MIB - 64 * KIB);
                    let bytes = read(store, at, 64 << 10).await.unwrap();
                    let at = usize::try_from(at).unwrap();
                    assert!(bytes == content[at..at + (64 << 10)], "{program}: {at}");
                }
            });
            let mut reads: Vec<_> = reads.map(Box::pin).collect();
            std::future::poll_fn(|cx| {
                reads.retain_mut(|read| read.as_mut().poll(cx).is_pending());
                if reads.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        });
    }
}

#[test]
fn a_gzip_file_that_ends_in_the_header_of_a_later_member_was_cut_off() {
    let dir = Dir::new();
    let member = |name: &str, seed| {
        let plain = dir.raw(name, &disk(MIB, seed));
        fs::read(compress(&dir, "gzip", &["-1"], &plain)).unwrap()
    };
    let (first, second) = (member("first", 1), member("second", 2));
    for kept in [1, 2, 5, 100] {
        let cut = dir.raw("cut", &[&first[..], &second[..kept]].concat());
        let e = refusal("gz", &cut);
        assert!(e.contains("cut off"), "{kept} bytes of the second member: {e}");
    }
    let whole = dir.raw("whole", &[&first[..], &second].concat());
    let size = on_engine(async { open_image("gz", &whole).await.facts().size });
    assert_eq!(size, 2 * MIB);
}

#[test]
fn damage_and_cut_off_ends_are_found() {
    let dir = Dir::new();
    let content = disk(2 * MIB, 9);
    let raw = dir.raw("raw", &content);
    for (subtype, program, args) in FILES {
        let packed = compress(&dir, program, args, &raw);
        let bytes = fs::read(packed).unwrap();
        let cut = dir.raw("cut", &bytes[..bytes.len() - bytes.len() / 3]);
        let e = refusal(subtype, &cut);
        assert!(e.contains("cut off") && e.contains("cut: open"), "{program} {args:?}: {e}");
        let junk = dir.raw("junk", b"this is not compressed at all");
        assert!(refusal(subtype, &junk).contains("it is not a"), "{program}");
        // One bit, somewhere in the middle: an error, or at least nothing else than the content.
        let unchecked = args.contains(&"--no-check") || args.contains(&"--check=none");
        for i in 1..8 {
            let mut bytes = bytes.clone();
            let at = bytes.len() * i / 9;
            bytes[at] ^= 0x10;
            let damaged = dir.raw("damaged", &bytes);
            on_engine(async {
                let Ok(store) = try_open(subtype, &damaged).await else { return };
                let all = read(&store, 0, content.len()).await;
                let found = all.as_ref().map_or(true, |all| *all == content);
                assert!(found || unchecked, "{program} {args:?}: the bit at {at} is not found");
            });
        }
    }
}

#[test]
fn empty_files_are_disks_of_no_bytes() {
    let dir = Dir::new();
    let raw = dir.raw("raw", b"");
    for (subtype, program) in [("xz", "xz"), ("zst", "zstd"), ("gz", "gzip")] {
        let packed = compress(&dir, program, &["-1"], &raw);
        on_engine(async {
            assert_eq!(open_image(subtype, &packed).await.facts().size, 0, "{program}");
        });
    }
}

#[test]
fn filters_and_dictionaries_that_are_not_supported_are_named() {
    let dir = Dir::new();
    let content = disk(MIB, 9);
    let raw = dir.raw("raw", &content);
    let packed = compress(&dir, "xz", &["--x86", "--lzma2=preset=0"], &raw);
    let e = refusal("xz", &packed);
    assert!(e.contains("first filter 0x4) are not supported"), "{e}");
    assert!(e.contains(packed.to_str().unwrap()), "{e}");
}

#[test]
fn a_pass_through_an_image_says_that_it_goes_on_and_ends_when_nobody_waits() {
    let dir = Dir::new();
    let raw = dir.raw("raw", &disk(5 * MIB, 3));
    let packed = compress(&dir, "gzip", &["-1"], &raw);
    let config = format!("gz/{}", packed.display());
    let options = OpenOptions::default();
    on_engine(async {
        block::open(&config, &options).await.unwrap();
        assert!(options.watch.steps() > 3);
        options.watch.give_up();
        let error = block::open(&config, &options).await.unwrap_err();
        assert_eq!(error.errno(), Some(libc::ECANCELED), "{error}");
    });
}
