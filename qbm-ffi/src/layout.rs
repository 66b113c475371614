// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout of the ABI on LP64, as reviewed; tests/c/layout.c says the same of C's side.

use crate::*;
use std::mem::offset_of;

macro_rules! entry {
    (SIZE, $type:ident, $bytes:literal) => {
        const _: () = assert!(size_of::<$type>() == $bytes, stringify!($type));
    };
    (MEMBER, $type:ident, $member:ident, $offset:literal, $bytes:literal) => {
        const _: () = {
            const fn member_size<T>(_: fn(&$type) -> &T) -> usize {
                size_of::<T>()
            }
            let bytes = member_size(|given| &given.$member);
            let same = offset_of!($type, $member) == $offset && bytes == $bytes;
            assert!(same, stringify!($type.$member));
        };
    };
    (CONSTANT, $name:ident, $value:literal) => {
        const _: () = assert!($name == $value, stringify!($name));
    };
}

macro_rules! layout {
    ($($kind:ident($($argument:tt),*))*) => {
        $(entry!($kind, $($argument),*);)*
    };
}

layout! {
    SIZE(qbm_error, 2048)
    MEMBER(qbm_error, size, 0, 8)
    MEMBER(qbm_error, errnum, 8, 4)
    MEMBER(qbm_error, message, 12, 2036)

    SIZE(qbm_create_args, 64)
    MEMBER(qbm_create_args, size, 0, 8)
    MEMBER(qbm_create_args, flags, 8, 4)
    MEMBER(qbm_create_args, durability, 12, 4)
    MEMBER(qbm_create_args, image_size_bytes, 16, 8)
    MEMBER(qbm_create_args, data_file, 24, 8)
    MEMBER(qbm_create_args, data_format, 32, 8)
    MEMBER(qbm_create_args, data_file_out, 40, 8)
    MEMBER(qbm_create_args, data_file_out_size, 48, 8)
    MEMBER(qbm_create_args, persist_bitmaps, 56, 4)
    MEMBER(qbm_create_args, reserved, 60, 4)
    CONSTANT(QBM_CREATE_NO_LOCK, 1)
    CONSTANT(QBM_CREATE_EXCLUSIVE, 2)
    CONSTANT(QBM_CREATE_DATA_ONLY, 4)
    CONSTANT(QBM_CREATE_REMOTE_DATA, 8)
    CONSTANT(QBM_DURABILITY_DEFAULT, 0)
    CONSTANT(QBM_DURABILITY_CLOSE, 1)
    CONSTANT(QBM_DURABILITY_PROCESS, 2)
    CONSTANT(QBM_PERSIST_BITMAPS_DEFAULT, 0)
    CONSTANT(QBM_PERSIST_BITMAPS_MARKED, 1)
    CONSTANT(QBM_PERSIST_BITMAPS_ALL, 2)

    SIZE(qbm_open_args, 16)
    MEMBER(qbm_open_args, size, 0, 8)
    MEMBER(qbm_open_args, flags, 8, 4)
    MEMBER(qbm_open_args, reserved, 12, 4)
    CONSTANT(QBM_OPEN_NO_LOCK, 1)
    CONSTANT(QBM_OPEN_SHARED, 2)
    CONSTANT(QBM_OPEN_READ_ONLY, 4)

    SIZE(qbm_activate_args, 32)
    MEMBER(qbm_activate_args, size, 0, 8)
    MEMBER(qbm_activate_args, flags, 8, 4)
    MEMBER(qbm_activate_args, durability, 12, 4)
    MEMBER(qbm_activate_args, image_size_bytes, 16, 8)
    MEMBER(qbm_activate_args, data_file, 24, 8)
    CONSTANT(QBM_ACTIVATE_READ_ONLY, 1)
    CONSTANT(QBM_ACTIVATE_TRUST_DATA, 2)
    CONSTANT(QBM_ACTIVATE_DATA, 4)

    SIZE(qbm_info, 4208)
    MEMBER(qbm_info, size, 0, 8)
    MEMBER(qbm_info, image_size_bytes, 8, 8)
    MEMBER(qbm_info, flags, 16, 4)
    MEMBER(qbm_info, durability, 20, 4)
    MEMBER(qbm_info, bitmaps_count, 24, 4)
    MEMBER(qbm_info, reserved, 28, 4)
    MEMBER(qbm_info, data_file, 32, 4096)
    MEMBER(qbm_info, data_format, 4128, 64)
    MEMBER(qbm_info, stored_durability, 4192, 4)
    MEMBER(qbm_info, persist_bitmaps, 4196, 4)
    MEMBER(qbm_info, generation, 4200, 8)
    CONSTANT(QBM_INFO_IN_USE, 1)
    CONSTANT(QBM_INFO_ACTIVE, 2)
    CONSTANT(QBM_INFO_WRITABLE, 4)
    CONSTANT(QBM_INFO_SIZE_KNOWN, 8)
    CONSTANT(QBM_INFO_DATA, 16)
    CONSTANT(QBM_INFO_CONTINUED, 32)

    SIZE(qbm_defaults, 16)
    MEMBER(qbm_defaults, size, 0, 8)
    MEMBER(qbm_defaults, durability, 8, 4)
    MEMBER(qbm_defaults, persist_bitmaps, 12, 4)

    SIZE(qbm_bitmap_change, 32)
    MEMBER(qbm_bitmap_change, size, 0, 8)
    MEMBER(qbm_bitmap_change, name, 8, 8)
    MEMBER(qbm_bitmap_change, granularity_bytes, 16, 8)
    MEMBER(qbm_bitmap_change, action, 24, 4)
    MEMBER(qbm_bitmap_change, flags, 28, 4)
    CONSTANT(QBM_CHANGE_ADD, 1)
    CONSTANT(QBM_CHANGE_REMOVE, 2)
    CONSTANT(QBM_CHANGE_SET_RECORDING, 3)

    SIZE(qbm_bitmap_info, 1048)
    MEMBER(qbm_bitmap_info, size, 0, 8)
    MEMBER(qbm_bitmap_info, granularity_bytes, 8, 8)
    MEMBER(qbm_bitmap_info, flags, 16, 4)
    MEMBER(qbm_bitmap_info, reserved, 20, 4)
    MEMBER(qbm_bitmap_info, name, 24, 1024)
    CONSTANT(QBM_BITMAP_NAME_MAX, 1023)
    CONSTANT(QBM_VERSION_MAJOR, 0)
    CONSTANT(QBM_VERSION_MINOR, 2)
    CONSTANT(QBM_VERSION_PATCH, 0)
    CONSTANT(QBM_USER_DATA_MAX, 65536)
    CONSTANT(QBM_GRANULARITY_MIN, 512)
    CONSTANT(QBM_GRANULARITY_MAX, 2147483648)
    CONSTANT(QBM_BITMAPS_MAX, 4096)
    CONSTANT(QBM_BITMAP_RECORDING, 1)
    CONSTANT(QBM_BITMAP_IN_USE, 2)
    CONSTANT(QBM_BITMAP_INCONSISTENT, 4)
    CONSTANT(QBM_BITMAP_ALL_DIRTY, 8)
    CONSTANT(QBM_BITMAP_FROZEN, 16)

    SIZE(qbm_check_args, 32)
    MEMBER(qbm_check_args, size, 0, 8)
    MEMBER(qbm_check_args, flags, 8, 4)
    MEMBER(qbm_check_args, reserved, 12, 4)
    MEMBER(qbm_check_args, image_size_bytes, 16, 8)
    MEMBER(qbm_check_args, data_file, 24, 8)
    CONSTANT(QBM_CHECK_NO_LOCK, 1)
    CONSTANT(QBM_CHECK_SHARED, 2)
    CONSTANT(QBM_CHECK_REPAIR, 4)
    CONSTANT(QBM_CHECK_REPAIR_LEAKS, 8)

    SIZE(qbm_report_summary, 32)
    MEMBER(qbm_report_summary, size, 0, 8)
    MEMBER(qbm_report_summary, findings_count, 8, 4)
    MEMBER(qbm_report_summary, leaks_count, 12, 4)
    MEMBER(qbm_report_summary, corruptions_count, 16, 4)
    MEMBER(qbm_report_summary, bitmaps_count, 20, 4)
    MEMBER(qbm_report_summary, usable_count, 24, 4)
    MEMBER(qbm_report_summary, reserved, 28, 4)

    SIZE(qbm_finding, 7184)
    MEMBER(qbm_finding, size, 0, 8)
    MEMBER(qbm_finding, kind, 8, 4)
    MEMBER(qbm_finding, severity, 12, 4)
    MEMBER(qbm_finding, flags, 16, 4)
    MEMBER(qbm_finding, reserved, 20, 4)
    MEMBER(qbm_finding, bitmap, 24, 1024)
    MEMBER(qbm_finding, file, 1048, 4096)
    MEMBER(qbm_finding, message, 5144, 2040)
    CONSTANT(QBM_FINDING_OTHER, 0)
    CONSTANT(QBM_FINDING_TORN_DESCRIPTOR, 1)
    CONSTANT(QBM_FINDING_LEFTOVER_REPLACEMENT, 2)
    CONSTANT(QBM_FINDING_EDITED_DESCRIPTOR, 3)
    CONSTANT(QBM_FINDING_IGNORED_MEMBER, 4)
    CONSTANT(QBM_FINDING_STALE_SESSION, 5)
    CONSTANT(QBM_FINDING_IN_USE, 6)
    CONSTANT(QBM_FINDING_DATA_IMAGE_MISSING, 7)
    CONSTANT(QBM_FINDING_DATA_IMAGE_GREW, 8)
    CONSTANT(QBM_FINDING_DATA_IMAGE_VOUCHED_FOR, 9)
    CONSTANT(QBM_FINDING_INVALID_ENTRY, 10)
    CONSTANT(QBM_FINDING_INCONSISTENT, 11)
    CONSTANT(QBM_FINDING_NOT_TRUSTED, 12)
    CONSTANT(QBM_FINDING_FILE_UNREADABLE, 13)
    CONSTANT(QBM_FINDING_FILE_NOT_OWN, 14)
    CONSTANT(QBM_FINDING_FILE_SIZE, 15)
    CONSTANT(QBM_FINDING_CHECKSUM, 16)
    CONSTANT(QBM_FINDING_GREW_TOO_FAR, 17)
    CONSTANT(QBM_FINDING_PADDING, 18)
    CONSTANT(QBM_FINDING_ALLOCATION_BEYOND_END, 19)
    CONSTANT(QBM_FINDING_ORPHAN_FILE, 20)
    CONSTANT(QBM_SEVERITY_INFORMATION, 0)
    CONSTANT(QBM_SEVERITY_LEAK, 1)
    CONSTANT(QBM_SEVERITY_CORRUPTION, 2)
    CONSTANT(QBM_FINDING_REPAIRABLE, 1)
    CONSTANT(QBM_FINDING_REPAIRED, 2)

    CONSTANT(QBM_ZERO_MAY_UNMAP, 1)

    SIZE(qbm_ticket, 32)
    MEMBER(qbm_ticket, opaque, 0, 32)
    CONSTANT(QBM_MUST_WAIT, 1)
}
