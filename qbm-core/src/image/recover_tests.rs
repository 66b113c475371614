// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is trusted, and who is not.

use super::*;

const SEALED: Timestamp = Timestamp {
    seconds: 1000,
    nanoseconds: 7,
};
const LATER: Timestamp = Timestamp {
    seconds: 1000,
    nanoseconds: 8,
};

/// A descriptor with a session or a seal over 5120 bytes.
fn descriptor(
    session: Option<(Durability, Option<u64>)>,
    seal: Option<Option<Timestamp>>,
) -> Descriptor {
    let mut descriptor = Descriptor::new("d".into(), "raw".into());
    descriptor.session = session.map(|(durability, resize_to_bytes)| Session {
        generation: 0,
        durability,
        boot_id: "this".into(),
        size_bytes: 5120,
        resize_to_bytes,
    });
    descriptor.seal = seal.map(|modified| Seal {
        generation: 1,
        size_bytes: 5120,
        modified,
    });
    descriptor
}

fn found(size_bytes: u64) -> Found<'static> {
    Found {
        size_bytes,
        modified: Modified::Unknown,
        boot_id: "this",
        trust_data: false,
    }
}

fn is_trusted(descriptor: &Descriptor, found: &Found<'_>) -> bool {
    matches!(judge(descriptor, found), Verdict::Trusted(_))
}

#[test]
fn after_a_clean_close_the_size_decides() {
    assert!(
        is_trusted(&descriptor(None, None), &found(5120)),
        "as proposed"
    );
    let sealed = descriptor(None, Some(None));
    assert!(is_trusted(&sealed, &found(5120)));
    assert!(is_trusted(&sealed, &found(9999)), "grown");
    assert!(!is_trusted(&sealed, &found(512)), "shrunk");
}

#[test]
fn after_a_clean_close_the_modification_time_decides() {
    let sealed = descriptor(None, Some(Some(SEALED)));
    let at = |size_bytes, modified| Found {
        modified,
        ..found(size_bytes)
    };
    assert!(is_trusted(&sealed, &at(5120, Modified::At(SEALED))));
    assert!(!is_trusted(&sealed, &at(5120, Modified::At(LATER))));
    assert!(!is_trusted(&sealed, &at(5120, Modified::NotAFile)));
    assert!(is_trusted(&sealed, &at(5120, Modified::Unknown)));
    assert!(
        is_trusted(&sealed, &at(9999, Modified::At(LATER))),
        "growing changes it"
    );
    assert!(!is_trusted(&sealed, &at(512, Modified::At(LATER))));
    let unsealed = descriptor(None, Some(None));
    assert!(
        is_trusted(&unsealed, &at(5120, Modified::At(LATER))),
        "nothing to compare with"
    );
}

#[test]
fn a_seal_that_cannot_be_read_proves_nothing() {
    let mut damaged = descriptor(None, None);
    damaged.seal_is_damaged = true;
    assert!(!is_trusted(&damaged, &found(5120)));
    let vouched = Found {
        trust_data: true,
        ..found(5120)
    };
    assert!(
        !is_trusted(&damaged, &vouched),
        "it is not the data image that is in doubt"
    );
}

#[test]
fn after_a_crash_durability_and_boot_decide() {
    use Durability::{Close, Process};
    let elsewhere = Found {
        boot_id: "other",
        ..found(5120)
    };
    let vouched = Found {
        trust_data: true,
        ..elsewhere
    };
    assert!(!is_trusted(
        &descriptor(Some((Close, None)), None),
        &found(5120)
    ));
    let process = descriptor(Some((Process, None)), None);
    assert!(is_trusted(&process, &found(5120)));
    assert!(!is_trusted(&process, &elsewhere));
    assert!(
        !is_trusted(&process, &vouched),
        "the override is about the data image"
    );
    assert!(!is_trusted(&process, &found(512)));
    assert!(is_trusted(
        &descriptor(Some((Process, Some(512))), None),
        &found(512)
    ));
    assert!(!is_trusted(
        &descriptor(Some((Process, Some(1024))), None),
        &found(512)
    ));
}

#[test]
fn an_override_says_what_it_overruled() {
    let vouched = |size_bytes, modified| Found {
        trust_data: true,
        modified,
        ..found(size_bytes)
    };
    let sealed = descriptor(None, Some(Some(SEALED)));
    for (found, overruled) in [
        (vouched(5120, Modified::At(SEALED)), None),
        (vouched(9999, Modified::At(LATER)), None),
        (
            vouched(5120, Modified::At(LATER)),
            Some("written or replaced"),
        ),
        (vouched(512, Modified::At(LATER)), Some("shrank")),
    ] {
        let Verdict::Trusted(trusted) = judge(&sealed, &found) else {
            panic!("{found:?}");
        };
        match (trusted.overruled, overruled) {
            (None, None) => {}
            (Some(reason), Some(words)) => assert!(reason.contains(words), "{reason}"),
            (reason, _) => panic!("{found:?}: {reason:?}"),
        }
    }
}

#[test]
fn lengths() {
    check_length(2, 512, 512 * 9, None).unwrap();
    check_length(1, 512, 512 * 9, None).unwrap_err();
    check_length(3, 512, 512 * 9, None).unwrap_err();
    check_length(1, 512, 512 * 9, Some(512)).unwrap();
    check_length(0, 512, u64::MAX / 4, None).unwrap_err();
}
