// SPDX-License-Identifier: Apache-2.0
//! Libraries that are refused, and the others that go on.
use std::path::Path;

use tcmu_plugin::Plugins;

use crate::support::Built;

#[test]
fn a_directory_that_does_not_exist_has_no_plugins() {
    assert!(Plugins::load(Path::new("/no/such/directory"), &[]).handlers().is_empty());
}

#[test]
fn what_is_refused_leaves_the_others_as_they_are() {
    let built = Built::new();
    for case in 1..=14 {
        let name = format!("handler_a{case:02}.so");
        built.add("refused.c", &name, &[&format!("-DCASE={case}")]);
    }
    std::fs::write(built.path().join("handler_text.so"), "no library").unwrap();
    std::os::unix::fs::symlink("/no/such/file", built.path().join("handler_gone.so")).unwrap();
    let fifo = built.path().join("handler_fifo.so");
    let status = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(status.expect("install coreutils").success());
    built.add("refused.c", "handler_short.so", &["-DCASE=2"]);
    let short = std::fs::File::options().write(true).open(built.path().join("handler_short.so"));
    let short = short.unwrap();
    short.set_len(short.metadata().unwrap().len() / 4).unwrap();
    std::fs::write(built.path().join("other.so"), "not looked at").unwrap();
    built.add("handler_right.c", "handler_right.so", &[]);
    // The same subtypes once more, by another file.
    built.add("handler_right.c", "handler_z.so", &[]);
    let plugins = built.load();
    let names: Vec<_> = plugins
        .handlers()
        .iter()
        .map(|handler| {
            let file = handler.file().file_name().unwrap().to_str().unwrap();
            format!("{} of {file}", handler.subtype())
        })
        .collect();
    let right = ["psync", "pasync", "pcmd", "ppass", "plock", "pread"];
    let mut expected = vec!["again of handler_a13.so".to_owned()];
    expected.extend(right.map(|name| format!("{name} of handler_right.so")));
    assert_eq!(names, expected);
    plugins.destroy();
}

#[test]
fn a_subtype_that_is_not_built_in_is_the_plugins() {
    let built = Built::new();
    built.add("refused.c", "handler_file.so", &["-DCASE=2"]);
    assert!(built.load().find("file").is_none());
    assert!(Plugins::load(built.path(), &["qcow"]).find("file").is_some());
}

#[test]
fn a_configuration_string_is_the_handlers_to_judge() {
    let right = crate::support::Right::new();
    let handler = right.plugins.find("psync").unwrap();
    assert_eq!(handler.check_config(&format!("psync/{}", right.file.display())), Ok(()));
    assert_eq!(handler.check_config("psync//no/such"), Err("no such file: /no/such".into()));
    assert_eq!(handler.check_config("psync//\0"), Err("it contains a NUL byte".into()));
    right.plugins.update_log_dir();
    assert_eq!(right.counts().log_dirs, 1);
}
