// SPDX-License-Identifier: Apache-2.0
//! Debian's plugins, from its package, fetched and not installed.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use block::Store;
use sgl::Sgl;
use tcmu_plugin::{Operation, Plugins, Status};

use crate::support::{Built, SIZE, open, qcow2_image, run};

/// The directory with the plugins of Debian's package.
fn fetched() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
        std::fs::create_dir_all(&dir).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let out = Command::new(program).args(arguments).current_dir(&dir).output();
            let out = out.unwrap_or_else(|e| panic!("install apt and dpkg: {program}: {e}"));
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{program} {arguments:?} (apt-get update?): {said}");
        };
        let package = |dir: &Path| {
            let mut files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
            files.find(|file| file.extension().is_some_and(|extension| extension == "deb"))
        };
        if package(&dir).is_none() {
            run("apt-get", &["-qq", "download", "tcmu-runner"]);
        }
        let package = package(&dir).expect("a package");
        run("dpkg-deb", &["-x", package.to_str().unwrap(), "."]);
        let lib = std::fs::read_dir(dir.join("usr/lib")).unwrap();
        let mut plugins = lib.map(|triplet| triplet.unwrap().path().join("tcmu-runner"));
        plugins.find(|plugins| plugins.is_dir()).expect("a directory of plugins")
    })
}

/// Debian's plugins but the one that links with Ceph's libraries.
pub(crate) fn debians() -> Built {
    let built = Built::new();
    for name in ["handler_qcow.so", "handler_file_zbc.so", "handler_file_optical.so"] {
        std::fs::copy(fetched().join(name), built.path().join(name)).unwrap();
    }
    built
}

fn plugins() -> (Built, Plugins) {
    let built = debians();
    let plugins = Plugins::load(built.path(), &["file"]);
    (built, plugins)
}

#[test]
fn all_of_them_load() {
    let (_built, plugins) = plugins();
    let subtypes: Vec<_> = plugins.handlers().iter().map(|handler| handler.subtype()).collect();
    assert_eq!(subtypes, ["fbo", "zbc", "qcow"]);
    for handler in plugins.handlers() {
        assert!(!handler.description().is_empty() && !handler.name().is_empty());
    }
    let passthrough = |subtype| plugins.find(subtype).unwrap().is_passthrough();
    assert_eq!(["fbo", "zbc", "qcow"].map(passthrough), [true, true, false]);
}

#[test]
fn a_qcow2_image_is_read_and_written_by_the_handler() {
    let (built, plugins) = plugins();
    let image = built.path().join("image");
    qcow2_image(&image);
    run(async {
        let config = format!("qcow/{}", image.display());
        let device = open(&plugins, &config, SIZE, 512).await.unwrap_or_else(|e| panic!("{e}"));
        let store = device.store();
        let data = Sgl::zeroed(65536);
        data.fill(0..65536, 0x5a);
        store.write(&data, 131_072, false).await.unwrap();
        store.flush().await.unwrap();
        let back = Sgl::zeroed(65536);
        store.read(&back, 131_072).await.unwrap();
        assert_eq!(back.first_difference(&data), None);
        // The handler takes no configuration at all, and need not: it has this one.
        device.reconfigure(&format!("{config};tcmur_cmd_time_out=7")).await.unwrap();
        let refused = device.reconfigure("qcow//another").await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
        store.close().await.unwrap();
    });
    let check = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "read -P 0x5a 131072 65536", image.to_str().unwrap()])
        .output()
        .expect("install qemu-utils: this test runs qemu-io");
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("read 65536/65536") && !said.contains("failed"), "{said}");
}

#[test]
fn zoned_and_optical_devices_say_what_they_are() {
    let (built, plugins) = plugins();
    let disc = built.path().join("disc.iso");
    std::fs::write(&disc, vec![0; 1 << 20]).unwrap();
    let zoned = built.path().join("zoned.raw");
    run(async {
        for (config, block, kind) in [
            (format!("fbo/ro/{}", disc.display()), 2048, 5),
            (format!("zbc/model-HM/zsize-1/conv-1@{}", zoned.display()), 512, 0x14),
        ] {
            let device = open(&plugins, &config, 16 << 20, block).await;
            let device = device.unwrap_or_else(|e| panic!("{e}"));
            let answer = Sgl::zeroed(36);
            let cdb = [0x12, 0, 0, 0, 36, 0];
            let inquiry = device.execute((1, &cdb), Operation::HandleCommand, &answer).await;
            let mut bytes = [0; 36];
            answer.read_at(0, &mut bytes);
            assert_eq!((inquiry.status, bytes[0]), (Status::OK, kind), "{config}");
            device.store().close().await.unwrap();
        }
    });
}
