// SPDX-License-Identifier: Apache-2.0
//! A folder that looks like sysfs, /dev, configfs and the module's parameters.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tcmu::module::{Module, NAME};
use tcmu::uio::Sysfs;
use tcmu::{Configfs, DeviceName};

/// The folder; gone when this is dropped. Writes change files, and nothing happens by them.
#[derive(Debug)]
pub struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// A machine with the module loaded and no device.
    pub fn new() -> io::Result<Self> {
        let tree = Tree { dir: tempfile::tempdir()? };
        for dir in ["class", "dev", "target/core"] {
            fs::create_dir_all(tree.path().join(dir))?;
        }
        for (name, value) in
            [("block_netlink", "N"), ("reset_netlink", "N"), ("global_max_data_area_mb", "2048")]
        {
            tree.put(&format!("module/{NAME}/parameters/{name}"), value)?;
        }
        Ok(tree)
    }

    /// Its root: `class` (UIO), `dev`, `target` (configfs), `module`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// UIO discovery in it.
    pub fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.path().join("class"), self.path().join("dev"))
    }

    /// configfs in it.
    pub fn configfs(&self) -> Configfs {
        Configfs::new(self.path().join("target"))
    }

    /// The module in it.
    pub fn module(&self) -> Module {
        Module::new(self.path().join("module"), NAME)
    }

    /// Writes a file, making its folders.
    pub fn put(&self, path: &str, content: &str) -> io::Result<()> {
        let path = self.path().join(path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(path, format!("{content}\n"))
    }

    /// Adds a device with `size` bytes of memory at a node that can be opened and mapped, but
    /// not signalled. Returns its folder in configfs.
    pub fn add_device(&self, minor: u32, device: &DeviceName, size: u64) -> io::Result<PathBuf> {
        let DeviceName { hba, name, config } = device;
        self.put(&format!("class/uio{minor}/name"), &format!("tcm-user/{hba}/{name}/{config}"))?;
        self.put(&format!("class/uio{minor}/maps/map0/size"), &format!("{size:#018x}"))?;
        let node = fs::File::create(self.path().join(format!("dev/uio{minor}")))?;
        node.set_len(size)?;
        let dir = format!("target/core/user_{hba}/{name}");
        for (file, content) in [
            ("enable", "1"),
            ("attrib/dev_config", &**config),
            ("attrib/dev_size", "1073741824"),
            ("attrib/cmd_time_out", "30"),
            ("attrib/emulate_write_cache", "0"),
            ("attrib/hw_block_size", "512"),
            ("attrib/hw_max_sectors", "128"),
            ("attrib/nl_reply_supported", "1"),
            ("attrib/tmr_notification", "0"),
            ("action/block_dev", ""),
            ("action/reset_ring", ""),
            ("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: 0123-4567"),
        ] {
            self.put(&format!("{dir}/{file}"), content)?;
        }
        Ok(self.path().join(dir))
    }

    /// Takes a device away.
    pub fn remove_device(&self, minor: u32, device: &DeviceName) -> io::Result<()> {
        fs::remove_dir_all(self.path().join(format!("class/uio{minor}")))?;
        fs::remove_file(self.path().join(format!("dev/uio{minor}")))?;
        let core = self.path().join("target/core");
        fs::remove_dir_all(core.join(format!("user_{}", device.hba)).join(&device.name))
    }
}
