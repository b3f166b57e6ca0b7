// SPDX-License-Identifier: Apache-2.0
//! The code that the library is made of beside what is written by hand: structures, arguments,
//! optional arguments with their decoders and encoders, and the table.

use crate::spec::{Argument, FieldKind, Kind, Procedure, Spec, camel, ident};
use std::fmt::Write;

/// Appends lines to a text; writing to memory does not fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => { let _ = writeln!($out, $($arg)*); };
}

/// `structs`: one owned type for each structure.
pub fn structs(spec: &Spec) -> String {
    let mut out = String::new();
    for s in &spec.structs {
        let name = camel(&s.name);
        put!(out, "/// Structure `{}` of the interface.", s.name);
        put!(out, "#[derive(Clone, Debug, Default, PartialEq)]\npub struct {name} {{");
        for (field, kind) in &s.fields {
            put!(out, "    /// {}.", field_doc(*kind));
            put!(out, "    pub {}: {},", ident(field), field_type(*kind));
        }
        put!(out, "}}\nimpl Wire for {name} {{");
        let min: usize = s.fields.iter().map(|(_, k)| field_min(*k)).sum();
        put!(out, "    const MIN: usize = {min};");
        put!(out, "    fn decode(d: &mut Decoder<'_>) -> Result<Self> {{\n        Ok(Self {{");
        for (field, kind) in &s.fields {
            put!(out, "            {}: {},", ident(field), field_decode(*kind));
        }
        put!(out, "        }})\n    }}");
        put!(out, "    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {{");
        for (field, kind) in &s.fields {
            put!(out, "        {};", field_encode(*kind, &ident(field)));
        }
        put!(out, "        Ok(())\n    }}\n}}");
    }
    out
}

fn field_doc(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::String => "Text",
        FieldKind::Device => "Name of a block device",
        FieldKind::UUID => "32 characters",
        FieldKind::Buffer => "Bytes",
        FieldKind::Char => "One character",
        FieldKind::Bytes => "Size in bytes",
        FieldKind::OptPercent => "Percentage, or -1 when there is none",
        FieldKind::Int32 | FieldKind::UInt32 | FieldKind::Int64 | FieldKind::UInt64 => "Number",
    }
}

fn field_type(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::String | FieldKind::Device => "OsString",
        FieldKind::UUID => "[u8; 32]",
        FieldKind::Buffer => "Vec<u8>",
        FieldKind::Char => "u8",
        FieldKind::Int32 => "i32",
        FieldKind::UInt32 => "u32",
        FieldKind::Int64 | FieldKind::Bytes => "i64",
        FieldKind::UInt64 => "u64",
        FieldKind::OptPercent => "f32",
    }
}

/// Bytes that a field takes at least.
fn field_min(kind: FieldKind) -> usize {
    match kind {
        FieldKind::UUID => 32,
        FieldKind::Int64 | FieldKind::Bytes | FieldKind::UInt64 => 8,
        _ => 4,
    }
}

fn field_decode(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::String | FieldKind::Device => "d.string()?.to_owned()",
        FieldKind::UUID => "d.fixed(32)?.try_into().unwrap_or_default()",
        FieldKind::Buffer => "d.opaque()?.to_vec()",
        FieldKind::Char => "d.u32()?.to_be_bytes()[3]",
        FieldKind::Int32 => "d.i32()?",
        FieldKind::UInt32 => "d.u32()?",
        FieldKind::Int64 | FieldKind::Bytes => "d.i64()?",
        FieldKind::UInt64 => "d.u64()?",
        FieldKind::OptPercent => "d.f32()?",
    }
}

fn field_encode(kind: FieldKind, field: &str) -> String {
    match kind {
        FieldKind::String | FieldKind::Device => format!("e.string(&self.{field})?"),
        FieldKind::UUID => format!("e.fixed(&self.{field})"),
        FieldKind::Buffer => format!("e.opaque(&self.{field})?"),
        FieldKind::Char => format!("e.u32(u32::from(self.{field}))"),
        FieldKind::Int32 => format!("e.i32(self.{field})"),
        FieldKind::UInt32 => format!("e.u32(self.{field})"),
        FieldKind::Int64 | FieldKind::Bytes => format!("e.i64(self.{field})"),
        FieldKind::UInt64 => format!("e.u64(self.{field})"),
        FieldKind::OptPercent => format!("e.f32(self.{field})"),
    }
}

/// Type of an argument as it lies in a message; none for a file, which does not.
fn arg_type(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::FileIn | Kind::FileOut => return None,
        Kind::Bool => "bool",
        Kind::Int => "i32",
        Kind::Int64 => "i64",
        Kind::OptString => "Option<&'a OsStr>",
        Kind::BufferIn => "&'a [u8]",
        k if is_list(k) => "Vec<&'a OsStr>",
        _ => "&'a OsStr",
    })
}

fn is_list(kind: Kind) -> bool {
    matches!(kind, Kind::StringList | Kind::DeviceList | Kind::PathnameList | Kind::FilenameList)
}

fn arg_decode(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "d.bool()?",
        Kind::Int => "d.i32()?",
        Kind::Int64 => "d.i64()?",
        Kind::OptString => "d.optional_string()?",
        Kind::BufferIn => "d.opaque()?",
        k if is_list(k) => "d.strings()?",
        _ => "d.string()?",
    }
}

fn arg_encode(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Bool => format!("e.bool({value})"),
        Kind::Int => format!("e.i32({value})"),
        Kind::Int64 => format!("e.i64({value})"),
        Kind::OptString => format!("e.optional_string({value})?"),
        Kind::BufferIn => format!("e.opaque({value})?"),
        k if is_list(k) => format!("e.strings({value})?"),
        _ => format!("e.string({value})?"),
    }
}

/// The field of an argument, as its encoder takes it.
fn borrowed(a: &Argument) -> String {
    format!("{}self.{}", if is_list(a.kind) { "&" } else { "" }, ident(&a.name))
}

/// `&'a` where one of these arguments borrows.
fn lifetime(args: &[Argument]) -> &'static str {
    let borrows = |a: &Argument| arg_type(a.kind).is_some_and(|t| t.contains("'a"));
    if args.iter().any(borrows) { "<'a>" } else { "" }
}

fn message_args(p: &Procedure) -> Vec<Argument> {
    p.args.iter().filter(|a| arg_type(a.kind).is_some()).cloned().collect()
}

/// `args`: what each procedure's call says, borrowed from the message.
pub fn args(spec: &Spec) -> String {
    let mut out = String::new();
    for p in &spec.procedures {
        let (name, args) = (p.type_name(), message_args(p));
        let (lt, olt) = (lifetime(&args), lifetime(&p.options));
        let lt_all = if olt.is_empty() { lt } else { olt };
        put!(out, "/// Arguments of `{}`.", p.name);
        put!(out, "#[derive(Clone, Debug, PartialEq)]\npub struct {name}{lt_all} {{");
        for a in &args {
            put!(out, "    /// `{}` ({}).", a.name, a.kind);
            put!(out, "    pub {}: {},", ident(&a.name), arg_type(a.kind).unwrap_or_default());
        }
        if !p.options.is_empty() {
            put!(out, "    /// Optional arguments.\n    pub options: options::{name}{olt},");
        }
        put!(out, "}}\nimpl<'a> Call<'a> for {name}{lt_all} {{");
        put!(out, "    const NUMBER: u32 = {};", p.number);
        let unused = args.is_empty() && p.options.is_empty();
        put!(
            out,
            "    fn decode({}d: &mut Decoder<'a>, {}mask: u64) -> Result<Self> {{",
            if unused { "_" } else { "" },
            if p.options.is_empty() { "_" } else { "" }
        );
        put!(out, "        Ok(Self {{");
        for a in &args {
            put!(out, "            {}: {},", ident(&a.name), arg_decode(a.kind));
        }
        if !p.options.is_empty() {
            put!(out, "            options: options::{name}::decode(d, mask)?,");
        }
        put!(out, "        }})\n    }}");
        put!(
            out,
            "    fn encode(&self, {}e: &mut Encoder<'_>) -> Result<()> {{",
            if unused { "_" } else { "" }
        );
        for a in &args {
            put!(out, "        {};", arg_encode(a.kind, &borrowed(a)));
        }
        if !p.options.is_empty() {
            put!(out, "        self.options.encode(e)?;");
        }
        put!(out, "        Ok(())\n    }}");
        if !p.options.is_empty() {
            put!(out, "    fn optargs_bitmask(&self) -> u64 {{ self.options.bitmask() }}");
        }
        put!(out, "}}");
    }
    out
}

/// `options`: the optional arguments of each procedure that has any.
pub fn options(spec: &Spec) -> String {
    let mut out = String::new();
    for p in spec.procedures.iter().filter(|p| !p.options.is_empty()) {
        let (name, lt) = (p.type_name(), lifetime(&p.options));
        put!(out, "/// Optional arguments of `{}`; none is given by default.", p.name);
        put!(out, "#[derive(Clone, Debug, Default, PartialEq)]\npub struct {name}{lt} {{");
        for o in &p.options {
            put!(out, "    /// `{}` ({}).", o.name, o.kind);
            put!(
                out,
                "    pub {}: Option<{}>,",
                ident(&o.name),
                arg_type(o.kind).unwrap_or_default()
            );
        }
        let (elided, anon) = if lt.is_empty() { ("", "'_") } else { ("<'a>", "'a") };
        put!(out, "}}\nimpl{lt} {name}{elided} {{");
        put!(
            out,
            "    pub(crate) fn decode(d: &mut Decoder<{anon}>, mask: u64) -> Result<Self> {{"
        );
        put!(out, "        Ok(Self {{");
        for (bit, o) in p.options.iter().enumerate() {
            put!(out, "            {}: if given(d, mask, {bit}) {{ ", ident(&o.name));
            put!(out, "                let value = {};", arg_decode(o.kind));
            put!(out, "                (mask & (1 << {bit}) != 0).then_some(value)");
            put!(out, "            }} else {{ None }},");
        }
        put!(out, "        }})\n    }}");
        put!(out, "    pub(crate) fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {{");
        for o in &p.options {
            let field = format!("self.{}", ident(&o.name));
            let value = match o.kind {
                k if is_list(k) => format!("{field}.as_deref().unwrap_or_default()"),
                Kind::Bool | Kind::Int | Kind::Int64 => format!("{field}.unwrap_or_default()"),
                _ => format!("{field}.unwrap_or(OsStr::new(\"\"))"),
            };
            put!(out, "        {};", arg_encode(o.kind, &value));
        }
        put!(out, "        Ok(())\n    }}");
        put!(out, "    pub(crate) fn bitmask(&self) -> u64 {{");
        let bits: Vec<String> = p
            .options
            .iter()
            .enumerate()
            .map(|(bit, o)| format!("bit(self.{}.is_some(), {bit})", ident(&o.name)))
            .collect();
        put!(out, "        {}\n    }}\n}}", bits.join(" | "));
    }
    out
}

/// `table`: every procedure, by ascending number.
pub fn table(spec: &Spec) -> String {
    let mut out = String::new();
    put!(out, "/// Every procedure, by ascending number.");
    put!(out, "pub static PROCEDURES: [Procedure; {}] = [", spec.procedures.len());
    for p in &spec.procedures {
        let arguments = |args: &[Argument]| -> String {
            args.iter()
                .map(|a| format!("Argument {{ name: {:?}, kind: Kind::{} }}, ", a.name, a.kind))
                .collect()
        };
        put!(
            out,
            "    Procedure {{ number: {}, name: {:?}, args: &[{}], options: &[{}], \
                  result: {:?}, group: {:?}, since: {:?}, progress: {}, cancel: {}, \
                  deprecated: {}, internal: {} }},",
            p.number,
            p.name,
            arguments(&p.args),
            arguments(&p.options),
            p.result.as_ref().map(|(_, kind)| kind.to_string()),
            p.group,
            p.since,
            p.progress,
            p.cancel,
            p.deprecated,
            p.internal || p.debug
        );
    }
    put!(out, "];");
    put!(
        out,
        "/// Whether a message's body holds a procedure's arguments; none if there is no such procedure."
    );
    put!(out, "pub fn holds_arguments(number: u32, body: &[u8], mask: u64) -> Option<bool> {{");
    put!(out, "    let d = &mut Decoder::new(body);\n    Some(match number {{");
    for p in &spec.procedures {
        put!(out, "        {} => args::{}::decode(d, mask).is_ok(),", p.number, p.type_name());
    }
    put!(out, "        _ => return None,\n    }})\n}}");
    let last = spec.procedures.last().map_or(0, |p| p.number);
    put!(out, "/// The highest number of a procedure.\npub const MAX_NUMBER: u32 = {last};");
    out
}
