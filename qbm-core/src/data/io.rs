// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moving data: announced before, ended after, whatever happens in between (I1).

use std::io;

use super::file::DataFile;
use super::{DataImage, Gate, disk_size};
use crate::caps;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::image::Image;
use crate::tracking::{Begun, Ticket};

/// A write between its announcement and its end; the end comes in every case, also when the data could not move.
#[derive(Debug)]
struct Announced<'a> {
    image: &'a Image,
    ticket: Ticket,
}

impl<'a> Announced<'a> {
    fn begin(image: &'a Image, offset_bytes: u64, length_bytes: u64) -> Result<Self> {
        let (ticket, begun) = image.begin_write(offset_bytes, length_bytes)?;
        let announced = Self { image, ticket };
        if begun == Begun::MustWait {
            image.wait_write()?;
        }
        Ok(announced)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.image.end_write(self.ticket);
    }
}

impl DataImage {
    /// Fills `buffer` from `offset_bytes` on. What the disk has beyond the end of the file, its last sector's rest, is
    /// zeros.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] beyond the disk; whatever the system says, then `buffer` may have changed.
    pub fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        let gate = self.open_gate();
        let file = self.file(&gate)?;
        gate.check_range(offset_bytes, buffer.len() as u64)?;
        let failed = |error| Error::io("cannot read data image", &self.path, error);
        let count = file.read_at(offset_bytes, buffer).map_err(failed)?;
        let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        let length_bytes = file.length().map_err(failed)?;
        if disk_size(&self.path, length_bytes)? < gate.size_bytes {
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "data image {}: it was cut to {length_bytes} bytes behind our back, the disk has {}",
                    quoted(self.path.display()),
                    gate.size_bytes
                ),
            ));
        }
        rest.fill(0);
        Ok(())
    }

    /// Writes `data` at `offset_bytes`. The range is recorded before the data moves; it survives the process when this
    /// returns, a power cut after [`flush`](Self::flush). May wait for the disk.
    ///
    /// Nothing orders writes that overlap, nor makes one atomic: as `pwrite(2)`.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`]; [`ErrorKind::Invalid`] beyond the disk; whatever the system says: any part of the data may
    /// have been written then, and the range is dirty.
    pub fn write(&self, image: &Image, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let length_bytes = data.len() as u64;
        self.change(image, offset_bytes, length_bytes, |file| {
            file.write_at(offset_bytes, data)
        })
    }

    /// Makes a range read as zeros, with `may_unmap` perhaps by giving its space back. Otherwise as
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_zeroes(
        &self,
        image: &Image,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
    ) -> Result<()> {
        self.change(image, offset_bytes, length_bytes, |file| {
            file.write_zeroes(offset_bytes, length_bytes, may_unmap)
        })
    }

    /// Says that a range's content is needed no more: its space is given back where that is possible. Advice; afterwards
    /// the range reads as zeros or as before, and is dirty in either case.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn discard(&self, image: &Image, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.change(image, offset_bytes, length_bytes, |file| {
            file.discard(offset_bytes, length_bytes)
        })
    }

    /// Makes every write that has returned durable. Waits for the disk.
    ///
    /// # Errors
    /// Whatever the system says. That is final: what was written before may be lost, every later flush fails too, and
    /// every bitmap is inconsistent.
    pub fn flush(&self, image: &Image) -> Result<()> {
        let gate = self.open_gate();
        let file = self.file(&gate)?;
        self.check_image(image)?;
        self.sync(file).inspect_err(|_| {
            // What fails here too is done again at the end.
            let _ = self.distrust(image);
        })
    }

    /// Cuts the data image or grows it with zeros, and the bitmaps with it; what it gains is dirty. Waits until no data
    /// moves, and for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`]; [`ErrorKind::Unsupported`] for a block device; what [`Image::begin_resize`] and
    /// [`Image::end_resize`] say; whatever the system says. Disk and bitmaps have the data image's size in every case.
    pub fn resize(&self, image: &Image, size_bytes: u64) -> Result<()> {
        let mut gate = self.close_gate();
        let file = self.file(&gate)?;
        self.check_writable(image)?;
        if !file.is_regular() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "data image {}: a block device has the size that it has",
                    quoted(self.path.display())
                ),
            ));
        }
        let disk_bytes = caps::round_image_size(size_bytes)?;
        // A cut in the middle of a sector makes zeros of its rest, which the disk keeps: that is a write.
        let rest_bytes = disk_bytes.min(gate.size_bytes).saturating_sub(size_bytes);
        let _rest = Announced::begin(image, size_bytes, rest_bytes)?;
        image.begin_resize(size_bytes)?;
        let done = file.set_length(size_bytes);
        let length = file.length();
        let expected = if done.is_ok() {
            size_bytes
        } else {
            gate.size_bytes
        };
        let actual_bytes = length.unwrap_or(expected);
        let ended = image.end_resize(actual_bytes);
        gate.size_bytes = disk_size(&self.path, actual_bytes)?;
        done.map_err(|error| Error::io("cannot resize data image", &self.path, error))?;
        ended
    }

    fn change(
        &self,
        image: &Image,
        offset_bytes: u64,
        length_bytes: u64,
        io: impl FnOnce(&dyn DataFile) -> io::Result<()>,
    ) -> Result<()> {
        let gate = self.open_gate();
        let file = self.file(&gate)?;
        self.check_writable(image)?;
        gate.check_range(offset_bytes, length_bytes)?;
        if length_bytes == 0 {
            return Ok(());
        }
        let _announced = Announced::begin(image, offset_bytes, length_bytes)?;
        io(file).map_err(|error| Error::io("cannot write data image", &self.path, error))
    }

    fn file<'a>(&self, gate: &'a Gate) -> Result<&'a dyn DataFile> {
        gate.file.as_deref().ok_or_else(|| {
            let error = io::Error::from_raw_os_error(libc::EBADF);
            Error::io("closed already: data image", &self.path, error)
        })
    }

    fn check_writable(&self, image: &Image) -> Result<()> {
        self.check_image(image)?;
        if self.read_only {
            return Err(image.not_writable());
        }
        Ok(())
    }
}

impl Gate {
    fn check_range(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let end = offset_bytes.checked_add(length_bytes);
        if end.is_some_and(|end| end <= self.size_bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "range of {length_bytes} bytes at {offset_bytes}: beyond the disk's {} bytes",
            self.size_bytes
        )))
    }
}
