// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits of a whole bitmap, laid out as in the bitmap file, stored and merged.

use qbm_core::{ErrorKind, Image};

use super::{Held, Run};
use crate::granules::Granules;

/// Bits of a seed: many, few or none of them set; padding too.
fn random_bits(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let one_in = [2, 20, 4000][random.usize(0..3)];
    let byte = |_| match random.u32(0..one_in) {
        0 => random.u8(..),
        _ => 0,
    };
    (0..bytes).map(byte).collect()
}

impl Run<'_> {
    pub(super) fn merge_bits(&mut self, name: &str, seed: u64) -> Held {
        self.exchange_bits(name, Some(seed), false)
    }

    pub(super) fn store_bits(&mut self, name: &str, seed: Option<u64>) -> Held {
        if !self.flights.is_empty() {
            return Ok(()); // The caller sees to it.
        }
        self.exchange_bits(name, seed, true)
    }

    fn exchange_bits(&mut self, name: &str, seed: Option<u64>, replaces: bool) -> Held {
        let length_bytes = self.model.extent_bytes();
        let Some(bitmap) = self.model.usable(name) else {
            return self.refused(ErrorKind::NotFound, |image| {
                exchange(image, name, length_bytes, replaces, Some(&[]))
            });
        };
        if replaces && bitmap.frozen.is_some() {
            return self.refused(ErrorKind::Busy, |image| {
                exchange(image, name, length_bytes, replaces, Some(&[]))
            });
        }
        let granularity_bytes = bitmap.granularity_bytes;
        let none = Granules::none(granularity_bytes, length_bytes);
        let given = seed.map(|seed| random_bits(seed, none.bits().len()));
        let bits = given.clone().map_or(none, |given| {
            Granules::of_padded(granularity_bytes, length_bytes, given)
        });
        // Chunk by chunk: a crash leaves a mixture, and so does an error.
        let exact = {
            let mut model = self.model.clone();
            model.exchange_bits(name, &bits, replaces);
            model
        };
        let models = self.on_disk.iter_mut().chain([&mut self.model]);
        models.for_each(|model| model.mix_bits(name, &bits, replaces));
        let expectation = self.expect([]);
        let result = self.call(&expectation, |run| {
            let image = run.image.as_ref();
            image.map(|image| exchange(image, name, length_bytes, replaces, given.as_deref()))
        })?;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                // Where the disk may have another text, it may name a file where bits are only added.
                if !replaces {
                    let models = self.on_disk.iter_mut();
                    models.for_each(|model| model.exchange_bits(name, &bits, false));
                }
                if self.on_disk.len() == 1 {
                    self.on_disk = vec![exact.clone()];
                }
                self.model = exact;
            }
            Err(error) => self.allow(&error)?,
        }
        self.adopt_losses();
        self.explore_now(self.expect([]))
    }
}

fn exchange(
    image: &Image,
    name: &str,
    length_bytes: u64,
    replaces: bool,
    bits: Option<&[u8]>,
) -> qbm_core::Result<()> {
    match replaces {
        true => image.store_bits(name, 0, length_bytes, bits),
        false => image.merge_bits(name, 0, length_bytes, bits.unwrap_or_default()),
    }
}
