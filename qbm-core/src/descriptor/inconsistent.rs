// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ext-soft-qbm-inconsistent`: bitmaps that can only be removed.

use serde_json::value::{RawValue, to_raw_value};

use super::bitmap::decode_user_data;
use super::{Object, key};
use crate::bits::Granularity;

/// A bitmap that can only be removed: the entry as it was, and why.
#[derive(Debug, Clone)]
pub(crate) struct InconsistentEntry {
    pub(crate) name: String,
    /// The BITMAP, kept to the letter even where it is not valid.
    pub(crate) bitmap: Box<RawValue>,
    pub(crate) reason: String,
    /// The element of the list, with members that we do not know.
    object: Object,
}

const REASON: &str = "reason";
const BITMAP: &str = "bitmap";

impl InconsistentEntry {
    pub(crate) fn new(name: String, bitmap: Box<RawValue>, reason: String) -> Self {
        Self {
            name,
            bitmap,
            reason,
            object: Object::default(),
        }
    }

    /// An element that cannot be read is still a bitmap that cannot be used.
    pub(super) fn read(name: &str, value: &RawValue) -> Self {
        let read = || {
            let object: Object = serde_json::from_str(value.get()).ok()?;
            let reason = serde_json::from_str(object.get(REASON)?.get()).ok()?;
            let bitmap = object.get(BITMAP)?.to_owned();
            Some(Self {
                object,
                ..Self::new(name.to_owned(), bitmap, reason)
            })
        };
        read().unwrap_or_else(|| {
            let reason = "its entry among the inconsistent bitmaps cannot be read";
            Self::new(name.to_owned(), value.to_owned(), reason.into())
        })
    }

    pub(super) fn to_raw(&self) -> Box<RawValue> {
        let mut object = self.object.clone();
        object.set(REASON, &self.reason);
        object.set(BITMAP, &self.bitmap);
        // Text always serializes.
        to_raw_value(&object).unwrap_or_default()
    }

    fn member<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        let object: Object = serde_json::from_str(self.bitmap.get()).ok()?;
        serde_json::from_str(object.get(name)?.get()).ok()
    }

    /// The file that the entry names, if it can be made out.
    pub(crate) fn file(&self) -> Option<String> {
        self.member(key::FILE)
    }

    /// The granularity in bytes, if the entry has a valid one.
    pub(crate) fn granularity_bytes(&self) -> Option<u64> {
        let bytes = self.member(key::GRANULARITY)?;
        Granularity::new(bytes).ok().map(Granularity::bytes)
    }

    /// The user data, if the entry has any that can be read.
    pub(crate) fn user_data(&self) -> Option<Vec<u8>> {
        decode_user_data(&self.member::<String>(key::USER_DATA)?).ok()
    }
}
