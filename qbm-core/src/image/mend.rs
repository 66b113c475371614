// SPDX-License-Identifier: MIT OR Apache-2.0
//! What [`repair`](crate::check::repair) does to an image: nothing that an open for writing and a clean close would not do,
//! and the removal of files that nobody needs.

use super::{Activation, Image};
use crate::caps;
use crate::check::{CheckOptions, FindingKind, Report};
use crate::descriptor::AllocationEntry;
use crate::error::{Error, Result};
use crate::storage::Access;

impl Image {
    /// Mends what `report` found. The image is not active.
    pub(crate) fn mend(&self, options: &CheckOptions, report: &Report) -> Result<()> {
        let size_bytes = self.examine_data(&self.lock(), options, &mut Vec::new())?;
        self.activate(&Activation {
            size_bytes,
            data_path: options.data_path.clone(),
            ..Activation::default()
        })?;
        self.inactivate()?;
        let state = self.lock();
        for finding in &report.findings {
            match (finding.kind, &finding.file, &state.descriptor.allocation) {
                (FindingKind::AllocationBeyondEnd, _, Some(entry)) => {
                    self.zero_padding(entry, size_bytes)?;
                }
                (FindingKind::OrphanFile, Some(path), _) => self
                    .storage
                    .remove(path)
                    .map_err(|error| Error::io("cannot remove", path, error))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Blocks beyond the end of the disk are not allocated: they are nothing.
    fn zero_padding(&self, entry: &AllocationEntry, size_bytes: u64) -> Result<()> {
        let path = self.resolve(&entry.file);
        let failed = |error| Error::io("cannot write bitmap file", &path, error);
        let bits_count = caps::bits_count(size_bytes, entry.granularity.bytes())?;
        let (whole_bytes, bits_left) = (bits_count / 8, bits_count % 8);
        let file = self
            .storage
            .open(&path, Access::ReadWrite)
            .map_err(failed)?;
        let mut last = [0];
        file.read_at(whole_bytes, &mut last).map_err(failed)?;
        let kept = last.map(|byte| byte & !(u8::MAX << bits_left));
        file.write_at(whole_bytes, &kept).map_err(failed)?;
        file.sync_data().map_err(failed)
    }
}
