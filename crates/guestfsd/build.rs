// SPDX-License-Identifier: Apache-2.0
//! Generates the dispatch: one handler for each procedure of the table, which decodes the arguments, gives them their
//! meaning, calls `crate::procedures::NAME` and encodes the result.

// A build script talks to cargo on standard output.
#![allow(clippy::print_stdout)]

use guestfs_api::spec::{self, Argument, Kind, Procedure, ResultKind, Spec, ident};
use std::fmt::Write;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    let spec = spec::parse(spec::TEXT)?;
    let mut out = String::new();
    for p in &spec.procedures {
        handler(&mut out, &spec, p)?;
    }
    let last = spec.procedures.last().map_or(0, |p| p.number);
    writeln!(out, "/// Handlers by number; none where the table has none.")?;
    writeln!(out, "pub(super) static HANDLERS: [Option<Handler>; {}] = [", last + 1)?;
    let mut procedures = spec.procedures.iter().peekable();
    for number in 0..=last {
        match procedures.next_if(|p| p.number == number) {
            Some(p) => writeln!(out, "    Some(handle_{}),", p.rust_name())?,
            None => writeln!(out, "    None,")?,
        }
    }
    writeln!(out, "];")?;
    let dir = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    Ok(std::fs::write(dir.join("handlers.rs"), out)?)
}

fn handler(out: &mut String, spec: &Spec, p: &Procedure) -> std::fmt::Result {
    let file = p.args.iter().find(|a| matches!(a.kind, Kind::FileIn | Kind::FileOut));
    let in_message = p.args.iter().any(|a| !matches!(a.kind, Kind::FileIn | Kind::FileOut));
    writeln!(
        out,
        "fn handle_{}(call: &mut Call<'_>, reply: &mut Reply) -> Result<()> {{",
        p.rust_name()
    )?;
    if in_message || !p.options.is_empty() {
        writeln!(out, "    let args = call.args::<args::{}>()?;", p.type_name())?;
    }
    for a in &p.args {
        if let Some(meaning) = meaning(p, a) {
            writeln!(out, "    let {} = {meaning};", ident(&a.name))?;
        }
    }
    let mut parameters = String::from("call.session");
    for a in &p.args {
        let name = ident(&a.name);
        match a.kind {
            Kind::FileIn | Kind::FileOut => parameters.push_str(", &mut stream"),
            Kind::StringList => write!(parameters, ", &args.{name}")?,
            Kind::DeviceList | Kind::PathnameList | Kind::FilenameList => {
                write!(parameters, ", &{name}")?;
            }
            _ if meaning(p, a).is_some() => write!(parameters, ", {name}")?,
            _ => write!(parameters, ", args.{name}")?,
        }
    }
    if !p.options.is_empty() {
        parameters.push_str(", &args.options");
    }
    match file {
        Some(a) => {
            writeln!(out, "    let mut stream = {}::new(call.channel, &call.header);", a.kind)?
        }
        None if p.progress => {
            writeln!(out, "    let mut progress = Progress::new(call.channel, &call.header);")?;
            parameters.push_str(", &mut progress");
        }
        None => {}
    }
    let call = format!("procedures::{}({parameters})", ident(&p.rust_name()));
    match (&p.result, file.map(|a| a.kind)) {
        (None, Some(Kind::FileOut)) => {
            writeln!(out, "    let done = {call};\n    reply.sent(stream.finish(done)?)")?;
        }
        (None, _) => writeln!(out, "    let (): () = {call}?;\n    reply.nothing()")?,
        (Some((_, result)), _) => {
            let mutable = if has_device_fields(spec, result) { "mut " } else { "" };
            writeln!(out, "    let {mutable}result = {call}?;")?;
            encode(out, spec, result)?;
        }
    }
    writeln!(out, "}}")
}

/// Procedures that take a device as it is named: they know something of volumes that are not active, too.
const AS_NAMED: &[&str] = &["blockdev_getsize64", "internal_parse_mountable", "lvuuid"];

/// How an argument gets its meaning, where it has more than its value.
fn meaning(p: &Procedure, a: &Argument) -> Option<String> {
    if AS_NAMED.contains(&p.name.as_str()) {
        return None;
    }
    let name = ident(&a.name);
    let check = match a.kind {
        Kind::Device => "device",
        Kind::Mountable => "mountable",
        Kind::Pathname => "path",
        Kind::DevOrPath => "device_or_path",
        Kind::MountableOrPath => "mountable_or_path",
        Kind::Filename => "filename",
        Kind::DeviceList => "devices",
        Kind::PathnameList => "paths",
        Kind::FilenameList => "filenames",
        _ => return None,
    };
    let borrow = if check.ends_with('s') { "&" } else { "" };
    Some(format!("argument::{check}(call.session, {:?}, {borrow}args.{name})?", a.name))
}

fn device_fields<'a>(spec: &'a Spec, result: &ResultKind) -> Vec<&'a str> {
    let (ResultKind::Struct(name) | ResultKind::StructList(name)) = result else {
        return Vec::new();
    };
    spec.structs
        .iter()
        .filter(|s| s.name == *name)
        .flat_map(|s| &s.fields)
        .filter(|(_, kind)| *kind == spec::FieldKind::Device)
        .map(|(field, _)| field.as_str())
        .collect()
}

fn has_device_fields(spec: &Spec, result: &ResultKind) -> bool {
    !device_fields(spec, result).is_empty()
}

fn encode(out: &mut String, spec: &Spec, result: &ResultKind) -> std::fmt::Result {
    for field in device_fields(spec, result) {
        let each = match result {
            ResultKind::StructList(_) => "for item in &mut result",
            _ => "let item = &mut result;",
        };
        writeln!(
            out,
            "    {each} {{ item.{field} = result::device(call.session, &item.{field}); }}"
        )?;
    }
    let part = |k: Kind, v: &str| match k {
        Kind::Device => format!("result::device(call.session, {v})"),
        Kind::Mountable => format!("result::mountable(call.session, {v})"),
        _ => v.to_owned(),
    };
    match result {
        ResultKind::String => writeln!(out, "    reply.string(&result)"),
        ResultKind::Device => writeln!(out, "    reply.string(&{})", part(Kind::Device, "&result")),
        ResultKind::Buffer => writeln!(out, "    reply.buffer(&result)"),
        ResultKind::Bool => writeln!(out, "    reply.bool(result)"),
        ResultKind::Int => writeln!(out, "    reply.int(result)"),
        ResultKind::Int64 => writeln!(out, "    reply.int64(result)"),
        ResultKind::StringList => writeln!(out, "    reply.strings(&result)"),
        ResultKind::DeviceList => {
            let name = part(Kind::Device, "d");
            writeln!(out, "    let names: Vec<_> = result.iter().map(|d| {name}).collect();")?;
            writeln!(out, "    reply.strings(&names)")
        }
        ResultKind::MountableList => {
            let name = part(Kind::Mountable, "m");
            writeln!(out, "    let names: Vec<_> = result.iter().map(|m| {name}).collect();")?;
            writeln!(out, "    reply.strings(&names)")
        }
        ResultKind::Hashtable(k, v) => {
            let (k, v) = (part(*k, "k"), part(*v, "v"));
            writeln!(
                out,
                "    let pairs: Vec<_> = result.iter().map(|(k, v)| ({k}, {v})).collect();"
            )?;
            writeln!(out, "    reply.pairs(&pairs)")
        }
        ResultKind::Struct(_) => writeln!(out, "    reply.structure(&result)"),
        ResultKind::StructList(_) => writeln!(out, "    reply.structures(&result)"),
    }
}
