// SPDX-License-Identifier: Apache-2.0
//! The man page says the same as the program; with UPDATE_DIST=1 it is written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

#[path = "../../../tests/synopsis.rs"]
mod synopsis;

use clap::CommandFactory;
use guestfsd::cli::{LISTENERS, Options};
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
        .section("8")
        .date("")
        .source(format!("guestfsd {}", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    page.extend(synopsis(&Options::command()).into_bytes());
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page.push_str(".SH CLIENTS\n.nf\n");
    for line in LISTENERS.lines() {
        writeln!(page, "{}", roff(line)).unwrap();
    }
    page.push_str(".fi\n.SH FILES\n");
    for (name, what) in [
        ("ca-cert.pem", "In --tls-dir: the authorities that clients' certificates come from."),
        (
            "server-cert.pem, server-key.pem",
            "In --tls-dir: the daemon's certificate, with the name that clients connect to among its \
             subject alternative names, and its private key, which others must not be able to read.",
        ),
        ("ca-crl.pem", "In --tls-dir: certificates that have been revoked. Need not be there."),
    ] {
        write!(page, ".TP\n.B {}\n{}\n", roff(name), roff(what)).unwrap();
    }
    page.push_str(
        "The files are laid out as QEMU has them (tls\\-creds\\-x509). They are read anew for each \
         client: renewed certificates need no restart.\n",
    );
    page.push_str(".SH SEE ALSO\n.BR guestfs\\-novm (1),\n.BR guestfish (1),\n.BR guestfs (3)\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/man/guestfsd.8");
    if std::env::var_os("UPDATE_DIST").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "dist/man/guestfsd.8 is not what the program says; run UPDATE_DIST=1 cargo test -p guestfsd"
    );
}
