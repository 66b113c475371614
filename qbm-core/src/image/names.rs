// SPDX-License-Identifier: MIT OR Apache-2.0
//! File names: from a descriptor to paths, and new ones beside a descriptor.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::descriptor::directory;
use crate::error::{Error, Result};
use crate::storage::{Storage, StorageFile};

/// Longest part of a bitmap's name that goes into a file name, in bytes.
const STEM_BYTES_MAX: usize = 64;
/// What the names of bitmap files end with.
pub(super) const BITMAP_SUFFIX: &str = ".bitmap";
/// How many names are tried before giving up.
const TRIES_MAX: u32 = 10_000;

/// `file` as a descriptor at `descriptor` means it.
pub(super) fn resolve(descriptor: &Path, file: &str) -> PathBuf {
    directory(descriptor).join(file)
}

/// A file that was made under a derived name.
#[derive(Debug)]
pub(super) struct Derived {
    pub(super) path: PathBuf,
    /// As the descriptor says it: relative to its directory.
    pub(super) name: String,
    pub(super) file: Box<dyn StorageFile>,
    /// The first choice was taken.
    pub(super) was_taken: bool,
}

/// Characters of a stem.
fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

/// What of a bitmap's name may stand in a file name. Two names may give the same: numbering tells them apart.
fn stem(name: &str) -> String {
    name.chars()
        .map(|character| if is_plain(character) { character } else { '_' })
        .take(STEM_BYTES_MAX)
        .collect()
}

/// `<descriptor>[.<stem>]`: what derived names begin with.
fn base(descriptor: &Path, bitmap_name: Option<&str>) -> Result<String> {
    let own = descriptor.file_name().unwrap_or_default();
    let Some(own) = own.to_str() else {
        return Err(Error::invalid(format!(
            "descriptor {}: its name must be UTF-8 for files to be named after it",
            crate::quoted(descriptor.display())
        )));
    };
    let mut base = own.to_owned();
    if let Some(bitmap_name) = bitmap_name {
        base.push('.');
        base.push_str(&stem(bitmap_name));
    }
    Ok(base)
}

/// The longest name that a bitmap's file may get.
pub(super) fn longest_bitmap_file(descriptor: &Path, bitmap_name: &str) -> Result<String> {
    let base = base(descriptor, Some(bitmap_name))?;
    Ok(format!("{base}.{TRIES_MAX}{BITMAP_SUFFIX}"))
}

/// Creates `<descriptor>[.<stem>].<suffix>`, or the next free `<descriptor>[.<stem>].<number>.<suffix>`.
///
/// A name that exists is left alone, whatever it leads to (I6).
pub(super) fn create_beside(
    storage: &dyn Storage,
    descriptor: &Path,
    bitmap_name: Option<&str>,
    suffix: &str,
) -> Result<Derived> {
    let base = base(descriptor, bitmap_name)?;
    for number in 0..TRIES_MAX {
        let name = match number {
            0 => format!("{base}.{suffix}"),
            _ => format!("{base}.{number}.{suffix}"),
        };
        let path = resolve(descriptor, &name);
        match storage.create_new(&path) {
            Ok(file) => {
                file.take_rights_of(descriptor);
                return Ok(Derived {
                    path,
                    name,
                    file,
                    was_taken: number > 0,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("cannot create", &path, error)),
        }
    }
    let pattern = OsString::from(format!("{base}.*.{suffix}"));
    Err(Error::io(
        "cannot create",
        Path::new(&pattern),
        io::Error::from_raw_os_error(libc::EEXIST),
    ))
}

/// Whether a descriptor's file name stays in the descriptor's own directory.
pub(super) fn is_beside(file: &str) -> bool {
    !file.contains('/') && file != "." && file != ".."
}

/// Whether [`create_beside`] could have given `name` to a bitmap file of the descriptor named `descriptor`.
pub(crate) fn is_derived_bitmap_name(descriptor: &str, name: &str) -> bool {
    let middle = name.strip_prefix(descriptor);
    let middle = middle.and_then(|rest| rest.strip_prefix('.'));
    let Some(middle) = middle.and_then(|rest| rest.strip_suffix(".bitmap")) else {
        return false;
    };
    let (stem, number) = match middle.split_once('.') {
        Some((stem, number)) => (stem, Some(number)),
        None => (middle, None),
    };
    let is_number = |number: &str| {
        let is_plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
        is_plain && number.parse().is_ok_and(|number: u32| number < TRIES_MAX)
    };
    (1..=STEM_BYTES_MAX).contains(&stem.len())
        && stem.chars().all(is_plain)
        && number.is_none_or(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_escapes_its_directory() {
        for name in ["../../etc/passwd", "a/b", "\n", "\"", "🙂", ".", ".."] {
            let stem = stem(name);
            assert!(
                stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                "{stem}"
            );
        }
        assert_eq!(stem("daily-1_x"), "daily-1_x");
        assert_eq!(stem(&"n".repeat(1023)).len(), STEM_BYTES_MAX);
    }

    #[test]
    fn derived_names_are_known_again() {
        for name in [
            "x.qbm.b.bitmap",
            "x.qbm.b.1.bitmap",
            "x.qbm._-9.9999.bitmap",
        ] {
            assert!(is_derived_bitmap_name("x.qbm", name), "{name}");
        }
        let long = format!("x.qbm.{}.bitmap", "n".repeat(65));
        for name in [
            "x.qbm",
            "x.qbm.bitmap",
            "x.qbm..bitmap",
            "x.qbm.b.bitmap.old",
            "x.qbm.b.old.bitmap",
            "x.qbm.b.01.bitmap",
            "x.qbm.b.0.bitmap",
            "x.qbm.b.10000.bitmap",
            "x.qbm.b.1.2.bitmap",
            "x.qbm.b c.bitmap",
            "y.qbm.b.bitmap",
            long.as_str(),
        ] {
            assert!(!is_derived_bitmap_name("x.qbm", name), "{name}");
        }
    }

    #[test]
    fn names_resolve_against_the_descriptor() {
        assert_eq!(resolve(Path::new("d/x.qbm"), "a.raw"), Path::new("d/a.raw"));
        assert_eq!(resolve(Path::new("d/x.qbm"), "/a.raw"), Path::new("/a.raw"));
        assert_eq!(resolve(Path::new("x.qbm"), "a.raw"), Path::new("./a.raw"));
    }
}
