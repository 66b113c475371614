// SPDX-License-Identifier: MIT OR Apache-2.0
//! All there is on the simulated host: files, names, boot, clock. A copy costs next to nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inode::{Change, Fate, Inode};

/// A change of a directory that no sync has covered yet.
#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, u64),
    Remove(PathBuf),
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Create(path, _) | Self::Remove(path) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Names {
    cached: BTreeMap<PathBuf, u64>,
    stable: BTreeMap<PathBuf, u64>,
    pending: Vec<NameChange>,
}

/// Files, names, boot and clock at one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    inodes: BTreeMap<u64, Arc<Inode>>,
    names: Arc<Names>,
    inodes_made: u64,
    boot: u64,
    clock: u64,
    /// Counts changes; equal versions of one history are equal worlds.
    version: u64,
}

impl World {
    /// Whether nothing changed between the two, moments of one history.
    pub fn is_same(&self, other: &Self) -> bool {
        self.version == other.version
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// Linux's boot id.
    pub(super) fn boot_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.boot)
    }

    /// Time passes: no later change has the modification time of an earlier one.
    pub(super) fn tick(&mut self) {
        self.clock += 1;
    }

    pub(super) fn lookup(&self, path: &Path) -> Option<u64> {
        self.names.cached.get(path).copied()
    }

    pub(super) fn inode(&self, inode: u64) -> &Inode {
        &self.inodes[&inode]
    }

    pub(super) fn inode_mut(&mut self, inode: u64) -> &mut Inode {
        self.version += 1;
        let found = self.inodes.get_mut(&inode);
        Arc::make_mut(found.expect("inodes live as long as the host"))
    }

    /// Names that begin with `directory`, and what they lead to.
    pub(super) fn names(&self) -> impl Iterator<Item = (&Path, u64)> {
        let names = self.names.cached.iter();
        names.map(|(path, inode)| (path.as_path(), *inode))
    }

    pub(super) fn create(&mut self, path: &Path) -> u64 {
        self.inodes_made += 1;
        self.version += 1;
        let inode = self.inodes_made;
        let new = Inode {
            modified: self.clock,
            ..Inode::default()
        };
        self.inodes.insert(inode, Arc::new(new));
        let change = NameChange::Create(path.to_owned(), inode);
        self.change_name(change);
        inode
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.version += 1;
        self.change_name(NameChange::Remove(path.to_owned()));
    }

    fn change_name(&mut self, change: NameChange) {
        let names = Arc::make_mut(&mut self.names);
        change.apply(&mut names.cached);
        names.pending.push(change);
    }

    pub(super) fn change(&mut self, inode: u64, change: Change) {
        let clock = self.clock;
        self.inode_mut(inode).change(change, clock);
    }

    /// Names in `directory` are on stable storage.
    pub(super) fn sync_directory(&mut self, directory: &Path) {
        self.version += 1;
        let Names {
            stable, pending, ..
        } = Arc::make_mut(&mut self.names);
        pending.retain(|change| {
            let is_here = change.path().parent() == Some(directory);
            if is_here {
                change.apply(stable);
            }
            !is_here
        });
    }

    /// Everything is on stable storage.
    pub(super) fn sync_all(&mut self) {
        self.version += 1;
        for inode in self.inodes.values_mut() {
            Arc::make_mut(inode).sync();
        }
        let names = Arc::make_mut(&mut self.names);
        names.pending.clear();
        names.stable = names.cached.clone();
    }

    /// How many fates [`after_cut`](Self::after_cut) asks for.
    pub fn fates_count(&self) -> usize {
        let inodes = self.inodes.values().map(|inode| inode.fates_count());
        inodes.sum::<usize>() + self.names.pending.len()
    }

    /// The host after a power cut and a restart. `fate` is asked once for every change that no sync covered.
    ///
    /// A write that is kept while an earlier one is dropped is what reordering looks like from here, so every order is
    /// covered by asking for each change alone.
    #[must_use]
    pub fn after_cut(&self, mut fate: impl FnMut() -> Fate) -> Self {
        let after = |(number, inode): (&u64, &Arc<Inode>)| {
            if inode.fates_count() == 0 && inode.cached == inode.stable {
                return (*number, Arc::clone(inode));
            }
            (*number, Arc::new(inode.after_cut(&mut fate)))
        };
        let mut inodes: BTreeMap<u64, Arc<Inode>> = self.inodes.iter().map(after).collect();
        let mut names = self.names.stable.clone();
        for change in &self.names.pending {
            match fate() {
                Fate::Kept => change.apply(&mut names),
                Fate::Torn(seed) if seed % 2 == 0 => change.apply(&mut names),
                Fate::Torn(_) | Fate::Dropped => {}
            }
        }
        inodes.retain(|inode, _| names.values().any(|named| named == inode));
        let names = Names {
            cached: names.clone(),
            stable: names,
            pending: Vec::new(),
        };
        Self {
            inodes,
            names: Arc::new(names),
            boot: self.boot + 1,
            clock: self.clock + 1,
            version: self.version + 1,
            ..*self
        }
    }
}
