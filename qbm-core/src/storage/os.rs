// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operating system's files.
#![expect(
    clippy::disallowed_methods,
    reason = "this file is the seam that the list points to"
)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Whence, lseek};

use super::{Access, FileId, LockMode, LockableFile, Metadata, Storage, StorageFile, Timestamp};

/// Linux's identifier of the running boot (`proc_sys_kernel(5)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Who may read and write.
const RIGHTS: u32 = 0o666;

/// Files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsStorage;

#[derive(Debug)]
struct OsFile(LockableFile);

/// How often the clock is looked at; the kernel's ticks are 1 to 10 ms apart.
const TICK: Duration = Duration::from_millis(1);
/// How many ticks are waited for. What is written all the time never settles, and its next write will be noticed.
const TICKS_MAX: u32 = 2500;
/// A modification time further ahead than this comes from another clock; waiting for it would lead nowhere.
const AHEAD_NANOSECONDS_MAX: i128 = 50_000_000;
/// Times of some file systems are whole seconds, of some even ones.
const COARSE_NANOSECONDS: i128 = 2_000_000_000;

/// Whether a change right now could leave `modified` as it is: Linux takes file times from the clock that is advanced at
/// each tick (`ktime_get_coarse_real_ts64`), and cuts them to what the file system can hold.
fn is_within_tick(modified: Timestamp) -> io::Result<bool> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?;
    let now = Timestamp {
        seconds: now.tv_sec(),
        nanoseconds: u32::try_from(now.tv_nsec()).unwrap_or(0),
    };
    let nanoseconds = |time: Timestamp| {
        let seconds = i128::from(time.seconds).saturating_mul(1_000_000_000);
        seconds.saturating_add(i128::from(time.nanoseconds))
    };
    let age = nanoseconds(now).saturating_sub(nanoseconds(modified));
    let settled_after = if modified.nanoseconds == 0 {
        COARSE_NANOSECONDS
    } else {
        1
    };
    Ok((-AHEAD_NANOSECONDS_MAX..settled_after).contains(&age))
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(())
}

impl Storage for OsStorage {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        // Opening a device can do things; look before, and again at what was opened.
        check_regular(&fs::metadata(path)?)?;
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        check_regular(&file.metadata()?)?;
        Ok(Box::new(OsFile(LockableFile::new(file))))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        Ok(Box::new(OsFile(LockableFile::new(file))))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(path)?;
        Ok(Metadata {
            id: FileId {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            length_bytes: if metadata.is_file() {
                metadata.len()
            } else {
                0
            },
            is_regular: metadata.is_file(),
            modified: Timestamp {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            },
        })
    }

    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata> {
        if self.metadata(path)?.is_regular {
            // fdatasync may leave the modification time behind; a power cut would then seem to have changed the file.
            File::open(path)?.sync_all()?;
        }
        for _ in 0..TICKS_MAX {
            let metadata = self.metadata(path)?;
            if !metadata.is_regular || !is_within_tick(metadata.modified)? {
                return Ok(metadata);
            }
            std::thread::sleep(TICK);
        }
        self.metadata(path)
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
    }
}

impl StorageFile for OsFile {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset_bytes)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset_bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.0.set_len(length_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn next_data(&self, offset_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        let length = self.length()?;
        if offset_bytes >= length {
            return Ok(None);
        }
        let seek = |from: u64, whence: Whence| -> Result<u64, Errno> {
            let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
            let found = lseek(&self.0, from, whence)?;
            u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
        };
        let start = match seek(offset_bytes, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(None),
            // A file system that cannot tell: everything may be data.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some((offset_bytes, length))),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(start, Whence::SeekHole)?;
        Ok(Some((start, end.max(start.saturating_add(1)))))
    }

    fn id(&self) -> io::Result<FileId> {
        let metadata = self.0.metadata()?;
        Ok(FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn lock(&self, mode: LockMode) -> io::Result<()> {
        self.0.lock(mode)
    }

    fn take_rights_of(&self, path: &Path) {
        let (Ok(other), Ok(own)) = (fs::metadata(path), self.0.metadata()) else {
            return;
        };
        if (own.uid(), own.gid()) != (other.uid(), other.gid()) {
            // Who is not root may still give a group that is among their own.
            let _ = fchown(&self.0, Some(other.uid()), Some(other.gid()))
                .or_else(|_| fchown(&self.0, None, Some(other.gid())));
        }
        let mode = other.mode() & RIGHTS;
        if own.mode() & RIGHTS != mode {
            let _ = self.0.set_permissions(Permissions::from_mode(mode));
        }
    }

    fn leave_locked(&self) {
        self.0.leave_locked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_open() {
        let directory = tempfile::tempdir().unwrap();
        let open = |path: &Path| OsStorage.open(path, Access::Read).unwrap_err();
        assert_eq!(open(directory.path()).raw_os_error(), Some(libc::EISDIR));
        assert_eq!(
            open(Path::new("/dev/null")).kind(),
            io::ErrorKind::InvalidInput
        );
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(open(&fifo).kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn holes_are_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let file = OsStorage.create_new(&directory.path().join("f")).unwrap();
        file.set_length(1 << 30).unwrap();
        file.write_at(512 << 20, b"x").unwrap();
        let (start, end) = file.next_data(0).unwrap().unwrap();
        assert!(start <= 512 << 20 && end > 512 << 20);
        assert!(end - start < 512 << 20, "the file system tells holes");
        assert_eq!(file.next_data(end).unwrap(), None);
    }

    #[test]
    fn a_taken_name_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "precious").unwrap();
        let error = OsStorage.create_new(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn rights_are_those_of_the_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("f"), directory.path().join("other"));
        fs::write(&other, "").unwrap();
        let file = OsStorage.create_new(&path).unwrap();
        for mode in [0o600, 0o664, 0o4755] {
            fs::set_permissions(&other, Permissions::from_mode(mode)).unwrap();
            file.take_rights_of(&other);
            let taken = fs::metadata(&path).unwrap().mode();
            assert_eq!(taken & 0o7777, mode & RIGHTS, "{mode:o}");
        }
        if fchown(File::open(&other).unwrap(), Some(65534), Some(65533)).is_ok() {
            file.take_rights_of(&other);
            let taken = fs::metadata(&path).unwrap();
            assert_eq!((taken.uid(), taken.gid()), (65534, 65533));
        }
    }

    #[test]
    fn a_write_after_settling_changes_the_modification_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for round in 0..20 {
            fs::write(&path, [round]).unwrap();
            let sealed = OsStorage.settled_metadata(&path).unwrap();
            fs::write(&path, [round]).unwrap();
            let after = OsStorage.metadata(&path).unwrap();
            assert!(after.modified > sealed.modified, "round {round}");
        }
    }

    #[test]
    fn a_modification_time_in_the_future_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let file = File::create(&path).unwrap();
        let future = std::time::UNIX_EPOCH + Duration::from_secs(1 << 33);
        file.set_modified(future).unwrap();
        let metadata = OsStorage.settled_metadata(&path).unwrap();
        assert_eq!(metadata.modified.seconds, 1 << 33);
    }

    #[test]
    fn the_boot_id_is_there() {
        assert_eq!(OsStorage.boot_id().unwrap().len(), 36);
    }
}
