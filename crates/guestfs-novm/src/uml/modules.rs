// SPDX-License-Identifier: Apache-2.0
//! Loading the few modules that the kernel needs before there is a modprobe to ask.

use super::MODULES_VARIABLE;
use crate::error::{Context, Error, Result};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// Loads a module and what it depends on; `dir` has modules.dep.
pub(super) fn load(dir: &Path, name: &str) -> Result<()> {
    let list = dir.join("modules.dep");
    let text = std::fs::read_to_string(&list).map_err(|e| {
        Error::Missing(format!(
            "{}: {e}: the modules of this kernel of User-Mode Linux are in the same package (Debian: \
             user-mode-linux); if they are elsewhere, {MODULES_VARIABLE} says where",
            list.display()
        ))
    })?;
    let paths = with_dependencies(&text, name)
        .ok_or_else(|| Error::Missing(format!("{}: there is no module {name}", list.display())))?;
    for path in paths {
        let path = dir.join(path);
        let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = file.on(path.display())?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).on(path.display()),
        }
    }
    Ok(())
}

/// The files of a module, in the order of loading.
fn with_dependencies<'t>(text: &'t str, name: &str) -> Option<Vec<&'t str>> {
    let wanted = format!("/{name}.ko");
    text.lines().find_map(|line| {
        let (module, needs) = line.split_once(':')?;
        let mut paths: Vec<&str> = vec![module];
        paths.extend(needs.split_whitespace());
        paths.reverse();
        module.ends_with(&wanted).then_some(paths)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_first() {
        let text = "kernel/a/b.ko:\nkernel/fs/vfat.ko: kernel/fs/fat.ko kernel/nls/nls.ko\n";
        let want = ["kernel/nls/nls.ko", "kernel/fs/fat.ko", "kernel/fs/vfat.ko"];
        assert_eq!(with_dependencies(text, "vfat").unwrap(), want);
        assert_eq!(with_dependencies(text, "b").unwrap(), ["kernel/a/b.ko"]);
        assert_eq!(with_dependencies(text, "fat"), None);
    }
}
