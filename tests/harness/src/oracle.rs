// SPDX-License-Identifier: MIT OR Apache-2.0
//! The judge of a bitmap: does it mark every block that changed?

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::bitmap_file::BitmapFile;

/// How finely [`require_same`] says where files differ.
const STEP_BYTES: usize = 4096;

/// A bitmap held against what happened to the disk.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Blocks of the disk, each one bit's worth.
    pub blocks_count: u64,
    /// Blocks that differ from the earlier copy.
    pub changed_count: u64,
    /// Blocks that the bitmap marks.
    pub marked_count: u64,
    /// Blocks that it marks although they are as before: copied in vain, harmless.
    pub over_reported_count: u64,
    /// Blocks that differ and are not marked: a backup would be wrong.
    pub missed: Vec<u64>,
}

impl Verdict {
    /// Requires that no block was missed.
    ///
    /// # Errors
    /// When one was; the message names the first few.
    pub fn require_complete(&self) -> Result<()> {
        ensure!(
            self.missed.is_empty(),
            "{} changed blocks are not marked, the first at {:?}",
            self.missed.len(),
            self.missed.iter().take(8).collect::<Vec<_>>()
        );
        Ok(())
    }
}

/// Compares `disk` with the `earlier` copy that the bitmap counts from, block by
/// block.  Past the end of the shorter of the two counts as zeroes.
///
/// # Errors
/// When a file cannot be read.
pub fn judge(earlier: &Path, disk: &Path, bitmap: &BitmapFile) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let block_bytes = usize::try_from(bitmap.granularity_bytes())?;
    for_each_pair(earlier, disk, block_bytes, |block, differs| {
        let marked = bitmap.is_set(block);
        verdict.blocks_count += 1;
        verdict.changed_count += u64::from(differs);
        verdict.marked_count += u64::from(marked);
        verdict.over_reported_count += u64::from(marked && !differs);
        if differs && !marked {
            verdict.missed.push(block);
        }
    })?;
    Ok(verdict)
}

/// Requires that two files are the same, byte for byte.
///
/// # Errors
/// When they differ; the message says where first.
pub fn require_same(one: &Path, other: &Path) -> Result<()> {
    let sizes = (one.metadata()?.len(), other.metadata()?.len());
    let names = format!("{} and {}", one.display(), other.display());
    ensure!(
        sizes.0 == sizes.1,
        "{names}: {} and {} bytes long",
        sizes.0,
        sizes.1
    );
    let mut first = None;
    for_each_pair(one, other, STEP_BYTES, |block, differs| {
        if differs && first.is_none() {
            first = Some(block * STEP_BYTES as u64);
        }
    })?;
    ensure!(
        first.is_none(),
        "{names} differ, first in the 4 KiB at {first:?}"
    );
    Ok(())
}

/// Calls `see` with the number of each block and whether it differs.
fn for_each_pair(
    one: &Path,
    other: &Path,
    block_bytes: usize,
    mut see: impl FnMut(u64, bool),
) -> Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
    let (mut one, mut other) = (open(one)?, open(other)?);
    // Whole blocks, many at a time: small granularities would be slow otherwise.
    let chunk_bytes = block_bytes * (1 << 20_u32).max(block_bytes).div_euclid(block_bytes);
    let (mut left, mut right) = (vec![0; chunk_bytes], vec![0; chunk_bytes]);
    let mut block = 0;
    loop {
        let read_bytes = fill(&mut one, &mut left)?.max(fill(&mut other, &mut right)?);
        let blocks = left.chunks(block_bytes).zip(right.chunks(block_bytes));
        for (left, right) in blocks.take(read_bytes.div_ceil(block_bytes)) {
            see(block, left != right);
            block += 1;
        }
        if read_bytes < chunk_bytes {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or the file at its end; the rest becomes zero.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled_bytes = 0;
    while filled_bytes < buffer.len() {
        match file.read(&mut buffer[filled_bytes..]) {
            Ok(0) => break,
            Ok(count) => filled_bytes += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer[filled_bytes..].fill(0);
    Ok(filled_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::{judge, require_same};
    use crate::bitmap_file::BitmapFile;

    const BLOCK_BYTES: usize = 512;

    /// Two disks of three and a half blocks that differ in block 1 and in the last.
    fn disks() -> (tempfile::TempDir, [std::path::PathBuf; 3]) {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ["earlier", "disk", "bits"].map(|name| directory.path().join(name));
        let mut disk = vec![1; 3 * BLOCK_BYTES + 100];
        write(&paths[0], &disk).expect("a disk");
        disk[BLOCK_BYTES] = 2;
        disk[3 * BLOCK_BYTES + 99] = 2;
        write(&paths[1], &disk).expect("a disk");
        (directory, paths)
    }

    fn verdict(bits: u8) -> super::Verdict {
        let (_directory, [earlier, disk, file]) = disks();
        write(&file, [bits]).expect("a bitmap");
        let bitmap = BitmapFile::read(&file, BLOCK_BYTES as u64).expect("a bitmap");
        judge(&earlier, &disk, &bitmap).expect("a verdict")
    }

    #[test]
    fn a_missed_block_is_caught() {
        let verdict = verdict(0b0000_0010);
        assert_eq!(verdict.missed, [3]);
        assert!(verdict.require_complete().is_err());
    }

    #[test]
    fn a_block_marked_in_vain_is_counted() {
        let verdict = verdict(0b0000_1011);
        assert_eq!((verdict.blocks_count, verdict.changed_count), (4, 2));
        assert_eq!((verdict.marked_count, verdict.over_reported_count), (3, 1));
        assert!(verdict.require_complete().is_ok());
    }

    #[test]
    fn files_that_differ_are_not_the_same() {
        let (_directory, [earlier, disk, _]) = disks();
        assert!(require_same(&earlier, &disk).is_err());
        assert!(require_same(&earlier, &earlier).is_ok());
    }
}
