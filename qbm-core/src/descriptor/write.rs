// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing a descriptor's text: known members replaced where they stand, all others kept.

use serde_json::value::{RawValue, to_raw_value};

use super::{BitmapEntry, Descriptor, Object, key};
use crate::caps;
use crate::error::{Error, ErrorKind, Result};

/// Stands where the checksum goes while it is computed.
const CHECKSUM_BLANK: &str = "00000000";

impl BitmapEntry {
    fn to_object(&self) -> Object {
        let mut object = self.object.clone();
        object.set(key::FILE, &self.file);
        object.set(key::GRANULARITY, &self.granularity.bytes());
        object.set(key::TYPE, &"dirty");
        // Recording is what a bitmap does; only the exception is spelt out.
        object.set_or_unset(key::RECORDING, (!self.recording).then_some(&false));
        object
    }

    pub(super) fn to_raw(&self) -> Box<RawValue> {
        raw(&self.to_object())
    }
}

/// `value` as text; what comes here always serializes.
fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_default()
}

impl Descriptor {
    fn to_object(&self) -> Object {
        let mut image = self.image.object.clone();
        image.set(key::FILE, &self.image.file);
        image.set(key::FORMAT, &self.image.format);

        let bitmaps: Object = self
            .bitmaps
            .iter()
            .map(|entry| (entry.name.clone(), entry.to_raw()))
            .collect();
        let inconsistent: Object = self
            .inconsistent
            .iter()
            .map(|entry| {
                let mut stored = Object::default();
                stored.set("reason", &entry.reason);
                stored.set("bitmap", &entry.bitmap);
                (entry.name.clone(), raw(&stored))
            })
            .collect();

        let mut object = self.object.clone();
        object.set(key::VERSION, &1);
        object.set(key::IMAGE, &image);
        object.set(key::BITMAPS, &bitmaps);
        let has_inconsistent = !self.inconsistent.is_empty();
        object.set_or_unset(key::INCONSISTENT, has_inconsistent.then_some(&inconsistent));
        object.set_or_unset(key::DURABILITY, self.durability.as_ref());
        object.set_or_unset(key::SEAL, self.seal.as_ref());
        object.set_or_unset(key::SESSION, self.session.as_ref());
        object
    }

    /// The text to store: indented JSON that ends with a line feed and carries its own checksum.
    pub(crate) fn to_text(&self) -> Result<String> {
        let mut outer = self.outer.clone();
        // QBM comes first in a descriptor that we make: probing looks for it there.
        outer.set(key::QBM, &self.to_object());
        outer.set(key::CHECKSUM, &CHECKSUM_BLANK);
        // A member set as RawValue is emitted as it is; going through Value indents everything but keeps no exotic
        // number, so the indentation is laid on the text instead.
        let compact = serde_json::to_string(&outer)
            .map_err(|error| Error::invalid(format!("cannot write the descriptor: {error}")))?;
        let mut text = indent(&compact);
        text.push('\n');
        if text.len() as u64 > caps::DESCRIPTOR_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::TooBig,
                format!(
                    "the descriptor would take {} bytes, at most {}",
                    text.len(),
                    caps::DESCRIPTOR_BYTES_MAX
                ),
            ));
        }
        let checksum = format!("{:08x}", crc32c::crc32c(text.as_bytes()));
        Ok(replace_checksum(&text, &checksum))
    }
}

/// The text with `digits` as the value of its (last) checksum member.
fn replace_checksum(text: &str, digits: &str) -> String {
    match checksum_position(text) {
        Some(at) => format!("{}{digits}{}", &text[..at], &text[at + digits.len()..]),
        None => text.to_owned(),
    }
}

/// Where the eight digits begin.
fn checksum_position(text: &str) -> Option<usize> {
    let member = text.rfind(&format!("\"{}\"", key::CHECKSUM))?;
    let value = member + key::CHECKSUM.len() + 2;
    let opening = value + text.get(value..)?.find('"')?;
    let digits = text.get(opening + 1..opening + 9)?;
    (text.get(value..opening)?.trim() == ":" && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then_some(opening + 1)
}

/// Whether `text` carries the checksum of itself, that is, was written by us and is whole.
pub(super) fn checksum_holds(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let Some(at) = checksum_position(text) else {
        return false;
    };
    let stored = u32::from_str_radix(&text[at..at + 8], 16);
    let blank = replace_checksum(text, CHECKSUM_BLANK);
    stored == Ok(crc32c::crc32c(blank.as_bytes()))
}

/// Lays JSON text out with two spaces a level. Strings and numbers stay as they are written.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut level: usize = 0;
    let mut in_string = false;
    let mut escaped = false;
    let mut characters = json
        .chars()
        .filter_map({
            // White space outside strings is dropped first, so that kept members are laid out like the rest.
            let (mut in_string, mut escaped) = (false, false);
            move |character| {
                if in_string {
                    in_string = escaped || character != '"';
                    escaped = !escaped && character == '\\';
                } else if character.is_ascii_whitespace() {
                    return None;
                } else {
                    in_string = character == '"';
                }
                Some(character)
            }
        })
        .peekable();
    let line = |out: &mut String, level: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", level));
    };
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                let closing = if character == '{' { '}' } else { ']' };
                if characters.peek() == Some(&closing) {
                    out.extend(characters.next());
                } else {
                    level += 1;
                    line(&mut out, level);
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                line(&mut out, level);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, level);
            }
            ':' => out.push_str(": "),
            _ => {
                out.push(character);
                in_string = character == '"';
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_leaves_strings_and_numbers_alone() {
        let json = r#"{"a,b":"x{\"[ \\","n":[1e400,{}],"e":[ ]}"#;
        let pretty = indent(json);
        assert_eq!(
            pretty,
            "{\n  \"a,b\": \"x{\\\"[ \\\\\",\n  \"n\": [\n    1e400,\n    {}\n  ],\n  \"e\": []\n}"
        );
        assert_eq!(indent(&pretty), pretty);
    }

    #[test]
    fn the_checksum_tells_any_change() {
        let text = Descriptor::new("d.raw".into(), "raw".into())
            .to_text()
            .unwrap();
        assert!(checksum_holds(text.as_bytes()));
        for index in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[index] ^= 1;
            // A digit's letter case is no change; ^1 never makes one.
            assert!(!checksum_holds(&damaged), "byte {index}");
        }
        assert!(!checksum_holds(&text.as_bytes()[..text.len() - 1]));
    }
}
