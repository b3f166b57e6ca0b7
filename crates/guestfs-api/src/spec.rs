// SPDX-License-Identifier: Apache-2.0
//! The table of procedures as text (`guestfs.api`) and its parser.
//!
//! The text is the single source of truth. This module is compiled twice: into the build script, which
//! generates types and decoders from the table, and into the library, whose [`TEXT`] and [`parse`]
//! let the build scripts of server and client generate the rest from the same table.

use std::fmt;

/// The table itself.
pub const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/guestfs.api"));

/// The whole interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Structures, in the order of the table.
    pub structs: Vec<Struct>,
    /// Procedures, by ascending number.
    pub procedures: Vec<Procedure>,
}

/// A structure that results are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// Its name in the table, such as `statns`.
    pub name: String,
    /// Fields in the order of the wire.
    pub fields: Vec<(String, FieldKind)>,
}

/// A procedure: one line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procedure {
    /// Its number in the header of a call.
    pub number: u32,
    /// Its name as clients know it, such as `sfdisk_N`.
    pub name: String,
    /// Ordinary arguments in the order of the wire.
    pub args: Vec<Argument>,
    /// Optional arguments: the Nth is bit N of the header's `optargs_bitmask`.
    pub options: Vec<Argument>,
    /// Name and type of the result, if it has one.
    pub result: Option<(String, ResultKind)>,
    /// The optional group that it belongs to.
    pub group: Option<String>,
    /// First release of libguestfs that has it.
    pub since: String,
    /// May send progress messages.
    pub progress: bool,
    /// The caller may cancel it.
    pub cancel: bool,
    /// Kept for old callers.
    pub deprecated: bool,
    /// Called by the client library itself.
    pub internal: bool,
    /// Called by tests.
    pub debug: bool,
}

/// An argument's name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
}

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        // As the table spells them.
        #[allow(clippy::upper_case_acronyms)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// The type of this name in the table.
            fn named(name: &str) -> Option<Self> {
                match name { $(stringify!($variant) => Some(Self::$variant),)* _ => None }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(self, f) }
        }
    };
}

kinds! {
    /// Types of arguments. What each means to the server is guestfs(3)'s business.
    Kind {
        /// Any text.
        String,
        /// Text that may be absent.
        OptString,
        /// A pass phrase: never logged.
        Key,
        /// A GUID in its textual form.
        GUID,
        /// One component of a path.
        Filename,
        /// Absolute path in the guest.
        Pathname,
        /// Block device.
        Device,
        /// Block device, or btrfs subvolume on one.
        Mountable,
        /// Block device, or absolute path in the guest.
        DevOrPath,
        /// Mountable, or absolute path in the guest.
        MountableOrPath,
        /// Truth value.
        Bool,
        /// Signed 32 bits.
        Int,
        /// Signed 64 bits.
        Int64,
        /// List of texts.
        StringList,
        /// List of block devices.
        DeviceList,
        /// List of absolute paths in the guest.
        PathnameList,
        /// List of components of paths.
        FilenameList,
        /// Bytes.
        BufferIn,
        /// File streamed from the caller in chunks after the call.
        FileIn,
        /// File streamed to the caller in chunks after the reply.
        FileOut,
    }
}

kinds! {
    /// Types of fields of structures.
    FieldKind {
        /// Any text.
        String,
        /// Name of a block device.
        Device,
        /// 32 bytes.
        UUID,
        /// Bytes.
        Buffer,
        /// One character, 4 bytes on the wire.
        Char,
        /// Signed 32 bits.
        Int32,
        /// Unsigned 32 bits.
        UInt32,
        /// Signed 64 bits.
        Int64,
        /// Unsigned 64 bits.
        UInt64,
        /// Signed 64 bits: a size in bytes.
        Bytes,
        /// A float: a percentage, or -1 when there is none.
        OptPercent,
    }
}

/// Types of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// Any text.
    String,
    /// Name of a block device.
    Device,
    /// Bytes.
    Buffer,
    /// Truth value.
    Bool,
    /// Signed 32 bits.
    Int,
    /// Signed 64 bits.
    Int64,
    /// List of texts.
    StringList,
    /// List of names of block devices.
    DeviceList,
    /// List of mountables.
    MountableList,
    /// Pairs of these types: String, Device or Mountable.
    Hashtable(Kind, Kind),
    /// One structure of this name.
    Struct(String),
    /// List of structures of this name.
    StructList(String),
}

impl fmt::Display for ResultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hashtable(k, v) => write!(f, "Hashtable({k}, {v})"),
            Self::Struct(name) => write!(f, "Struct({name})"),
            Self::StructList(name) => write!(f, "StructList({name})"),
            simple => fmt::Debug::fmt(simple, f),
        }
    }
}

impl Procedure {
    /// The function's name in Rust: `sfdisk_N` is `sfdisk_n`, `sfdiskM` is `sfdisk_m`.
    pub fn rust_name(&self) -> String {
        let mut name = String::with_capacity(self.name.len() + 1);
        for c in self.name.chars() {
            if c.is_ascii_uppercase() && name.ends_with(|p: char| p.is_ascii_lowercase()) {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// The name of its argument and option structures in Rust: `Sfdisk_N` is `SfdiskN`.
    pub fn type_name(&self) -> String {
        camel(&self.name)
    }
}

/// `internal_mountable` is `InternalMountable`.
pub fn camel(name: &str) -> String {
    name.split('_')
        .flat_map(|part| {
            let mut chars = part.chars();
            chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars)
        })
        .collect()
}

/// A name as a Rust identifier.
pub fn ident(name: &str) -> String {
    const KEYWORDS: &[&str] =
        &["as", "in", "match", "mod", "move", "ref", "static", "type", "unsafe", "use", "where"];
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}

/// What is wrong with the table, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guestfs.api:{}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// Reads the table. Numbers have to ascend, names be unique, and structures be known.
pub fn parse(text: &str) -> Result<Spec, ParseError> {
    let mut spec = Spec::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = match line.strip_prefix("struct ") {
            Some(rest) => parse_struct(rest).map(|s| spec.structs.push(s)),
            None => parse_procedure(line).and_then(|p| {
                check_procedure(&spec, &p)?;
                spec.procedures.push(p);
                Ok(())
            }),
        };
        parsed.map_err(|message| ParseError { line: index + 1, message })?;
    }
    Ok(spec)
}

fn check_procedure(spec: &Spec, p: &Procedure) -> Result<(), String> {
    if spec.procedures.last().is_some_and(|last| last.number >= p.number) {
        return Err(format!("number {} does not ascend", p.number));
    }
    if spec.procedures.iter().any(|other| other.rust_name() == p.rust_name()) {
        return Err(format!("`{}' is there twice", p.name));
    }
    if p.options.len() > 64 {
        return Err("more than 64 optional arguments".to_owned());
    }
    if p.options.iter().any(|o| matches!(o.kind, Kind::FileIn | Kind::FileOut)) {
        return Err("a file cannot be optional".to_owned());
    }
    let files = |k: Kind| p.args.iter().filter(|a| a.kind == k).count();
    if files(Kind::FileIn) + files(Kind::FileOut) > 1 {
        return Err("more than one file".to_owned());
    }
    if files(Kind::FileOut) == 1 && p.result.is_some() {
        return Err("a result beside a FileOut: the reply goes out before the file".to_owned());
    }
    if let Some((_, ResultKind::Struct(s) | ResultKind::StructList(s))) = &p.result
        && !spec.structs.iter().any(|known| known.name == *s)
    {
        return Err(format!("no structure `{s}'"));
    }
    Ok(())
}

fn parse_struct(rest: &str) -> Result<Struct, String> {
    let (name, body) = rest.split_once('{').ok_or("`{' expected")?;
    let body = body.trim().strip_suffix('}').ok_or("`}' expected at the end")?;
    let fields = list(body)
        .map(|f| {
            let (name, kind) = name_and_type(f)?;
            let kind = FieldKind::named(kind).ok_or(format!("no field type `{kind}'"))?;
            Ok((name, kind))
        })
        .collect::<Result<_, String>>()?;
    Ok(Struct { name: name.trim().to_owned(), fields })
}

fn parse_procedure(line: &str) -> Result<Procedure, String> {
    let (number, rest) = line.split_once(' ').ok_or("`NR NAME(...)' expected")?;
    let number = number.parse().map_err(|_| format!("`{number}' is no number"))?;
    let (name, rest) = rest.split_once('(').ok_or("`(' expected")?;
    let (arguments, rest) = rest.split_once(')').ok_or("`)' expected")?;
    let (ordinary, optional) = arguments.split_once(';').unwrap_or((arguments, ""));
    let (result, flags) = rest.split_once('[').ok_or("`[flags]' expected")?;
    let flags = flags.trim().strip_suffix(']').ok_or("`]' expected at the end")?;
    let result = match result.trim().strip_prefix("->") {
        Some(r) => Some(parse_result(r.trim())?),
        None if result.trim().is_empty() => None,
        None => return Err("`->' or `[' expected after the arguments".to_owned()),
    };
    let mut p = Procedure {
        number,
        name: name.trim().to_owned(),
        args: parse_arguments(ordinary)?,
        options: parse_arguments(optional)?,
        result,
        group: None,
        since: String::new(),
        progress: false,
        cancel: false,
        deprecated: false,
        internal: false,
        debug: false,
    };
    for flag in flags.split_whitespace() {
        match flag.split_once('=') {
            Some(("group", g)) => p.group = Some(g.to_owned()),
            Some(("since", v)) => p.since = v.to_owned(),
            None if flag == "progress" => p.progress = true,
            None if flag == "cancel" => p.cancel = true,
            None if flag == "deprecated" => p.deprecated = true,
            None if flag == "internal" => p.internal = true,
            None if flag == "debug" => p.debug = true,
            _ => return Err(format!("no flag `{flag}'")),
        }
    }
    if p.since.is_empty() {
        return Err("flag since=VERSION is missing".to_owned());
    }
    Ok(p)
}

fn parse_arguments(text: &str) -> Result<Vec<Argument>, String> {
    list(text)
        .map(|a| {
            let (name, kind) = name_and_type(a)?;
            // Text that never changes is still text.
            let kind = if kind == "ConstString" { "String" } else { kind };
            Ok(Argument { name, kind: Kind::named(kind).ok_or(format!("no type `{kind}'"))? })
        })
        .collect()
}

fn parse_result(text: &str) -> Result<(String, ResultKind), String> {
    let (name, kind) = name_and_type(text)?;
    let (outer, inner) = match kind.split_once('(') {
        Some((outer, inner)) => {
            (outer, inner.strip_suffix(')').ok_or("`)' expected after the result")?)
        }
        None => (kind, ""),
    };
    let kind = match outer {
        "String" => ResultKind::String,
        "Device" => ResultKind::Device,
        "Buffer" => ResultKind::Buffer,
        "Bool" => ResultKind::Bool,
        "Int" => ResultKind::Int,
        "Int64" => ResultKind::Int64,
        "StringList" => ResultKind::StringList,
        "DeviceList" => ResultKind::DeviceList,
        "MountableList" => ResultKind::MountableList,
        "Struct" => ResultKind::Struct(inner.to_owned()),
        "StructList" => ResultKind::StructList(inner.to_owned()),
        "Hashtable" => {
            let (k, v) = inner.split_once(',').ok_or("Hashtable(K, V) expected")?;
            let part = |t: &str| match Kind::named(t.trim()) {
                Some(k @ (Kind::String | Kind::Device | Kind::Mountable)) => Ok(k),
                _ => Err(format!("no type `{t}' in a Hashtable")),
            };
            ResultKind::Hashtable(part(k)?, part(v)?)
        }
        _ => return Err(format!("no result type `{kind}'")),
    };
    Ok((name, kind))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|s| !s.is_empty())
}

fn name_and_type(text: &str) -> Result<(String, &str), String> {
    let (name, kind) =
        text.split_once(':').ok_or(format!("`NAME: TYPE' expected, not `{text}'"))?;
    Ok((name.trim().to_owned(), kind.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_504_procedures_and_every_structure_that_they_name() {
        let spec = parse(TEXT).unwrap();
        assert_eq!(spec.procedures.len(), 504);
        assert_eq!(spec.procedures.last().unwrap().number, 522);
        assert_eq!(spec.structs.len(), 27);
    }

    #[test]
    fn a_procedure_line_yields_arguments_options_result_and_flags() {
        let spec = parse(
            "struct s { a: Int32, b: UUID }\n\
             7 doIt_N(path: Pathname, f: FileIn; level: Int) -> r: Hashtable(String, Device)  [group=xz cancel since=1.2.3]",
        )
        .unwrap();
        let p = &spec.procedures[0];
        assert_eq!((p.number, p.name.as_str(), p.rust_name().as_str()), (7, "doIt_N", "do_it_n"));
        assert_eq!(p.args[1], Argument { name: "f".into(), kind: Kind::FileIn });
        assert_eq!(p.options, [Argument { name: "level".into(), kind: Kind::Int }]);
        let result = ResultKind::Hashtable(Kind::String, Kind::Device);
        assert_eq!(p.result, Some(("r".into(), result)));
        assert_eq!((p.group.as_deref(), p.cancel, p.progress), (Some("xz"), true, false));
        assert_eq!(spec.structs[0].fields[1], ("b".into(), FieldKind::UUID));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_its_line() {
        for (line, message) in [
            ("x f()  [since=1]", "`x' is no number"),
            ("1 f(a: Nonsense)  [since=1]", "no type `Nonsense'"),
            ("1 f() -> r: Struct(gone)  [since=1]", "no structure `gone'"),
            ("1 f()  [since=1 strange]", "no flag `strange'"),
            ("1 f()  [cancel]", "flag since=VERSION is missing"),
            ("1 f(; a: FileIn)  [since=1]", "a file cannot be optional"),
            ("1 f(a: FileIn, b: FileOut)  [since=1]", "more than one file"),
            ("1 f(a)  [since=1]", "`NAME: TYPE' expected, not `a'"),
        ] {
            let e = parse(&format!("# a comment\n{line}")).unwrap_err();
            assert_eq!((e.line, e.message.as_str()), (2, message));
        }
    }

    #[test]
    fn numbers_ascend_and_names_are_unique() {
        assert!(parse("2 a()  [since=1]\n2 b()  [since=1]").is_err());
        assert!(parse("2 a_N()  [since=1]\n3 a_n()  [since=1]").is_err());
    }
}
