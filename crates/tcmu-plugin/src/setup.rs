// SPDX-License-Identifier: Apache-2.0
//! What is known of a device before a handler opens it, and why one does not.
use std::sync::Arc;
use std::time::Duration;

use tcmu_abi::{Device, DeviceConfig};

/// What is known of a device before its handler opens it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// "user_0/disk0", for messages.
    pub name: String,
    /// The UIO device, with the device's name and the configuration string of the beginning.
    pub uio: tcmu::UioDevice,
    /// The configuration string, subtype included.
    pub config: String,
    /// The device in configfs.
    pub configfs: tcmu::configfs::Device,
    /// In bytes.
    pub size: u64,
    /// Of a block, in bytes.
    pub block_size: u32,
    /// The most bytes of one READ or WRITE that the kernel sends.
    pub max_transfer: u32,
    /// Whether the kernel tells initiators of a volatile write cache.
    pub write_cache: bool,
    /// After this, a command that a plugin in a process of its own has not answered has the process
    /// killed; the option `tcmur_cmd_time_out` wins over it.
    pub patience: Duration,
}

/// Why a handler did not open a device.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct OpenError {
    /// For who enabled the device.
    pub errno: i32,
    /// The whole story.
    pub reason: String,
}

impl Setup {
    /// The device as the handler finds it, with this configuration string.
    pub(crate) fn device(&self, config: &str) -> Arc<Device> {
        let (uio, configfs) = (&self.uio, self.configfs.clone());
        let abi = Device::new(DeviceConfig { name: uio.name.clone(), minor: uio.minor, configfs });
        abi.set_cfgstring(config);
        let block_size = self.block_size.max(1);
        let properties = abi.properties();
        properties.set_block_size(block_size);
        properties.set_num_lbas(self.size / u64::from(block_size));
        properties.set_max_xfer_len(self.max_transfer / block_size);
        properties.set_write_cache_enabled(self.write_cache);
        abi
    }
}
