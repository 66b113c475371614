// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading members of untrusted objects. Messages name the place, the value and what it should have been.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Object, key};
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
pub(super) fn read<T: DeserializeOwned>(
    value: &RawValue,
    place: &str,
    expected: &str,
) -> Result<T> {
    serde_json::from_str(value.get())
        .map_err(|_| Error::invalid(format!("{place}: {} is not {expected}", shown(value))))
}

/// A short value as it stands, of a long one the type.
pub(super) fn shown(value: &RawValue) -> &str {
    const BYTES_MAX: usize = 60;
    let is_short = value.get().len() <= BYTES_MAX && !value.get().contains('\n');
    if is_short {
        value.get()
    } else {
        type_name(value)
    }
}

pub(super) fn read_object(value: &RawValue, place: &str) -> Result<Object> {
    serde_json::from_str(value.get()).map_err(|error| {
        if value.get().starts_with('{') {
            Error::invalid(format!("{place}: {}", without_position(&error)))
        } else {
            Error::invalid(format!("{place}: {} is not an object", type_name(value)))
        }
    })
}

/// serde_json counts lines within the piece it was given; that position would mislead.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((before, _)) => before.to_owned(),
        None => text,
    }
}

pub(super) fn required<'a>(object: &'a Object, place: &str, member: &str) -> Result<&'a RawValue> {
    object
        .get(member)
        .ok_or_else(|| Error::invalid(format!("{place}: member {} is missing", quoted(member))))
}

/// Every member must be known, or be an extension that may be skipped.
pub(super) fn check_keys(object: &Object, place: &str, known: &[&str]) -> Result<()> {
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

pub(super) fn read_file_name(object: &Object, place: &str) -> Result<String> {
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
