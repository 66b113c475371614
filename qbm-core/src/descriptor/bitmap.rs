// SPDX-License-Identifier: MIT OR Apache-2.0
//! BITMAP: the entries of `bitmaps`.
//!
//! What a reader must not overlook (unknown members, `ext-hard-`, the type) is an error of the image. What is wrong with
//! the values of a dirty bitmap costs that bitmap only (I5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::{RawValue, to_raw_value};

use super::read::{check_keys, read, read_file_name, read_object, required};
use super::{ImageReference, Object, key};
use crate::bits::Granularity;
use crate::caps;
use crate::error::{Error, Result, quoted};

/// A usable dirty bitmap.
#[derive(Debug, Clone)]
pub(crate) struct BitmapEntry {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) granularity: Granularity,
    pub(crate) recording: bool,
    /// CRC-32C of the bitmap file as the last clean close left it; means nothing during a session.
    pub(crate) crc32c: Option<u32>,
    pub(crate) user_data: Option<Vec<u8>>,
    object: Object,
}

/// The allocation bitmap.
#[derive(Debug, Clone)]
pub(crate) struct AllocationEntry {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) granularity: Granularity,
    pub(crate) crc32c: Option<u32>,
    /// File name of the backing image.
    pub(crate) backing_file: Option<String>,
    /// The BITMAP as it stands.
    bitmap: Box<RawValue>,
}

/// What `type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dirty,
    Allocation,
}

/// The type of a BITMAP, after looking for what must not be overlooked. What is no object, or has no type that can be
/// made out, is a damaged dirty bitmap: it costs itself.
pub(super) fn read_kind(value: &RawValue, place: &str) -> Result<Kind> {
    if !value.get().starts_with('{') {
        return Ok(Kind::Dirty);
    }
    // A name that occurs twice could hide an `ext-hard-` or a type.
    let object = read_object(value, place)?;
    let known = [key::FILE, key::GRANULARITY, key::TYPE, key::BACKING];
    check_keys(&object, place, &known)?;
    let Some(kind) = object.get(key::TYPE) else {
        return Ok(Kind::Dirty);
    };
    match serde_json::from_str::<String>(kind.get()).as_deref() {
        Ok("allocation") => Ok(Kind::Allocation),
        Ok("dirty") | Err(_) => Ok(Kind::Dirty),
        Ok(other) => Err(Error::invalid(format!(
            "{place}.type: {} is neither \"dirty\" nor \"allocation\"",
            quoted(other)
        ))),
    }
}

/// What both kinds have.
struct Common {
    file: String,
    granularity: Granularity,
    crc32c: Option<u32>,
    object: Object,
}

fn read_common(name: &str, value: &RawValue, place: &str) -> Result<Common> {
    caps::check_bitmap_name(name)?;
    let object = read_object(value, place)?;
    let at = |member: &str| format!("{place}.{member}");
    let file = read_file_name(&object, place)?;
    let _: String = read(
        required(&object, place, key::TYPE)?,
        &at(key::TYPE),
        "a string",
    )?;
    let granularity_bytes: u64 = read(
        required(&object, place, key::GRANULARITY)?,
        &at(key::GRANULARITY),
        "an integer of bytes",
    )?;
    let granularity =
        Granularity::new(granularity_bytes).map_err(|error| error.within(at(key::GRANULARITY)))?;
    let crc32c = match object.get(key::CHECKSUM) {
        Some(value) => Some(read_crc32c(value, &at(key::CHECKSUM))?),
        None => None,
    };
    Ok(Common {
        file,
        granularity,
        crc32c,
        object,
    })
}

fn read_crc32c(value: &RawValue, place: &str) -> Result<u32> {
    let expected = "eight hexadecimal digits";
    let digits: String = read(value, place, expected)?;
    let is_plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(&digits, 16).ok();
    number
        .filter(|_| is_plain)
        .ok_or_else(|| Error::invalid(format!("{place}: {} is not {expected}", quoted(digits))))
}

/// User data from its base64.
pub(super) fn decode_user_data(text: &str) -> Result<Vec<u8>> {
    // Four characters for three bytes; what is longer is not worth decoding.
    let bytes_min = (text.len() / 4).saturating_mul(3).saturating_sub(2);
    caps::check_user_data_bytes(bytes_min)?;
    let data = BASE64
        .decode(text)
        .map_err(|error| Error::invalid(format!("not base64: {error}")))?;
    caps::check_user_data_bytes(data.len())?;
    Ok(data)
}

impl BitmapEntry {
    pub(crate) fn new(
        name: String,
        file: String,
        granularity: Granularity,
        recording: bool,
    ) -> Self {
        Self {
            name,
            file,
            granularity,
            recording,
            crc32c: None,
            user_data: None,
            object: Object::default(),
        }
    }

    pub(super) fn read(name: &str, value: &RawValue, place: &str) -> Result<Self> {
        let common = read_common(name, value, place)?;
        let at = |member: &str| format!("{place}.{member}");
        if common.object.get(key::BACKING).is_some() {
            return Err(Error::invalid(format!(
                "{}: only an allocation bitmap has one",
                at(key::BACKING)
            )));
        }
        let recording = match common.object.get(key::RECORDING) {
            Some(value) => read(value, &at(key::RECORDING), "a boolean")?,
            None => true,
        };
        let user_data = match common.object.get(key::USER_DATA) {
            Some(value) => {
                let text: String = read(value, &at(key::USER_DATA), "a string of base64")?;
                let data = decode_user_data(&text);
                Some(data.map_err(|error| error.within(at(key::USER_DATA)))?)
            }
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            file: common.file,
            granularity: common.granularity,
            recording,
            crc32c: common.crc32c,
            user_data,
            object: common.object,
        })
    }

    fn to_object(&self) -> Object {
        let mut object = self.object.clone();
        object.set(key::FILE, &self.file);
        object.set(key::GRANULARITY, &self.granularity.bytes());
        object.set(key::TYPE, &"dirty");
        // Recording is what a bitmap does; only the exception is spelt out.
        object.set_or_unset(key::RECORDING, (!self.recording).then_some(&false));
        let crc32c = self.crc32c.map(|crc32c| format!("{crc32c:08x}"));
        object.set_or_unset(key::CHECKSUM, crc32c.as_ref());
        let user_data = self.user_data.as_ref().map(|data| BASE64.encode(data));
        object.set_or_unset(key::USER_DATA, user_data.as_ref());
        object
    }

    pub(super) fn to_raw(&self) -> Box<RawValue> {
        // An object of text always serializes.
        to_raw_value(&self.to_object()).unwrap_or_default()
    }
}

impl AllocationEntry {
    /// Unlike a dirty bitmap, this one is part of the data: whatever is wrong with it is an error of the image.
    pub(super) fn read(name: &str, value: &RawValue, place: &str) -> Result<Self> {
        let common = read_common(name, value, place)?;
        let at = format!("{place}.{}", key::BACKING);
        let backing = match common.object.get(key::BACKING) {
            Some(backing) => Some(ImageReference::read(backing, &at)?),
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            file: common.file,
            granularity: common.granularity,
            crc32c: common.crc32c,
            backing_file: backing.map(|backing| backing.file),
            bitmap: value.to_owned(),
        })
    }

    /// Its file and the backing image.
    pub(crate) fn files(&self) -> Vec<String> {
        let backing = self.backing_file.iter().cloned();
        backing.chain([self.file.clone()]).collect()
    }

    pub(super) fn to_raw(&self) -> Box<RawValue> {
        self.bitmap.clone()
    }
}
