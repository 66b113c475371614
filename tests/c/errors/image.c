/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Images: making, opening, activating, describing, closing. */
#include "errors.h"

#include <unistd.h>

static void test_create(void)
{
    qbm_create_args args = { .size = sizeof(args), .image_size_bytes = SIZE };
    qbm_create_args *later;
    unsigned char *tail;
    char data_file[4];

    FAILS(EINVAL, qbm_create, NULL, &args, &error);
    FAILS(EINVAL, qbm_create, "new.qbm", NULL, &error);
    args.size = offsetof(qbm_create_args, persist_bitmaps) - 1;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.size = sizeof(args);
    args.flags = 16;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.flags = 0;
    args.durability = 3;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.durability = 0;
    args.persist_bitmaps = 3;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.persist_bitmaps = 0;
    args.reserved = 1;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.reserved = 0;
    args.data_format = "";
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.data_format = "\xff";
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.data_format = NULL;
    args.data_file = "absent.raw";
    FAILS(ENOENT, qbm_create, "new.qbm", &args, &error);
    args.data_file = NULL;
    args.image_size_bytes = UINT64_MAX;
    FAILS(EFBIG, qbm_create, "new.qbm", &args, &error);
    args.image_size_bytes = SIZE;
    write_text("other", "not a descriptor");
    FAILS(EEXIST, qbm_create, "other", &args, &error);
    args.flags = QBM_CREATE_DATA_ONLY;
    FAILS(EEXIST, qbm_create, "other", &args, &error);
    CHECK(access("other.raw", F_OK) != 0 && errno == ENOENT);
    args.data_file = "other";
    FAILS(EINVAL, qbm_create, "alone.qbm", &args, &error);
    args.data_file = NULL;
    OK(qbm_create("alone.qbm", &args, &error));
    CHECK(access("alone.qbm", F_OK) != 0 && errno == ENOENT);
    CHECK(access("alone.qbm.raw", F_OK) == 0);
    CHECK(qbm_create("alone.qbm", &args, &error) == 1);
    args.flags = QBM_CREATE_EXCLUSIVE;
    FAILS(EEXIST, qbm_create, "idle.qbm", &args, &error);
    args.flags = QBM_CREATE_REMOTE_DATA;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.data_file = "nbd://host/disk";
    OK(qbm_create("remote.qbm", &args, &error));
    args.data_file = NULL;
    args.flags = 0;
    args.data_file = "other";
    args.image_size_bytes = SIZE;
    FAILS(EINVAL, qbm_create, "new.qbm", &args, &error);
    args.data_file = NULL;
    FAILS(EAGAIN, qbm_create, "writer.qbm", &args, &error);
    FAILS(ENOENT, qbm_create, "absent/new.qbm", &args, &error);
    FAILS(ENOTDIR, qbm_create, "other/new.qbm", &args, &error);

    later = grown(&args, sizeof(args), &tail);
    tail[39] = 1;
    FAILS(E2BIG, qbm_create, "new.qbm", later, &error);
    CHECK(access("new.qbm", F_OK) != 0 && errno == ENOENT);
    tail[39] = 0;
    OK(qbm_create("new.qbm", later, &error));
    free(later);
    args.data_file_out = data_file;
    args.data_file_out_size = sizeof(data_file);
    FAILS(ENAMETOOLONG, qbm_create, "long.qbm", &args, &error);
}

static void test_open(void)
{
    qbm_open_args args = { .size = sizeof(args) };
    qbm_open_args *later;
    qbm_image *image = (qbm_image *)&args;
    unsigned char *tail;

    FAILS(EINVAL, qbm_open, NULL, &args, &image, &error);
    CHECK(image == NULL);
    FAILS(EINVAL, qbm_open, "new.qbm", NULL, &image, &error);
    FAILS(EINVAL, qbm_open, "new.qbm", &args, NULL, &error);
    args.size--;
    FAILS(EINVAL, qbm_open, "new.qbm", &args, &image, &error);
    args.size++;
    args.flags = 8;
    FAILS(EINVAL, qbm_open, "new.qbm", &args, &image, &error);
    args.flags = 0;
    FAILS(EINVAL, qbm_open, "other", &args, &image, &error);
    FAILS(ENOENT, qbm_open, "absent.qbm", &args, &image, &error);
    FAILS(ENOTDIR, qbm_open, "other/x.qbm", &args, &image, &error);
    FAILS(EAGAIN, qbm_open, "writer.qbm", &args, &image, &error);
    write_text("cut.qbm", "{\n  \"QBM\": {\n    \"version\": 1,");
    FAILS(EINVAL, qbm_open, "cut.qbm", &args, &image, &error);
    write_text("version.qbm", "{\"QBM\": {\"version\": 2, \"image\": "
                              "{\"file\": \"a\", \"format\": \"raw\"}}}");
    FAILS(ENOTSUP, qbm_open, "version.qbm", &args, &image, &error);
    write_text("large.qbm", "{\"QBM\": {\"version\": 1, \"image\": "
                            "{\"file\": \"a\", \"format\": \"raw\"}}}");
    CHECK(truncate("large.qbm", 17 << 20) == 0);
    FAILS(EFBIG, qbm_open, "large.qbm", &args, &image, &error);
    CHECK(image == NULL);

    later = grown(&args, sizeof(args), &tail);
    tail[0] = 1;
    FAILS(E2BIG, qbm_open, "new.qbm", later, &image, &error);
    tail[0] = 0;
    OK(qbm_open("new.qbm", later, &image, &error));
    free(later);
    OK(qbm_close(image, &error));
}

static void test_activate(const struct images *images)
{
    qbm_activate_args args = { .size = sizeof(args), .image_size_bytes = SIZE };
    qbm_activate_args *later;
    qbm_image *image;
    unsigned char *tail;

    OK(open_image("new.qbm", 0, &image));
    FAILS(EINVAL, qbm_activate, NULL, &args, &error);
    FAILS(EINVAL, qbm_activate, image, NULL, &error);
    args.size--;
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.size++;
    args.flags = 0x80000000;
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.flags = 0;
    args.durability = 3;
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.durability = 0;
    args.image_size_bytes = UINT64_MAX;
    FAILS(EFBIG, qbm_activate, image, &args, &error);
    args.image_size_bytes = SIZE;
    FAILS(EINVAL, qbm_activate, images->writer, &args, &error);
    later = grown(&args, sizeof(args), &tail);
    tail[7] = 1;
    FAILS(E2BIG, qbm_activate, image, later, &error);
    tail[7] = 0;
    OK(qbm_activate(image, later, &error));
    free(later);
    OK(qbm_close(image, &error));

    OK(open_image("new.qbm", QBM_OPEN_READ_ONLY, &image));
    FAILS(EROFS, qbm_activate, image, &args, &error);
    OK(qbm_close(image, &error));
}

static void test_describe(const struct images *images)
{
    static char file[4091], text[5000];
    qbm_info info = { .size = sizeof(info) };
    qbm_info *later;
    qbm_image *image;
    unsigned char *tail;
    char notice[8];

    FAILS(EINVAL, qbm_get_info, NULL, &info, &error);
    FAILS(EINVAL, qbm_get_info, images->idle, NULL, &error);
    info.size = offsetof(qbm_info, stored_durability) - 1;
    FAILS(EINVAL, qbm_get_info, images->idle, &info, &error);
    info.size = sizeof(info);
    later = grown(&info, sizeof(info), &tail);
    OK(qbm_get_info(images->idle, later, &error));
    CHECK(later->bitmaps_count == 2 && tail[0] == 0 && tail[39] == 0);
    free(later);
    /* Two names that fit make a path that does not */
    memset(file, 'f', sizeof(file) - 1);
    file[sizeof(file) - 1] = 0;
    snprintf(text, sizeof(text), "{\"QBM\": {\"version\": 1, \"image\": "
             "{\"file\": \"%s\", \"format\": \"raw\"}}}", file);
    write_text("far.qbm", text);
    OK(open_image("././././././././far.qbm", QBM_OPEN_READ_ONLY, &image));
    FAILS(ENAMETOOLONG, qbm_get_info, image, &info, &error);
    OK(qbm_close(image, &error));

    FAILS_MUTELY(EINVAL, qbm_take_notice, NULL, notice, sizeof(notice));
    FAILS_MUTELY(EINVAL, qbm_take_notice, images->idle, NULL, sizeof(notice));
    FAILS_MUTELY(EINVAL, qbm_take_notice, images->idle, notice, 0);
}

void test_image(const struct images *images)
{
    char start[512] = { 0 };

    test_create();
    test_open();
    test_activate(images);
    test_describe(images);

    FAILS(EINVAL, qbm_inactivate, NULL, &error);
    OK(qbm_inactivate(images->idle, &error));
    CHECK(qbm_close(NULL, NULL) == 0);
    CHECK(qbm_close(NULL, &error) == 0);
    CHECK(qbm_probe(NULL, 512) == 0 && qbm_probe(start, sizeof(start)) == 0);
    borne("qbm_probe");
    BEARS(qbm_version);
}
