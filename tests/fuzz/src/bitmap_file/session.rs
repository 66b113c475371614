// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps on an image whose bitmap could be loaded, beside a model of it.

use std::sync::Arc;

use qbm_core::Image;

use super::input::Step;
use super::{FILE, GRANULES_PER_STEP, NAME, round};
use crate::disk::Disk;
use crate::image::{DATA, activated, checked, dirty, touch, write};
use crate::runs::Runs;

pub(super) struct Session {
    pub(super) disk: Arc<Disk>,
    pub(super) image: Image,
    pub(super) model: Runs,
    pub(super) granularity: u64,
    pub(super) size: u64,
    pub(super) recording: bool,
}

impl Session {
    pub(super) fn run(mut self, steps: &[Step]) {
        for step in steps.iter().take(32) {
            self.step(step);
            let found = dirty(&self.image, NAME, self.granularity);
            assert_eq!(found.as_ref(), Some(&self.model), "{step:?}");
        }
        self.image.inactivate().expect("this disk never fails");
        self.check_padding();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(place, length) => {
                let offset = place.within(self.size);
                let length = u64::from(length).min(GRANULES_PER_STEP * self.granularity);
                write(&self.image, offset, length);
                if self.recording {
                    touch(&mut self.model, offset, length, self.granularity, self.size);
                }
            }
            Step::Resize(size) => self.resize(size.bytes(self.granularity)),
            Step::Clear => {
                let cleared = self.image.store_bits(NAME, 0, self.size, None);
                cleared.expect("the range is the whole disk");
                self.model = Runs::default();
            }
            Step::Close => {
                self.image.inactivate().expect("this disk never fails");
                self.check_padding();
                self.reopen();
            }
            Step::Crash => self.reopen(),
        }
    }

    fn reopen(&mut self) {
        let image = activated(&self.disk, self.size, false, None);
        self.image = image.expect("the disk always opens");
    }

    fn resize(&mut self, size: u64) {
        let new = round(size);
        let growth = new.saturating_sub(self.size).div_ceil(self.granularity);
        if self.recording && growth > GRANULES_PER_STEP {
            return;
        }
        if self.image.begin_resize(new).is_err() {
            return;
        }
        self.disk.resize(DATA, new);
        self.image.end_resize(new).expect("begin_resize said so");
        let old = std::mem::replace(&mut self.size, new);
        self.model.truncate(new.div_ceil(self.granularity));
        if self.recording && new > old {
            touch(&mut self.model, old, new - old, self.granularity, new);
        }
    }

    /// After a clean close the file holds exactly the bits.
    fn check_padding(&self) {
        assert_eq!(checked(&self.disk, self.size, true), 1);
        let length = self.size.div_ceil(self.granularity).div_ceil(8);
        assert_eq!(self.disk.length(FILE), length);
        if let (Some(last), unused @ 1..) = (
            length.checked_sub(1),
            length * 8 - self.size.div_ceil(self.granularity),
        ) {
            let mut byte = [0];
            self.disk.peek(FILE, last, &mut byte);
            assert_eq!(byte[0] >> (8 - unused), 0, "padding is zero");
        }
    }
}
