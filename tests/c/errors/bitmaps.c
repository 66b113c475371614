/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bitmaps: listing, adding, removing. */
#include "errors.h"

static char too_long[QBM_BITMAP_NAME_MAX + 2];

static void test_listing(const struct images *images)
{
    qbm_bitmap_info info = { .size = sizeof(info) };
    qbm_bitmap_info *later;
    unsigned char *tail;

    FAILS(EINVAL, qbm_bitmap_get, NULL, 0, &info, &error);
    FAILS(EINVAL, qbm_bitmap_get, images->idle, 0, NULL, &error);
    FAILS(ENOENT, qbm_bitmap_get, images->idle, 2, &info, &error);
    FAILS(ENOENT, qbm_bitmap_get, images->idle, UINT32_MAX, &info, &error);
    FAILS(EINVAL, qbm_bitmap_find, NULL, "b0", &info, &error);
    FAILS(EINVAL, qbm_bitmap_find, images->idle, NULL, &info, &error);
    FAILS(EINVAL, qbm_bitmap_find, images->idle, "b0", NULL, &error);
    FAILS(EINVAL, qbm_bitmap_find, images->idle, "\xff", &info, &error);
    FAILS(ENOENT, qbm_bitmap_find, images->idle, "", &info, &error);
    FAILS(ENOENT, qbm_bitmap_find, images->idle, "absent", &info, &error);
    info.size--;
    FAILS(EINVAL, qbm_bitmap_get, images->idle, 0, &info, &error);
    FAILS(EINVAL, qbm_bitmap_find, images->idle, "b0", &info, &error);
    info.size++;
    later = grown(&info, sizeof(info), &tail);
    OK(qbm_bitmap_get(images->idle, 0, later, &error));
    OK(qbm_bitmap_find(images->idle, "lost", later, &error));
    CHECK(later->flags & QBM_BITMAP_INCONSISTENT);
    free(later);
}

static void test_can_store(const struct images *images)
{
    FAILS(EINVAL, qbm_bitmap_can_store, NULL, "new", 512, &error);
    FAILS(EINVAL, qbm_bitmap_can_store, images->writer, NULL, 512, &error);
    FAILS(EINVAL, qbm_bitmap_can_store, images->writer, "", 512, &error);
    FAILS(EINVAL, qbm_bitmap_can_store, images->writer, "new", 511, &error);
    FAILS(EINVAL, qbm_bitmap_can_store, images->writer, "new", 256, &error);
    FAILS(EINVAL, qbm_bitmap_can_store, images->writer, "new",
          UINT64_C(1) << 32, &error);
    FAILS(EEXIST, qbm_bitmap_can_store, images->writer, "b0", 512, &error);
    FAILS(EEXIST, qbm_bitmap_can_store, images->writer, "lost", 512, &error);
    FAILS(ENAMETOOLONG, qbm_bitmap_can_store, images->writer, too_long, 512,
          &error);
    FAILS(EROFS, qbm_bitmap_can_store, images->reader, "new", 512, &error);
    FAILS(EROFS, qbm_bitmap_can_store, images->idle, "new", 512, &error);
}

static void test_add(const struct images *images)
{
    qbm_bitmap_info info = { .size = sizeof(info) };

    FAILS(EINVAL, qbm_bitmap_add, NULL, "new", 512, 0, &error);
    FAILS(EINVAL, qbm_bitmap_add, images->writer, NULL, 512, 0, &error);
    FAILS(EINVAL, qbm_bitmap_add, images->writer, "", 512, 0, &error);
    FAILS(EINVAL, qbm_bitmap_add, images->writer, "new", 0, 0, &error);
    FAILS(EINVAL, qbm_bitmap_add, images->writer, "new", 512,
          QBM_BITMAP_IN_USE, &error);
    FAILS(EINVAL, qbm_bitmap_add, images->writer, "new", 512,
          QBM_BITMAP_FROZEN, &error);
    FAILS(EEXIST, qbm_bitmap_add, images->writer, "b0", 512, 0, &error);
    FAILS(ENAMETOOLONG, qbm_bitmap_add, images->writer, too_long, 512, 0,
          &error);
    FAILS(EROFS, qbm_bitmap_add, images->reader, "new", 512, 0, &error);
    FAILS(EROFS, qbm_bitmap_add, images->idle, "new", 512, 0, &error);
    FAILS(ENOENT, qbm_bitmap_find, images->writer, "new", &info, &error);
}

/* Caps: 2^36 bits in a bitmap. */
static void test_caps(void)
{
    const uint64_t size_bytes = UINT64_C(1) << 50;
    qbm_activate_args args = { .size = sizeof(args),
                               .image_size_bytes = size_bytes,
                               .data_file = "" };
    qbm_image *image;

    write_text("huge.qbm", "{\"QBM\": {\"version\": 1, \"image\": "
                           "{\"file\": \"absent.raw\", \"format\": \"raw\"}}}");
    OK(open_image("huge.qbm", 0, &image));
    OK(qbm_activate(image, &args, &error));
    FAILS(EFBIG, qbm_bitmap_can_store, image, "b", 8192, &error);
    FAILS(EFBIG, qbm_bitmap_add, image, "b", 8192, 0, &error);
    OK(qbm_bitmap_add(image, "b", 16384, 0, &error));
    FAILS(EFBIG, qbm_bitmap_set_granularity, image, "b", 8192, &error);
    FAILS(EFBIG, qbm_co_truncate_begin, image, size_bytes + 16384, &error);
    OK(qbm_close(image, &error));
}

void test_bitmaps(const struct images *images)
{
    memset(too_long, 'n', sizeof(too_long) - 1);
    test_listing(images);
    test_can_store(images);
    test_add(images);
    test_caps();

    FAILS(EINVAL, qbm_bitmap_remove, NULL, "b0", &error);
    FAILS(EINVAL, qbm_bitmap_remove, images->writer, NULL, &error);
    FAILS(ENOENT, qbm_bitmap_remove, images->writer, "absent", &error);
    FAILS(EROFS, qbm_bitmap_remove, images->reader, "b0", &error);
    FAILS(EROFS, qbm_bitmap_remove, images->idle, "b0", &error);
}
