// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing a descriptor's text: known members replaced where they stand, all others kept.

use super::layout::indent;
use super::{Descriptor, Object, key};
use crate::caps;
use crate::error::{Error, ErrorKind, Result};

/// How much longer than twice as long an indented text may be.
const INDENTED_BYTES: usize = 65_536;
/// Stands where the checksum goes while it is computed.
const CHECKSUM_BLANK: &str = "00000000";

impl Descriptor {
    fn to_object(&self) -> Object {
        let bitmaps = self.bitmaps.iter();
        let bitmaps = bitmaps.map(|entry| (entry.name.clone(), entry.to_raw()));
        let allocation = self.allocation.iter();
        let allocation = allocation.map(|entry| (entry.name.clone(), entry.to_raw()));
        let bitmaps: Object = bitmaps.chain(allocation).collect();
        let inconsistent = self.inconsistent.iter();
        let inconsistent: Object = inconsistent
            .map(|entry| (entry.name.clone(), entry.to_raw()))
            .collect();

        let mut object = self.object.clone();
        object.set(key::VERSION, &1);
        object.set(key::IMAGE, &self.image.to_object());
        object.set(key::BITMAPS, &bitmaps);
        let has_inconsistent = !self.inconsistent.is_empty();
        if has_inconsistent || !self.list_is_unreadable {
            object.set_or_unset(key::INCONSISTENT, has_inconsistent.then_some(&inconsistent));
        }
        // What could not be read of these is kept: a later version may have written it.
        if let Some(durability) = &self.durability {
            object.set(key::DURABILITY, durability);
        }
        if let Some(persist_bitmaps) = &self.persist_bitmaps {
            object.set(key::PERSIST_BITMAPS, persist_bitmaps);
        }
        if !self.trusted.is_empty() {
            object.set(key::TRUSTED, &self.trusted);
        }
        object.set_or_unset(key::SEAL, self.seal.as_ref());
        object.set_or_unset(key::SESSION, self.session.as_ref());
        object
    }

    /// The text to store: indented JSON that ends with a line feed and carries its own checksum.
    pub(crate) fn to_text(&self) -> Result<String> {
        let mut outer = self.outer.clone();
        // QBM comes first in a descriptor that we make: probing looks for it there. The checksum comes last.
        outer.set(key::QBM, &self.to_object());
        outer.unset(key::CHECKSUM);
        outer.set(key::CHECKSUM, &CHECKSUM_BLANK);
        // A member set as RawValue is emitted as it is; going through Value indents everything but keeps no exotic
        // number, so the indentation is laid on the text instead.
        let compact = serde_json::to_string(&outer)
            .map_err(|error| Error::invalid(format!("cannot write the descriptor: {error}")))?;
        // A stranger's members may be such that a level of indentation on each line is more than they are.
        let limit_bytes = compact
            .len()
            .saturating_mul(2)
            .saturating_add(INDENTED_BYTES);
        let mut text = indent(&compact, limit_bytes).unwrap_or(compact);
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

/// The text with `digits` as the value of its checksum member.
fn replace_checksum(text: &str, digits: &str) -> String {
    match split_at_checksum(text) {
        Some((before, _, after)) => format!("{before}{digits}{after}"),
        None => text.to_owned(),
    }
}

/// What is before the eight digits, the digits, and what is after them. The checksum is the last member of the outermost
/// object: the same name elsewhere belongs to a bitmap, or to somebody else.
fn split_at_checksum(text: &str) -> Option<(&str, &str, &str)> {
    let value = text.trim_end().strip_suffix('}')?.trim_end();
    let before_quote = value.strip_suffix('"')?;
    let start = before_quote.len().checked_sub(CHECKSUM_BLANK.len())?;
    let (before, digits) = before_quote.split_at_checked(start)?;
    let member = before.strip_suffix('"')?.trim_end().strip_suffix(':')?;
    let name = member
        .trim_end()
        .strip_suffix('"')?
        .strip_suffix(key::CHECKSUM)?;
    let is_member = name.ends_with('"') && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (_, after) = text.split_at_checked(before_quote.len())?;
    is_member.then_some((before, digits, after))
}

/// Whether `text` carries the checksum of itself, that is, was written by us and is whole.
pub(super) fn checksum_holds(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let Some((before, digits, after)) = split_at_checksum(text) else {
        return false;
    };
    let computed = [before, CHECKSUM_BLANK, after]
        .iter()
        .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece.as_bytes()));
    u32::from_str_radix(digits, 16) == Ok(computed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_somebody_else_is_left_alone() {
        // The last member of that name was taken for the text's own, and overwritten.
        let text = r#"{"ext-soft-qbm-crc32c":"00000000",
            "QBM":{"version":1,"image":{"file":"d","format":"raw"},"bitmaps":{"b":{"file":"b",
            "granularity-bytes":512,"type":"dirty","ext-soft-qbm-crc32c":"aabbccdd"}}},
            "ext-soft-zz":{"ext-soft-qbm-crc32c":"12345678"}}"#;
        assert!(!checksum_holds(text.as_bytes()));
        let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
        let written = descriptor.to_text().unwrap();
        assert!(checksum_holds(written.as_bytes()), "{written}");
        assert_eq!(written.matches("\"aabbccdd\"").count(), 1);
        assert_eq!(written.matches("\"12345678\"").count(), 1);
        assert_eq!(written.matches(key::CHECKSUM).count(), 3);
        let again = Descriptor::parse(written.as_bytes()).unwrap();
        assert_eq!(again.to_text().unwrap(), written);
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
