// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error type of the crate.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// What went wrong, as far as a program may want to tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or a file's content breaks a rule (`EINVAL`).
    Invalid,
    /// Valid, but this version cannot do it (`ENOTSUP`).
    Unsupported,
    /// No bitmap or file of that name (`ENOENT`).
    NotFound,
    /// The name is taken (`EEXIST`).
    Exists,
    /// A bitmap name is longer than [`crate::caps::BITMAP_NAME_BYTES_MAX`] (`ENAMETOOLONG`).
    NameTooLong,
    /// A cap of the format is exceeded (`EFBIG`).
    TooBig,
    /// The image, or the bitmap, is not open for writing (`EROFS`).
    ReadOnly,
    /// Another process has the image open (`EAGAIN`, as `fcntl` says for a lock).
    Locked,
    /// The bitmap is frozen (`EBUSY`).
    Busy,
    /// The operating system failed; the errno is kept.
    Io,
}

/// An error: its kind, one line for a person, and the errno.
///
/// The line names file, field and value. Its wording is not part of the interface.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<io::Error>,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` that reads `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// A rule of the format or of an argument is broken.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The operating system's error while doing `what` to `path`.
    pub fn io(what: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            _ => ErrorKind::Io,
        };
        Self {
            kind,
            message: format!("{what} {}: {}", quoted(path.display()), describe(&source)),
            source: Some(source),
        }
    }

    /// The same error, told with where it happened in front.
    #[must_use]
    pub fn within(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The positive errno that a C caller gets; never 0.
    pub fn errno(&self) -> i32 {
        match self.kind {
            ErrorKind::Invalid => libc::EINVAL,
            ErrorKind::Unsupported => libc::ENOTSUP,
            ErrorKind::NotFound => libc::ENOENT,
            ErrorKind::Exists => libc::EEXIST,
            ErrorKind::NameTooLong => libc::ENAMETOOLONG,
            ErrorKind::TooBig => libc::EFBIG,
            ErrorKind::ReadOnly => libc::EROFS,
            ErrorKind::Locked => libc::EAGAIN,
            ErrorKind::Busy => libc::EBUSY,
            ErrorKind::Io => self
                .source
                .as_ref()
                .and_then(io::Error::raw_os_error)
                .filter(|errno| *errno > 0)
                .unwrap_or(libc::EIO),
        }
    }
}

/// The system's message without Rust's "(os error N)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((before, _)) => before.to_owned(),
        None => text,
    }
}

/// `value` in double quotes on one line: control characters and quotes escaped, long text cut.
///
/// Names come from untrusted files; an error line must stay one line.
pub fn quoted(value: impl Display) -> String {
    const CHARS_MAX: usize = 200;
    let text = value.to_string();
    let mut line = String::with_capacity(text.len().min(CHARS_MAX));
    line.push('"');
    for (index, character) in text.chars().enumerate() {
        if index == CHARS_MAX {
            line.push('…');
            break;
        }
        if character == '"' || character == '\\' || character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('"');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_name_stays_on_one_line() {
        assert_eq!(quoted("a\"b\nc"), "\"a\\\"b\\nc\"");
        assert_eq!(quoted("é🙂"), "\"é🙂\"");
        assert!(quoted("x".repeat(5000)).len() < 300);
    }

    #[test]
    fn the_systems_errno_survives() {
        let error = Error::io(
            "cannot write",
            Path::new("b"),
            io::Error::from_raw_os_error(libc::ENOSPC),
        );
        assert_eq!(error.errno(), libc::ENOSPC);
        assert_eq!(
            error.to_string(),
            "cannot write \"b\": No space left on device"
        );
    }
}
