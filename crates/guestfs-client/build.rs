// SPDX-License-Identifier: Apache-2.0
//! Generates one method of `Client` for each procedure of the table.

// A build script talks to cargo on standard output.
#![allow(clippy::print_stdout)]

use guestfs_api::spec::{self, Kind, Procedure, ResultKind, ident};
use std::fmt::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = spec::parse(spec::TEXT)?;
    let mut out = String::from("impl<S: Stream> Client<S> {\n");
    for p in &spec.procedures {
        stub(&mut out, p)?;
    }
    out.push_str("}\n");
    let path = std::path::Path::new(&std::env::var("OUT_DIR")?).join("stubs.rs");
    std::fs::write(path, out)?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

fn stub(out: &mut String, p: &Procedure) -> std::fmt::Result {
    let (mut parameters, mut fields, mut before) = (String::new(), String::new(), String::new());
    let mut file = None;
    for a in &p.args {
        let name = ident(&a.name);
        let (kind, value) = match a.kind {
            Kind::Bool => ("bool", name.clone()),
            Kind::Int => ("i32", name.clone()),
            Kind::Int64 => ("i64", name.clone()),
            Kind::BufferIn => ("&[u8]", name.clone()),
            Kind::OptString => ("Option<&OsStr>", name.clone()),
            Kind::FileIn => ("&mut dyn Read", String::new()),
            Kind::FileOut => ("&mut dyn Write", String::new()),
            Kind::StringList | Kind::DeviceList | Kind::PathnameList | Kind::FilenameList => {
                ("&[impl AsRef<OsStr>]", format!("{name}.iter().map(AsRef::as_ref).collect()"))
            }
            _ => ("impl AsRef<OsStr>", format!("{name}.as_ref()")),
        };
        if matches!(a.kind, Kind::FileIn | Kind::FileOut) {
            file = Some((a.kind, name.clone()));
        } else {
            match name == value {
                true => writeln!(fields, "            {name},")?,
                false => writeln!(fields, "            {name}: {value},")?,
            }
        }
        write!(parameters, ", {name}: {kind}")?;
    }
    if !p.options.is_empty() {
        write!(parameters, ", options: &options::{}", p.type_name())?;
        if p.options.iter().any(|o| !matches!(o.kind, Kind::Bool | Kind::Int | Kind::Int64)) {
            parameters.push_str("<'_>");
        }
        writeln!(fields, "            options: options.clone(),")?;
    }
    let (result, decode) = match p.result.as_ref().map(|(_, kind)| kind) {
        None => ("()".to_owned(), "Ok(())".to_owned()),
        Some(ResultKind::String | ResultKind::Device) => {
            ("OsString".to_owned(), "d.string().map(ToOwned::to_owned)".to_owned())
        }
        Some(ResultKind::Buffer) => {
            ("Vec<u8>".to_owned(), "d.opaque().map(ToOwned::to_owned)".to_owned())
        }
        Some(ResultKind::Bool) => ("bool".to_owned(), "d.bool()".to_owned()),
        Some(ResultKind::Int) => ("i32".to_owned(), "d.i32()".to_owned()),
        Some(ResultKind::Int64) => ("i64".to_owned(), "d.i64()".to_owned()),
        Some(ResultKind::StringList | ResultKind::DeviceList | ResultKind::MountableList) => (
            "Vec<OsString>".to_owned(),
            "d.strings().map(|l| l.into_iter().map(ToOwned::to_owned).collect())".to_owned(),
        ),
        Some(ResultKind::Hashtable(..)) => {
            ("Vec<(OsString, OsString)>".to_owned(), "d.pairs()".to_owned())
        }
        Some(ResultKind::Struct(s)) => {
            let name = format!("structs::{}", spec::camel(s));
            (name.clone(), format!("<{name} as Wire>::decode(&mut d)"))
        }
        Some(ResultKind::StructList(s)) => {
            let name = format!("structs::{}", spec::camel(s));
            (format!("Vec<{name}>"), format!("<{name} as Wire>::decode_list(&mut d)"))
        }
    };
    let receive = match &file {
        Some((Kind::FileIn, name)) => {
            writeln!(before, "        let sent = self.send_file({name})?;")?;
            "self.reply_after_file(number, sent)?"
        }
        _ => "self.reply(number)?",
    };
    let finish = match &file {
        Some((Kind::FileOut, name)) => format!("self.receive_file(number, {name})"),
        _ if p.result.is_none() => "Ok(())".to_owned(),
        _ => format!("let mut d = Decoder::new(&body);\n        Ok({decode}?)"),
    };
    let body = if p.result.is_none() { "" } else { "let body = " };
    writeln!(out, "    /// Calls `{}` ({}).", p.name, p.number)?;
    writeln!(
        out,
        "    pub fn {}(&mut self{parameters}) -> Result<{result}> {{",
        ident(&p.rust_name())
    )?;
    writeln!(
        out,
        "        let number = self.call(&args::{} {{\n{fields}        }})?;",
        p.type_name()
    )?;
    writeln!(out, "{before}        {body}{receive};\n        {finish}\n    }}\n")
}
