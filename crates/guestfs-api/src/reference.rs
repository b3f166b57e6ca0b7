// SPDX-License-Identifier: Apache-2.0
//! Reference documentation, made from the table.

use crate::{Argument, PROCEDURES, Procedure};
use std::fmt::Write;

/// The table of procedures as a Markdown document.
///
/// ```
/// let text = guestfs_api::reference();
/// assert!(text.contains("| 1 | `mount` | mountable: Mountable, mountpoint: String |"));
/// ```
pub fn reference() -> String {
    let mut out = String::from(
        "# Procedures of the guestfs protocol\n\n\
         Optional arguments follow the semicolon. What each procedure means is in guestfs(3).\n\n\
         | number | name | arguments | result | group | since | flags |\n\
         |-------:|------|-----------|--------|-------|-------|-------|\n",
    );
    for p in &PROCEDURES {
        // Writing to memory does not fail.
        let _ = writeln!(
            out,
            "| {} | `{}` | {} | {} | {} | {} | {} |",
            p.number,
            p.name,
            signature(p),
            p.result.unwrap_or(""),
            p.group.unwrap_or(""),
            p.since,
            flags(p),
        );
    }
    out
}

fn signature(p: &Procedure) -> String {
    let list = |args: &[Argument]| {
        args.iter().map(|a| format!("{}: {}", a.name, a.kind)).collect::<Vec<_>>().join(", ")
    };
    match p.options {
        [] => list(p.args),
        options => format!("{}; {}", list(p.args), list(options)),
    }
}

fn flags(p: &Procedure) -> String {
    [
        (p.progress, "progress"),
        (p.cancel, "cancel"),
        (p.deprecated, "deprecated"),
        (p.internal, "internal"),
    ]
    .iter()
    .filter(|(set, _)| *set)
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join(" ")
}
