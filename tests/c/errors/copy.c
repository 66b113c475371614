/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Freeze, checkpoint, commit, abort. */
#include "errors.h"

#define LOADED(function, ...)                                                \
    do {                                                                     \
        FAILS(EINVAL, function, NULL, "b0", __VA_ARGS__);                    \
        FAILS(EINVAL, function, images->writer, NULL, __VA_ARGS__);          \
        FAILS(ENOENT, function, images->writer, "absent", __VA_ARGS__);      \
        FAILS(ENOENT, function, images->writer, "lost", __VA_ARGS__);        \
        FAILS(EROFS, function, images->reader, "b0", __VA_ARGS__);           \
    } while (0)

void test_copy(const struct images *images)
{
    const char *frozen[] = { "b0" };
    const char *other[] = { "other" };
    unsigned char bits[2] = { 0 };
    qbm_bitmap_info info = { .size = sizeof(info) };

    LOADED(qbm_bitmap_freeze, &error);
    LOADED(qbm_bitmap_checkpoint, 0, &error);
    LOADED(qbm_bitmap_commit, &error);
    LOADED(qbm_bitmap_abort, &error);
    FAILS(EINVAL, qbm_bitmap_checkpoint, images->writer, "b0", 0, &error);
    FAILS(EINVAL, qbm_bitmap_commit, images->writer, "b0", &error);
    FAILS(EINVAL, qbm_bitmap_abort, images->writer, "b0", &error);

    OK(qbm_bitmap_add(images->writer, "other", GRANULARITY, 0, &error));
    OK(qbm_bitmap_freeze(images->writer, "b0", &error));
    FAILS(EBUSY, qbm_bitmap_freeze, images->writer, "b0", &error);
    FAILS(EBUSY, qbm_bitmap_remove, images->writer, "b0", &error);
    FAILS(EBUSY, qbm_bitmap_clear, images->writer, "b0", &error);
    FAILS(EBUSY, qbm_bitmap_rename, images->writer, "b0", "b1", &error);
    FAILS(EBUSY, qbm_bitmap_set_recording, images->writer, "b0", false,
          &error);
    FAILS(EBUSY, qbm_bitmap_set_granularity, images->writer, "b0", 512,
          &error);
    FAILS(EBUSY, qbm_bitmap_store_bits, images->writer, "b0", 0, SIZE, bits,
          sizeof(bits), &error);
    FAILS(EBUSY, qbm_bitmap_merge, images->writer, "b0", other, 1, &error);
    FAILS(EBUSY, qbm_bitmap_merge, images->writer, "other", frozen, 1,
          &error);
    OK(qbm_bitmap_find(images->writer, "b0", &info, &error));
    CHECK(info.flags & QBM_BITMAP_FROZEN);
    /* What is allowed meanwhile */
    OK(qbm_bitmap_mark_dirty(images->writer, "b0", 0, 1, &error));
    OK(qbm_bitmap_merge_bits(images->writer, "b0", 0, SIZE, bits,
                             sizeof(bits), &error));
    OK(qbm_bitmap_set_user_data(images->writer, "b0", "x", 1, &error));
    OK(qbm_bitmap_checkpoint(images->writer, "b0", UINT64_MAX, &error));
    OK(qbm_bitmap_abort(images->writer, "b0", &error));
    OK(qbm_bitmap_clear(images->writer, "b0", &error));

    /* Giving it up ends the freeze */
    OK(qbm_bitmap_freeze(images->writer, "other", &error));
    OK(qbm_bitmap_set_inconsistent(images->writer, "other", &error));
    FAILS(ENOENT, qbm_bitmap_commit, images->writer, "other", &error);
    OK(qbm_bitmap_remove(images->writer, "other", &error));
}
