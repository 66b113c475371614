// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real files for the disk: the documentation of the machine's own packages.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Every Debian machine has it, and it is neither empty nor secret.
const SOURCE: &str = "/usr/share/doc";

/// Enough to fill a disk's tables, little enough to copy in a blink.
const LIMIT_BYTES: u64 = 24 << 20;

/// Copies real files into a fresh directory; gives their number and their bytes.
pub(super) fn gather(into: &Path) -> Result<(u64, u64)> {
    fs::create_dir(into)?;
    let mut gathered = Gathered::default();
    gathered.copy(Path::new(SOURCE), into)?;
    ensure!(gathered.files_count > 0, "{SOURCE} holds no files");
    Ok((gathered.files_count, gathered.bytes))
}

#[derive(Debug, Default)]
struct Gathered {
    files_count: u64,
    bytes: u64,
}

impl Gathered {
    fn copy(&mut self, from: &Path, into: &Path) -> Result<()> {
        let entries = fs::read_dir(from).with_context(|| format!("read {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let target = into.join(entry.file_name());
            if kind.is_dir() {
                fs::create_dir(&target)?;
                self.copy(&entry.path(), &target)?;
            } else if kind.is_file() && self.bytes < LIMIT_BYTES {
                self.bytes += fs::copy(entry.path(), &target)?;
                self.files_count += 1;
            }
        }
        Ok(())
    }
}
