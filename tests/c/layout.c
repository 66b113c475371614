/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The layout of the ABI on LP64, as reviewed. qbm-ffi/src/layout.rs says the same of Rust's side; layout.sh holds the two
 * and the header against each other.
 *
 * Where pointers and size_t have 4 bytes the first member of every structure is smaller, and what follows moves.
 */
#include <qbm.h>

#ifdef __LP64__
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type);
#define MEMBER(type, member, offset, bytes)                                  \
    _Static_assert(offsetof(type, member) == (offset) &&                     \
                   sizeof(((type *)0)->member) == (bytes), #type "." #member);
#define CONSTANT(name, value) _Static_assert((name) == (value), #name);

SIZE(qbm_error, 2048)
MEMBER(qbm_error, size, 0, 8)
MEMBER(qbm_error, errnum, 8, 4)
MEMBER(qbm_error, message, 12, 2036)

SIZE(qbm_create_args, 56)
MEMBER(qbm_create_args, size, 0, 8)
MEMBER(qbm_create_args, flags, 8, 4)
MEMBER(qbm_create_args, durability, 12, 4)
MEMBER(qbm_create_args, image_size_bytes, 16, 8)
MEMBER(qbm_create_args, data_file, 24, 8)
MEMBER(qbm_create_args, data_format, 32, 8)
MEMBER(qbm_create_args, data_file_out, 40, 8)
MEMBER(qbm_create_args, data_file_out_size, 48, 8)
CONSTANT(QBM_CREATE_NO_LOCK, 1)
CONSTANT(QBM_DURABILITY_DEFAULT, 0)
CONSTANT(QBM_DURABILITY_CLOSE, 1)
CONSTANT(QBM_DURABILITY_PROCESS, 2)

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

SIZE(qbm_info, 4192)
MEMBER(qbm_info, size, 0, 8)
MEMBER(qbm_info, image_size_bytes, 8, 8)
MEMBER(qbm_info, flags, 16, 4)
MEMBER(qbm_info, durability, 20, 4)
MEMBER(qbm_info, bitmaps_count, 24, 4)
MEMBER(qbm_info, reserved, 28, 4)
MEMBER(qbm_info, data_file, 32, 4096)
MEMBER(qbm_info, data_format, 4128, 64)
CONSTANT(QBM_INFO_IN_USE, 1)
CONSTANT(QBM_INFO_ACTIVE, 2)
CONSTANT(QBM_INFO_WRITABLE, 4)
CONSTANT(QBM_INFO_SIZE_KNOWN, 8)

SIZE(qbm_bitmap_info, 1048)
MEMBER(qbm_bitmap_info, size, 0, 8)
MEMBER(qbm_bitmap_info, granularity_bytes, 8, 8)
MEMBER(qbm_bitmap_info, flags, 16, 4)
MEMBER(qbm_bitmap_info, reserved, 20, 4)
MEMBER(qbm_bitmap_info, name, 24, 1024)
CONSTANT(QBM_BITMAP_NAME_MAX, 1023)
CONSTANT(QBM_BITMAP_RECORDING, 1)
CONSTANT(QBM_BITMAP_IN_USE, 2)
CONSTANT(QBM_BITMAP_INCONSISTENT, 4)
CONSTANT(QBM_BITMAP_ALL_DIRTY, 8)

SIZE(qbm_ticket, 16)
MEMBER(qbm_ticket, opaque, 0, 16)
CONSTANT(QBM_MUST_WAIT, 1)
#endif
