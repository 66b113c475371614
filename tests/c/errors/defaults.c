/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stored defaults; and programs compiled before there were any. */
#include "errors.h"

/* An image's defaults, as it is opened anew. */
static void check_stored(const char *path, uint32_t durability,
                         uint32_t persist_bitmaps)
{
    qbm_info info = { .size = sizeof(info) };
    qbm_image *image;

    OK(open_image(path, QBM_OPEN_READ_ONLY, &image));
    OK(qbm_get_info(image, &info, &error));
    CHECK(info.durability == durability);
    CHECK(info.stored_durability == durability);
    CHECK(info.persist_bitmaps == persist_bitmaps);
    OK(qbm_close(image, &error));
}

static void test_set(const struct images *images)
{
    qbm_defaults defaults = {
        .size = sizeof(defaults),
        .durability = QBM_DURABILITY_CLOSE,
    };
    qbm_info info = { .size = sizeof(info) };
    qbm_defaults *later;
    qbm_image *image;
    unsigned char *tail;

    OK(create("defaults.qbm", SIZE));
    check_stored("defaults.qbm", QBM_DURABILITY_PROCESS,
                 QBM_PERSIST_BITMAPS_MARKED);
    OK(open_image("defaults.qbm", 0, &image));
    FAILS(EINVAL, qbm_set_defaults, NULL, &defaults, &error);
    FAILS(EINVAL, qbm_set_defaults, image, NULL, &error);
    FAILS(EROFS, qbm_set_defaults, images->reader, &defaults, &error);
    defaults.size--;
    FAILS(EINVAL, qbm_set_defaults, image, &defaults, &error);
    defaults.size++;
    defaults.persist_bitmaps = 3;
    FAILS(EINVAL, qbm_set_defaults, image, &defaults, &error);
    defaults.persist_bitmaps = 0;
    defaults.durability = 3;
    FAILS(EINVAL, qbm_set_defaults, image, &defaults, &error);
    defaults.durability = QBM_DURABILITY_CLOSE;
    later = grown(&defaults, sizeof(defaults), &tail);
    tail[0] = 1;
    FAILS(E2BIG, qbm_set_defaults, image, later, &error);
    free(later);
    OK(qbm_close(image, &error));
    check_stored("defaults.qbm", QBM_DURABILITY_PROCESS,
                 QBM_PERSIST_BITMAPS_MARKED);

    /* One at a time, first without a session, then in one */
    OK(open_image("defaults.qbm", 0, &image));
    OK(qbm_set_defaults(image, &defaults, &error));
    OK(qbm_close(image, &error));
    check_stored("defaults.qbm", QBM_DURABILITY_CLOSE,
                 QBM_PERSIST_BITMAPS_MARKED);
    OK(open_image("defaults.qbm", 0, &image));
    OK(activate(image, 0, SIZE));
    defaults.durability = QBM_DURABILITY_DEFAULT;
    defaults.persist_bitmaps = QBM_PERSIST_BITMAPS_ALL;
    OK(qbm_set_defaults(image, &defaults, &error));
    defaults.durability = QBM_DURABILITY_PROCESS;
    OK(qbm_set_defaults(image, &defaults, &error));
    OK(qbm_get_info(image, &info, &error));
    CHECK(info.durability == QBM_DURABILITY_CLOSE);
    CHECK(info.stored_durability == QBM_DURABILITY_PROCESS);
    OK(qbm_close(image, &error));
    check_stored("defaults.qbm", QBM_DURABILITY_PROCESS,
                 QBM_PERSIST_BITMAPS_ALL);
}

/* A descriptor with no room for one member more */
static void test_cap(void)
{
    static char text[(16 << 20) + 1];
    const char *start = "{\"QBM\": {\"version\": 1, \"image\": "
                        "{\"file\": \"a\", \"format\": \"raw\"}, "
                        "\"ext-soft-test\": \"";
    const char *end = "\"}}";
    qbm_defaults defaults = {
        .size = sizeof(defaults),
        .persist_bitmaps = QBM_PERSIST_BITMAPS_ALL,
    };
    qbm_image *image;
    size_t length = sizeof(text) - 1 - strlen(start) - strlen(end);

    strcpy(text, start);
    memset(text + strlen(start), 'x', length);
    strcat(text, end);
    write_text("full.qbm", text);
    OK(open_image("full.qbm", 0, &image));
    FAILS(EFBIG, qbm_set_defaults, image, &defaults, &error);
    OK(qbm_close(image, &error));
}

/* The structures of version 0.1, each in memory that ends where it ends. */
static void test_older_program(void)
{
    const size_t args_size = offsetof(qbm_create_args, persist_bitmaps);
    const size_t info_size = offsetof(qbm_info, stored_durability);
    qbm_create_args *args = calloc(1, args_size);
    qbm_info *info = malloc(info_size);
    qbm_image *image;

    CHECK(args != NULL && info != NULL);
    args->size = args_size;
    args->durability = QBM_DURABILITY_CLOSE;
    args->image_size_bytes = SIZE;
    OK(qbm_create("older.qbm", args, &error));
    free(args);
    check_stored("older.qbm", QBM_DURABILITY_CLOSE,
                 QBM_PERSIST_BITMAPS_MARKED);

    memset(info, 0xff, info_size);
    info->size = info_size;
    OK(open_image("older.qbm", QBM_OPEN_READ_ONLY, &image));
    OK(qbm_get_info(image, info, &error));
    CHECK(info->size == info_size && info->image_size_bytes == SIZE);
    CHECK(info->durability == QBM_DURABILITY_CLOSE);
    CHECK(strcmp(info->data_format, "raw") == 0);
    OK(qbm_close(image, &error));
    free(info);
}

/* What is given when an image is made. */
static void test_created(void)
{
    qbm_create_args args = {
        .size = sizeof(args),
        .image_size_bytes = SIZE,
        .persist_bitmaps = QBM_PERSIST_BITMAPS_ALL,
    };

    OK(qbm_create("all.qbm", &args, &error));
    check_stored("all.qbm", QBM_DURABILITY_PROCESS, QBM_PERSIST_BITMAPS_ALL);
}

void test_defaults(const struct images *images)
{
    test_set(images);
    test_cap();
    test_older_program();
    test_created();
}
