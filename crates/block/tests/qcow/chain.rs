// SPDX-License-Identifier: Apache-2.0
//! Backing files: which are opened, which are refused and why.
use std::path::{Path, PathBuf};

use block::{OpenOptions, Store, open};

use crate::common::*;

fn refusal(image: &Path, options: &OpenOptions) -> String {
    on_engine(async {
        let error = open(&config(image), options).await.unwrap_err();
        error.to_string()
    })
}

/// An image on a raw backing file of the given name.
fn on_backing(dir: &Dir, name: &str, backing: &str) -> PathBuf {
    let path = dir.path(name);
    let image = path.to_str().unwrap();
    let options = format!("backing_file={backing},backing_fmt=raw");
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &options, image, "1M"]);
    path
}

fn allow(dirs: &[&Path]) -> OpenOptions {
    let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    OpenOptions { allowed_backing_dirs: Some(dirs), ..OpenOptions::default() }
}

#[test]
fn a_backing_file_outside_of_the_allowed_directories_is_refused() {
    let (dir, other) = (Dir::new(), Dir::new());
    let secret = other.path("secret");
    std::fs::write(&secret, vec![7; 65536]).unwrap();
    let image = on_backing(&dir, "image", secret.to_str().unwrap());
    // A link inside of an allowed directory leads outside just the same.
    std::os::unix::fs::symlink(&secret, dir.path("link")).unwrap();
    let linked = on_backing(&dir, "linked", "link");
    let dotted = on_backing(
        &dir,
        "dotted",
        &format!("../{}", {
            let parent = other.path("").file_name().map(|_| ());
            assert!(parent.is_some());
            secret.strip_prefix(std::env::temp_dir()).unwrap().display().to_string()
        }),
    );
    for image in [&image, &linked, &dotted] {
        let text = refusal(image, &allow(&[&dir.path("")]));
        assert!(text.contains("which is in none of the directories"), "{text}");
        let text = refusal(image, &allow(&[]));
        assert!(text.contains("the configuration allows no directory"), "{text}");
        on_engine(async {
            for options in [OpenOptions::default(), allow(&[&other.path("")])] {
                let store = open(&config(image), &options).await.unwrap();
                assert_eq!(read(&store, 0, 512).await.unwrap(), vec![7; 512]);
                store.close().await.unwrap();
            }
        });
    }
}

#[test]
fn a_backing_file_in_an_allowed_directory_is_found_by_every_name() {
    let (dir, other) = (Dir::new(), Dir::new());
    let below = dir.path("below");
    std::fs::write(&below, vec![7; 65536]).unwrap();
    std::fs::create_dir(dir.path("sub")).unwrap();
    let link = |target: &Path, link: &Path| std::os::unix::fs::symlink(target, link).unwrap();
    link(&dir.path("below"), &dir.path("sub/link"));
    // Another name of the directory itself, and a link into it from outside.
    link(&dir.path("."), &other.path("same"));
    link(&below, &other.path("in"));
    let absolute = [
        below.clone(),
        dir.path("sub/../below"),
        dir.path("sub/link"),
        other.path("same/below"),
        other.path("in"),
    ];
    let names = absolute.iter().map(|path| path.to_str().unwrap().to_owned());
    let relative = ["below", "sub/link", "sub/../below"].map(str::to_owned);
    for name in names.chain(relative) {
        let image = on_backing(&dir, "image", &name);
        for allowed in [dir.path(""), other.path("same"), dir.path("sub/..")] {
            on_engine(async {
                let store = open(&config(&image), &allow(&[&allowed])).await.unwrap();
                assert_eq!(read(&store, 0, 512).await.unwrap(), vec![7; 512], "{name}");
                store.close().await.unwrap();
            });
        }
        let elsewhere = allow(&[&dir.path("sub")]);
        let checked = block::check(&config(&image), &elsewhere).unwrap_err().to_string();
        for text in [refusal(&image, &elsewhere), checked] {
            assert!(text.contains("which is in none of the directories"), "{name}: {text}");
        }
        block::check(&config(&image), &allow(&[&dir.path("")])).unwrap();
        let none = refusal(&image, &allow(&[]));
        assert!(none.contains("the configuration allows no directory"), "{name}: {none}");
    }
}

/// Whoever may write to the directory exchanges a link, or a directory, as often as he can.
#[test]
fn a_link_that_is_exchanged_meanwhile_leads_nowhere_else() {
    let (dir, other) = (Dir::new(), Dir::new());
    for (sub, byte) in [(dir.path("sub"), 1), (other.path("sub"), 2)] {
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(sub.join("below"), vec![byte; 65536]).unwrap();
    }
    let link = |target: &Path, link: &Path| std::os::unix::fs::symlink(target, link).unwrap();
    link(&dir.path("sub/below"), &dir.path("file"));
    link(&other.path("sub/below"), &dir.path("file-out"));
    link(&other.path("sub"), &dir.path("sub-out"));
    for (name, exchanged) in [("file", ["file", "file-out"]), ("sub/below", ["sub", "sub-out"])] {
        let image = on_backing(&dir, "image", name);
        let [a, b] = exchanged.map(|name| dir.path(name));
        let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = end.clone();
        let attacker = std::thread::spawn(move || {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !until.load(std::sync::atomic::Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (mut opened, mut refused) = (0, 0);
        let options = allow(&[&dir.path("")]);
        on_engine(async {
            while opened < 200 || refused < 200 {
                match open(&config(&image), &options).await {
                    Ok(store) => {
                        assert!(
                            read(&store, 0, 512).await.unwrap() == [1; 512],
                            "{name}: a file outside"
                        );
                        opened += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        });
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        attacker.join().unwrap();
    }
}

#[test]
fn a_chain_that_comes_back_to_an_image_is_refused() {
    let dir = Dir::new();
    let a = dir.create("a", "", MIB);
    let b = dir.create("b", &format!("backing_file={},backing_fmt=qcow2", a.display()), MIB);
    qemu_img(&["rebase", "-u", "-F", "qcow2", "-b", b.to_str().unwrap(), a.to_str().unwrap()]);
    let text = refusal(&a, &OpenOptions { read_only: true, ..OpenOptions::default() });
    assert!(text.contains("comes back to it"), "{text}");
    let text = check_config(&config(&a)).unwrap_err().to_string();
    assert!(text.contains("comes back to it"), "{text}");
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    let dir = Dir::new();
    let mut below = String::new();
    for i in 0..70 {
        let name = format!("i{i}");
        let path = dir.path(&name);
        let mut args = vec!["create", "-q", "-u", "-f", "qcow2"];
        if i > 0 {
            args.extend(["-F", "qcow2", "-b", &below]);
        }
        args.extend([path.to_str().unwrap(), "1M"]);
        qemu_img(&args);
        below = name;
    }
    let text = refusal(&dir.path("i69"), &OpenOptions::default());
    assert!(text.contains("longer than 64"), "{text}");
    on_engine(async { open_image(&dir.path("i63")).await.close().await.unwrap() });
}

#[test]
fn a_backing_file_without_a_format_is_probed_as_qemu_does() {
    let dir = Dir::new();
    let below = dir.create("below", "", MIB);
    qemu_io(&below, &["write -P 9 0 64k"]);
    let raw = dir.path("raw");
    std::fs::write(&raw, vec![8; 65536]).unwrap();
    for (backing, byte) in [("below", 9), ("raw", 8)] {
        let image = on_backing(&dir, "image", backing);
        // The extension that names the format becomes one that nobody knows.
        let mut bytes = std::fs::read(&image).unwrap();
        let magic = 0xe279_2aca_u32.to_be_bytes();
        let at = bytes.windows(4).position(|window| window == magic).unwrap();
        bytes[at..at + 4].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
        std::fs::write(&image, bytes).unwrap();
        on_engine(async {
            let store = open_image(&image).await;
            assert_eq!(read(&store, 0, 512).await.unwrap(), vec![byte; 512], "{backing}");
            store.close().await.unwrap();
        });
    }
    // A named format is not probed.
    let image = on_backing(&dir, "image", "below");
    on_engine(async {
        let store = open_image(&image).await;
        assert_eq!(&read(&store, 0, 512).await.unwrap()[..4], b"QFI\xfb");
        store.close().await.unwrap();
    });
}

#[test]
fn backing_files_that_are_no_files_are_refused() {
    let dir = Dir::new();
    let fifo = dir.path("fifo");
    let status = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(status.success());
    for (backing, text) in [
        ("fifo", "neither a regular file nor a block device"),
        ("/dev/zero", "neither a regular file nor a block device"),
        ("nbd://localhost/x", "is not a file"),
        ("json:{\"driver\":\"file\"}", "name no file"),
        ("json:{\"driver\":\"nbd\",\"path\":\"/x\"}", "\"path\", which is not supported"),
        ("missing", "No such file"),
    ] {
        let image = dir.path("image");
        let _ = std::fs::remove_file(&image);
        dir.create("image", "", MIB);
        // QEMU would want to open some of these.
        let args = ["rebase", "-u", "-F", "raw", "-b", backing, image.to_str().unwrap()];
        qemu_img(&args);
        let got = refusal(&image, &OpenOptions::default());
        assert!(got.contains(text), "{backing}: {got}");
        let got = check_config(&config(&image)).unwrap_err().to_string();
        assert!(got.contains(text), "{backing}: {got}");
    }
}

#[test]
fn an_error_about_a_file_below_says_which_image_names_it_and_what_to_run() {
    let dir = Dir::new();
    let middle = dir.path("middle");
    let top = dir.path("top");
    let named = |path: &Path, options: &[&str]| {
        qemu_img(
            &[&["create", "-q", "-u", "-f", "qcow2"], options, &[path.to_str().unwrap(), "1M"]]
                .concat(),
        );
    };
    named(&top, &["-F", "qcow2", "-b", "middle"]);
    let rebase =
        |image: &Path| format!("`qemu-img rebase -u -b FILE -F FORMAT {}`", image.display());
    // What stands below, what is said of it, which image names it.
    std::fs::write(dir.path("text"), "no image").unwrap();
    for (below, format, said) in [
        ("missing", "raw", "No such file"),
        ("text", "qcow2", "qcow2"),
        ("/dev/zero", "raw", "neither a regular file nor a block device"),
        (".", "raw", "neither a regular file nor a block device"),
        ("top", "qcow2", "comes back to it"),
    ] {
        let _ = std::fs::remove_file(&middle);
        named(&middle, &["-F", format, "-b", below]);
        let text = refusal(&top, &OpenOptions::default());
        for part in
            [said, &format!("backing file \"{below}\" of {}", middle.display()), &rebase(&middle)]
        {
            assert!(text.contains(part), "{below}: {text}");
        }
        assert_eq!(text.matches("rebase").count(), 1, "{text}");
    }
    std::fs::remove_file(&middle).unwrap();
    let text = refusal(&top, &OpenOptions::default());
    assert!(text.contains(&format!("backing file \"middle\" of {}", top.display())), "{text}");
    assert!(text.contains(&rebase(&top)), "{text}");

    let data = dir.create("data", &format!("data_file={}", dir.path("its-data").display()), MIB);
    std::fs::remove_file(dir.path("its-data")).unwrap();
    let text = refusal(&data, &OpenOptions::default());
    assert!(text.contains("No such file") && text.contains("external data file"), "{text}");
    assert!(text.contains(&format!("of {}: put it back there", data.display())), "{text}");
}

#[test]
fn an_image_in_use_is_refused_and_its_backing_file_too() {
    let dir = Dir::new();
    let below = dir.create("below", "", MIB);
    let options = format!("backing_file={},backing_fmt=qcow2", below.display());
    let image = dir.create("image", &options, MIB);
    on_engine(async {
        let store = open_image(&image).await;
        // A check takes no lock.
        check_config(&config(&image)).unwrap();
        for path in [&image, &below] {
            let error = try_open_image(path).await.unwrap_err().to_string();
            assert!(error.contains("it is in use"), "{error}");
        }
        // Two images may share a backing file.
        let second = dir.create("second", &options, MIB);
        open_image(&second).await.close().await.unwrap();
        store.close().await.unwrap();
    });
    on_engine(async { open_image(&below).await.close().await.unwrap() });
}

/// Each cluster that the file has is read, and what is missing is an error.
#[test]
fn a_version_1_image_that_was_cut_off_is_read_up_to_there() {
    let dir = Dir::new();
    let raw = dir.path("raw");
    std::fs::write(&raw, Random(6).bytes(1 << 20)).unwrap();
    let image = dir.path("image");
    let args =
        ["convert", "-f", "raw", "-O", "qcow", raw.to_str().unwrap(), image.to_str().unwrap()];
    qemu_img(&args);
    let len = std::fs::metadata(&image).unwrap().len();
    std::fs::File::options().write(true).open(&image).unwrap().set_len(len / 2).unwrap();
    on_engine(async {
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        let store = open(&config(&image), &options).await.unwrap();
        assert_eq!(read(&store, 0, 512).await.unwrap(), std::fs::read(&raw).unwrap()[..512]);
        let e = read(&store, (1 << 20) - 512, 512).await.unwrap_err().to_string();
        assert!(e.contains("the file ends at"), "{e}");
    });
}

/// An image may name a device to which something is attached later: the disk that it is itself.
#[test]
fn a_loop_device_that_is_free_is_no_backing_file() {
    let dir = Dir::new();
    let free = std::process::Command::new("losetup").arg("-f").output().unwrap();
    let free = String::from_utf8(free.stdout).unwrap();
    let image = on_backing(&dir, "image", free.trim());
    let text = refusal(&image, &OpenOptions::default());
    assert!(text.contains("No medium found") && text.contains(free.trim()), "{text}");
}

/// Version 1 images: written by QEMU, read by us, alone and above other images.
#[test]
fn version_1_images_can_be_read() {
    let dir = Dir::new();
    let size = 3 * MIB + 512;
    let mut data = Random(5).bytes(usize::try_from(size).unwrap());
    data[100_000..900_000].fill(0);
    let raw = dir.path("raw");
    std::fs::write(&raw, &data).unwrap();
    let (raw, plain, packed) = (raw.to_str().unwrap(), dir.path("plain"), dir.path("packed"));
    qemu_img(&["convert", "-f", "raw", "-O", "qcow", raw, plain.to_str().unwrap()]);
    // A part of it is compressed (QEMU leaves clusters alone that are there already).
    data[409_600..413_696].fill(78);
    data[417_792..425_984].fill(79);
    std::fs::copy(&plain, &packed).unwrap();
    let commands = ["write -c -P 78 400k 4k", "write -c -P 79 408k 4k", "write -c -P 79 412k 4k"];
    qemu_io_on("qcow", &packed, &commands);
    qemu_io_on("qcow", &plain, &["write -P 78 400k 4k", "write -P 79 408k 8k"]);
    let above = dir.path("above");
    let args = ["-b", plain.to_str().unwrap(), "-F", "qcow", above.to_str().unwrap(), "4M"];
    qemu_img(&[&["create", "-q", "-u", "-f", "qcow"][..], &args].concat());
    on_engine(async {
        for path in [&plain, &packed, &above] {
            let store = open_image(path).await;
            let facts = store.facts();
            assert!(facts.read_only && facts.discard.is_none() && !facts.write_zeroes);
            let len = usize::try_from(facts.size).unwrap();
            let mut want = data.clone();
            want.resize(len, 0);
            assert!(read(&store, 0, len).await.unwrap() == want, "{}", path.display());
            assert!(read(&store, 99_840, 5120).await.unwrap() == want[99_840..104_960]);
            write(&store, 0, &[1; 512]).await.unwrap_err();
            store.discard(0, 512).await.unwrap_err();
            store.write_zeroes(0, 512, false).await.unwrap_err();
            let (_, n) = store.provisioning(0, 4 * KIB).await.unwrap();
            assert!((1..=4 * KIB).contains(&n));
            store.flush().await.unwrap();
            store.close().await.unwrap();
        }
    });
}

/// What libguestfs makes for `--ro`: an overlay. Below the version 1 image there is another qcow2
/// image, and a second overlay is above the first.
#[test]
fn version_1_images_can_be_below_and_above_qcow2_images() {
    let dir = Dir::new();
    let base = dir.create("base", "", 2 * MIB);
    qemu_io(&base, &["write -P 1 0 1M", "write -P 2 1M 64k"]);
    let old = dir.path("old");
    let args = ["-b", base.to_str().unwrap(), "-F", "qcow2", old.to_str().unwrap(), "3M"];
    qemu_img(&[&["create", "-q", "-u", "-f", "qcow"][..], &args].concat());
    qemu_io_on("qcow", &old, &["write -P 3 64k 4k", "write -P 4 2560k 64k"]);
    let options = format!("backing_file={},backing_fmt=qcow", old.display());
    let overlay = dir.create("overlay", &options, 4 * MIB);
    let options = format!("backing_file={},backing_fmt=qcow2", overlay.display());
    let top = dir.create("top", &options, 4 * MIB);
    let want = content(&top);
    assert_eq!((want[0], want[65_536], want[2 * 1_048_576 + 524_288]), (1, 3, 4));
    for image in [&top, &overlay] {
        on_engine(async {
            let store = open_image(image).await;
            assert!(read(&store, 0, want.len()).await.unwrap() == want);
            // Parts of clusters: the rest is copied from below.
            write(&store, 65_536 + 512, &[9; 1024]).await.unwrap();
            write(&store, 3 * MIB - 512, &[8; 1024]).await.unwrap();
            store.close().await.unwrap();
        });
        let mut now = want.clone();
        now[66_048..67_072].fill(9);
        now[3 * 1_048_576 - 512..][..1024].fill(8);
        assert!(content(image) == now, "as QEMU sees it");
        assert_eq!(crate::common::check(image), Check::Clean);
    }
}

#[test]
fn backing_files_named_by_options_are_served() {
    let dir = Dir::new();
    let base = dir.create("base:1", "", MIB);
    qemu_io(&base, &["write -P 7 0 64k"]);
    let path = base.display().to_string();
    let image = dir.path("image");
    for (name, format) in [
        (
            format!(r#"json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{path}"}}}}"#),
            "qcow2",
        ),
        (
            format!(r#"json:{{"driver":"qcow2","file.filename":"{path}","file.locking":"off"}}"#),
            "qcow2",
        ),
        (format!(r#"json:{{"file":{{"driver":"file","filename":"{path}"}}}}"#), "qcow2"),
        (format!("file:{path}"), "qcow2"),
    ] {
        let _ = std::fs::remove_file(&image);
        dir.create("image", "", MIB);
        qemu_img(&["rebase", "-u", "-F", format, "-b", &name, image.to_str().unwrap()]);
        let want = content(&image);
        on_engine(async {
            let store = open_image(&image).await;
            assert!(read(&store, 0, want.len()).await.unwrap() == want, "{name}");
            store.close().await.unwrap();
        });
    }
    // The node of the file itself: its bytes, and not what they say.
    let name = format!(r#"json:{{"driver":"file","filename":"{path}"}}"#);
    qemu_img(&["rebase", "-u", "-F", "raw", "-b", &name, image.to_str().unwrap()]);
    on_engine(async {
        let store = open_image(&image).await;
        assert_eq!(&read(&store, 0, 512).await.unwrap()[..4], b"QFI\xfb");
        store.close().await.unwrap();
    });
    let allowed = refusal(&image, &allow(&[Path::new("/nonexistent")]));
    assert!(allowed.contains("none of the directories"), "{allowed}");
}
