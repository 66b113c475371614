// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a descriptor's text. It is untrusted.
//!
//! A broken rule is an error, with one exception: what is wrong with the values of one dirty bitmap costs that bitmap
//! only (I5). An unknown key, an `ext-hard-` that is not known and anything that concerns the data stay errors.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{BitmapEntry, Descriptor, ImageReference, InconsistentEntry, Object, key};
use crate::bits::Granularity;
use crate::caps;
use crate::error::{Error, ErrorKind, Result, quoted};

/// Names of the JSON types, for messages.
fn type_name(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// `value` as a `T`, which `expected` describes.
fn read<T: DeserializeOwned>(value: &RawValue, place: &str, expected: &str) -> Result<T> {
    serde_json::from_str(value.get()).map_err(|_| {
        let shown = if value.get().len() <= 60 {
            value.get()
        } else {
            type_name(value)
        };
        Error::invalid(format!("{place}: {shown} is not {expected}"))
    })
}

fn read_object(value: &RawValue, place: &str) -> Result<Object> {
    serde_json::from_str(value.get()).map_err(|error| {
        if value.get().starts_with('{') {
            Error::invalid(format!("{place}: {}", without_position(&error)))
        } else {
            Error::invalid(format!("{place}: {} is not an object", type_name(value)))
        }
    })
}

/// serde_json counts lines within the piece it was given; that position would mislead.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn required<'a>(object: &'a Object, place: &str, member: &str) -> Result<&'a RawValue> {
    object
        .get(member)
        .ok_or_else(|| Error::invalid(format!("{place}: member {} is missing", quoted(member))))
}

/// Every member must be known, or be an extension that may be skipped.
fn check_keys(object: &Object, place: &str, known: &[&str]) -> Result<()> {
    for (member, _) in object.iter() {
        if known.contains(&member) || member.starts_with(key::SOFT) {
            continue;
        }
        let at = |what: &str| format!("{place}: {what} {}", quoted(member));
        return Err(if member.starts_with(key::HARD) {
            Error::new(
                ErrorKind::Unsupported,
                at("this version does not know the required extension"),
            )
        } else {
            Error::invalid(at("unknown member"))
        });
    }
    Ok(())
}

fn read_file_name(object: &Object, place: &str) -> Result<String> {
    let at = format!("{place}.{}", key::FILE);
    let name: String = read(required(object, place, key::FILE)?, &at, "a string")?;
    if name.is_empty() || name.contains('\0') {
        return Err(Error::invalid(format!(
            "{at}: {} is not a file name",
            quoted(name)
        )));
    }
    if name.len() > caps::FILE_NAME_BYTES_MAX {
        return Err(Error::invalid(format!(
            "{at}: {} bytes, at most {}",
            name.len(),
            caps::FILE_NAME_BYTES_MAX
        )));
    }
    Ok(name)
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

fn read_image(value: &RawValue, place: &str) -> Result<ImageReference> {
    let object = read_object(value, place)?;
    check_keys(&object, place, &[key::FILE, key::FORMAT])?;
    let file = read_file_name(&object, place)?;
    let at = format!("{place}.{}", key::FORMAT);
    let format: String = read(required(&object, place, key::FORMAT)?, &at, "a string")?;
    check_format(&format).map_err(|error| error.within(&at))?;
    Ok(ImageReference {
        file,
        format,
        object,
    })
}

/// What a reader must not overlook in a BITMAP, whatever else is wrong with it.
fn check_bitmap_is_dirty(value: &RawValue, place: &str) -> Result<()> {
    let Ok(object) = serde_json::from_str::<Object>(value.get()) else {
        return Ok(());
    };
    let known = [key::FILE, key::GRANULARITY, key::TYPE, key::BACKING];
    check_keys(&object, place, &known)?;
    let Some(kind) = object.get(key::TYPE) else {
        return Ok(());
    };
    match serde_json::from_str::<String>(kind.get()).as_deref() {
        Ok("dirty") => Ok(()),
        Ok("allocation") => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{place}.type: allocation bitmaps are not supported"),
        )),
        Ok(other) => Err(Error::invalid(format!(
            "{place}.type: {} is neither \"dirty\" nor \"allocation\"",
            quoted(other)
        ))),
        // No type at all can be told: the entry is damaged, and costs itself.
        Err(_) => Ok(()),
    }
}

fn read_bitmap(name: &str, value: &RawValue, place: &str) -> Result<BitmapEntry> {
    caps::check_bitmap_name(name)?;
    let object = read_object(value, place)?;
    let file = read_file_name(&object, place)?;
    let at = |member: &str| format!("{place}.{member}");
    let _: String = read(
        required(&object, place, key::TYPE)?,
        &at(key::TYPE),
        "a string",
    )?;
    if object.get(key::BACKING).is_some() {
        return Err(Error::invalid(format!(
            "{}: only an allocation bitmap has one",
            at(key::BACKING)
        )));
    }
    let granularity_bytes: u64 = read(
        required(&object, place, key::GRANULARITY)?,
        &at(key::GRANULARITY),
        "an integer of bytes",
    )?;
    let granularity =
        Granularity::new(granularity_bytes).map_err(|error| error.within(at(key::GRANULARITY)))?;
    let recording = match object.get(key::RECORDING) {
        Some(value) => read(value, &at(key::RECORDING), "a boolean")?,
        None => true,
    };
    Ok(BitmapEntry {
        name: name.to_owned(),
        file,
        granularity,
        recording,
        object,
    })
}

fn read_inconsistent(value: &RawValue, place: &str) -> Result<Vec<InconsistentEntry>> {
    #[derive(serde::Deserialize)]
    struct Stored {
        bitmap: Box<RawValue>,
        reason: String,
    }
    let mut entries = Vec::new();
    for (name, value) in read_object(value, place)?.iter() {
        let at = format!("{place}.{}", quoted(name));
        let Stored { bitmap, reason } =
            read(value, &at, "an object with \"bitmap\" and \"reason\"")?;
        entries.push(InconsistentEntry {
            name: name.to_owned(),
            bitmap,
            reason,
        });
    }
    Ok(entries)
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

        let mut descriptor = Self {
            image: read_image(required(&object, key::QBM, key::IMAGE)?, key::IMAGE)?,
            bitmaps: Vec::new(),
            inconsistent: Vec::new(),
            durability: None,
            session: None,
            seal: None,
            complaints: Vec::new(),
            outer,
            object: Object::default(),
        };
        if let Some(value) = object.get(key::INCONSISTENT) {
            descriptor.inconsistent = read_inconsistent(value, key::INCONSISTENT)?;
        }
        if let Some(value) = object.get(key::DURABILITY) {
            let expected = "\"close\" or \"process\"";
            descriptor.durability = Some(read(value, key::DURABILITY, expected)?);
        }
        if let Some(value) = object.get(key::SESSION) {
            descriptor.session = Some(read(value, key::SESSION, "a session record")?);
        }
        if let Some(value) = object.get(key::SEAL) {
            descriptor.seal = Some(read(value, key::SEAL, "a seal")?);
        }
        descriptor.read_bitmaps(&object)?;
        descriptor.object = object;
        descriptor.object.rename(key::BITMAPS_UPPER, key::BITMAPS);
        Ok(descriptor)
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
        for (name, value) in entries.iter() {
            let place = format!("{}.{}", key::BITMAPS, quoted(name));
            check_bitmap_is_dirty(value, &place)?;
            if self.has_name(name) {
                continue; // Also listed as inconsistent: that is what it is.
            }
            match read_bitmap(name, value, &place) {
                Ok(entry) => self.bitmaps.push(entry),
                Err(error) => {
                    let reason = error.to_string();
                    self.complaints.push(reason.clone());
                    self.inconsistent.push(InconsistentEntry {
                        name: name.to_owned(),
                        bitmap: value.to_owned(),
                        reason,
                    });
                }
            }
        }
        if self.names_count() > caps::BITMAPS_MAX {
            return Err(Error::new(
                ErrorKind::TooBig,
                format!(
                    "{}: {} bitmaps, at most {}",
                    key::BITMAPS,
                    self.names_count(),
                    caps::BITMAPS_MAX
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
