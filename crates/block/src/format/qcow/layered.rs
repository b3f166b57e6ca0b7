// SPDX-License-Identifier: Apache-2.0
//! A chain of images put together: `imago` for raw files and qcow2 images, [`Qcow1`] for version 1,
//! which `imago` does not know. Below a qcow2 image a version 1 image is a raw file to `imago`, of
//! which [`Storage`] reads the guest's data.
use std::io;

use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, ShallowMapping};
use sgl::Sgl;

use super::chain::Kind;
use super::qcow1::Qcow1;
use super::storage::Storage;

/// A file of a chain, ready to be used by several instances of `imago`.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) storage: Storage,
    pub(super) kind: Kind,
}

/// What is below an image.
#[derive(Debug)]
pub(super) enum Source {
    /// Nothing: zeroes.
    None,
    /// A raw file or a qcow2 image.
    Imago(Imago),
    /// A version 1 image.
    Qcow1(Box<Qcow1>),
}

impl Source {
    /// Puts a chain together that is not written.
    pub(super) async fn build(mut parts: Vec<Part>) -> io::Result<Self> {
        let below = parts.iter().take_while(|part| matches!(part.kind, Kind::Qcow1(_))).count();
        let rest = parts.split_off(below);
        let mut source = if rest.is_empty() {
            Source::None
        } else {
            Source::Imago(Box::pin(Imago::build(rest, false)).await?)
        };
        for part in parts.into_iter().rev() {
            let Kind::Qcow1(header) = part.kind else {
                return Err(io::Error::other("the layers of a chain are in the wrong order"));
            };
            source = Source::Qcow1(Box::new(Qcow1::new(part.storage, header, source)));
        }
        Ok(source)
    }

    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Source::None)
    }

    /// Fills all of `data`; what lies past the end is zero.
    pub(super) async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match self {
            Source::None => data.fill(0..data.len(), 0),
            Source::Imago(imago) => imago.read(data, offset).await?,
            Source::Qcow1(image) => Box::pin(image.read(data, offset)).await?,
        }
        Ok(())
    }
}

/// A chain of qcow2 images, perhaps on a raw file.
#[derive(Debug)]
pub(super) struct Imago {
    access: FormatAccess<Storage>,
    parts: Vec<Part>,
}

/// What a guest offset is mapped to.
#[derive(Debug)]
pub(super) enum Target<'a> {
    /// Bytes of a file. `top`: of the image itself; `owned`: of clusters that it alone uses.
    Data { storage: &'a Storage, offset: u64, top: bool, owned: bool },
    /// Zeroes. `explicit`: the image itself says so.
    Zero { explicit: bool },
    /// A compressed cluster of the layer `depth` at its offset `offset`.
    Compressed { layer: &'a FormatAccess<Storage>, depth: usize, offset: u64 },
}

impl Imago {
    /// Puts a chain together; with `writable` the first one may be written.
    pub(super) async fn build(mut parts: Vec<Part>, writable: bool) -> io::Result<Self> {
        if let Some(at) = parts.iter().position(|part| matches!(part.kind, Kind::Qcow1(_))) {
            let lower = parts.split_off(at);
            let storage = lower.first().map(|part| part.storage.clone());
            let (Some(storage), Source::Qcow1(image)) = (storage, Source::build(lower).await?)
            else {
                return Err(io::Error::other("a chain that is not in order"));
            };
            parts.push(Part { storage: storage.of_image(image), kind: Kind::Raw });
        }
        let mut below: Option<FormatAccess<Storage>> = None;
        for (depth, part) in parts.iter().enumerate().rev() {
            let write = writable && depth == 0;
            let gate = DenyImplicitOpenGate::default();
            let access = match &part.kind {
                Kind::Raw => {
                    let raw = Raw::builder(part.storage.clone()).write(write).open(gate).await?;
                    FormatAccess::new(raw)
                }
                Kind::Qcow2(_) => {
                    let builder = Qcow2::<Storage>::builder(part.storage.clone())
                        .backing(below.take())
                        .data_file(None)
                        .write(write);
                    FormatAccess::new(builder.open(gate).await?)
                }
                Kind::Qcow1(_) => {
                    return Err(io::Error::other("the layers of a chain are in the wrong order"));
                }
            };
            below = Some(access);
        }
        let access = below.ok_or_else(|| io::Error::other("an empty chain"))?;
        Ok(Imago { access, parts })
    }

    /// Reopens the same files and drops everything that is cached.
    pub(super) async fn reopen(&mut self, writable: bool) -> io::Result<()> {
        let parts = self.parts.iter();
        let parts =
            parts.map(|part| Part { storage: part.storage.clone(), kind: part.kind.clone() });
        *self = Imago::build(parts.collect(), writable).await?;
        Ok(())
    }

    pub(super) fn access(&self) -> &FormatAccess<Storage> {
        &self.access
    }

    pub(super) fn access_mut(&mut self) -> &mut FormatAccess<Storage> {
        &mut self.access
    }

    /// The size of what is below the first image, in bytes.
    pub(super) fn backing_size(&self) -> Option<u64> {
        match &self.parts.get(1)?.kind {
            Kind::Qcow1(header) => Some(header.size),
            Kind::Qcow2(header) => Some(header.size),
            Kind::Raw => imago::Storage::size(&self.parts.get(1)?.storage).ok(),
        }
    }

    /// What `offset` is mapped to, and for how many bytes, at most `len`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the image is damaged.
    pub(super) async fn resolve(
        &self,
        mut offset: u64,
        mut len: u64,
    ) -> io::Result<(Target<'_>, u64)> {
        let mut layer = &self.access;
        let mut depth = 0;
        loop {
            let (mapping, n) = layer.get_shallow_mapping(offset, len).await?;
            let target = match mapping {
                ShallowMapping::Raw { storage, offset, writable, .. } => {
                    let cluster_size =
                        self.parts.get(depth).map_or(0, |part| 1 << part.kind.cluster_bits());
                    if offset < cluster_size && cluster_size > 1 {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "guest data is mapped to the header of the image",
                        ));
                    }
                    let top = depth == 0;
                    Target::Data { storage, offset, top, owned: writable && top }
                }
                ShallowMapping::Indirect { layer: below, offset: at, .. } => {
                    (layer, offset, len) = (below, at, n);
                    depth += 1;
                    continue;
                }
                ShallowMapping::Zero { explicit, .. } => {
                    Target::Zero { explicit: explicit && depth == 0 }
                }
                // A backing file may be shorter than its image.
                ShallowMapping::Eof { .. } if depth > 0 => {
                    return Ok((Target::Zero { explicit: false }, len));
                }
                ShallowMapping::Special { offset, .. } => {
                    Target::Compressed { layer, depth, offset }
                }
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            return Ok((target, n));
        }
    }

    /// Fills all of `data`; what lies past the end is zero.
    pub(super) async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let size = self.access.size();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            if at >= size {
                data.fill(done..data.len(), 0);
                break;
            }
            let left = (data.len() - done) as u64;
            let (target, n) = self.resolve(at, left.min(size - at)).await?;
            done += self.read_target(&target, &data.slice(done..data.len()), n).await?;
        }
        Ok(())
    }

    /// Reads from a mapping that holds for `len` bytes; returns how many were read, at most
    /// `data.len()`.
    pub(super) async fn read_target(
        &self,
        target: &Target<'_>,
        data: &Sgl<'_>,
        len: u64,
    ) -> io::Result<usize> {
        let n = data.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        match *target {
            Target::Data { storage, offset, .. } => {
                storage.read(&data.slice(0..n), offset).await?;
            }
            Target::Zero { .. } => data.fill(0..n, 0),
            Target::Compressed { layer, depth, offset } => {
                return self.read_compressed(layer, depth, offset, &data.slice(0..n)).await;
            }
        }
        Ok(n)
    }

    /// Reads from the compressed cluster at `offset` of a layer; returns how many bytes.
    async fn read_compressed(
        &self,
        layer: &FormatAccess<Storage>,
        depth: usize,
        offset: u64,
        data: &Sgl<'_>,
    ) -> io::Result<usize> {
        let mut cluster = self.cluster_buffer(depth);
        let cluster_size = cluster.len();
        let start = offset - offset % cluster_size as u64;
        let skip = usize::try_from(offset - start).map_err(io::Error::other)?;
        let n = data.len().min(cluster_size - skip);
        if inflate(layer, start, &mut cluster).await? {
            data.write_at(0, cluster.get(skip..skip + n).unwrap_or_default());
        } else {
            // A write has replaced it meanwhile.
            let mut plain = vec![0; n];
            layer.read(&mut plain, offset).await?;
            data.write_at(0, &plain);
        }
        Ok(n)
    }

    fn cluster_buffer(&self, depth: usize) -> Vec<u8> {
        vec![0; self.parts.get(depth).map_or(1, |part| 1 << part.kind.cluster_bits())]
    }

    /// Whether the compressed cluster of the image itself at `start` can be decompressed from its
    /// own data alone. `imago` decompresses into memory that it has not initialised, and accepts
    /// streams that refer to bytes before their beginning: in a damaged image such a stream would
    /// show pieces of our memory to the guest. Decompressing into two buffers with different
    /// content detects it.
    pub(super) async fn check_compressed(&self, start: u64) -> io::Result<()> {
        let mut zeroes = self.cluster_buffer(0);
        let mut ones = self.cluster_buffer(0);
        ones.fill(0xff);
        let first = inflate(&self.access, start, &mut zeroes).await?;
        let second = inflate(&self.access, start, &mut ones).await?;
        if first && second && zeroes != ones {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the compressed cluster of guest offset {start} is damaged"),
            ));
        }
        Ok(())
    }
}

/// Decompresses the cluster at `start` of a layer; false when it is not compressed (any more).
///
/// `buf` is a whole cluster in one piece, so that `imago` decompresses into it and not into a
/// buffer that it has not initialised.
async fn inflate(layer: &FormatAccess<Storage>, start: u64, buf: &mut [u8]) -> io::Result<bool> {
    Ok(layer.inner().try_readv_special(buf.into(), start).await?.is_none())
}
