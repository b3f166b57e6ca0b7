// SPDX-License-Identifier: Apache-2.0
//! Makes a package of a row of the table, with dpkg's own programs (deb(5), deb-control(5)).
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::list::{self, File, Origin, Package};
use crate::run;

/// What puts the version above those of Debian's own packages: guestfsd's begins with 1.
const EPOCH: &str = "2:";

/// The version of all packages.
fn version() -> String {
    format!("{EPOCH}{}-1", env!("CARGO_PKG_VERSION"))
}

/// Who looks after them.
const MAINTAINER: &str = "Lunette <packages@lunette-storage.invalid>";
/// A line of a description, in characters.
const WIDTH: usize = 76;

/// Makes a package of what is built in a directory; its file in `out`.
pub(super) fn make(package: &Package, built: &Path, out: &Path) -> Result<PathBuf> {
    let stage = tempfile::Builder::new().prefix("package.").tempdir()?;
    let root = stage.path().join(package.name);
    let arch = output("dpkg", &["--print-architecture"])?;
    let triplet = output("dpkg-architecture", &["-qDEB_HOST_MULTIARCH"])?;
    let mut binaries = Vec::new();
    for File(from, to) in package.files {
        let to = root.join(to.replace("TRIPLET", &triplet));
        place(*from, &to, built, &triplet)
            .with_context(|| format!("cannot pack {}", to.display()))?;
        if let Origin::Built(_) = from {
            binaries.push(to);
        }
    }
    documents(package, &root)?;
    let libraries = libraries(package, stage.path(), &root, &binaries)?;
    control(package, &root, &arch, &libraries)?;
    let file =
        out.join(format!("{}_{}_{arch}.deb", package.name, version().trim_start_matches(EPOCH)));
    let mut build = run::command("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&file);
    run::output(&mut build)?;
    Ok(file)
}

/// What a program prints, without the end of the line.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    Ok(run::output(run::command(program).args(arguments))?.trim_end().to_owned())
}

/// Puts a file in its place.
fn place(from: Origin, to: &Path, built: &Path, triplet: &str) -> Result<()> {
    let tree = run::root();
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    let mode = match from {
        Origin::Built(name) => {
            fs::copy(built.join(name), to)?;
            let is_library = name.ends_with(".so");
            let mut strip = run::command("strip");
            strip.args(["--remove-section=.comment", "--strip-unneeded"]).arg(to);
            run::output(&mut strip)?;
            if is_library { 0o644 } else { 0o755 }
        }
        Origin::Tree(path) => {
            fs::copy(tree.join(path), to)?;
            0o644
        }
        Origin::Page(path) => {
            fs::write(to, compressed(&tree.join(path))?)?;
            0o644
        }
        Origin::Template(path) => {
            let text = fs::read_to_string(tree.join(path))?;
            let libdir = format!("/usr/lib/{triplet}");
            fs::write(to, text.replace("@PREFIX@", "/usr").replace("@LIBDIR@", &libdir))?;
            0o644
        }
        Origin::Link(target) => {
            symlink(target, to)?;
            return Ok(());
        }
    };
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// The file, compressed in the same way each time.
fn compressed(path: &Path) -> Result<Vec<u8>> {
    run::bytes(run::command("gzip").args(["-9nc"]).arg(path))
}

/// When what is packed was made, so that two builds of it are the same.
fn date() -> Result<String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => output("date", &["-Ru", "-d", &format!("@{seconds}")]),
        Err(_) => output("git", &["log", "-1", "--format=%cD"]),
    }
}

/// What every package has for people: the licence, what has changed, what of lintian does not count.
fn documents(package: &Package, root: &Path) -> Result<()> {
    let docs = root.join("usr/share/doc").join(package.name);
    fs::create_dir_all(&docs)?;
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
                     Upstream-Name: Lunette\n\
                     Source: https://github.com/lunette-storage/lunette\n\n\
                     Files: *\nCopyright: 2026 The authors of Lunette\nLicense: Apache-2.0\n\n\
                     License: Apache-2.0\n On Debian systems, the text of this licence is in\n \
                     /usr/share/common-licenses/Apache-2.0.\n";
    fs::write(docs.join("copyright"), copyright)?;
    let date = date()?;
    let changes = format!(
        "{} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md of this version.\n\n -- \
         {MAINTAINER}  {date}\n",
        package.name,
        version()
    );
    let plain = docs.join("changelog.Debian");
    fs::write(&plain, changes)?;
    fs::write(docs.join("changelog.Debian.gz"), compressed(&plain)?)?;
    fs::remove_file(&plain)?;
    fs::write(docs.join("changelog.gz"), compressed(&run::root().join("CHANGELOG.md"))?)?;
    let directory = root.join("usr/share/lintian/overrides");
    fs::create_dir_all(&directory)?;
    let mut text = String::new();
    for (tag, why) in list::OVERRIDES.iter().chain(package.overrides) {
        let _ = writeln!(text, "# {why}\n{}: {tag}", package.name);
    }
    fs::write(directory.join(package.name), text)?;
    Ok(())
}

/// The packages of the libraries that programs are linked with, as a part of a `Depends`.
fn libraries(package: &Package, stage: &Path, root: &Path, binaries: &[PathBuf]) -> Result<String> {
    if binaries.is_empty() {
        return Ok(String::new());
    }
    // It wants a source package around it.
    let debian = stage.join("debian");
    fs::create_dir_all(&debian)?;
    let control = format!("Source: lunette\n\nPackage: {}\nArchitecture: any\n", package.name);
    fs::write(debian.join("control"), control)?;
    let mut shlibdeps = run::command("dpkg-shlibdeps");
    shlibdeps.current_dir(stage).arg("-O").arg(format!("-S{}", root.display()));
    for binary in binaries {
        shlibdeps.arg(format!("-e{}", binary.display()));
    }
    let found = run::output(&mut shlibdeps)?;
    let depends = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    match depends {
        Some(depends) => Ok(depends.to_owned()),
        None => bail!("dpkg-shlibdeps does not tell what {} is linked with", package.name),
    }
}

/// Writes the control files.
fn control(package: &Package, root: &Path, arch: &str, libraries: &str) -> Result<()> {
    let directory = root.join("DEBIAN");
    let files = Files::of(root)?;
    fs::create_dir_all(&directory)?;
    let mut text = format!(
        "Package: {}\nSource: lunette\nVersion: {}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {}\nSection: {}\nPriority: optional\nHomepage: \
         https://github.com/lunette-storage/lunette\n",
        package.name,
        version(),
        files.bytes.div_ceil(1024),
        package.section
    );
    for (name, value) in package.fields {
        let value = value.replace("LIBRARIES", libraries).replace("VERSION", &version());
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = writeln!(text, "Description: {}", package.synopsis);
    for (n, paragraph) in package.description.iter().enumerate() {
        if n > 0 {
            text.push_str(" .\n");
        }
        for line in wrapped(paragraph) {
            let _ = writeln!(text, " {line}");
        }
    }
    fs::write(directory.join("control"), text)?;
    fs::write(directory.join("md5sums"), files.sums)?;
    if !files.configuration.is_empty() {
        fs::write(directory.join("conffiles"), files.configuration)?;
    }
    if !package.triggers.is_empty() {
        fs::write(directory.join("triggers"), package.triggers)?;
    }
    if package.name.starts_with("lib") && !package.name.ends_with("-dev") {
        fs::write(directory.join("shlibs"), "libtcmu 2 libtcmu2 (>= 2:0~)\n")?;
    }
    for script in package.scripts {
        let from = run::root().join(format!("dist/debian/{}.{script}", package.name));
        let to = directory.join(script);
        fs::copy(&from, &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What is in a package.
#[derive(Default)]
struct Files {
    bytes: u64,
    /// As md5sums has it.
    sums: String,
    /// As conffiles has it.
    configuration: String,
}

impl Files {
    fn of(root: &Path) -> Result<Files> {
        let mut files = Files::default();
        let mut left = vec![root.to_owned()];
        let mut found = Vec::new();
        while let Some(directory) = left.pop() {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let meta = fs::symlink_metadata(&path)?;
                if meta.is_dir() {
                    left.push(path);
                } else if meta.is_file() {
                    files.bytes += meta.len();
                    found.push(path);
                }
            }
        }
        found.sort();
        for path in found {
            let name = path.strip_prefix(root)?.display().to_string();
            let sum = run::output(run::command("md5sum").arg(&path))?;
            let sum = sum.split(' ').next().unwrap_or_default().to_owned();
            if name.starts_with("etc/") {
                let _ = writeln!(files.configuration, "/{name}");
            } else {
                let _ = writeln!(files.sums, "{sum}  {name}");
            }
        }
        Ok(files)
    }
}

/// The lines of a paragraph.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::list::PACKAGES;
    use super::*;

    #[test]
    fn descriptions_fit_into_their_lines() {
        for package in PACKAGES {
            assert!(package.synopsis.len() < 80, "{}", package.synopsis);
            for line in package.description.iter().flat_map(|text| wrapped(text)) {
                assert!(!line.is_empty() && line.len() <= WIDTH, "{line}");
            }
        }
    }
}
