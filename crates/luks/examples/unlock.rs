// SPDX-License-Identifier: Apache-2.0
//! Tries a passphrase on a volume, as `cryptsetup open --test-passphrase --key-file KEY VOLUME` does: what
//! `cargo xtask bench luks` runs beside it. Arguments: the file with the passphrase, and the volume.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use luks::{Secret, Source, Volume};

struct Device(File);

impl Source for Device {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [key, volume] = args.as_slice() else { return Err("usage: unlock KEY VOLUME".into()) };
    let device = Device(File::open(volume)?);
    let secret = Secret::new(fs::read(key)?);
    // A file keeps nobody waiting.
    let opened = pin!(unlock(&device, &secret));
    match opened.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Ok(result?),
        Poll::Pending => Err("the file cannot be read".into()),
    }
}

async fn unlock(device: &Device, secret: &Secret) -> Result<(), luks::Error> {
    let volume = Volume::read(device).await?;
    for (index, area) in volume.areas().into_iter().enumerate() {
        let len = usize::try_from(area.end - area.start).unwrap_or(0);
        let material = device.read(area.start, len).await?;
        if volume.try_slot(index, &material, secret)?.is_some() {
            return Ok(());
        }
    }
    Err(volume.wrong_passphrase())
}
