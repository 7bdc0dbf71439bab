//! Kernel modules and the order they must be loaded in, read from the modules themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

const GROUPS: &str = include_str!("../guest/modules");

/// A group of modules that are loaded together.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Files, each after everything it depends on.
    pub(crate) files: Vec<PathBuf>,
}

/// The modules of one kernel by name, `_` for `-`.
pub(crate) struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    /// Lists the modules below a folder.
    pub(crate) fn index(folder: &Path) -> Result<Modules, Error> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(Error::io("listing", &folder))?;
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    found.insert(name_of(&path), path);
                }
            }
        }
        Ok(Modules(found))
    }

    /// The groups of `guest/modules`, dependencies included.
    pub(crate) fn groups(&self) -> Result<Vec<Group>, Error> {
        let mut groups = Vec::new();
        for line in GROUPS.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, modules)) = line.split_once(':') else {
                continue;
            };
            let mut files = Vec::new();
            for module in modules.split_whitespace() {
                self.add(module, &mut files)?;
            }
            groups.push(Group { name, files });
        }
        Ok(groups)
    }

    /// Adds a module after its dependencies. The kernel refuses cycles, so this ends.
    fn add(&self, name: &str, files: &mut Vec<PathBuf>) -> Result<(), Error> {
        let file = self
            .0
            .get(&name.replace('-', "_"))
            .ok_or_else(|| Error::Unexpected {
                what: format!("module {name} of the kernel package"),
                found: "no such file (built in, renamed or compressed?)".to_owned(),
            })?;
        if files.contains(file) {
            return Ok(());
        }
        let bytes = fs::read(file).map_err(Error::io("reading", file))?;
        for dependency in dependencies(&bytes) {
            self.add(&dependency, files)?;
        }
        files.push(file.clone());
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().replace('-', "_")
}

/// The `depends=` entry of a module's information, a list of names between commas.
fn dependencies(module: &[u8]) -> Vec<String> {
    let entry = b"\0depends=";
    let Some(at) = module.windows(entry.len()).position(|w| w == entry) else {
        return Vec::new();
    };
    let text = &module[at + entry.len()..];
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF..license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    #[test]
    fn a_module_comes_after_what_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        for (name, depends) in [
            ("top", "mid-a,mid_b"),
            ("mid-a", "low"),
            ("mid-b", "low"),
            ("low", ""),
        ] {
            fs::write(folder.path().join(format!("{name}.ko")), module(depends)).unwrap();
        }
        let mut files = Vec::new();
        let modules = Modules::index(folder.path()).unwrap();
        modules.add("top", &mut files).unwrap();
        let names: Vec<_> = files.iter().map(|file| name_of(file)).collect();
        assert_eq!(names, ["low", "mid_a", "mid_b", "top"]);
        assert!(modules.add("absent", &mut files).is_err());
    }
}
