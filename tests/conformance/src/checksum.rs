// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checksum of a descriptor, step by step as section 6 of the specification has it.

const KEY: &str = "\"ext-soft-qbm-crc32c\"";
const BLANK: &str = "00000000";

/// Where the eight digits begin: the text ends in key, colon, digits, brace, white space aside (K1).
#[must_use]
pub fn position(text: &str) -> Option<usize> {
    let rest = text.trim_end().strip_suffix('}')?.trim_end();
    let rest = rest.strip_suffix('"')?;
    let at = rest.len().checked_sub(8)?;
    let digits = rest.get(at..)?;
    let before = rest.get(..at)?.strip_suffix('"')?.trim_end();
    let before = before.strip_suffix(':')?.trim_end();
    let is_there = before.ends_with(KEY) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_there.then_some(at)
}

/// The digits that belong into `text` (K2, K3).
#[must_use]
pub fn of(text: &str) -> Option<String> {
    let at = position(text)?;
    let blank = [&text[..at], BLANK, &text[at + 8..]].concat();
    Some(format!("{:08x}", crc32c::crc32c(blank.as_bytes())))
}

/// Whether `text` carries the checksum of itself (K4).
#[must_use]
pub fn holds(text: &str) -> bool {
    position(text).is_some_and(|at| of(text) == Some(text[at..at + 8].to_ascii_lowercase()))
}

/// `text` with its checksum put in place.
#[must_use]
pub fn sealed(text: &str) -> String {
    match (position(text), of(text)) {
        (Some(at), Some(digits)) => [&text[..at], &digits, &text[at + 8..]].concat(),
        _ => text.to_owned(),
    }
}
