// SPDX-License-Identifier: MIT OR Apache-2.0
//! IMAGE: where data is.

use serde_json::value::RawValue;

use super::read::{check_keys, read, read_file_name, read_object, required};
use super::{Object, key};
use crate::caps;
use crate::error::{Error, Result, quoted};

/// An IMAGE: where the guest's data is, or that of a backing file.
#[derive(Debug, Clone)]
pub(crate) struct ImageReference {
    /// File name, relative to the descriptor's directory unless absolute.
    pub(crate) file: String,
    /// QEMU's name of the format.
    pub(crate) format: String,
    object: Object,
}

/// A format name is handed to QEMU as a driver's name: letters, digits, `-`, `_`.
pub(crate) fn check_format(format: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if format.is_empty()
        || format.len() > caps::FORMAT_NAME_BYTES_MAX
        || !format.bytes().all(is_plain)
    {
        return Err(Error::invalid(format!(
            "{} is not a format name",
            quoted(format)
        )));
    }
    Ok(())
}

impl ImageReference {
    pub(super) fn new(file: String, format: String) -> Self {
        Self {
            file,
            format,
            object: Object::default(),
        }
    }

    pub(super) fn read(value: &RawValue, place: &str) -> Result<Self> {
        let object = read_object(value, place)?;
        check_keys(&object, place, &[key::FILE, key::FORMAT])?;
        let file = read_file_name(&object, place)?;
        let at = format!("{place}.{}", key::FORMAT);
        let format: String = read(required(&object, place, key::FORMAT)?, &at, "a string")?;
        check_format(&format).map_err(|error| error.within(&at))?;
        Ok(Self {
            file,
            format,
            object,
        })
    }

    pub(super) fn to_object(&self) -> Object {
        let mut object = self.object.clone();
        object.set(key::FILE, &self.file);
        object.set(key::FORMAT, &self.format);
        object
    }
}
