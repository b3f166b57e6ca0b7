// SPDX-License-Identifier: Apache-2.0
//! The beginning of a run: a world with the files of an image and of what is below it, and a model
//! of what it holds.
use io_engine::sim::{Knobs, World};

use crate::crash::image::{self, Below, Format, State};
use crate::crash::model::{BASE, BELOW, INITIAL, Model, Value, ZERO, fill};
use crate::crash::target;
use crate::crash::workload::Record;

/// The bytes of sectors with these values.
fn bytes(record: &Record, values: &[Value]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * record.unit];
    for ((sector, &value), bytes) in (0..).zip(values).zip(bytes.chunks_mut(record.unit)) {
        fill(record.seed, sector, value, bytes);
    }
    bytes
}

fn count(sectors: u64) -> usize {
    usize::try_from(sectors).unwrap_or(0)
}

/// What a file of so many sectors holds: some of it is zero.
fn raw(value: Value, sectors: u64) -> Vec<Value> {
    let holds = |sector: u64| !(sector / 24).is_multiple_of(3);
    (0..sectors).map(|sector| if holds(sector) { value } else { ZERO }).collect()
}

/// An image: its file and its data file.
struct Made {
    image: Vec<u8>,
    data: Vec<u8>,
    /// What its sectors read as.
    values: Vec<Value>,
}

/// Makes an image of so many sectors, whose own content is `value`, above others.
fn make(record: &Record, format: &Format, value: Value, sectors: u64, below: &[Value]) -> Made {
    let seed = record.seed ^ u64::from(value >> 1);
    let (image, data) = image::create(format, &bytes(record, &vec![value; count(sectors)]), seed);
    let cluster = (1usize << format.cluster_bits) / record.unit;
    let clusters = count(sectors).div_ceil(cluster);
    let states: Vec<State> = format.filled.states(seed).take(clusters).collect();
    let reads = |sector: usize| match states.get(sector / cluster) {
        Some(State::Data | State::Compressed) => value,
        Some(State::Preallocated | State::Zero) => ZERO,
        Some(State::Unallocated) | None => below.get(sector).copied().unwrap_or(ZERO),
    };
    Made { image, data, values: (0..count(sectors)).map(reads).collect() }
}

/// The world at the beginning, and its model.
pub(crate) fn begin(record: &Record) -> (World, Model) {
    let world = World::new(record.seed, Knobs::CALM);
    let below = match (record.format.below, &record.chain) {
        (Below::Nothing, _) => Vec::new(),
        (Below::Image, Some((format, base))) => {
            let base = raw(BASE, *base);
            world.put(target::BASE, &bytes(record, &base));
            let near = make(record, format, BELOW, record.backing, &base);
            world.put(target::BACKING, &near.image);
            near.values
        }
        _ => {
            let below = raw(BELOW, record.backing);
            world.put(target::BACKING, &bytes(record, &below));
            below
        }
    };
    let made = make(record, &record.format, INITIAL, record.sectors, &below);
    world.put(target::IMAGE, &made.image);
    if record.format.data_file {
        world.put(target::DATA, &made.data);
    }
    let value = |sector| made.values.get(count(sector)).copied().unwrap_or(ZERO);
    let model = Model::new(record.seed, record.unit, record.sectors, value).above(below);
    (world, model)
}
