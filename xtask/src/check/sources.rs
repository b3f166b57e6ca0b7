// SPDX-License-Identifier: Apache-2.0
//! The project's own files: each Rust source is part of a target, each suite of the VM is run, each
//! file names its licence, and no dependency needs a newer compiler than `Cargo.toml` says.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;
use crate::test::{self, Checks};

const LICENCE: &str = "SPDX-License-Identifier: Apache-2.0";

/// The section of README.md that says what is lost when, and which test shows it.
const GUARANTEES: &str = "What you can rely on\n";

/// Files of these kinds name their licence in one of their first lines.
const LICENSED: &[&str] = &["rs", "sh", "py", "fish"];

/// Runs the checks and names what is wrong.
pub(crate) fn main() -> Result<Checks> {
    let files = tracked_files()?;
    let mut checks = Checks::default();
    for (what, found) in [
        ("belongs to no target: no `mod` names it", orphans(&files)?),
        ("is a suite that `cargo xtask test` does not run", test::unused_suites(&files)),
        ("does not say its licence: add a line `SPDX-License-Identifier`", unlicensed(&files)),
        ("stands in README.md as a test, and is none", promised(&files)?),
        ("needs a newer Rust than `rust-version` in Cargo.toml", too_new()?),
    ] {
        for name in &found {
            println!("FAIL {name} {what}");
        }
        checks.add(Checks::of(format!("sources: a file {what}"), found.is_empty()));
    }
    Ok(checks)
}

/// Files that git knows, relative to the workspace; those that are new are among them.
fn tracked_files() -> Result<BTreeSet<PathBuf>> {
    let mut git = run::command("git");
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let text = run::output(git.args(words).current_dir(run::root()))?;
    let paths = text.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    // One that is removed and not yet committed is still in the list.
    Ok(paths.filter(|path| run::root().join(path).is_file()).collect())
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// Rust files that no target reaches.
fn orphans(files: &BTreeSet<PathBuf>) -> Result<Vec<String>> {
    let mut pending = targets("Cargo.toml")?;
    pending.extend(targets("fuzz/Cargo.toml")?);
    let mut reached = BTreeSet::new();
    while let Some(Module { file, children }) = pending.pop() {
        if !reached.insert(file.clone()) {
            continue;
        }
        let path = run::root().join(&file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        for declared in declared(&text) {
            let found = declared.candidates(&file, &children);
            pending.extend(found.into_iter().filter(|module| files.contains(&module.file)));
        }
    }
    let lost = files.iter().filter(|path| is_rust(path) && !reached.contains(*path));
    Ok(lost.map(|path| path.display().to_string()).collect())
}

/// A source file, and the directory of its child modules.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    file: PathBuf,
    children: PathBuf,
}

impl Module {
    /// A root of a crate, or a `mod.rs`: its children lie beside it.
    fn of_directory(file: PathBuf) -> Module {
        let children = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Module { file, children }
    }

    /// `x.rs`, whose children lie in `x/`.
    fn of_file(file: PathBuf) -> Module {
        let children = file.with_extension("");
        Module { file, children }
    }
}

/// The roots of all targets of a workspace, relative to ours.
fn targets(manifest: &str) -> Result<Vec<Module>> {
    let words = ["metadata", "--format-version=1", "--no-deps", "--manifest-path", manifest];
    let json: Value = serde_json::from_str(&run::output(&mut run::cargo(words))?)?;
    let packages = json["packages"].as_array().context("cargo metadata: no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let sources = targets.filter_map(|target| target["src_path"].as_str());
    let own = sources.filter_map(|path| Path::new(path).strip_prefix(run::root()).ok());
    Ok(own.map(|path| Module::of_directory(path.to_owned())).collect())
}

/// A declaration of a module in another file.
#[derive(Debug, PartialEq, Eq)]
enum Declared {
    /// `mod name;`
    Name(String),
    /// The same with `#[path = "..."]` above it.
    Path(String),
}

impl Declared {
    /// Where the module may be.
    fn candidates(&self, parent: &Path, children: &Path) -> Vec<Module> {
        match self {
            Declared::Name(name) => vec![
                Module::of_file(children.join(format!("{name}.rs"))),
                Module::of_directory(children.join(name).join("mod.rs")),
            ],
            Declared::Path(path) => {
                let directory = parent.parent().unwrap_or(Path::new(""));
                vec![Module::of_directory(normal(&directory.join(path)))]
            }
        }
    }
}

/// Without `..`, by the names alone: the workspace has no links.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// The modules that a source declares, one to a line, as rustfmt writes them.
fn declared(text: &str) -> Vec<Declared> {
    let mut path = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.strip_suffix("\"]").map(str::to_owned);
            continue;
        }
        let item = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, it)| it),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let name = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        match (name, path.take()) {
            (Some(_), Some(path)) => found.push(Declared::Path(path)),
            (Some(name), None) => found.push(Declared::Name(name.to_owned())),
            // Other attributes may stand between the path and the module.
            (None, kept) if line.starts_with("#[") => path = kept,
            (None, _) => {}
        }
    }
    found
}

/// Sources and scripts without a word about their licence.
fn unlicensed(files: &BTreeSet<PathBuf>) -> Vec<String> {
    let of_interest = files
        .iter()
        .filter(|path| LICENSED.iter().any(|kind| path.extension() == Some(OsStr::new(kind))));
    let says = |path: &Path| {
        let text = std::fs::read(run::root().join(path)).unwrap_or_default();
        let head = String::from_utf8_lossy(&text[..text.len().min(400)]).into_owned();
        head.lines().take(3).any(|line| line.contains(LICENCE))
    };
    of_interest.filter(|path| !says(path)).map(|path| path.display().to_string()).collect()
}

/// The tests that README.md's table of guarantees names, and that are not there.
fn promised(files: &BTreeSet<PathBuf>) -> Result<Vec<String>> {
    let read = |path: &Path| std::fs::read_to_string(run::root().join(path)).unwrap_or_default();
    let named = named_tests(&read(Path::new("README.md")));
    if named.is_empty() {
        bail!("README.md has no table of guarantees that names tests");
    }
    let sources: Vec<String> =
        files.iter().filter(|path| is_rust(path)).map(|path| read(path)).collect();
    let is_there = |name: &String| {
        let script = Path::new("tests/vm").join(name);
        let function = format!("fn {name}(");
        files.contains(&script) || sources.iter().any(|source| source.contains(&function))
    };
    Ok(named.into_iter().filter(|name| !is_there(name)).collect())
}

/// The names in backticks in the last column of the table.
fn named_tests(readme: &str) -> BTreeSet<String> {
    let section = readme.split("\n## ").find(|part| part.starts_with(GUARANTEES));
    let rows = section.unwrap_or_default().lines().filter(|line| line.starts_with('|'));
    // What stands between two backticks is every second part.
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.filter_map(|row| row.rsplit('|').nth(1)).flat_map::<Vec<String>, _>(names).collect()
}

/// Packages of the build for Linux that need a newer compiler than ours say.
fn too_new() -> Result<Vec<String>> {
    let words = ["metadata", "--format-version=1", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let json: Value = serde_json::from_str(&run::output(&mut run::cargo(words))?)?;
    let packages = json["packages"].as_array().context("cargo metadata: no packages")?;
    let version = |package: &Value| numbers(package["rust_version"].as_str().unwrap_or("0"));
    let ours = packages.iter().find(|package| package["name"] == env!("CARGO_PKG_NAME"));
    let ours = version(ours.context("cargo metadata: no xtask")?);
    let newer = packages.iter().filter(|package| version(package) > ours);
    Ok(newer.map(|p| format!("{} {} ({})", p["name"], p["version"], p["rust_version"])).collect())
}

/// A version as what can be compared; "1.85" is "1.85.0".
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_of_modules_are_found() {
        let text = "mod a;\npub mod b;\npub(crate) mod c;\nmod inline { }\n// mod d;\n\
                    #[cfg(test)]\nmod tests;\n#[path = \"../x/y.rs\"]\n#[cfg(test)]\nmod e;\n";
        let name = |name: &str| Declared::Name(name.into());
        let path = Declared::Path("../x/y.rs".into());
        assert_eq!(declared(text), [name("a"), name("b"), name("c"), name("tests"), path]);
    }

    #[test]
    fn a_module_is_looked_for_where_the_compiler_does() {
        let parent = Path::new("src/a.rs");
        let found = Declared::Name("b".into()).candidates(parent, Path::new("src/a"));
        let files: Vec<PathBuf> = found.into_iter().map(|module| module.file).collect();
        assert_eq!(files, [PathBuf::from("src/a/b.rs"), PathBuf::from("src/a/b/mod.rs")]);
        let found = Declared::Path("../x/y.rs".into()).candidates(parent, Path::new("src/a"));
        assert_eq!(found[0].file, PathBuf::from("x/y.rs"));
    }

    #[test]
    fn a_file_that_no_module_names_is_found() {
        let mut files = tracked_files().unwrap();
        let before = orphans(&files).unwrap();
        files.insert("crates/scsi/src/nobody.rs".into());
        let mut after = orphans(&files).unwrap();
        after.retain(|name| !before.contains(name));
        assert_eq!(after, ["crates/scsi/src/nobody.rs"]);
    }

    #[test]
    fn the_tests_that_the_readme_names_are_found() {
        let text = "# A\n\n## B\n| `no` |\n\n## What you can rely on\n\n| x | tests |\n\
                    | `not this` | `a`, `b.sh` |\n| y | `c` |\n\n## C\n| `no` |\n";
        assert_eq!(named_tests(text), ["a", "b.sh", "c"].map(str::to_owned).into());
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("1.100") > numbers("1.89.0"));
        assert_eq!(numbers("1.89"), numbers("1.89.0"));
    }
}
