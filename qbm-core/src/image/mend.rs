// SPDX-License-Identifier: MIT OR Apache-2.0
//! What [`repair`](crate::check::repair) does to an image: nothing that an open for writing and a clean close would not do,
//! and the removal of files that nobody needs.

use super::{Activation, Image};
use crate::check::{CheckOptions, FindingKind, Report};
use crate::error::{Error, Result};

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
        self.remove_orphans(report)
    }

    /// Removes the files that `report` says nobody needs. The image is not active.
    pub(crate) fn remove_leaks(&self, report: &Report) -> Result<()> {
        if report.find(FindingKind::TornDescriptor).is_some() {
            // A replacement counts, and must stay until it is in place.
            return Ok(());
        }
        if report.find(FindingKind::LeftoverReplacement).is_some() {
            self.take_over(&mut self.lock())?;
        }
        self.remove_orphans(report)
    }

    fn remove_orphans(&self, report: &Report) -> Result<()> {
        for finding in &report.findings {
            if let (FindingKind::OrphanFile, Some(path)) = (finding.kind, &finding.file) {
                self.storage
                    .remove(path)
                    .map_err(|error| Error::io("cannot remove", path, error))?;
            }
        }
        Ok(())
    }
}
