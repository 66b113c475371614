// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an input says of an image, and the descriptor that says it.

use arbitrary::Arbitrary;

use super::round;

#[derive(Arbitrary, Debug)]
pub(super) struct Input {
    pub(super) granularity_shift: u8,
    pub(super) size: Size,
    pub(super) length: Length,
    pub(super) history: History,
    pub(super) checksum: Checksum,
    pub(super) recording: bool,
    pub(super) pieces: Vec<(Place, Vec<u8>)>,
    pub(super) steps: Vec<Step>,
}

/// `granules` of them, less `slack` bytes.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) granules: u64,
    pub(super) magnitude: u8,
    pub(super) slack: u32,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub(super) enum Place {
    Start(u16),
    End(u16),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
pub(super) enum Length {
    Right,
    Off(i8),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
pub(super) enum History {
    AsProposed,
    Closed,
    Resized(Size),
    CrashedProcess {
        rebooted: bool,
        resize_to: Option<Size>,
        moved: bool,
    },
    CrashedClose,
}

#[derive(Arbitrary, Debug)]
pub(super) enum Checksum {
    Absent,
    Right,
    Any(u32),
}

#[derive(Arbitrary, Debug)]
pub(super) enum Step {
    Write(Place, u32),
    Resize(Size),
    Clear,
    Close,
    Crash,
}

impl Size {
    pub(super) fn bytes(self, granularity_bytes: u64) -> u64 {
        let granules = self.granules >> (self.magnitude % 64);
        let bytes = granules.saturating_mul(granularity_bytes);
        bytes.saturating_sub(u64::from(self.slack) % granularity_bytes)
    }
}

impl Place {
    pub(super) fn within(self, length: u64) -> u64 {
        match self {
            Self::Start(distance) => u64::from(distance),
            Self::End(distance) => length.saturating_sub(u64::from(distance)),
            Self::Any(place) => place.checked_rem(length).unwrap_or(0),
        }
    }
}

pub(super) fn descriptor(
    input: &Input,
    granularity: u64,
    recorded: u64,
    checksum: Option<u32>,
) -> String {
    let recorded = round(recorded);
    let history = match &input.history {
        History::AsProposed => String::new(),
        History::Closed | History::Resized(_) => {
            format!(r#","ext-soft-qbm-seal":{{"generation":1,"size-bytes":{recorded}}}"#)
        }
        History::CrashedClose => session("close", "boot-0", recorded, None),
        History::CrashedProcess {
            rebooted,
            resize_to,
            ..
        } => {
            let boot = if *rebooted { "boot-x" } else { "boot-0" };
            let to = resize_to.map(|size| round(size.bytes(granularity)));
            session("process", boot, recorded, to)
        }
    };
    let checksum = checksum.map_or(String::new(), |checksum| {
        format!(r#","ext-soft-qbm-crc32c":"{checksum:08x}""#)
    });
    let recording = input.recording;
    format!(
        r#"{{"QBM":{{"version":1,"image":{{"file":"x.qbm.raw","format":"raw"}},"bitmaps":{{"b":{{"file":"b.bitmap","granularity-bytes":{granularity},"type":"dirty","ext-soft-qbm-recording":{recording}{checksum}}}}}{history}}}}}"#
    )
}

fn session(durability: &str, boot: &str, size: u64, resize_to: Option<u64>) -> String {
    let resize = resize_to.map_or(String::new(), |to| format!(r#","resize-to-bytes":{to}"#));
    format!(
        r#","ext-hard-qbm-session":{{"generation":1,"durability":"{durability}","boot-id":"{boot}","size-bytes":{size}{resize}}}"#
    )
}
