// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image says of its data image to whoever opens that.

use std::path::{Path, PathBuf};

use super::{DataPath, Image};
use crate::descriptor::Descriptor;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::storage::{FileId, LockMode};

/// Where the data image is.
#[derive(Debug)]
pub(crate) struct DataPlace {
    pub(crate) path: PathBuf,
    /// The image's own files, none of which can be the data image (I6).
    pub(crate) reserved: Vec<FileId>,
}

impl Image {
    /// Where the data image is, as the descriptor says it now, unless a path is given. Only a raw one can be opened.
    pub(crate) fn data_place(&self, given: &DataPath) -> Result<DataPlace> {
        let state = self.lock();
        let descriptor = state.file.read(&*self.storage)?;
        let format = &descriptor.image.format;
        if format != "raw" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "descriptor {}: image.format: {} data images are not read or written here, only \"raw\" ones",
                    quoted(self.path.display()),
                    quoted(format)
                ),
            ));
        }
        let path = self.data_path(&descriptor, given).ok_or_else(|| {
            Error::invalid(format!(
                "descriptor {}: there is no file to open as the data image",
                quoted(self.path.display())
            ))
        })?;
        let mut reserved: Vec<FileId> = self.file_ids(descriptor.other_files()).collect();
        reserved.push(state.file.id()?);
        Ok(DataPlace { path, reserved })
    }

    /// A data image was opened before the image was activated: the descriptor, or its path, may lead elsewhere by now.
    pub(super) fn check_opened(
        &self,
        descriptor: &Descriptor,
        given: &DataPath,
        opened: FileId,
    ) -> Result<()> {
        let path = self.data_path(descriptor, given);
        if path.is_some_and(|path| self.data_leads_to(&path, opened)) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "descriptor {}: the data image was replaced while it was opened",
            quoted(self.path.display())
        )))
    }

    /// A size of 0 is one that was forgotten, unless the data image is empty: it would cost every bitmap.
    pub(super) fn check_empty(&self, descriptor: &Descriptor, given: &DataPath) -> Result<()> {
        let path = self.data_path(descriptor, given);
        let metadata = path.and_then(|path| self.storage.metadata(&path).ok());
        match metadata {
            Some(metadata) if metadata.is_regular && metadata.length_bytes > 0 => {
                Err(Error::invalid(format!(
                    "descriptor {}: the disk's size is given as 0, its data image has {} bytes",
                    quoted(self.path.display()),
                    metadata.length_bytes
                )))
            }
            _ => Ok(()),
        }
    }

    /// The regular file that the data image is, where it can be seen.
    pub(super) fn data_file_id(&self, descriptor: &Descriptor, given: &DataPath) -> Option<FileId> {
        let path = self.data_path(descriptor, given)?;
        let metadata = self.storage.metadata(&path).ok()?;
        metadata.is_regular.then_some(metadata.id)
    }

    /// Whether `path` leads to the file that was opened.
    fn data_leads_to(&self, path: &Path, opened: FileId) -> bool {
        let found = self.storage.metadata(path);
        found.is_ok_and(|found| found.id == opened)
    }

    /// Whether `path` leads to another file than the one that was opened, or to none. Where it cannot be looked at, for want
    /// of rights or of the network, that says nothing.
    pub(super) fn data_was_moved(&self, path: &Path, opened: FileId) -> bool {
        match self.storage.metadata(path) {
            Ok(found) => found.id != opened,
            Err(error) => matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
            ),
        }
    }

    /// The lock that a data image opened beside this descriptor takes; `None`: none is wanted.
    pub(crate) fn data_lock(&self, read_only: bool) -> Option<LockMode> {
        if self.options.no_lock || self.options.shared {
            return None;
        }
        Some(if read_only {
            LockMode::Read
        } else {
            LockMode::Write
        })
    }

    /// Nothing is written, whatever the activation says.
    pub(crate) fn is_shared(&self) -> bool {
        self.options.shared
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no write is between its announcement and its end.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.tracker.is_idle()
    }
}
