// SPDX-License-Identifier: Apache-2.0
//! What the two libraries export, by `nm` of binutils.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{DEBIANS, ours, run};

/// What gdbus-codegen has made in Debian's library of the D-Bus interface.
fn is_generated(symbol: &str) -> bool {
    ["tcmuservice1_", "object_"].iter().any(|prefix| symbol.starts_with(prefix))
}

/// Functions that came in version 1.6.
const NEWER: [&str; 2] =
    ["tcmu_dev_get_write_protect_enabled", "tcmu_dev_set_write_protect_enabled"];

fn exported(library: &Path) -> BTreeSet<String> {
    let text = run(Command::new("nm").args(["-D", "--defined-only", "-P"]).arg(library));
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn it_exports_what_debians_does_but_for_generated_code_and_nothing_else() {
    let mut wanted = exported(&DEBIANS);
    wanted.retain(|symbol| !is_generated(symbol));
    assert!(wanted.len() > 80, "{wanted:?}");
    wanted.extend(NEWER.map(str::to_owned));
    let found = exported(&ours());
    let missing: Vec<_> = wanted.difference(&found).collect();
    let more: Vec<_> = found.difference(&wanted).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing: {missing:?}; more: {more:?}");
}

#[test]
fn programs_that_were_linked_with_debians_library_find_it_by_its_soname() {
    let soname = |library: &Path| {
        let text = run(Command::new("readelf").args(["-d", "-W"]).arg(library));
        text.lines()
            .find(|line| line.contains("(SONAME)"))
            .unwrap()
            .split('[')
            .nth(1)
            .map(str::to_owned)
    };
    assert_eq!(soname(&ours()), soname(&DEBIANS));
}
