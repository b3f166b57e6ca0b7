// SPDX-License-Identifier: Apache-2.0
//! A volume group, as its metadata describes it: which physical volumes it has, and which volumes people see.
//!
//! The tables below are of what has been compared with the answers of `lvm`. A field, a status or a kind of volume that
//! they do not have leaves the answer to `lvm`: exported, shared and foreign groups, and those of other versions.

use super::Doubt;
use super::label::Id;
use super::text::{Node, Section, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A group whose metadata is known well enough.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub name: String,
    pub id: Id,
    /// Its physical volumes, and how many sectors their devices have at least.
    pub physical: Vec<(Id, u64)>,
    /// Names of the volumes that people see, in LVM's order.
    pub volumes: Vec<String>,
}

const TOP: &[&str] = &["contents", "version", "description", "creation_host", "creation_time"];
const CONTENTS: &str = "Text Format Volume Group";
#[rustfmt::skip]
const GROUP: &[&str] = &[
    "id", "seqno", "format", "status", "flags", "tags", "extent_size", "max_lv", "max_pv", "metadata_copies",
    "allocation_policy", "physical_volumes", "logical_volumes",
];
const GROUP_STATUS: &[&str] = &["RESIZEABLE", "READ", "WRITE"];
#[rustfmt::skip]
const PHYSICAL: &[&str] = &[
    "id", "device", "device_id", "device_id_type", "status", "flags", "tags", "dev_size", "pe_start", "pe_count",
    "ba_start", "ba_size",
];
const PHYSICAL_STATUS: &[&str] = &["ALLOCATABLE"];
/// Besides, there are the segments.
#[rustfmt::skip]
const VOLUME: &[&str] = &[
    "id", "status", "flags", "tags", "creation_time", "creation_host", "allocation_policy", "read_ahead",
    "segment_count",
];
const VOLUME_STATUS: &[&str] = &["READ", "WRITE", "VISIBLE"];
/// A status: people see it.
const VISIBLE: &str = "VISIBLE";
/// A flag: it is activated only when it is named.
const SKIPPED: &str = "ACTIVATION_SKIP";
/// Flags: that, and what is a part of another one.
const VOLUME_FLAGS: &[&str] = &[SKIPPED, "CACHE_VOL"];

/// Of every segment.
const SEGMENT: &[&str] = &["start_extent", "extent_count", "type", "tags"];

/// Whether people see a volume that is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Public,
    /// LVM keeps it for itself.
    Private,
    /// What is seen is the volume that it keeps the differences in.
    Snapshot,
}

/// What a segment may be: its type, the fields that it may have besides [`SEGMENT`], and the role of its volume.
type Kind = (&'static str, &'static [&'static str], Role);

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    ("striped", &["stripe_count", "stripe_size", "stripes"], Role::Public),
    ("mirror", &["mirror_count", "mirror_log", "region_size", "mirrors"], Role::Public),
    ("raid0", &["stripe_count", "stripe_size", "raid0_lvs"], Role::Public),
    ("raid1", &["device_count", "region_size", "raids"], Role::Public),
    ("raid5", &["device_count", "region_size", "stripe_size", "raids"], Role::Public),
    ("snapshot", &["chunk_size", "origin", STORE], Role::Snapshot),
    ("thin", &["thin_pool", "transaction_id", "device_id", "origin"], Role::Public),
    (
        "thin-pool",
        &["metadata", "pool", "transaction_id", "chunk_size", "discards", "zero_new_blocks"],
        Role::Private,
    ),
    ("cache", &["cache_pool", "origin"], Role::Public),
    (
        "cache+CACHE_USES_CACHEVOL",
        &[
            "cache_pool", "origin", "metadata_format", "chunk_size", "cache_mode", "policy", "metadata_start",
            "metadata_len", "data_start", "data_len",
        ],
        Role::Public,
    ),
    ("cache-pool", CACHE_POOL, Role::Private),
    ("cache-pool+METADATA_FORMAT", CACHE_POOL, Role::Private),
];
const CACHE_POOL: &[&str] =
    &["data", "metadata", "metadata_format", "chunk_size", "cache_mode", "policy"];
/// The field of a snapshot that names where it keeps the differences.
const STORE: &str = "cow_store";

/// Reads a text of metadata.
pub(crate) fn parse(text: &str) -> Result<Group, Doubt> {
    let top = Section::parse(text)?;
    let (values, sections) = split(&top)?;
    only(&values, TOP)?;
    let sound = values.get("contents").is_some_and(|v| is_text(v, CONTENTS))
        && matches!(values.get("version"), Some(Value::Number(1)));
    let mut sections = sections.into_iter();
    match (sections.next(), sections.next()) {
        (Some((name, group)), None) if sound && is_name(name) => read(name, group),
        _ => Err(Doubt("a text is not that of a volume group")),
    }
}

fn read(name: &str, group: &Section<'_>) -> Result<Group, Doubt> {
    let (values, mut parts) = split(group)?;
    only(&values, GROUP)?;
    words(&values, "status", GROUP_STATUS)?;
    words(&values, "flags", &[])?;
    if !values.get("format").is_some_and(|v| is_text(v, "lvm2")) {
        return Err(Doubt("a group is of a format that is not known"));
    }
    let devices = parts.remove("physical_volumes");
    let volumes = parts.remove("logical_volumes");
    if !parts.is_empty() {
        return Err(UNKNOWN);
    }
    let devices = named(devices)?;
    let physical = devices.values().map(|d| physical(d)).collect::<Result<_, _>>()?;
    let (mut seen, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    for (name, volume) in named(volumes)? {
        let volume = look(name, volume, &devices)?;
        seen.extend(volume.seen.map(str::to_owned));
        skipped.extend(volume.is_skipped.then(|| name.to_owned()));
    }
    let volumes = seen.difference(&skipped).cloned().collect();
    Ok(Group { name: name.to_owned(), id: id(&values)?, physical, volumes })
}

fn physical(device: &Section<'_>) -> Result<(Id, u64), Doubt> {
    let (values, sections) = split(device)?;
    only(&values, PHYSICAL)?;
    words(&values, "status", PHYSICAL_STATUS)?;
    // One that is missing is marked so.
    words(&values, "flags", &[])?;
    match values.get("dev_size") {
        Some(Value::Number(size)) if sections.is_empty() => {
            Ok((id(&values)?, u64::try_from(*size).map_err(|_| UNKNOWN)?))
        }
        _ => Err(UNKNOWN),
    }
}

/// What matters of a volume.
struct Volume<'s> {
    /// The name that `lvs` shows without being asked for what LVM keeps for itself.
    seen: Option<&'s str>,
    /// Whether it is not activated with its group.
    is_skipped: bool,
}

fn look<'s>(
    name: &'s str,
    volume: &'s Section<'s>,
    devices: &Sections<'_>,
) -> Result<Volume<'s>, Doubt> {
    let (values, segments) = split(volume)?;
    only(&values, VOLUME)?;
    let status = words(&values, "status", VOLUME_STATUS)?;
    let flags = words(&values, "flags", VOLUME_FLAGS)?;
    let counted = match values.get("segment_count") {
        Some(Value::Number(number)) => usize::try_from(*number).ok(),
        _ => None,
    };
    if segments.is_empty() || counted != Some(segments.len()) {
        return Err(Doubt("a volume has not the segments that it should have"));
    }
    let mut seen = status.contains(&VISIBLE).then_some(name);
    for segment in segments.values() {
        let (role, store) = role(segment, devices)?;
        match role {
            Role::Public => {}
            Role::Private => seen = None,
            Role::Snapshot => seen = seen.and(store),
        }
    }
    Ok(Volume { seen, is_skipped: flags.contains(&SKIPPED) })
}

/// The role that a segment gives its volume, and the name of another one that is seen in its place.
fn role<'s>(
    segment: &'s Section<'s>,
    devices: &Sections<'_>,
) -> Result<(Role, Option<&'s str>), Doubt> {
    let (mut values, sections) = split(segment)?;
    let text = |name| match values.get(name) {
        Some(Value::Text(text)) => Some(&**text),
        _ => None,
    };
    let (of_type, store) = (text("type"), text(STORE));
    let kind = KINDS.iter().find(|(name, ..)| of_type == Some(name));
    let (_, fields, role) = kind.ok_or(Doubt("a volume is of a kind that is not known"))?;
    if !sections.is_empty() {
        return Err(UNKNOWN);
    }
    // While physical volumes are moved, volumes are striped over one that LVM keeps for itself.
    if let Some(Value::List(stripes)) = values.get("stripes") {
        let known = |value: &Value<'_>| match value {
            Value::Text(name) => devices.contains_key(&**name),
            _ => true,
        };
        if !stripes.iter().all(known) {
            return Err(Doubt("a volume is on another one"));
        }
    }
    values.retain(|name, _| !fields.contains(name));
    only(&values, SEGMENT)?;
    Ok((*role, store))
}

const UNKNOWN: Doubt = Doubt("metadata has fields that are not known");

type Values<'s> = BTreeMap<&'s str, &'s Value<'s>>;
type Sections<'s> = BTreeMap<&'s str, &'s Section<'s>>;

/// What is in a section, by name. A name that is there twice is an error.
fn split<'s>(section: &'s Section<'s>) -> Result<(Values<'s>, Sections<'s>), Doubt> {
    let (mut values, mut sections) = (Values::new(), Sections::new());
    for (name, node) in &section.0 {
        match node {
            Node::Value(value) => drop(values.insert(name, value)),
            Node::Section(section) => drop(sections.insert(name, section)),
        }
    }
    match values.len() + sections.len() == section.0.len() {
        true => Ok((values, sections)),
        false => Err(Doubt("metadata has a name twice")),
    }
}

/// The sections with names of their own that a section consists of, if it is there.
fn named<'s>(section: Option<&'s Section<'s>>) -> Result<Sections<'s>, Doubt> {
    let Some(section) = section else { return Ok(Sections::new()) };
    let (values, sections) = split(section)?;
    match values.is_empty() && sections.keys().all(|name| is_name(name)) {
        true => Ok(sections),
        false => Err(UNKNOWN),
    }
}

/// An error where there is a value of another name.
fn only(values: &Values<'_>, names: &[&str]) -> Result<(), Doubt> {
    if values.keys().all(|name| names.contains(name)) { Ok(()) } else { Err(UNKNOWN) }
}

/// A list of words, all of which are known.
fn words<'k>(values: &Values<'_>, name: &str, known: &[&'k str]) -> Result<Vec<&'k str>, Doubt> {
    let Some(Value::List(list)) = values.get(name) else { return Err(UNKNOWN) };
    let word = |value: &Value<'_>| known.iter().copied().find(|word| is_text(value, word));
    let words = list.iter().map(word).collect::<Option<_>>();
    words.ok_or(Doubt("metadata has a status or a flag that is not known"))
}

fn id(values: &Values<'_>) -> Result<Id, Doubt> {
    let Some(Value::Text(text)) = values.get("id") else { return Err(UNKNOWN) };
    let plain: Vec<u8> = text.bytes().filter(|c| *c != b'-').collect();
    plain.try_into().map_err(|_| Doubt("metadata has a UUID of another length"))
}

fn is_text(value: &Value<'_>, text: &str) -> bool {
    matches!(value, Value::Text(t) if t == text)
}

/// Whether it can be a part of a path.
fn is_name(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.starts_with('-')
}
