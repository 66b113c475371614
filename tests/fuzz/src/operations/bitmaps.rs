// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps that concern one bitmap.

use super::Range;
use super::model::Bitmap;
use super::run::Run;

impl Run {
    pub(super) fn add(&mut self, name: &'static str, granularity: u64) {
        let added = self.image.add_bitmap(name, granularity, true);
        assert_eq!(added.is_err(), self.model.bitmaps.contains_key(name));
        if added.is_ok() {
            self.model.bitmaps.insert(name, Bitmap::new(granularity));
            self.model.begin_to_record(name);
        }
    }

    pub(super) fn set_recording(&mut self, name: &str, on: bool) {
        let set = self.image.set_recording(name, on);
        let known = self.model.usable(name);
        assert_eq!(set.is_ok(), known.is_some());
        let Some(bitmap) = known else { return };
        let was = std::mem::replace(&mut bitmap.recording, on);
        if on && !was {
            self.model.begin_to_record(name);
        }
    }

    pub(super) fn clear(&mut self, name: &str) {
        let cleared = self.image.clear_bitmap(name);
        let known = self.model.usable(name);
        assert_eq!(cleared.is_ok(), known.is_some());
        if let Some(bitmap) = known {
            bitmap.must.truncate(0);
            bitmap.may.truncate(0);
            self.replaced(name);
        }
    }

    /// A bitmap with bits in a new file holds the writes in flight, rounded as those of a new bitmap are.
    fn replaced(&mut self, name: &str) {
        if self
            .model
            .usable(name)
            .is_some_and(|bitmap| bitmap.recording)
        {
            self.model.begin_to_record(name);
        }
    }

    pub(super) fn merge(&mut self, target: &str, sources: [&str; 2]) {
        let merged = self.image.merge_bitmaps(target, &sources);
        let size = self.model.size;
        let from: Vec<_> = sources
            .iter()
            .filter_map(|name| self.model.usable(name).cloned())
            .collect();
        let known = self
            .model
            .usable(target)
            .filter(|_| from.len() == sources.len());
        assert_eq!(merged.is_ok(), known.is_some());
        let Some(bitmap) = known else { return };
        let (to, count) = (bitmap.granularity, size.div_ceil(bitmap.granularity));
        for source in from {
            bitmap
                .must
                .union(&source.must.scaled(source.granularity, to, count));
            bitmap
                .may
                .union(&source.may.scaled(source.granularity, to, count));
        }
        self.replaced(target);
    }

    pub(super) fn rename(&mut self, from: &str, to: &'static str) {
        let renamed = self.image.rename_bitmap(from, to);
        let is_free = from == to || !self.model.bitmaps.contains_key(to);
        let known = self.model.usable(from).is_some();
        assert_eq!(renamed.is_ok(), known && is_free);
        if renamed.is_ok()
            && let Some(bitmap) = self.model.bitmaps.remove(from)
        {
            self.model.bitmaps.insert(to, bitmap);
        }
    }

    pub(super) fn set_granularity(&mut self, name: &str, to: u64) {
        let set = self.image.set_granularity(name, to);
        let size = self.model.size;
        let known = self.model.usable(name);
        assert_eq!(set.is_ok(), known.is_some());
        let Some(bitmap) = known else { return };
        bitmap.must = bitmap
            .must
            .scaled(bitmap.granularity, to, size.div_ceil(to));
        bitmap.may = bitmap.may.scaled(bitmap.granularity, to, size.div_ceil(to));
        bitmap.granularity = to;
        self.replaced(name);
    }

    pub(super) fn mark_dirty(&mut self, name: &str, range: Range) {
        let (offset, length) = self.model.range(range);
        let marked = self.image.mark_dirty(name, offset, length);
        let size = self.model.size;
        let known = self.model.usable(name).filter(|_| offset + length <= size);
        assert_eq!(marked.is_ok(), known.is_some());
        if let Some(bitmap) = known {
            bitmap.touch(offset, length, size);
        }
    }

    pub(super) fn set_user_data(&mut self, name: &str, length: u16) {
        let data = vec![length as u8; usize::from(length >> (length % 16))];
        let data = Some(data).filter(|data| !data.is_empty());
        let set = self.image.set_user_data(name, data.as_deref());
        let known = self.model.usable(name);
        assert_eq!(set.is_ok(), known.is_some());
        known
            .into_iter()
            .for_each(|bitmap| bitmap.user_data.clone_from(&data));
    }
}
