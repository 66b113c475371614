// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of granules, laid out as a bitmap file is, so that sets and files compare byte by byte.

/// Which granules of an image are dirty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granules {
    granularity_bytes: u64,
    image_bytes: u64,
    bits: Vec<u8>,
}

impl Granules {
    /// No granule of an image of `image_bytes`.
    pub fn none(granularity_bytes: u64, image_bytes: u64) -> Self {
        let count = image_bytes.div_ceil(granularity_bytes);
        Self {
            granularity_bytes,
            image_bytes,
            bits: vec![0; usize::try_from(count.div_ceil(8)).expect("a small image")],
        }
    }

    /// The set that a bitmap file of `bits` stands for.
    pub fn of_bits(granularity_bytes: u64, image_bytes: u64, bits: Vec<u8>) -> Self {
        let mut set = Self::none(granularity_bytes, image_bytes);
        assert_eq!(bits.len(), set.bits.len(), "a whole bitmap");
        set.bits = bits;
        set
    }

    /// Granules in an image of that size.
    pub fn granules_count(&self) -> u64 {
        self.image_bytes.div_ceil(self.granularity_bytes)
    }

    /// The bits, as a bitmap file has them.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    fn set(&mut self, granule: u64) {
        self.bits[(granule / 8) as usize] |= 1 << (granule % 8);
    }

    /// Whether a granule is in the set.
    pub fn has(&self, granule: u64) -> bool {
        self.bits[(granule / 8) as usize] >> (granule % 8) & 1 == 1
    }

    /// Numbers of the granules in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        (0..self.granules_count()).filter(|granule| self.has(*granule))
    }

    /// How many granules are in the set.
    pub fn count(&self) -> u64 {
        self.bits
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum()
    }

    /// Adds every granule that a byte range touches.
    pub fn touch(&mut self, offset_bytes: u64, length_bytes: u64) {
        let end = offset_bytes
            .saturating_add(length_bytes)
            .min(self.image_bytes);
        if offset_bytes < end {
            let last = (end - 1) / self.granularity_bytes;
            (offset_bytes / self.granularity_bytes..=last).for_each(|granule| self.set(granule));
        }
    }

    /// Adds what `other` has, whatever its granularity: outwards.
    pub fn merge(&mut self, other: &Self) {
        if other.granularity_bytes == self.granularity_bytes && other.bits.len() == self.bits.len()
        {
            for (byte, added) in self.bits.iter_mut().zip(&other.bits) {
                *byte |= added;
            }
            return;
        }
        for granule in other.iter() {
            self.touch(granule * other.granularity_bytes, other.granularity_bytes);
        }
    }

    /// The set that a caller's bits stand for, whatever its padding holds.
    pub fn of_padded(granularity_bytes: u64, image_bytes: u64, bits: Vec<u8>) -> Self {
        Self::of_bits(granularity_bytes, image_bytes, bits).resized(image_bytes)
    }

    /// Only what both have; of different granularities: nothing.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut new = Self::none(self.granularity_bytes, self.image_bytes);
        if other.granularity_bytes == self.granularity_bytes {
            let both = self.bits.iter().zip(&other.bits);
            for (byte, (mine, others)) in new.bits.iter_mut().zip(both) {
                *byte = mine & others;
            }
        }
        new
    }

    /// The same from granule number `first` on.
    #[must_use]
    pub fn rest(&self, first: u64) -> Self {
        let mut new = Self::none(self.granularity_bytes, self.image_bytes);
        self.iter()
            .filter(|granule| *granule >= first)
            .for_each(|granule| new.set(granule));
        new
    }

    /// The same granules of an image of another size: cut, or with clean ones after them.
    #[must_use]
    pub fn resized(&self, image_bytes: u64) -> Self {
        let mut new = Self::none(self.granularity_bytes, image_bytes);
        let count = new.granules_count();
        self.iter()
            .take_while(|granule| *granule < count)
            .for_each(|granule| new.set(granule));
        new
    }

    /// The same bytes at another granularity, outwards.
    #[must_use]
    pub fn regranulated(&self, granularity_bytes: u64) -> Self {
        let mut new = Self::none(granularity_bytes, self.image_bytes);
        new.merge(self);
        new
    }

    /// A granule that is in this set and not in `other`.
    pub fn first_beyond(&self, other: &Self) -> Option<u64> {
        let differs = self
            .bits
            .iter()
            .zip(&other.bits)
            .position(|(mine, others)| mine & !others != 0)?;
        let byte = self.bits[differs] & !other.bits[differs];
        Some(differs as u64 * 8 + u64::from(byte.trailing_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(granularity_bytes: u64, granules: &[u64]) -> Granules {
        let mut set = Granules::none(granularity_bytes, 10_000);
        granules.iter().for_each(|granule| set.set(*granule));
        set
    }

    #[test]
    fn ranges_round_outwards_and_end_with_the_image() {
        let mut found = Granules::none(1024, 10_000);
        found.touch(1023, 2);
        found.touch(9_999, u64::MAX);
        found.touch(5000, 0);
        assert_eq!(found, set(1024, &[0, 1, 9]));
        assert_eq!(found.bits(), [0b11, 0b10]);
        assert_eq!(found.count(), 3);
    }

    #[test]
    fn granularities_convert_outwards() {
        let fine = set(512, &[3, 19]);
        assert_eq!(fine.regranulated(2048), set(2048, &[0, 4]));
        assert_eq!(
            set(2048, &[4]).regranulated(512),
            set(512, &[16, 17, 18, 19])
        );
        assert_eq!(fine.first_beyond(&set(512, &[3])), Some(19));
        assert_eq!(fine.first_beyond(&fine), None);
    }

    #[test]
    fn resizing_cuts() {
        assert_eq!(set(512, &[3, 19]).resized(4 * 512).count(), 1);
        assert_eq!(set(512, &[3]).resized(3 * 512).count(), 0);
    }
}
