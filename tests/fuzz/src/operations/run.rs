// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps, on an image and on its model.

use std::path::Path;
use std::sync::Arc;

use qbm_core::{Activation, CreateOptions, Durability, Image, Ticket};

use super::model::{Bitmap, Model, granularity, name};
use super::{Foreign, Input, Meanwhile, STEPS_MAX, Step};
use crate::disk::Disk;
use crate::image::{DATA, PATH, activated, checked, dirty, opened, write};

pub(super) struct Run {
    disk: Arc<Disk>,
    pub(super) image: Image,
    pub(super) model: Model,
    tickets: Vec<Ticket>,
    durability: Durability,
}

fn bytes(sectors: u16) -> u64 {
    u64::from(sectors % 8192) * 512
}

fn durability(close: bool) -> Durability {
    if close {
        Durability::Close
    } else {
        Durability::Process
    }
}

pub(super) fn run(input: &Input) {
    let disk = Arc::new(Disk::default());
    let size = bytes(input.sectors);
    let options = CreateOptions {
        size_bytes: size,
        data_file: None,
        data_format: "raw".into(),
        durability: None,
        persist_bitmaps: None,
        no_lock: false,
        exclusive: false,
    };
    Image::create(&*disk, Path::new(PATH), &options).expect("there is nothing in its way");
    let durability = durability(input.close);
    let image = activated(&disk, size, false, Some(durability)).expect("it was just made");
    let model = Model {
        size,
        ..Model::default()
    };
    let mut run = Run {
        disk,
        image,
        model,
        tickets: Vec::new(),
        durability,
    };
    for step in input.steps.iter().take(STEPS_MAX) {
        run.step(step);
        run.check(&run.image, step);
    }
    run.close();
    let meanwhile = Meanwhile {
        foreign: Foreign::Nothing,
        trust_data: false,
    };
    run.reopen(Durability::Process, true, false, meanwhile);
    run.check(&run.image, &Step::Look);
}

impl Run {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(range) => {
                let (offset, length) = self.model.range(range);
                write(&self.image, offset, length);
                self.model.write(offset, length);
            }
            Step::Begin(range) => {
                let (offset, length) = self.model.range(range);
                let begun = self.image.begin_write(offset, length);
                self.tickets.push(begun.expect("it is writable").0);
                self.model.in_flight.push((offset, length));
                self.model.write(offset, length);
            }
            Step::End => {
                if let Some(ticket) = self.tickets.pop() {
                    self.image.end_write(ticket);
                    self.model.in_flight.pop();
                }
            }
            Step::Add {
                bitmap,
                granularity: index,
            } => self.add(name(bitmap), granularity(index)),
            Step::Remove(bitmap) => {
                let removed = self.image.remove_bitmap(name(bitmap));
                let known = self.model.bitmaps.remove(name(bitmap));
                assert_eq!(removed.is_ok(), known.is_some());
            }
            Step::SetRecording(bitmap, on) => self.set_recording(name(bitmap), on),
            Step::SetInconsistent(bitmap) => {
                let set = self.image.set_inconsistent(name(bitmap), "told so");
                let known = self.model.usable(name(bitmap));
                assert_eq!(set.is_ok(), known.is_some());
                known
                    .into_iter()
                    .for_each(|bitmap| bitmap.consistent = false);
            }
            Step::ClearStored(bitmap) => self.clear_stored(name(bitmap)),
            Step::Clear(bitmap) => self.clear(name(bitmap)),
            Step::Merge { target, sources } => self.merge(name(target), sources.map(name)),
            Step::Rename { from, to } => self.rename(name(from), name(to)),
            Step::SetGranularity {
                bitmap,
                granularity: index,
            } => {
                self.set_granularity(name(bitmap), granularity(index));
            }
            Step::MarkDirty(bitmap, range) => self.mark_dirty(name(bitmap), range),
            Step::SetUserData(bitmap, length) => self.set_user_data(name(bitmap), length),
            Step::Resize { sectors, moved } => self.resize(bytes(sectors), moved),
            Step::Look => {
                let size = self.model.size;
                let beside = activated(&self.disk, size, true, None);
                drop(beside.expect("the disk always opens"));
            }
            Step::Close { close, meanwhile } => {
                self.close();
                self.reopen(durability(close), true, false, meanwhile);
            }
            Step::Crash {
                close,
                rebooted,
                meanwhile,
            } => {
                self.tickets.clear();
                self.model.in_flight.clear();
                self.reopen(durability(close), false, rebooted, meanwhile);
            }
        }
    }

    /// What a driver does once nothing is in flight.
    fn clear_stored(&mut self, name: &str) {
        self.drain();
        let size = self.model.size;
        let cleared = self.image.store_bits(name, 0, size, None);
        let known = self.model.usable(name);
        assert_eq!(cleared.is_ok(), known.is_some());
        if let Some(bitmap) = known {
            bitmap.must.truncate(0);
            bitmap.may.truncate(0);
        }
    }

    fn resize(&mut self, size: u64, moved: bool) {
        self.image.begin_resize(size).expect("it is below the caps");
        if moved {
            self.disk.resize(DATA, size);
        }
        let now = if moved { size } else { self.model.size };
        let before = self.model.size;
        self.image.end_resize(now).expect("this disk never fails");
        self.model.resize(now);
        if !moved && size > before {
            // Bits up to the new end may have been set, the last granule of the old size among them.
            for bitmap in self
                .model
                .bitmaps
                .values_mut()
                .filter(|bitmap| bitmap.recording)
            {
                let last = before / bitmap.granularity;
                bitmap.may.insert(last, before.div_ceil(bitmap.granularity));
            }
        }
    }

    fn drain(&mut self) {
        self.model.in_flight.clear();
        for ticket in self.tickets.drain(..) {
            self.image.end_write(ticket);
        }
    }

    fn close(&mut self) {
        self.drain();
        self.image.inactivate().expect("this disk never fails");
    }

    /// Opens the image again, after a close or a crash, and after what happened meanwhile.
    fn reopen(
        &mut self,
        durability: Durability,
        was_closed: bool,
        rebooted: bool,
        meanwhile: Meanwhile,
    ) {
        if rebooted {
            self.disk.reboot();
        }
        let old = self.model.size;
        let size = match meanwhile.foreign {
            Foreign::Resize(sectors) => bytes(sectors),
            Foreign::Nothing | Foreign::Write => old,
        };
        if size != old || meanwhile.foreign == Foreign::Write {
            self.disk.resize(DATA, size);
        }
        let survives = was_closed || (self.durability == Durability::Process && !rebooted);
        // Only a seal knows when the data image changed last.
        let was_written = was_closed && meanwhile.foreign == Foreign::Write;
        let is_wrong = size < old || was_written;
        if !survives || (is_wrong && !meanwhile.trust_data) {
            self.model.give_up_all();
        }
        self.model.resize(size);
        let activation = Activation {
            size_bytes: size,
            durability: Some(durability),
            trust_data: meanwhile.trust_data,
            ..Activation::default()
        };
        let looking = Activation {
            read_only: true,
            ..activation.clone()
        };
        let reader = opened(&self.disk, &looking).expect("the disk always opens");
        self.check(&reader, &Step::Look);
        drop(reader);
        let usable = self
            .model
            .bitmaps
            .values()
            .filter(|bitmap| bitmap.consistent);
        if !meanwhile.trust_data {
            let is_clean = was_closed && meanwhile.foreign == Foreign::Nothing;
            assert_eq!(checked(&self.disk, size, is_clean), usable.count());
        }
        self.durability = durability;
        self.image = opened(&self.disk, &activation).expect("the disk always opens");
    }

    fn check(&self, image: &Image, step: &Step) {
        assert_eq!(image.bitmaps().len(), self.model.bitmaps.len());
        for (name, bitmap) in &self.model.bitmaps {
            let info = image.bitmap(name).expect("a bitmap is never forgotten");
            assert_eq!(info.inconsistent, !bitmap.consistent, "{name:?} {step:?}");
            assert_eq!(image.user_data(name).ok(), Some(bitmap.user_data.clone()));
            let found = dirty(image, name, bitmap.granularity);
            let Some(found) = found else {
                assert!(!bitmap.consistent, "{name:?} {step:?}");
                continue;
            };
            assert!(bitmap.consistent, "{name:?} {step:?}");
            assert_eq!(info.recording, bitmap.recording);
            let Bitmap { must, may, .. } = bitmap;
            assert!(
                found.contains(must),
                "lost: {step:?} {name:?} {found:?} {must:?}"
            );
            assert!(
                may.contains(&found),
                "made up: {step:?} {name:?} {found:?} {may:?}"
            );
        }
    }
}
