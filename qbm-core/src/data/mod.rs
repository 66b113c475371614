// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data image of an image whose writer is not QEMU: opened beside the descriptor, written with every write recorded.
//!
//! A [`DataImage`] lives from [`activate`](DataImage::activate) to [`inactivate`](DataImage::inactivate). What it does to
//! the data image is announced, done and ended here (`io`), so that nobody can forget a step of I1.

mod file;
mod io;
mod os;

use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::caps;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::image::{Activation, DataPlace, Image};
use crate::storage::Access;
use file::DataFile;
use os::OsDataFile;

/// A raw data image on a local file or block device, with every write recorded in the bitmaps of its [`Image`].
///
/// All of it may be used from several threads at once.
#[derive(Debug)]
pub struct DataImage {
    path: PathBuf,
    /// The image's.
    descriptor: PathBuf,
    read_only: bool,
    /// Held for reading while data moves. A resize and the end wait until nothing moves.
    gate: RwLock<Gate>,
    /// The errno of the first sync that failed: what was written before it may be lost, and no later sync proves otherwise.
    /// 0: none. Held while syncing: the system tells of a write that it lost once, to whoever asks first.
    failed_sync: Mutex<i32>,
}

#[derive(Debug)]
struct Gate {
    /// Size of the disk: the data image's length rounded up to sectors.
    size_bytes: u64,
    /// Until the end.
    file: Option<Box<dyn DataFile>>,
}

impl DataImage {
    /// Opens the data image and activates the image with its size ([`Activation::size_bytes`] is not looked at).
    ///
    /// The data image is a regular file or a block device, of the format `raw`. Unless the image was opened with
    /// `no_lock` or `shared`, it is locked as QEMU locks it: nobody else writes it, and beside a writer nobody reads.
    /// After an error it is closed again. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`]: the format is another; [`ErrorKind::Locked`]: another process has the data image open;
    /// [`ErrorKind::Invalid`]: it is no such file, or one of the image's own; what [`Image::activate`] says; whatever the
    /// system says.
    pub fn activate(image: &Image, activation: &Activation) -> Result<Self> {
        let activation = Activation {
            data_path: activation.data_path.absolute()?,
            ..activation.clone()
        };
        let place = prepare(image, &activation)?;
        let access = if is_read_only(image, &activation) {
            Access::Read
        } else {
            Access::ReadWrite
        };
        let file = OsDataFile::open(&place.path, access)
            .map_err(|error| not_opened(&place.path, error))?;
        Self::activate_file(image, &activation, place, Box::new(file))
    }

    fn activate_file(
        image: &Image,
        activation: &Activation,
        place: DataPlace,
        file: Box<dyn DataFile>,
    ) -> Result<Self> {
        let path = place.path;
        let examined = |error| Error::io("cannot examine data image", &path, error);
        let id = file.id().map_err(examined)?;
        if place.reserved.contains(&id) {
            return Err(Error::invalid(format!(
                "data image {}: it is the descriptor or one of its bitmap files",
                quoted(path.display())
            )));
        }
        let read_only = is_read_only(image, activation);
        if let Some(mode) = image.data_lock(read_only) {
            file.lock(mode).map_err(|error| not_locked(&path, error))?;
        }
        let size_bytes = disk_size(&path, file.length().map_err(examined)?)?;
        let activation = Activation {
            size_bytes,
            ..activation.clone()
        };
        image.activate_over(&activation, Some(id))?;
        Ok(Self {
            path,
            descriptor: image.path().to_owned(),
            read_only,
            gate: RwLock::new(Gate {
                size_bytes,
                file: Some(file),
            }),
            failed_sync: Mutex::new(0),
        })
    }

    /// Waits until nothing moves, makes the data image durable and [inactivates](Image::inactivate) the image. From then
    /// on the data image is closed, and can neither be read nor written. Once more does nothing. Waits for the disk.
    ///
    /// # Errors
    /// A failed sync, now or [before](Self::flush): every bitmap is inconsistent then, and if that cannot be put on disk,
    /// the image stays active; what [`Image::inactivate`] says.
    pub fn inactivate(&self, image: &Image) -> Result<()> {
        self.check_image(image)?;
        let mut gate = self.close_gate();
        let Some(file) = gate.file.as_deref() else {
            // What the image does since is somebody else's.
            return Ok(());
        };
        let synced = if self.read_only {
            Ok(())
        } else {
            self.sync(file)
        };
        if synced.is_err() {
            // Also those that came after an earlier failure.
            self.distrust(image)?;
        }
        // The seal takes the data image's modification time after this; nothing of ours touches the file any more.
        let ended = image.inactivate();
        // Closed here: another thread may hold on to what is left.
        gate.file = None;
        synced.and(ended)
    }

    /// Dropping it in this process will not give the lock back, which belongs to the one that forked it.
    pub fn leave_locked(&mut self) {
        let gate = self.gate.get_mut();
        if let Some(file) = &gate.unwrap_or_else(PoisonError::into_inner).file {
            file.leave_locked();
        }
    }

    /// Size of the disk in bytes: the data image's, rounded up to 512.
    pub fn size_bytes(&self) -> u64 {
        self.open_gate().size_bytes
    }

    /// The data image's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the data image durable. Once that failed it fails for good: the system forgets what it could not write.
    fn sync(&self, file: &dyn DataFile) -> Result<()> {
        let mut failed = self
            .failed_sync
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let synced = match *failed {
            0 => file.sync(),
            errno => Err(std::io::Error::from_raw_os_error(errno)),
        };
        synced.map_err(|error| {
            *failed = error.raw_os_error().unwrap_or(libc::EIO);
            Error::io("cannot sync data image", &self.path, error)
        })
    }

    /// After a failed sync a block may fall back to what it was before a write, when the page cache drops it: one that a
    /// backup has copied meanwhile would be clean and not what the backup has (I2).
    fn distrust(&self, image: &Image) -> Result<()> {
        if !image.info().writable {
            return Ok(());
        }
        for bitmap in image.bitmaps() {
            if bitmap.inconsistent {
                continue;
            }
            match image.set_inconsistent(&bitmap.name, "the data image could not be synced") {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A bitmap of another image would miss the write.
    fn check_image(&self, image: &Image) -> Result<()> {
        if self.descriptor.as_os_str() == image.path().as_os_str() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "data image {}: it was opened for descriptor {}, not {}",
            quoted(self.path.display()),
            quoted(self.descriptor.display()),
            quoted(image.path().display())
        )))
    }

    fn open_gate(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_gate(&self) -> RwLockWriteGuard<'_, Gate> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can be refused before anything is opened.
fn prepare(image: &Image, activation: &Activation) -> Result<DataPlace> {
    if image.info().active {
        return Err(Error::invalid("the image is active already"));
    }
    image.data_place(&activation.data_path)
}

fn is_read_only(image: &Image, activation: &Activation) -> bool {
    activation.read_only || image.is_shared()
}

fn disk_size(path: &Path, length_bytes: u64) -> Result<u64> {
    caps::round_image_size(length_bytes)
        .map_err(|error| error.within(format_args!("data image {}", quoted(path.display()))))
}

fn not_opened(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == IoErrorKind::InvalidInput {
        return Error::invalid(format!("data image {}: {error}", quoted(path.display())));
    }
    Error::io("cannot open data image", path, error)
}

fn not_locked(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == IoErrorKind::WouldBlock {
        let text = format!(
            "data image {}: another process has it open",
            quoted(path.display())
        );
        return Error::new(ErrorKind::Locked, text);
    }
    Error::io("cannot lock data image", path, error)
}

#[cfg(test)]
mod tests;
