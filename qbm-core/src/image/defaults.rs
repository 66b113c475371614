// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image says of itself where its opener says nothing, and its change.

use super::operations::check_room;
use super::{Image, State};
use crate::descriptor::{DescriptorFile, Durability, PersistBitmaps};
use crate::error::Result;
use crate::storage::Access;

/// Stored defaults; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The durability of sessions to come.
    pub durability: Option<Durability>,
    /// Which bitmaps are to be stored.
    pub persist_bitmaps: Option<PersistBitmaps>,
}

impl Image {
    /// Changes what is stored, all at once (I4); durable when this returns. The image need not be active. The durability in
    /// force stays that of the session. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly) for an image that is open or active for reading,
    /// [`ErrorKind::TooBig`](crate::ErrorKind::TooBig) at the descriptor's cap; whatever the system says.
    pub fn set_defaults(&self, defaults: &Defaults) -> Result<()> {
        let mut state = self.lock();
        match &state.active {
            Some(_) => {
                self.writable(&state)?;
            }
            None => self.take_over_idle(&mut state)?,
        }
        let mut descriptor = state.descriptor.clone();
        descriptor.durability = defaults.durability.or(descriptor.durability);
        descriptor.persist_bitmaps = defaults.persist_bitmaps.or(descriptor.persist_bitmaps);
        check_room(&descriptor)?;
        self.commit(&mut state, descriptor)
    }

    /// The descriptor, for one change without a session. With the caller's locks another process may have had it since it
    /// was read.
    fn take_over_idle(&self, state: &mut State) -> Result<()> {
        if self.options.read_only || self.options.shared {
            return Err(self.not_for_writing());
        }
        if self.options.no_lock {
            state.file = DescriptorFile::open(&*self.storage, &self.path, Access::ReadWrite)?;
        }
        state.file.repair(&*self.storage)?;
        state.descriptor = state.file.read(&*self.storage)?;
        self.check_supported(&state.descriptor)
    }
}
