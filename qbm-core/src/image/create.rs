// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a new image.

use std::io;
use std::path::{Path, PathBuf};

use super::Image;
use super::names::{self, Derived};
use crate::caps;
use crate::descriptor::{
    Descriptor, DescriptorFile, Durability, PersistBitmaps, Seal, check_format,
};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::storage::{Access, LockMode, Storage};

/// What a new image is to be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Size of the disk in bytes, rounded up to 512; of an adopted image, its present size, and 0 stands for that of a raw
    /// file.
    pub size_bytes: u64,
    /// An existing image to adopt, as the descriptor is to name it; `None`: a raw file is made.
    pub data_file: Option<String>,
    /// QEMU's name of the data image's format.
    pub data_format: String,
    /// The durability to store; `None`: nothing is stored.
    pub durability: Option<Durability>,
    /// Which bitmaps are to be stored; `None`: nothing is said of it.
    pub persist_bitmaps: Option<PersistBitmaps>,
    /// The caller holds QEMU's locks on the descriptor already.
    pub no_lock: bool,
    /// Nothing is replaced: a file at the path is an error, whatever it is.
    pub exclusive: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The data image, resolved.
    pub data_file: PathBuf,
    /// The name first thought of was taken and left alone.
    pub data_file_name_was_taken: bool,
}

impl Image {
    /// Makes a descriptor at `path`, and, unless one is adopted, a sparse raw data image `<path>.raw` beside it.
    ///
    /// An existing file at `path` is replaced only if it is empty or a QBM descriptor; what it named is left alone. An
    /// adopted image is opened for reading at most. Durable when this returns. After an error nothing new is left.
    ///
    /// # Errors
    /// Bad options; `path` is something else than a descriptor, or in use, or ([`exclusive`](CreateOptions::exclusive))
    /// anything at all; whatever the system says.
    pub fn create(storage: &dyn Storage, path: &Path, options: &CreateOptions) -> Result<Created> {
        let path = &super::locate(storage, path)?;
        let size_bytes = caps::round_image_size(options.size_bytes)?;
        check_format(&options.data_format).map_err(|error| error.within("data file format"))?;
        let size_bytes = match &options.data_file {
            Some(file) => check_adopted(storage, path, file, size_bytes, &options.data_format)?,
            None => size_bytes,
        };
        Self::create_checked(storage, path, size_bytes, options)
    }

    /// As [`create`](Self::create), over a data image that is no local file. What names it is stored and not looked at:
    /// whoever opens the image has to know how to get there.
    ///
    /// # Errors
    /// As [`create`](Self::create); no data image is named.
    pub fn create_over_remote(
        storage: &dyn Storage,
        path: &Path,
        options: &CreateOptions,
    ) -> Result<Created> {
        let path = &super::locate(storage, path)?;
        let size_bytes = caps::round_image_size(options.size_bytes)?;
        check_format(&options.data_format).map_err(|error| error.within("data file format"))?;
        let Some(file) = &options.data_file else {
            return Err(Error::invalid("a data image elsewhere has to be named"));
        };
        check_file_name(file)?;
        Self::create_checked(storage, path, size_bytes, options)
    }

    /// Makes the raw data image that [`create`](Self::create) would make, and not the descriptor: for a caller who has more
    /// to do to it, and adopts it then. Durable once it is adopted. After an error nothing new is left.
    ///
    /// # Errors
    /// As [`create`](Self::create): a data image is made only if a descriptor could be, or the one at `path` replaced.
    pub fn create_data(
        storage: &dyn Storage,
        path: &Path,
        options: &CreateOptions,
    ) -> Result<Created> {
        let size_bytes = caps::round_image_size(options.size_bytes)?;
        if options.data_file.is_some() {
            return Err(Error::invalid("a new data image is not named"));
        }
        let path = &super::locate(storage, path)?;
        check_place(storage, path, options)?;
        let data = make_data(storage, path, size_bytes, options)?;
        Ok(Created {
            data_file: data.path,
            data_file_name_was_taken: data.was_taken,
        })
    }

    fn create_checked(
        storage: &dyn Storage,
        path: &Path,
        size_bytes: u64,
        options: &CreateOptions,
    ) -> Result<Created> {
        let (file, is_new) = open_or_create(storage, path, options.exclusive)?;
        if !options.no_lock {
            // Who does not get the lock has nothing to clear away: the file is another's.
            file.lock(LockMode::Write)?;
        }
        let result = fill(storage, path, &file, size_bytes, options);
        if result.is_err() && is_new {
            // The error that led here is the one to tell.
            let text = file.read_whole(storage).map(|(text, _)| text);
            let leftovers = text.and_then(|text| file.leftovers(storage, &text));
            for leftover in leftovers.unwrap_or_default() {
                let _ = storage.remove(&leftover);
            }
            let _ = storage.remove(path);
        }
        result
    }
}

fn check_file_name(file: &str) -> Result<()> {
    if file.is_empty() || file.contains('\0') || file.len() > caps::FILE_NAME_BYTES_MAX {
        return Err(Error::invalid(format!(
            "data file {}: not a file name",
            quoted(file)
        )));
    }
    Ok(())
}

/// Returns the size of the disk.
fn check_adopted(
    storage: &dyn Storage,
    path: &Path,
    file: &str,
    size_bytes: u64,
    format: &str,
) -> Result<u64> {
    check_file_name(file)?;
    let resolved = names::resolve(path, file);
    let data = storage
        .metadata(&resolved)
        .map_err(|error| Error::io("cannot find data file", &resolved, error))?;
    if let Err(error) = storage.open(&resolved, Access::Read)
        && error.raw_os_error() == Some(libc::EISDIR)
    {
        return Err(Error::io("cannot adopt data file", &resolved, error));
    }
    // I6: a descriptor written there would be the end of the data.
    if let Ok(present) = storage.metadata(path)
        && present.id == data.id
    {
        return Err(Error::invalid(format!(
            "data file {} and descriptor {} are the same file",
            quoted(file),
            quoted(path.display())
        )));
    }
    if format != "raw" || !data.is_regular {
        return Ok(size_bytes);
    }
    let found_bytes = caps::round_image_size(data.length_bytes)
        .map_err(|error| error.within(format_args!("data file {}", quoted(file))))?;
    if size_bytes != 0 && size_bytes != found_bytes {
        return Err(Error::invalid(format!(
            "data file {}: size {size_bytes} was given, the file makes a disk of {found_bytes} bytes",
            quoted(file)
        )));
    }
    Ok(found_bytes)
}

fn open_or_create(
    storage: &dyn Storage,
    path: &Path,
    exclusive: bool,
) -> Result<(DescriptorFile, bool)> {
    match storage.metadata(path) {
        Ok(_) if exclusive => {
            let text = format!("descriptor {}: the file exists", quoted(path.display()));
            Err(Error::new(ErrorKind::Exists, text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok((DescriptorFile::create_new(storage, path)?, true))
        }
        Err(error) => Err(Error::io("cannot create descriptor", path, error)),
        Ok(_) => {
            let file = DescriptorFile::open(storage, path, Access::ReadWrite)?;
            Ok((file, false))
        }
    }
}

/// Whether a descriptor could be made at `path`, or the one that is there replaced. Changes nothing.
fn check_place(storage: &dyn Storage, path: &Path, options: &CreateOptions) -> Result<()> {
    match storage.metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => {
            let (file, _) = open_or_create(storage, path, options.exclusive)?;
            if !options.no_lock {
                file.lock(LockMode::Write)?;
            }
            check_replaceable(storage, path, &file)
        }
    }
}

/// I6: only an empty file, or something that is a descriptor already, may be written over.
fn check_replaceable(storage: &dyn Storage, path: &Path, file: &DescriptorFile) -> Result<()> {
    if file.length_bytes()? == 0 || file.read(storage).is_ok() {
        return Ok(());
    }
    let text = format!(
        "descriptor {}: the file exists and is not a QBM descriptor; it is left as it is",
        quoted(path.display())
    );
    Err(Error::new(ErrorKind::Exists, text))
}

fn fill(
    storage: &dyn Storage,
    path: &Path,
    file: &DescriptorFile,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<Created> {
    check_replaceable(storage, path, file)?;
    let write = |name: String| {
        let is_raw = options.data_format == "raw";
        let modified = is_raw.then(|| super::sealable_time(storage, &names::resolve(path, &name)));
        let mut descriptor = Descriptor::new(name, options.data_format.clone());
        descriptor.durability = options.durability;
        descriptor.persist_bitmaps = options.persist_bitmaps;
        descriptor.seal = Some(Seal {
            generation: 0,
            size_bytes,
            modified: modified.flatten(),
        });
        file.write(storage, &descriptor)
    };
    if let Some(name) = &options.data_file {
        write(name.clone())?;
        return Ok(Created {
            data_file: names::resolve(path, name),
            data_file_name_was_taken: false,
        });
    }
    let data = make_data(storage, path, size_bytes, options)?;
    let synced = data.file.sync_data();
    let made = synced
        .map_err(|error| Error::io("cannot make data image", &data.path, error))
        .and_then(|()| write(data.name));
    if let Err(error) = made {
        let _ = storage.remove(&data.path);
        return Err(error);
    }
    Ok(Created {
        data_file: data.path,
        data_file_name_was_taken: data.was_taken,
    })
}

/// Makes a sparse raw file beside the descriptor.
fn make_data(
    storage: &dyn Storage,
    path: &Path,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<Derived> {
    if options.data_format != "raw" {
        return Err(Error::invalid(format!(
            "data file format {}: a new data image is always raw",
            quoted(&options.data_format)
        )));
    }
    let data = names::create_beside(storage, path, None, "raw")?;
    if let Err(error) = data.file.set_length(size_bytes) {
        let _ = storage.remove(&data.path);
        return Err(Error::io("cannot make data image", &data.path, error));
    }
    Ok(data)
}
