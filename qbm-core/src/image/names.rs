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

/// What of a bitmap's name may stand in a file name. Two names may give the same: numbering tells them apart.
fn stem(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let stem: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(STEM_BYTES_MAX)
        .collect();
    stem
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
    for number in 0..TRIES_MAX {
        let name = match number {
            0 => format!("{base}.{suffix}"),
            _ => format!("{base}.{number}.{suffix}"),
        };
        let path = resolve(descriptor, &name);
        match storage.create_new(&path) {
            Ok(file) => {
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
    fn names_resolve_against_the_descriptor() {
        assert_eq!(resolve(Path::new("d/x.qbm"), "a.raw"), Path::new("d/a.raw"));
        assert_eq!(resolve(Path::new("d/x.qbm"), "/a.raw"), Path::new("/a.raw"));
        assert_eq!(resolve(Path::new("x.qbm"), "a.raw"), Path::new("./a.raw"));
    }
}
