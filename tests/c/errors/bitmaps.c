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

static int change(qbm_image *image, uint32_t action, const char *name,
                  uint64_t granularity_bytes, uint32_t flags, qbm_error *error)
{
    qbm_bitmap_change changes[2] = {
        { .size = sizeof(changes[0]), .action = QBM_CHANGE_SET_RECORDING,
          .name = "b0" },
        { .size = sizeof(changes[0]), .action = action, .name = name,
          .granularity_bytes = granularity_bytes, .flags = flags },
    };

    return qbm_bitmap_change_several(image, changes, 2, error);
}

/* FAILS() by the name that the header has. */
#define CHANGE_FAILS(errnum, ...)                                            \
    failed(__FILE__, __LINE__, "qbm_bitmap_change_several", errnum, #errnum, \
           (forget_error(), change(__VA_ARGS__)), 1)

static void test_change_several(const struct images *images)
{
    qbm_image *writer = images->writer;
    qbm_bitmap_change changes[2] = {
        { .size = sizeof(changes[0]), .action = QBM_CHANGE_REMOVE,
          .name = "b0" },
        { .size = sizeof(changes[0]) - 1 },
    };
    qbm_bitmap_info info = { .size = sizeof(info) };

    FAILS(EINVAL, qbm_bitmap_change_several, NULL, NULL, 0, &error);
    FAILS(EINVAL, qbm_bitmap_change_several, writer, NULL, 1, &error);
    FAILS(EINVAL, qbm_bitmap_change_several, writer, changes, 2, &error);
    FAILS(EINVAL, qbm_bitmap_change_several, writer, changes, SIZE_MAX, &error);
    OK(qbm_bitmap_change_several(writer, NULL, 0, &error));

    CHANGE_FAILS(EINVAL, writer, 0, "new", 0, 0, &error);
    CHANGE_FAILS(EINVAL, writer, 4, "new", 0, 0, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_ADD, NULL, 512, 0, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_ADD, "\xff", 512, 0, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_ADD, "", 512, 0, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_ADD, "new", 511, 0, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_ADD, "new", 512,
                 QBM_BITMAP_FROZEN, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_REMOVE, "lost", 512, 0, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_REMOVE, "lost", 0,
                 QBM_BITMAP_RECORDING, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_SET_RECORDING, "lost", 0,
                 QBM_BITMAP_ALL_DIRTY, &error);
    CHANGE_FAILS(EINVAL, writer, QBM_CHANGE_REMOVE, "b0", 0, 0, &error);
    CHANGE_FAILS(ENOENT, writer, QBM_CHANGE_REMOVE, "absent", 0, 0, &error);
    CHANGE_FAILS(ENOENT, writer, QBM_CHANGE_SET_RECORDING, "lost", 0, 0,
                 &error);
    CHANGE_FAILS(EEXIST, writer, QBM_CHANGE_ADD, "lost", 512, 0, &error);
    CHANGE_FAILS(ENAMETOOLONG, writer, QBM_CHANGE_ADD, too_long, 512, 0,
                 &error);
    CHANGE_FAILS(EROFS, images->reader, QBM_CHANGE_ADD, "new", 512, 0, &error);
    CHANGE_FAILS(EROFS, images->idle, QBM_CHANGE_ADD, "new", 512, 0, &error);

    OK(qbm_bitmap_add(writer, "frozen", 512, 0, &error));
    OK(qbm_bitmap_freeze(writer, "frozen", &error));
    CHANGE_FAILS(EBUSY, writer, QBM_CHANGE_REMOVE, "frozen", 0, 0, &error);
    OK(qbm_bitmap_abort(writer, "frozen", &error));
    OK(change(writer, QBM_CHANGE_REMOVE, "frozen", 0, 0, &error));
    FAILS(ENOENT, qbm_bitmap_find, writer, "frozen", &info, &error);
    OK(qbm_bitmap_find(writer, "b0", &info, &error));
    CHECK(!(info.flags & QBM_BITMAP_RECORDING));
    OK(qbm_bitmap_set_recording(writer, "b0", true, &error));
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
    OK(qbm_bitmap_add(image, "b0", 16384, 0, &error));
    CHANGE_FAILS(EFBIG, image, QBM_CHANGE_ADD, "b", 8192, 0, &error);
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
    test_change_several(images);
    test_caps();

    FAILS(EINVAL, qbm_bitmap_remove, NULL, "b0", &error);
    FAILS(EINVAL, qbm_bitmap_remove, images->writer, NULL, &error);
    FAILS(ENOENT, qbm_bitmap_remove, images->writer, "absent", &error);
    FAILS(EROFS, qbm_bitmap_remove, images->reader, "b0", &error);
    FAILS(EROFS, qbm_bitmap_remove, images->idle, "b0", &error);
}
