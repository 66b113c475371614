// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways in which it all stops.

use crate::disk::{Fate, World};

/// What happens to the host, and to each change that no sync covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The process ends; the page cache stays.
    Kill,
    /// The power goes; of the changes exactly these arrived, one bit each.
    CutSubset(u64),
    /// The power goes; each change is kept, dropped or torn at random.
    CutRandom(u64),
}

/// All subsets are tried up to this many changes.
const SUBSETS_CHANGES_MAX: usize = 4;

impl Outcome {
    /// Whether the page cache is lost.
    pub fn is_cut(self) -> bool {
        self != Self::Kill
    }

    /// Any one.
    pub fn any(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..4) {
            0 | 1 => Self::Kill,
            2 => Self::CutSubset(0),
            _ => Self::CutRandom(random.u64(..)),
        }
    }

    /// Those to try at a place: a kill, nothing arrived, everything arrived, and either all subsets or `cuts` random ones.
    pub fn at(world: &World, cuts: usize, random: &mut fastrand::Rng) -> Vec<Self> {
        let mut outcomes = vec![Self::Kill, Self::CutSubset(0)];
        let changes = world.fates_count();
        if changes == 0 {
            return outcomes;
        }
        if changes <= SUBSETS_CHANGES_MAX && cuts > 1 {
            outcomes.extend((1..1 << changes).map(Self::CutSubset));
        } else {
            outcomes.push(Self::CutSubset(u64::MAX));
        }
        outcomes.extend((0..cuts).map(|_| Self::CutRandom(random.u64(..))));
        outcomes
    }

    /// What is left of `world`.
    pub fn apply(self, world: &World) -> World {
        match self {
            Self::Kill => world.clone(),
            Self::CutSubset(subset) => {
                let mut change = 0;
                world.after_cut(|| {
                    let is_kept = subset >> (change % 64) & 1 == 1;
                    change += 1;
                    if is_kept { Fate::Kept } else { Fate::Dropped }
                })
            }
            Self::CutRandom(seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                // Some cuts lose little, some lose much.
                let kept = random.u8(0..8);
                world.after_cut(|| match random.u8(0..8) {
                    roll if roll < kept => Fate::Kept,
                    roll if roll % 2 == 0 => Fate::Torn(random.u64(..)),
                    _ => Fate::Dropped,
                })
            }
        }
    }
}
