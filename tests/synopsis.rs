// SPDX-License-Identifier: Apache-2.0
//! The synopsis of a man page, from the options of the program: that of clap_mangen leaves out what options take. The
//! tests of the man pages share this file.

use clap::{Arg, ArgAction, Command};

/// The section, as roff.
pub(crate) fn synopsis(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let mut page = format!(".SH SYNOPSIS\n\\fB{}\\fR", roff(command.get_name()));
    let visible = || command.get_arguments().filter(|arg| !arg.is_hide_set());
    for arg in visible().filter(|arg| !arg.is_positional()) {
        page += &format!(" [{}]", option(arg));
    }
    if command.get_subcommands().any(|subcommand| !subcommand.is_hide_set()) {
        page += " [\\fICOMMAND\\fR]";
    }
    for arg in visible().filter(|arg| arg.is_positional()) {
        let before = if arg.is_last_set() { "\\fB\\-\\-\\fR " } else { "" };
        page += &format!(" [{before}{}]", values(arg));
    }
    page + "\n"
}

/// `-l|--listen [ADDRESS]`
fn option(arg: &Arg) -> String {
    let short = arg.get_short().map(|c| format!("\\fB\\-{c}\\fR"));
    let long = arg.get_long().map(|name| format!("\\fB\\-\\-{}\\fR", roff(name)));
    let mut text = short.into_iter().chain(long).collect::<Vec<_>>().join("|");
    if arg.get_action().takes_values() {
        let is_optional = arg.get_num_args().is_some_and(|number| number.min_values() == 0);
        text += &match is_optional {
            true => format!(" [{}]", values(arg)),
            false => format!(" {}", values(arg)),
        };
    }
    if matches!(arg.get_action(), ArgAction::Append | ArgAction::Count) && !arg.is_positional() {
        text += "...";
    }
    text
}

/// `PATH`, `CLIENT...`
fn values(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().iter();
    let names = names.map(|name| format!("\\fI{}\\fR", roff(name))).collect::<Vec<_>>().join(" ");
    let several =
        arg.get_num_args().is_some_and(|number| number.max_values() > number.min_values().max(1));
    if several { format!("{names}...") } else { names }
}

fn roff(text: &str) -> String {
    text.replace('-', "\\-")
}
