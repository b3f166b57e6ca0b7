// SPDX-License-Identifier: Apache-2.0
//! The kinds of images: options of `qemu-img create`, what is in the image at first, and what it
//! lies on.
use std::fs;
use std::path::Path;

use crate::operations::Random;
use crate::tools::{PASSPHRASE, named, qemu_img, qemu_io};

/// What is in an image at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing.
    Empty,
    /// Compressed clusters, of `qemu-img convert -c`.
    Compressed,
    /// Data that a snapshot has, too.
    Snapshot,
}

/// What it lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Nothing,
    /// A raw file, for so many quarters of the image's size.
    Raw(u64),
    /// A qcow2 image with clusters of so many bytes, for so many quarters of the image's size.
    Qcow2(u64, u64),
}

pub(crate) struct Case {
    pub(crate) options: &'static str,
    pub(crate) start: Start,
    pub(crate) base: Base,
}

const fn plain(options: &'static str) -> Case {
    Case { options, start: Start::Empty, base: Base::Nothing }
}

const fn starting(options: &'static str, start: Start) -> Case {
    Case { options, start, base: Base::Nothing }
}

const fn on(options: &'static str, base: Base) -> Case {
    Case { options, start: Start::Empty, base }
}

const LUKS: &str = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";

pub(crate) const CLUSTERS: &[Case] = &[
    plain("compat=0.10"),
    plain("compat=0.10,cluster_size=512"),
    plain("compat=0.10,cluster_size=2M"),
    plain("compat=1.1"),
    plain("cluster_size=512"),
    plain("cluster_size=1k"),
    plain("cluster_size=4k"),
    plain("cluster_size=2M"),
];

pub(crate) const REFCOUNTS: &[Case] = &[
    plain("cluster_size=512,refcount_bits=1"),
    plain("cluster_size=1k,refcount_bits=2"),
    plain("cluster_size=4k,refcount_bits=4"),
    plain("cluster_size=512,refcount_bits=8"),
    plain("cluster_size=4k,refcount_bits=32"),
    plain("cluster_size=512,refcount_bits=64"),
    plain("lazy_refcounts=on"),
    plain("lazy_refcounts=on,cluster_size=512"),
];

pub(crate) const SUBCLUSTERS: &[Case] = &[
    plain("extended_l2=on"),
    plain("extended_l2=on,cluster_size=16k"),
    plain("extended_l2=on,cluster_size=2M,refcount_bits=1"),
    plain("extended_l2=on,cluster_size=32k,lazy_refcounts=on"),
];

pub(crate) const PREALLOCATED: &[Case] = &[
    plain("preallocation=metadata"),
    plain("preallocation=falloc,cluster_size=4k"),
    plain("preallocation=full,cluster_size=4k"),
    plain("preallocation=metadata,compat=0.10,cluster_size=1k"),
    plain("preallocation=metadata,extended_l2=on"),
];

pub(crate) const DATA_FILES: &[Case] = &[
    plain("data_file=data"),
    plain("data_file=data,cluster_size=512"),
    plain("data_file=data,extended_l2=on"),
    plain("data_file=data,preallocation=metadata"),
    plain("data_file=data,data_file_raw=on"),
    plain("data_file=data,data_file_raw=on,cluster_size=4k"),
    plain("data_file=data,data_file_raw=on,extended_l2=on"),
    plain("data_file=data,data_file_raw=on,preallocation=full"),
];

pub(crate) const COMPRESSED: &[Case] = &[
    starting("", Start::Compressed),
    starting("cluster_size=512", Start::Compressed),
    starting("cluster_size=2M,compression_type=zstd", Start::Compressed),
    starting("cluster_size=4k,compression_type=zstd,refcount_bits=64", Start::Compressed),
    starting("compat=0.10,cluster_size=4k", Start::Compressed),
    starting("extended_l2=on,compression_type=zstd", Start::Compressed),
];

pub(crate) const SNAPSHOTS: &[Case] = &[
    starting("", Start::Snapshot),
    starting("cluster_size=512,refcount_bits=2", Start::Snapshot),
    starting("extended_l2=on", Start::Snapshot),
    starting("compat=0.10,cluster_size=4k", Start::Snapshot),
];

pub(crate) const ON_RAW: &[Case] = &[
    on("", Base::Raw(3)),
    on("cluster_size=512", Base::Raw(6)),
    on("compat=0.10", Base::Raw(6)),
    on("compat=0.10,cluster_size=1k", Base::Raw(3)),
    on("extended_l2=on", Base::Raw(3)),
    on("data_file=data", Base::Raw(3)),
];

pub(crate) const ON_QCOW2: &[Case] = &[
    on("", Base::Qcow2(4096, 3)),
    on("", Base::Qcow2(2 << 20, 6)),
    on("cluster_size=4k", Base::Qcow2(65536, 3)),
    on("cluster_size=512,refcount_bits=1", Base::Qcow2(1024, 6)),
    on("extended_l2=on,cluster_size=16k", Base::Qcow2(512, 3)),
    on("extended_l2=on,preallocation=metadata", Base::Qcow2(4096, 6)),
    on("compat=0.10,cluster_size=4k", Base::Qcow2(512, 3)),
    on("cluster_size=2M,lazy_refcounts=on", Base::Qcow2(65536, 6)),
];

pub(crate) const ENCRYPTED: &[Case] = &[
    plain("LUKS"),
    plain("LUKS,cluster_size=512"),
    plain("LUKS,extended_l2=on"),
    plain("LUKS,data_file=data"),
    on("LUKS,cluster_size=4k", Base::Qcow2(65536, 3)),
];

pub(crate) const ALL: &[&[Case]] = &[
    CLUSTERS,
    REFCOUNTS,
    SUBCLUSTERS,
    PREALLOCATED,
    DATA_FILES,
    COMPRESSED,
    SNAPSHOTS,
    ON_RAW,
    ON_QCOW2,
    ENCRYPTED,
];

impl Case {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options
            .split(',')
            .any(|word| word == option || word.starts_with(&format!("{option}=")))
    }

    /// Whether clusters can be compressed, over whatever is there: QEMU has to give that up first,
    /// which with version 2 it does not where the image lies on another.
    pub(crate) fn compresses(&self) -> bool {
        let gives_up = !self.version_2() || self.base == Base::Nothing;
        gives_up && !self.encrypted() && !self.has("data_file")
    }

    pub(crate) fn encrypted(&self) -> bool {
        self.has("LUKS")
    }

    pub(crate) fn version_2(&self) -> bool {
        self.has("compat=0.10")
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        let value = self.options.split(',').find_map(|word| word.strip_prefix("cluster_size="));
        let value = value.unwrap_or("64k");
        let digits = value.trim_end_matches(['k', 'M']);
        let shift = [("k", 10), ("M", 20)].iter().find(|(unit, _)| value.ends_with(unit));
        digits.parse::<u64>().unwrap() << shift.map_or(0, |(_, shift)| *shift)
    }

    /// Bytes that have a state of their own.
    pub(crate) fn granule(&self) -> u64 {
        if self.has("extended_l2") { self.cluster_size() / 32 } else { self.cluster_size() }
    }

    /// The image's size at first: some clusters, and a part of one.
    pub(crate) fn size(&self) -> u64 {
        let clusters = match self.cluster_size() {
            512 => 400,
            1024..=8192 => 100,
            2_097_152 => 3,
            _ => 24,
        };
        clusters * self.cluster_size() + 7 * 512
    }

    /// Makes the image `image` in the directory, and what it lies on beside the directory.
    pub(crate) fn make(&self, directory: &Path, random: &mut Random) {
        let above = directory.parent().unwrap();
        let mut options = self.options.replace("LUKS", LUKS);
        match self.base {
            Base::Nothing => {}
            Base::Raw(quarters) => {
                let size = self.size() * quarters / 4 / 512 * 512;
                fs::write(above.join("base"), random.disk(size)).unwrap();
                options += ",backing_file=../base,backing_fmt=raw";
            }
            Base::Qcow2(cluster_size, quarters) => {
                let size = self.size() * quarters / 4 / 512 * 512;
                fs::write(above.join("raw"), random.disk(size)).unwrap();
                let below = format!("cluster_size={cluster_size}");
                let args =
                    ["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", &below, "raw", "base"];
                qemu_img(above, &args).unwrap();
                options += ",backing_file=../base,backing_fmt=qcow2";
            }
        }
        let options = options.trim_start_matches(',');
        let size = self.size().to_string();
        match self.start {
            Start::Compressed => {
                fs::write(above.join("raw"), random.disk(self.size())).unwrap();
                let args = ["convert", "-f", "raw", "-O", "qcow2", "-c"];
                let args = [&args[..], &options_of(options), &["../raw", "image"]].concat();
                qemu_img(directory, &args).unwrap();
            }
            Start::Empty | Start::Snapshot => {
                let secret = format!("secret,id=s,data={PASSPHRASE}");
                let args = ["create", "-q", "-f", "qcow2", "--object", &secret];
                let args = [&args[..], &options_of(options), &["image", &size]].concat();
                // On a busy machine, "Unable to get accurate CPU usage".
                let made = (0..10).map(|_| qemu_img(directory, &args)).find(Result::is_ok);
                made.unwrap_or_else(|| qemu_img(directory, &args)).unwrap();
            }
        }
        if self.start == Start::Snapshot {
            let image = named(&directory.join("image"), false, false);
            let commands: Vec<String> = (1..8)
                .map(|byte| {
                    let (at, len) = random.range(self.size(), 3 * self.cluster_size());
                    format!("write -P {byte} {at} {len}")
                })
                .collect();
            qemu_io(directory, &image, &commands);
            qemu_img(directory, &["snapshot", "-c", "before", "image"]).unwrap();
        }
    }
}

fn options_of(options: &str) -> Vec<&str> {
    if options.is_empty() { Vec::new() } else { vec!["-o", options] }
}
