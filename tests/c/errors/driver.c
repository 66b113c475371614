/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What block drivers call around a write or a resize. */
#include "errors.h"

#define TRIO(name)                                                           \
    do {                                                                     \
        FAILS_MUTELY(EINVAL, qbm_co_##name##_begin, NULL, 0, 1, &ticket);    \
        FAILS_MUTELY(EINVAL, qbm_co_##name##_begin, images->writer, 0, 1,    \
                     NULL);                                                  \
        FAILS_MUTELY(EROFS, qbm_co_##name##_begin, images->reader, 0, 1,     \
                     &ticket);                                               \
        FAILS_MUTELY(EROFS, qbm_co_##name##_begin, images->idle, 0, 1,       \
                     &ticket);                                               \
        FAILS(EINVAL, qbm_co_##name##_wait, NULL, &ticket, &error);          \
        FAILS(EINVAL, qbm_co_##name##_wait, images->writer, NULL, &error);   \
        OK(qbm_co_##name##_begin(images->writer, 0, 0, &ticket));            \
        BEARS(qbm_co_##name##_end, NULL, &ticket);                           \
        BEARS(qbm_co_##name##_end, images->writer, NULL);                    \
        qbm_co_##name##_end(images->writer, &ticket);                        \
    } while (0)

void test_driver(const struct images *images)
{
    qbm_ticket ticket = { { 0 } };
    uint64_t bytes;

    TRIO(writev);
    TRIO(write_zeroes);
    TRIO(discard);
    FAILS(EINVAL, qbm_co_truncate_begin, NULL, SIZE, &error);
    FAILS(EROFS, qbm_co_truncate_begin, images->reader, SIZE, &error);
    FAILS(EROFS, qbm_co_truncate_begin, images->idle, SIZE, &error);
    FAILS(EFBIG, qbm_co_truncate_begin, images->writer, UINT64_MAX, &error);
    FAILS(EINVAL, qbm_co_truncate_end, NULL, SIZE, &error);
    FAILS(EROFS, qbm_co_truncate_end, images->reader, SIZE, &error);
    OK(qbm_bitmap_count(images->writer, "b0", &bytes, &error));
    CHECK(bytes == 0);
}
