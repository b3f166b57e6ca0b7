// SPDX-License-Identifier: Apache-2.0
//! The man page says the same as the program; with UPDATE_DIST=1 it is written.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../../tests/synopsis.rs"]
mod synopsis;

use clap::CommandFactory;
use guestfs_novm::cli::{Options, TRUST};
use guestfs_novm::{daemon, mode, uml};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use synopsis::synopsis;

/// Text as roff: a line that begins with a period or an apostrophe would be a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[test]
fn the_man_page_is_current() {
    let man = clap_mangen::Man::new(Options::command())
        .section("1")
        .date("")
        .source(format!("guestfs-novm {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    page.extend(synopsis(&Options::command()).into_bytes());
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page.push_str(".SH TRUST\n.nf\n");
    for line in TRUST.lines() {
        writeln!(page, "{}", roff(line)).unwrap();
    }
    page.push_str(".fi\n.SH ENVIRONMENT\n");
    for (name, what) in [
        (mode::VARIABLE, "instant or uml; default: instant for root, uml for others."),
        (daemon::VARIABLE, "The daemon; default: guestfsd beside this program, or installed."),
        (uml::KERNEL_VARIABLE, "The kernel of User-Mode Linux; default: linux.uml in PATH."),
        (uml::MODULES_VARIABLE, "The directory of its modules; default: /usr/lib/uml/modules."),
        ("GUESTFSD_*, RUST_*", "Passed on to the daemon in instant mode."),
    ] {
        write!(page, ".TP\n.B {}\n{}\n", roff(name), roff(what)).unwrap();
    }
    page.push_str(
        ".SH DIAGNOSTICS\nlibguestfs shows what this program writes only when it is told to: \
         LIBGUESTFS_DEBUG=1, or guestfish \\-v.\n.SH SEE ALSO\n.BR guestfish (1),\n.BR \
         guestfs (3)\n",
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/man/guestfs-novm.1");
    if std::env::var_os("UPDATE_DIST").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "dist/man/guestfs-novm.1 is not what the program says; run UPDATE_DIST=1 cargo test -p guestfs-novm"
    );
}
