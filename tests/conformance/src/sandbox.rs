// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of its own for one fixture.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::case::{Case, Data, Time};
use crate::checksum;

/// Stands in a fixture for the boot id of the host that the test runs on.
const THIS_BOOT: &str = "@this-boot@";
/// Stands for the checksum of a text that has a place holder.
const CHECKSUM: &str = "@checksum@";
/// Data images are compared byte by byte up to this length; fixtures are smaller.
const COMPARED_BYTES_MAX: u64 = 64 << 20;

/// A copy of a fixture.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
}

/// Everything that must not change: content (unless too long) and modification time of each file.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, (u64, SystemTime, Vec<u8>)>);

impl Sandbox {
    /// An empty one.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> Result<Self> {
        Ok(Self {
            directory: TempDir::new()?,
        })
    }

    /// A copy of the image in `fixture`, place holders replaced, with the data image that its case asks for.
    ///
    /// # Errors
    /// The system's.
    pub fn of_image(fixture: &Path, case: &Case) -> Result<Self> {
        let sandbox = Self::new()?;
        for entry in fs::read_dir(fixture)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "case.json" {
                continue;
            }
            let content = fs::read(entry.path())?;
            let content = match String::from_utf8(content) {
                Ok(text) if text.contains(THIS_BOOT) || text.contains(CHECKSUM) => {
                    filled_in(&text)?.into_bytes()
                }
                Ok(text) => text.into_bytes(),
                Err(error) => error.into_bytes(),
            };
            fs::write(sandbox.path().join(name), content)?;
        }
        if let Some(data) = &case.data {
            sandbox.make_data(data)?;
        }
        Ok(sandbox)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> PathBuf {
        self.file("x.qbm")
    }

    /// The descriptor's text.
    ///
    /// # Errors
    /// The system's.
    pub fn text(&self) -> Result<String> {
        let path = self.descriptor();
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn make_data(&self, data: &Data) -> Result<()> {
        let file = File::create_new(self.file(&data.file))?;
        file.set_len(data.size_bytes)?;
        let Time {
            seconds,
            nanoseconds,
        } = data.modified;
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds))?;
        Ok(())
    }

    /// Names in the directory, sorted.
    ///
    /// # Errors
    /// The system's.
    pub fn listing(&self) -> Result<Vec<String>> {
        Ok(self.snapshot()?.names())
    }

    /// All files as they are.
    ///
    /// # Errors
    /// The system's.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, look(&entry.path())?);
        }
        Ok(Snapshot(files))
    }
}

fn look(path: &Path) -> Result<(u64, SystemTime, Vec<u8>)> {
    let metadata = fs::metadata(path)?;
    let is_short = metadata.is_file() && metadata.len() <= COMPARED_BYTES_MAX;
    let content = if is_short {
        fs::read(path)?
    } else {
        Vec::new()
    };
    Ok((metadata.len(), metadata.modified()?, content))
}

impl Snapshot {
    /// Names of the files, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Fails unless `self` is the same as `after`: not a byte, a length, a time or a name changed.
    ///
    /// # Errors
    /// Says which file is not.
    pub fn ensure_same(&self, after: &Self) -> Result<()> {
        let (was, is) = (self.names(), after.names());
        ensure!(was == is, "files were {was:?}, are {is:?}");
        for name in self.0.keys() {
            self.ensure_file_same(name, after)?;
        }
        Ok(())
    }

    /// As [`ensure_same`](Self::ensure_same), for one file.
    ///
    /// # Errors
    /// It is not the same.
    pub fn ensure_file_same(&self, name: &str, after: &Self) -> Result<()> {
        ensure!(self.0.get(name) == after.0.get(name), "{name} was changed");
        Ok(())
    }
}

/// The host's boot id.
///
/// # Errors
/// The system's.
pub fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

fn filled_in(text: &str) -> Result<String> {
    let text = text.replace(THIS_BOOT, &boot_id()?);
    Ok(checksum::sealed(&text.replace(CHECKSUM, "00000000")))
}
