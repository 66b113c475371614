// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a descriptor's text. It is untrusted.
//!
//! A broken rule is an error, with two exceptions: what is wrong with the values of one dirty bitmap costs that bitmap
//! only, and what is wrong with our own `ext-soft-` members never keeps the disk from opening (I5). An unknown key, an
//! `ext-hard-` that is not known and anything that concerns the data stay errors.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::bitmap::{Kind, read_kind};
use super::read::{check_keys, read, read_object, required, shown};
use super::{
    AllocationEntry, BitmapEntry, Descriptor, ImageReference, InconsistentEntry, Object, Session,
    key,
};
use crate::caps;
use crate::error::{Error, ErrorKind, Result, quoted};

fn read_session(value: &RawValue) -> Result<Session> {
    serde_json::from_str(value.get()).map_err(|error| {
        let text = format!(
            "{}: not a session record that this version knows: {}",
            key::SESSION,
            super::read::without_position(&error)
        );
        Error::new(ErrorKind::Unsupported, text)
    })
}

fn too_many(place: &str, count: usize) -> Error {
    Error::new(
        ErrorKind::TooBig,
        format!("{place}: {count} bitmaps, at most {}", caps::BITMAPS_MAX),
    )
}

impl Descriptor {
    /// Reads a descriptor. Messages name the member, from the outermost on.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let outer: Object = serde_json::from_slice(text)
            .map_err(|error| Error::invalid(format!("not a QBM descriptor: {error}")))?;
        let object = read_object(
            required(&outer, "not a QBM descriptor", key::QBM)?,
            key::QBM,
        )?;
        let version_value = required(&object, key::QBM, key::VERSION)?;
        let version: u64 = read(version_value, key::VERSION, "an integer")?;
        if version != 1 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: {version} is not supported, only 1 is", key::VERSION),
            ));
        }
        check_keys(&outer, "outermost object", &[key::QBM])?;
        let known = [
            key::VERSION,
            key::IMAGE,
            key::BITMAPS,
            key::BITMAPS_UPPER,
            key::SESSION,
        ];
        check_keys(&object, key::QBM, &known)?;
        let image = ImageReference::read(required(&object, key::QBM, key::IMAGE)?, key::IMAGE)?;
        let mut descriptor = Self {
            outer,
            ..Self::over(image)
        };
        if let Some(value) = object.get(key::SESSION) {
            descriptor.session = Some(read_session(value)?);
        }
        let expected = "a durability that this version knows";
        descriptor.durability = descriptor.read_soft(&object, key::DURABILITY, expected);
        let expected = "a rule for storing bitmaps that this version knows";
        descriptor.persist_bitmaps = descriptor.read_soft(&object, key::PERSIST_BITMAPS, expected);
        descriptor.seal = descriptor.read_soft(&object, key::SEAL, "a seal");
        descriptor.seal_is_damaged = descriptor.seal.is_none() && object.get(key::SEAL).is_some();
        descriptor.trusted = descriptor
            .read_soft(&object, key::TRUSTED, "an array")
            .unwrap_or_default();
        descriptor.read_inconsistent(&object)?;
        descriptor.read_bitmaps(&object)?;
        descriptor.object = object;
        descriptor.object.rename(key::BITMAPS_UPPER, key::BITMAPS);
        Ok(descriptor)
    }

    /// A member of ours in the QBM object that may be ignored; what is wrong with it is noted.
    fn read_soft<T: DeserializeOwned>(
        &mut self,
        object: &Object,
        member: &str,
        expected: &str,
    ) -> Option<T> {
        let value = object.get(member)?;
        let read = serde_json::from_str(value.get());
        if read.is_err() {
            let text = format!("{member}: {} is not {expected}; ignored", shown(value));
            self.ignored.push(text);
        }
        read.ok()
    }

    fn read_inconsistent(&mut self, object: &Object) -> Result<()> {
        let expected = "an object with the bitmaps that are inconsistent";
        let list: Option<Object> = self.read_soft(object, key::INCONSISTENT, expected);
        self.list_is_unreadable = list.is_none() && object.get(key::INCONSISTENT).is_some();
        let list = list.unwrap_or_default();
        if list.len() > caps::BITMAPS_MAX {
            return Err(too_many(key::INCONSISTENT, list.len()));
        }
        let entries = list.iter();
        self.inconsistent = entries
            .map(|(name, value)| InconsistentEntry::read(name, value))
            .collect();
        Ok(())
    }

    fn read_bitmaps(&mut self, object: &Object) -> Result<()> {
        let value = match (object.get(key::BITMAPS), object.get(key::BITMAPS_UPPER)) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "{}: both {} and {}",
                    key::QBM,
                    key::BITMAPS,
                    key::BITMAPS_UPPER
                )));
            }
            (Some(value), None) | (None, Some(value)) => value,
            (None, None) => return Ok(()),
        };
        let entries = read_object(value, key::BITMAPS)?;
        if entries.len() > caps::BITMAPS_MAX {
            return Err(too_many(key::BITMAPS, entries.len()));
        }
        let listed = self.inconsistent.iter().map(|entry| entry.name.clone());
        let listed: HashSet<String> = listed.collect();
        for (name, value) in entries.iter() {
            let place = format!("{}.{}", key::BITMAPS, quoted(name));
            if read_kind(value, &place)? == Kind::Allocation {
                self.read_allocation(name, value, &place)?;
                continue;
            }
            if listed.contains(name) {
                continue; // Also listed as inconsistent: that is what it is.
            }
            match BitmapEntry::read(name, value, &place) {
                Ok(entry) => self.bitmaps.push(entry),
                Err(error) => {
                    self.invalid.push(name.to_owned());
                    self.inconsistent.push(InconsistentEntry::new(
                        name.to_owned(),
                        value.to_owned(),
                        error.to_string(),
                    ));
                }
            }
        }
        if self.names_count() > caps::BITMAPS_MAX {
            return Err(too_many(key::BITMAPS, self.names_count()));
        }
        Ok(())
    }

    fn read_allocation(&mut self, name: &str, value: &RawValue, place: &str) -> Result<()> {
        if let Some(other) = &self.allocation {
            return Err(Error::invalid(format!(
                "{place}: a second allocation bitmap, beside {}",
                quoted(&other.name)
            )));
        }
        self.allocation = Some(AllocationEntry::read(name, value, place)?);
        Ok(())
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
