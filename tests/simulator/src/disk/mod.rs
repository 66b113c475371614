// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk in memory that loses what a real one may lose.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `content.rs` | bytes of a file, shared between copies |
//! | `inode.rs` | page cache against stable storage, of one file; what a failed sync does |
//! | `world.rs` | names and their durability, boot id, clock; power cuts |
//! | `fault.rs` | which operation fails, and how |
//! | `locks.rs` | locks between handles |
//! | `handle.rs` | the seam's `StorageFile` |

mod content;
mod fault;
mod handle;
mod inode;
mod locks;
mod world;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qbm_core::storage::{Access, FileId, Metadata, Storage, StorageFile, Timestamp};

pub use content::Content;
pub use fault::{Failure, Fault, Lasting, Operation};
use handle::SimulatedFile;
use inode::Change;
pub use inode::{FailedSync, Fate};
use locks::Locks;
pub use world::World;

/// A moment at which the host may stop: just before an operation of the seam, or within it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Number of the operation, counted from the disk's first one.
    pub number: u64,
    /// 0 before it takes effect; more within it.
    pub part: u8,
    /// The operation.
    pub operation: Operation,
    /// What it is done to.
    pub path: PathBuf,
    /// The host at that moment.
    pub world: World,
}

/// An operation that failed because it was to.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The operation.
    pub operation: Operation,
    /// What it was done to.
    pub path: PathBuf,
}

#[derive(Debug, Default)]
struct Inner {
    world: World,
    locks: Locks,
    handles_made: u64,
    operations: u64,
    kinds: Option<Vec<Operation>>,
    fault: Option<Fault>,
    fault_kind: Option<Operation>,
    hits: Vec<Hit>,
    watching: bool,
    seen_version: Option<u64>,
    places: Vec<Place>,
    trace: Option<Vec<String>>,
    broken: Option<String>,
}

/// Stable storage, a page cache and a host, behind the engine's seam. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    inner: Arc<Mutex<Inner>>,
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn timestamp(ticks: u64) -> Timestamp {
    Timestamp {
        seconds: 1_700_000_000 + i64::try_from(ticks / 100).expect("short histories"),
        nanoseconds: u32::try_from(ticks % 100).expect("below 100") * 10_000_000,
    }
}

impl Inner {
    /// Counts an operation and takes its place; the failure, if it is to fail.
    fn enter(&mut self, operation: Operation, path: &Path) -> Option<Failure> {
        self.operations += 1;
        self.kinds
            .iter_mut()
            .for_each(|kinds| kinds.push(operation));
        self.see(operation, path, 0, None);
        let failure = self.fault.and_then(|fault| self.strike(fault, operation));
        if failure.is_some() {
            self.hits.push(Hit {
                operation,
                path: path.to_owned(),
            });
        }
        if let Some(trace) = &mut self.trace {
            let outcome = if failure.is_some() { " FAILS" } else { "" };
            let number = self.operations;
            trace.push(format!(
                "{number:>5} {operation:?} {}{outcome}",
                path.display()
            ));
        }
        failure
    }

    /// Whether `fault` has the current operation fail.
    fn strike(&mut self, fault: Fault, operation: Operation) -> Option<Failure> {
        let is_first = self.operations == fault.at;
        if is_first {
            self.fault_kind = Some(operation);
        }
        let is_later = self.operations > fault.at;
        let fails = match fault.lasting {
            Lasting::Once => is_first,
            Lasting::Kind => is_first || is_later && self.fault_kind == Some(operation),
            Lasting::All => is_first || is_later,
        };
        fails.then_some(fault.failure)
    }

    /// Keeps a place, unless the world is as it was at the last one.
    fn see(&mut self, operation: Operation, path: &Path, part: u8, within: Option<World>) {
        if !self.watching || (part == 0 && self.seen_version == Some(self.world.version())) {
            return;
        }
        self.seen_version = Some(self.world.version());
        self.places.push(Place {
            number: self.operations,
            part,
            operation,
            path: path.to_owned(),
            world: within.unwrap_or_else(|| self.world.clone()),
        });
    }

    /// I6: nothing precious is ever changed by the engine.
    fn guard(&mut self, operation: Operation, path: &Path, inode: u64) {
        if self.world.inode(inode).precious {
            let text = format!("{operation:?} hits {}", path.display());
            self.broken.get_or_insert(text);
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let inode = self.world.lookup(path).ok_or_else(|| errno(libc::ENOENT))?;
        let found = self.world.inode(inode);
        Ok(Metadata {
            id: FileId { device: 1, inode },
            length_bytes: found.cached.length_bytes(),
            is_regular: true,
            modified: timestamp(found.modified),
        })
    }

    fn handle(&mut self, disk: &SimulatedDisk, path: &Path, inode: u64) -> Box<dyn StorageFile> {
        self.handles_made += 1;
        Box::new(SimulatedFile {
            disk: disk.clone(),
            path: path.to_owned(),
            inode,
            number: self.handles_made,
        })
    }
}

impl SimulatedDisk {
    /// A disk as `world` is, with nobody on it.
    pub fn of(world: World) -> Self {
        let inner = Inner {
            world,
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host now: what a kill of the process leaves.
    pub fn world(&self) -> World {
        self.lock().world.clone()
    }

    /// The host starts again as `world` is. Handles of before have no locks any more.
    pub fn restart(&self, world: World) {
        let mut inner = self.lock();
        inner.world = world;
        inner.locks = Locks::default();
    }

    /// From now on places are kept.
    pub fn watch(&self) {
        let mut inner = self.lock();
        inner.watching = true;
        inner.seen_version = None;
    }

    /// The places since [`watch`](Self::watch); no more are kept.
    pub fn take_places(&self) -> Vec<Place> {
        let mut inner = self.lock();
        inner.watching = false;
        std::mem::take(&mut inner.places)
    }

    /// Operations so far.
    pub fn operations_count(&self) -> u64 {
        self.lock().operations
    }

    /// From now on it is kept which operations there were.
    pub fn count_kinds(&self) {
        self.lock().kinds = Some(Vec::new());
    }

    /// The operations since [`count_kinds`](Self::count_kinds), in order.
    pub fn take_kinds(&self) -> Vec<Operation> {
        self.lock().kinds.take().unwrap_or_default()
    }

    /// Makes an operation fail.
    pub fn inject(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// Operations that failed since the last call because they were to.
    pub fn take_hits(&self) -> Vec<Hit> {
        std::mem::take(&mut self.lock().hits)
    }

    /// What the engine did to a precious file, if it did (I6).
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Keeps a line for every operation from now on.
    pub fn start_trace(&self) {
        self.lock().trace = Some(Vec::new());
    }

    /// The lines since the last call.
    pub fn take_trace(&self) -> Vec<String> {
        self.lock()
            .trace
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Somebody else makes a file that the engine must not change. Durable.
    pub fn put_precious(&self, path: &Path, length_bytes: u64, head: &[u8]) {
        let mut inner = self.lock();
        let inode = inner.world.create(path);
        inner.world.change(inode, Change::Length(length_bytes));
        let data = head.into();
        let offset_bytes = 0;
        inner
            .world
            .change(inode, Change::Write { offset_bytes, data });
        inner.world.inode_mut(inode).precious = true;
        inner.world.sync_all();
    }

    /// From now on the engine must not change `path`.
    pub fn make_precious(&self, path: &Path) {
        let mut inner = self.lock();
        let inode = inner.world.lookup(path).expect("the file is there");
        inner.world.inode_mut(inode).precious = true;
    }

    /// Somebody else resizes a file; not durable yet.
    pub fn guest_resize(&self, path: &Path, length_bytes: u64) {
        let mut inner = self.lock();
        let inode = inner.world.lookup(path).expect("the file is there");
        inner.world.tick();
        inner.world.change(inode, Change::Length(length_bytes));
    }

    /// Somebody else writes to a file. Only the time of it matters to anybody.
    pub fn guest_write(&self, path: &Path) {
        let mut inner = self.lock();
        let inode = inner.world.lookup(path).expect("the file is there");
        inner.world.tick();
        let clock = inner.world.clock();
        inner.world.inode_mut(inode).modified = clock;
    }

    /// Somebody else changes one bit of the first byte of a file that is not precious, durably.
    pub fn flip(&self, path: &Path) {
        let mut inner = self.lock();
        let inode = inner.world.lookup(path).expect("the file is there");
        let found = inner.world.inode(inode);
        if found.precious || found.cached.length_bytes() == 0 {
            return;
        }
        let mut byte = [0];
        found.cached.read(0, &mut byte);
        let data = [byte[0] ^ 1].into();
        let offset_bytes = 0;
        inner.world.tick();
        inner
            .world
            .change(inode, Change::Write { offset_bytes, data });
        inner.world.inode_mut(inode).sync();
    }

    /// Somebody else syncs a file.
    pub fn guest_flush(&self, path: &Path) {
        let mut inner = self.lock();
        let inode = inner.world.lookup(path).expect("the file is there");
        inner.world.inode_mut(inode).sync();
    }

    /// What is in a file, as the page cache has it.
    pub fn content(&self, path: &Path) -> Option<Content> {
        let inner = self.lock();
        let inode = inner.world.lookup(path)?;
        Some(inner.world.inode(inode).cached.clone())
    }

    /// Every name, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        let inner = self.lock();
        inner
            .world
            .names()
            .map(|(path, _)| path.to_owned())
            .collect()
    }
}

impl Storage for SimulatedDisk {
    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn StorageFile>> {
        let mut inner = self.lock();
        if let Some(failure) = inner.enter(Operation::Open, path) {
            return Err(errno(failure.errno()));
        }
        let inode = inner
            .world
            .lookup(path)
            .ok_or_else(|| errno(libc::ENOENT))?;
        Ok(inner.handle(self, path, inode))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut inner = self.lock();
        if let Some(failure) = inner.enter(Operation::CreateNew, path) {
            return Err(errno(failure.errno()));
        }
        if inner.world.lookup(path).is_some() {
            return Err(errno(libc::EEXIST));
        }
        inner.world.tick();
        let inode = inner.world.create(path);
        Ok(inner.handle(self, path, inode))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut inner = self.lock();
        match inner.enter(Operation::Metadata, path) {
            Some(failure) => Err(errno(failure.errno())),
            None => inner.metadata(path),
        }
    }

    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut inner = self.lock();
        if let Some(failure) = inner.enter(Operation::SettledMetadata, path) {
            return Err(errno(failure.errno()));
        }
        let metadata = inner.metadata(path)?;
        inner.world.inode_mut(metadata.id.inode).sync();
        inner.world.tick();
        Ok(metadata)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let mut inner = self.lock();
        if let Some(failure) = inner.enter(Operation::List, directory) {
            return Err(errno(failure.errno()));
        }
        let names = inner.world.names();
        let here = names.filter(|(path, _)| path.parent() == Some(directory));
        Ok(here
            .filter_map(|(path, _)| path.file_name())
            .map(OsString::from)
            .collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(failure) = inner.enter(Operation::Remove, path) {
            return Err(errno(failure.errno()));
        }
        let inode = inner
            .world
            .lookup(path)
            .ok_or_else(|| errno(libc::ENOENT))?;
        inner.guard(Operation::Remove, path, inode);
        inner.world.remove(path);
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(failure) = inner.enter(Operation::SyncDirectory, directory) {
            return Err(errno(failure.errno()));
        }
        inner.world.sync_directory(directory);
        Ok(())
    }

    fn boot_id(&self) -> io::Result<String> {
        let mut inner = self.lock();
        match inner.enter(Operation::BootId, Path::new("boot id")) {
            Some(failure) => Err(errno(failure.errno())),
            None => Ok(inner.world.boot_id()),
        }
    }
}

#[cfg(test)]
mod tests;
