// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be done to a bitmap besides recording: its name, its user data, ranges marked by hand.

use super::Image;
use crate::caps;
use crate::descriptor::Descriptor;
use crate::error::{Error, ErrorKind, Result, quoted};

/// Whether what a user adds leaves room for what the engine has to add later: a descriptor that is full could neither be
/// closed nor recovered.
pub(super) fn check_room(descriptor: &Descriptor) -> Result<()> {
    let text_bytes = descriptor.to_text()?.len() as u64;
    let allowed_bytes = caps::DESCRIPTOR_BYTES_MAX - caps::DESCRIPTOR_RESERVED_BYTES;
    if text_bytes <= allowed_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooBig,
        format!("the descriptor would take {text_bytes} bytes, at most {allowed_bytes}"),
    ))
}

impl Image {
    /// Gives a bitmap another name; durable when this returns. Its file keeps the one that it has.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::Exists`], [`ErrorKind::NameTooLong`],
    /// [`ErrorKind::Invalid`], [`ErrorKind::ReadOnly`], [`ErrorKind::Busy`]; whatever the system says.
    pub fn rename_bitmap(&self, from: &str, to: &str) -> Result<()> {
        let mut state = self.lock();
        self.writable(&state)?;
        caps::check_bitmap_name(to)?;
        state.check_not_frozen(from)?;
        let mut descriptor = state.descriptor.clone();
        let Some(entry) = descriptor.bitmap_mut(from) else {
            return Err(self.no_such_bitmap(&state, from));
        };
        if from == to {
            return Ok(());
        }
        if state.descriptor.has_name(to) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("bitmap {} exists already", quoted(to)),
            ));
        }
        to.clone_into(&mut entry.name);
        check_room(&descriptor)?;
        self.commit(&mut state, descriptor)?;
        let loaded = state
            .active
            .iter_mut()
            .flat_map(|active| &mut active.loaded);
        for (name, _) in loaded {
            if name == from {
                to.clone_into(name);
            }
        }
        self.publish(&state);
        Ok(())
    }

    /// What the bitmap's user keeps with it; `None`: nothing. Of an inconsistent bitmap, what can be made out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn user_data(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let state = self.lock();
        if let Some(entry) = state.descriptor.bitmap(name) {
            return Ok(entry.user_data.clone());
        }
        let mut inconsistent = state.descriptor.inconsistent.iter();
        let entry = inconsistent.find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| self.no_such_bitmap(&state, name))?;
        Ok(entry.user_data())
    }

    /// Keeps up to 65,536 bytes of any content with a bitmap, or (`None`) nothing any more; durable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::TooBig`] (that, or the descriptor's cap),
    /// [`ErrorKind::ReadOnly`]; whatever the system says.
    pub fn set_user_data(&self, name: &str, data: Option<&[u8]>) -> Result<()> {
        let mut state = self.lock();
        self.writable(&state)?;
        if let Some(data) = data {
            caps::check_user_data_bytes(data.len())
                .map_err(|error| error.within(format_args!("bitmap {}", quoted(name))))?;
        }
        let mut descriptor = state.descriptor.clone();
        let entry = descriptor
            .bitmap_mut(name)
            .ok_or_else(|| self.no_such_bitmap(&state, name))?;
        entry.user_data = data.map(<[u8]>::to_vec);
        check_room(&descriptor)?;
        self.commit(&mut state, descriptor)?;
        self.publish(&state);
        Ok(())
    }

    /// Marks a range dirty, rounded outwards to granules, whether the bitmap records or not. As durable as a guest's
    /// write, and to a frozen bitmap as much a later one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::ReadOnly`], [`ErrorKind::Invalid`] for a range beyond the disk;
    /// [`ErrorKind::Io`] when it could not be recorded: the bitmap is inconsistent then.
    pub fn mark_dirty(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        // Under the lock: another operation may be about to replace the recorder.
        let mut state = self.lock();
        let recorder = self.loaded_in(&state, name)?;
        let size_bytes = self.writable(&state)?.size_bytes;
        if offset_bytes
            .checked_add(length_bytes)
            .is_none_or(|end| end > size_bytes)
        {
            return Err(Error::invalid(format!(
                "range of {length_bytes} bytes at {offset_bytes}: beyond the disk's {size_bytes} bytes"
            )));
        }
        if recorder.record(offset_bytes, length_bytes) {
            if let Some(frozen) = state.frozen(name) {
                frozen.since.record(offset_bytes, length_bytes);
            }
            return self.mark_pending(&mut state, name, |pending| {
                pending.record(offset_bytes, length_bytes)
            });
        }
        let reason = "a range could not be marked in the bitmap file";
        self.retire(&mut state, name, reason)?;
        Err(Error::new(
            ErrorKind::Io,
            format!("bitmap {}: {reason}", quoted(name)),
        ))
    }
}
