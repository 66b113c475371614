// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sessions against a model: sets of dirty granules. Crashes lose nothing in `process`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GRANULARITIES: [u64; 3] = [512, 4096, 65536];

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64),
    Add(usize),
    Remove(usize),
    SetRecording(usize, bool),
    Clear(usize),
    Resize(u64),
    Close,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..3 * MIB;
    prop_oneof![
        6 => (offset, 0..200_000_u64).prop_map(|(offset, length)| Step::Write(offset, length)),
        2 => (0..3_usize).prop_map(Step::Add),
        1 => (0..3_usize).prop_map(Step::Remove),
        1 => (0..3_usize, any::<bool>()).prop_map(|(index, on)| Step::SetRecording(index, on)),
        1 => (0..3_usize).prop_map(Step::Clear),
        1 => (1..6000_u64).prop_map(|sectors| Step::Resize(sectors * 512)),
        1 => Just(Step::Close),
        2 => Just(Step::Crash),
    ]
}

#[derive(Debug, Default)]
struct Bitmap {
    recording: bool,
    dirty: BTreeSet<u64>,
}

#[derive(Debug)]
struct Model {
    size_bytes: u64,
    bitmaps: BTreeMap<usize, Bitmap>,
}

impl Model {
    fn write(&mut self, offset: u64, length: u64) {
        let end = (offset + length).min(self.size_bytes);
        for (index, bitmap) in &mut self.bitmaps {
            let granularity = GRANULARITIES[*index];
            if bitmap.recording && length > 0 && offset < end {
                let granules = offset / granularity..=(end - 1) / granularity;
                bitmap
                    .dirty
                    .extend(granules.map(|granule| granule * granularity));
            }
        }
    }

    fn resize(&mut self, size_bytes: u64) {
        let old = self.size_bytes;
        self.size_bytes = size_bytes;
        for bitmap in self.bitmaps.values_mut() {
            bitmap.dirty.retain(|offset| *offset < size_bytes);
        }
        if size_bytes > old {
            self.write(old, size_bytes - old);
        }
    }
}

fn name(index: usize) -> String {
    format!("b{index}")
}

fn run(steps: &[Step]) {
    let disk = Disk::new(MIB);
    let mut model = Model {
        size_bytes: MIB,
        bitmaps: BTreeMap::new(),
    };
    let mut image = disk.activated();
    for step in steps {
        match *step {
            Step::Write(offset, length) => {
                let offset = offset % model.size_bytes;
                write(&image, offset, length);
                model.write(offset, length);
            }
            Step::Add(index) => {
                let added = image.add_bitmap(&name(index), GRANULARITIES[index], true);
                assert_eq!(added.is_err(), model.bitmaps.contains_key(&index));
                model.bitmaps.entry(index).or_insert(Bitmap {
                    recording: true,
                    ..Bitmap::default()
                });
            }
            Step::Remove(index) => {
                let removed = image.remove_bitmap(&name(index));
                assert_eq!(removed.is_ok(), model.bitmaps.remove(&index).is_some());
            }
            Step::SetRecording(index, on) => {
                let set = image.set_recording(&name(index), on);
                let bitmap = model.bitmaps.get_mut(&index);
                assert_eq!(set.is_ok(), bitmap.is_some());
                bitmap.into_iter().for_each(|bitmap| bitmap.recording = on);
            }
            Step::Clear(index) => {
                let cleared = image.store_bits(&name(index), 0, model.size_bytes, None);
                let bitmap = model.bitmaps.get_mut(&index);
                assert_eq!(cleared.is_ok(), bitmap.is_some());
                bitmap.into_iter().for_each(|bitmap| bitmap.dirty.clear());
            }
            Step::Resize(size_bytes) => {
                image.begin_resize(size_bytes).unwrap();
                let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
                data.unwrap().set_len(size_bytes).unwrap();
                image.end_resize(size_bytes).unwrap();
                model.resize(size_bytes);
            }
            Step::Close => {
                image.inactivate().unwrap();
                drop(image);
                image = disk.activated();
            }
            Step::Crash => {
                drop(image);
                image = disk.activated();
            }
        }
        for (index, bitmap) in &model.bitmaps {
            let found = dirty(&image, &name(*index), GRANULARITIES[*index]);
            assert_eq!(
                found,
                Vec::from_iter(bitmap.dirty.iter().copied()),
                "{step:?}"
            );
        }
        assert_eq!(image.bitmaps().len(), model.bitmaps.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_session_is_what_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
