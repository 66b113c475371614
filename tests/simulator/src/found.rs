// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image says of itself, and how that compares with the model.

use std::collections::BTreeMap;

use qbm_core::{BitmapInfo, Image};

use crate::granules::Granules;
use crate::model::{Bitmap, Model};
use crate::violation::Violation;

/// What a comparison lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// A consistent bitmap may have become inconsistent.
    pub lost: bool,
    /// Bits may be missing.
    pub lacking: bool,
}

impl Allowed {
    /// Nothing but what the model says.
    pub const NOTHING: Self = Self {
        lost: false,
        lacking: false,
    };
}

/// One bitmap of an active image.
#[derive(Debug, Clone)]
struct FoundBitmap {
    info: BitmapInfo,
    user_data: Option<Vec<u8>>,
    /// Of a consistent one.
    dirty: Option<Granules>,
}

/// All bitmaps of an active image.
#[derive(Debug, Clone)]
pub struct Found {
    size_bytes: u64,
    bitmaps: BTreeMap<String, FoundBitmap>,
}

fn told(error: qbm_core::Error) -> Violation {
    Violation::new(
        "API",
        format!("a bitmap that is listed cannot be read: {error}"),
    )
}

fn read(image: &Image, info: &BitmapInfo, size_bytes: u64) -> Result<Option<Granules>, Violation> {
    let name = &info.name;
    let empty = Granules::none(info.granularity_bytes, size_bytes);
    let mut bits = vec![0; empty.bits().len()];
    if image.load_bits(name, 0, size_bytes, &mut bits).is_err() {
        return Ok(None);
    }
    let dirty = Granules::of_bits(info.granularity_bytes, size_bytes, bits);
    let first = image.next_dirty(name, 0).map_err(told)?;
    let counted = image.dirty_count(name).map_err(told)?;
    if counted != dirty.count()
        || first != dirty.iter().next().map(|bit| bit * info.granularity_bytes)
    {
        // A file that could not follow a resize, and that could not be given up either.
        return Ok(None);
    }
    Ok(Some(dirty))
}

impl Found {
    /// Asks an active image.
    ///
    /// # Errors
    /// Its answers contradict each other.
    pub fn in_image(image: &Image) -> Result<Self, Violation> {
        Self::in_resized(image, 0)
    }

    /// As [`in_image`](Self::in_image) during a resize: bitmaps may reach to `extent_bytes`.
    ///
    /// # Errors
    /// As `in_image`.
    pub fn in_resized(image: &Image, extent_bytes: u64) -> Result<Self, Violation> {
        let size_bytes = image.info().size_bytes.unwrap_or(0);
        let extent_bytes = extent_bytes.max(size_bytes);
        let mut bitmaps = BTreeMap::new();
        for info in image.bitmaps() {
            // One that cannot be read is as good as inconsistent; whether it may be, the comparison says.
            let dirty = match info.inconsistent {
                true => None,
                false => read(image, &info, extent_bytes)?,
            };
            let found = FoundBitmap {
                user_data: image.user_data(&info.name).map_err(told)?,
                dirty,
                info: info.clone(),
            };
            if bitmaps.insert(info.name.clone(), found).is_some() {
                let text = format!("bitmap {:?} is listed twice", info.name);
                return Err(Violation::new("I4", text));
            }
        }
        Ok(Self {
            size_bytes,
            bitmaps,
        })
    }

    /// A model of exactly this.
    pub fn to_model(&self) -> Model {
        let bitmap = |found: &FoundBitmap| {
            let granularity_bytes = found.info.granularity_bytes.max(512);
            let none = || Granules::none(granularity_bytes, self.size_bytes);
            let dirty = found.dirty.clone().unwrap_or_else(none);
            Bitmap {
                recording: found.info.recording,
                inconsistent: found.dirty.is_none(),
                phantom: false,
                granularity_bytes,
                user_data: found.user_data.clone(),
                must: dirty.clone(),
                may: dirty,
                frozen: None,
            }
        };
        let bitmaps = self.bitmaps.iter();
        Model {
            size_bytes: self.size_bytes,
            resize: None,
            bitmaps: bitmaps
                .map(|(name, found)| (name.clone(), bitmap(found)))
                .collect(),
        }
    }

    /// Holds this against a model.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, model: &Model, allowed: Allowed) -> Result<(), Violation> {
        if self.size_bytes != model.size_bytes {
            let text = format!("size {} is not {}", self.size_bytes, model.size_bytes);
            return Err(Violation::new("I4", text));
        }
        if !self.bitmaps.keys().eq(model.bitmaps.keys()) {
            let found: Vec<_> = self.bitmaps.keys().collect();
            let expected: Vec<_> = model.bitmaps.keys().collect();
            let text = format!("bitmaps {found:?} are not {expected:?}");
            return Err(Violation::new("I4", text));
        }
        for ((name, found), expected) in self.bitmaps.iter().zip(model.bitmaps.values()) {
            let told = |violation: Violation| violation.within(format!("in bitmap {name:?}"));
            compare_bitmap(found, expected, allowed).map_err(told)?;
        }
        Ok(())
    }
}

fn compare_bitmap(
    found: &FoundBitmap,
    expected: &Bitmap,
    allowed: Allowed,
) -> Result<(), Violation> {
    let info = &found.info;
    if info.granularity_bytes != expected.granularity_bytes {
        let text = format!(
            "granularity {} is not {}",
            info.granularity_bytes, expected.granularity_bytes
        );
        return Err(Violation::new("I4", text));
    }
    if found.user_data != expected.user_data {
        return Err(Violation::new("I4", "user data is not what was stored"));
    }
    let Some(dirty) = &found.dirty else {
        if expected.inconsistent || expected.phantom || allowed.lost {
            return Ok(());
        }
        return Err(Violation::new(
            "I2",
            "inconsistent, though nothing happened that it cannot survive",
        ));
    };
    if expected.inconsistent {
        return Err(Violation::new("I2", "trusted again after it was given up"));
    }
    if info.recording != expected.recording {
        return Err(Violation::new(
            "I4",
            format!("recording is {}", info.recording),
        ));
    }
    let at = |granule: u64| format!("granule {granule} of {} bytes", info.granularity_bytes);
    if let Some(granule) = expected
        .must
        .first_beyond(dirty)
        .filter(|_| !allowed.lacking)
    {
        return Err(Violation::new(
            "I1",
            format!(
                "consistent, and clean where it was written: {}",
                at(granule)
            ),
        ));
    }
    if let Some(granule) = dirty.first_beyond(&expected.may) {
        return Err(Violation::new(
            "I3",
            format!("dirty where nothing was written: {}", at(granule)),
        ));
    }
    Ok(())
}
