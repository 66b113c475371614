/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is dirty: counts, extents, bits. */
#include "errors.h"

#define LOADED(function, ...)                                                \
    do {                                                                     \
        FAILS(EINVAL, function, NULL, "b0", __VA_ARGS__);                    \
        FAILS(EINVAL, function, images->writer, NULL, __VA_ARGS__);          \
        FAILS(ENOENT, function, images->writer, "absent", __VA_ARGS__);      \
        FAILS(ENOENT, function, images->writer, "lost", __VA_ARGS__);        \
    } while (0)

#define WRITABLE(function, ...)                                              \
    FAILS(EROFS, function, images->reader, "b0", __VA_ARGS__)

/* A range of 1 MiB at granularity 64 KiB: 16 granules, 2 bytes. */
#define RANGE(function)                                                      \
    do {                                                                     \
        LOADED(function, 0, SIZE, bits, sizeof(bits), &error);               \
        FAILS(EINVAL, function, images->writer, "b0", GRANULARITY, SIZE,     \
              bits, sizeof(bits), &error);                                   \
        FAILS(EINVAL, function, images->writer, "b0", 0, GRANULARITY, bits,  \
              sizeof(bits), &error);                                         \
        FAILS(EINVAL, function, images->writer, "b0", 0, SIZE, bits, 1,      \
              &error);                                                       \
    } while (0)

void test_extents(const struct images *images)
{
    unsigned char bits[2] = { 0 };
    uint64_t offset = 7, bytes = 8;

    LOADED(qbm_bitmap_count, &bytes, &error);
    FAILS(EINVAL, qbm_bitmap_count, images->writer, "b0", NULL, &error);
    FAILS(ENOENT, qbm_bitmap_count, images->idle, "b0", &bytes, &error);
    LOADED(qbm_bitmap_next_extent, 0, &offset, &bytes, &error);
    FAILS(EINVAL, qbm_bitmap_next_extent, images->writer, "b0", 0, NULL,
          &bytes, &error);
    FAILS(EINVAL, qbm_bitmap_next_extent, images->writer, "b0", 0, &offset,
          NULL, &error);
    LOADED(qbm_bitmap_next_dirty, 0, &offset, &error);
    FAILS(EINVAL, qbm_bitmap_next_dirty, images->writer, "b0", 0, NULL,
          &error);
    /* Beyond the end nothing is dirty: no error */
    CHECK(qbm_bitmap_next_dirty(images->writer, "b0", UINT64_MAX, &offset,
                                &error) == 0);
    CHECK(qbm_bitmap_next_extent(images->writer, "b0", UINT64_MAX, &offset,
                                 &bytes, &error) == 0);
    CHECK(offset == 7 && bytes == 8);

    RANGE(qbm_bitmap_load_bits);
    FAILS(EINVAL, qbm_bitmap_load_bits, images->writer, "b0", 0, SIZE, NULL,
          sizeof(bits), &error);
    RANGE(qbm_bitmap_store_bits);
    WRITABLE(qbm_bitmap_store_bits, 0, SIZE, bits, sizeof(bits), &error);
    RANGE(qbm_bitmap_merge_bits);
    WRITABLE(qbm_bitmap_merge_bits, 0, SIZE, bits, sizeof(bits), &error);
    FAILS(EINVAL, qbm_bitmap_merge_bits, images->writer, "b0", 0, SIZE, NULL,
          sizeof(bits), &error);

    LOADED(qbm_bitmap_mark_dirty, 0, 1, &error);
    WRITABLE(qbm_bitmap_mark_dirty, 0, 1, &error);
    FAILS(EINVAL, qbm_bitmap_mark_dirty, images->writer, "b0", SIZE, 1,
          &error);
    FAILS(EINVAL, qbm_bitmap_mark_dirty, images->writer, "b0", 1, SIZE,
          &error);
    FAILS(EINVAL, qbm_bitmap_mark_dirty, images->writer, "b0", UINT64_MAX,
          UINT64_MAX, &error);
    OK(qbm_bitmap_count(images->writer, "b0", &bytes, &error));
    CHECK(bytes == 0);
}
