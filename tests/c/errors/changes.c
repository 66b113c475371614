/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Changes of bitmaps as a whole, and user data. */
#include "errors.h"

static char too_long[QBM_BITMAP_NAME_MAX + 2];

/* What all changes of one bitmap have in common. */
#define CHANGE(function, ...)                                                \
    do {                                                                     \
        FAILS(EINVAL, function, NULL, "b0", __VA_ARGS__);                    \
        FAILS(EINVAL, function, images->writer, NULL, __VA_ARGS__);          \
        FAILS(EINVAL, function, images->writer, "\xff", __VA_ARGS__);        \
        FAILS(ENOENT, function, images->writer, "absent", __VA_ARGS__);      \
        FAILS(EROFS, function, images->reader, "b0", __VA_ARGS__);           \
        FAILS(EROFS, function, images->idle, "b0", __VA_ARGS__);             \
    } while (0)

/* And those that want its bits. */
#define CHANGE_LOADED(function, ...)                                         \
    do {                                                                     \
        CHANGE(function, __VA_ARGS__);                                       \
        FAILS(ENOENT, function, images->writer, "lost", __VA_ARGS__);        \
    } while (0)

static void test_merge(const struct images *images)
{
    const char *sources[] = { "b0", "b0" };

    CHANGE_LOADED(qbm_bitmap_merge, sources, 2, &error);
    FAILS(EINVAL, qbm_bitmap_merge, images->writer, "b0", NULL, 1, &error);
    sources[1] = NULL;
    FAILS(EINVAL, qbm_bitmap_merge, images->writer, "b0", sources, 2, &error);
    sources[1] = "absent";
    FAILS(ENOENT, qbm_bitmap_merge, images->writer, "b0", sources, 2, &error);
    sources[1] = "lost";
    FAILS(ENOENT, qbm_bitmap_merge, images->writer, "b0", sources, 2, &error);
    OK(qbm_bitmap_merge(images->writer, "b0", NULL, 0, &error));
}

static void test_user_data(const struct images *images)
{
    static char data[QBM_USER_DATA_MAX + 1];
    char buffer[4] = "old";
    size_t size = 77;

    CHANGE_LOADED(qbm_bitmap_set_user_data, "data", 4, &error);
    FAILS(EINVAL, qbm_bitmap_set_user_data, images->writer, "b0", NULL, 1,
          &error);
    FAILS(EFBIG, qbm_bitmap_set_user_data, images->writer, "b0", data,
          sizeof(data), &error);
    OK(qbm_bitmap_set_user_data(images->writer, "b0", data,
                                QBM_USER_DATA_MAX, &error));
    FAILS(ERANGE, qbm_bitmap_get_user_data, images->writer, "b0", buffer,
          sizeof(buffer), &size, &error);
    CHECK(size == QBM_USER_DATA_MAX && strcmp(buffer, "old") == 0);
    FAILS(ERANGE, qbm_bitmap_get_user_data, images->writer, "b0", NULL, 0,
          &size, &error);
    FAILS(EINVAL, qbm_bitmap_get_user_data, images->writer, "b0", NULL, 4,
          &size, &error);
    FAILS(EINVAL, qbm_bitmap_get_user_data, images->writer, "b0", buffer, 4,
          NULL, &error);
    FAILS(EINVAL, qbm_bitmap_get_user_data, images->writer, NULL, buffer, 4,
          &size, &error);
    FAILS(EINVAL, qbm_bitmap_get_user_data, NULL, "b0", buffer, 4, &size,
          &error);
    FAILS(ENOENT, qbm_bitmap_get_user_data, images->idle, "absent", buffer,
          4, &size, &error);
    OK(qbm_bitmap_set_user_data(images->writer, "b0", NULL, 0, &error));
    OK(qbm_bitmap_get_user_data(images->writer, "b0", buffer, 4, &size,
                                &error));
    CHECK(size == 0);
}

/* A user's data and names fill a descriptor up to 14 MiB: one that lacks little. */
static void test_full_descriptor(void)
{
    const size_t text_size = 14 << 20;
    const char *start = "{\"QBM\": {\"version\": 1, \"image\": {\"file\": "
                        "\"a\", \"format\": \"raw\"}, \"ext-soft-x\": \"";
    const char *end = "\"}}";
    qbm_activate_args args = { .size = sizeof(args), .image_size_bytes = SIZE,
                               .data_file = "" };
    char *text = malloc(text_size);
    qbm_image *image;
    size_t length;

    CHECK(text != NULL);
    memset(text, 'x', text_size);
    memcpy(text, start, strlen(start));
    length = text_size - 1200;
    strcpy(text + length, end);
    write_text("full.qbm", text);
    free(text);
    OK(open_image("full.qbm", 0, &image));
    OK(qbm_activate(image, &args, &error));
    OK(qbm_bitmap_add(image, "b", GRANULARITY, 0, &error));
    memset(too_long, 'r', QBM_BITMAP_NAME_MAX);
    too_long[QBM_BITMAP_NAME_MAX] = 0;
    FAILS(EFBIG, qbm_bitmap_rename, image, "b", too_long, &error);
    FAILS(EFBIG, qbm_bitmap_set_user_data, image, "b", too_long,
          sizeof(too_long), &error);
    FAILS(EFBIG, qbm_bitmap_add, image, too_long, GRANULARITY, 0, &error);
    OK(qbm_close(image, &error));
}

void test_changes(const struct images *images)
{
    CHANGE(qbm_bitmap_set_inconsistent, &error);
    CHANGE_LOADED(qbm_bitmap_set_recording, true, &error);
    CHANGE_LOADED(qbm_bitmap_clear, &error);
    CHANGE_LOADED(qbm_bitmap_set_granularity, 512, &error);
    FAILS(EINVAL, qbm_bitmap_set_granularity, images->writer, "b0", 3000,
          &error);
    FAILS(EINVAL, qbm_bitmap_set_granularity, images->writer, "b0", 0, &error);
    test_merge(images);
    test_user_data(images);

    CHANGE_LOADED(qbm_bitmap_rename, "new", &error);
    memset(too_long, 'n', sizeof(too_long) - 1);
    FAILS(EINVAL, qbm_bitmap_rename, images->writer, "b0", NULL, &error);
    FAILS(EINVAL, qbm_bitmap_rename, images->writer, "b0", "", &error);
    FAILS(EEXIST, qbm_bitmap_rename, images->writer, "b0", "lost", &error);
    FAILS(ENAMETOOLONG, qbm_bitmap_rename, images->writer, "b0", too_long,
          &error);
    test_full_descriptor();
}
