/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tracked I/O. */
#include "errors.h"

#include <unistd.h>

#define RANGE(function, ...)                                                 \
    do {                                                                     \
        FAILS(EINVAL, function, data, SIZE, 1, __VA_ARGS__);                 \
        FAILS(EINVAL, function, data, 1, SIZE, __VA_ARGS__);                 \
        FAILS(EINVAL, function, data, UINT64_MAX, 512, __VA_ARGS__);         \
        FAILS(EINVAL, function, data, 512, SIZE_MAX, __VA_ARGS__);           \
    } while (0)

static void test_activate(const struct images *images)
{
    qbm_activate_args args = { .size = sizeof(args),
                               .flags = QBM_ACTIVATE_DATA };
    qbm_image *image;

    make_image("data.qbm");
    FAILS(EINVAL, qbm_activate, images->writer, &args, &error);
    OK(open_image("data.qbm", 0, &image));
    args.image_size_bytes = SIZE;
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.image_size_bytes = 0;
    args.data_file = "data.qbm";
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.data_file = "data.qbm.b0.bitmap";
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.data_file = ".";
    FAILS(EISDIR, qbm_activate, image, &args, &error);
    args.data_file = "/dev/null";
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    args.data_file = "absent.raw";
    FAILS(ENOENT, qbm_activate, image, &args, &error);
    args.data_file = "";
    FAILS(EINVAL, qbm_activate, image, &args, &error);
    OK(qbm_close(image, &error));

    write_text("qcow2.qbm", "{\"QBM\": {\"version\": 1, \"image\": "
               "{\"file\": \"data.qbm.raw\", \"format\": \"qcow2\"}}}");
    args.data_file = NULL;
    OK(open_image("qcow2.qbm", 0, &image));
    FAILS(ENOTSUP, qbm_activate, image, &args, &error);
    OK(qbm_close(image, &error));
}

/* A second descriptor of the same data image is kept out by the data image's own locks. */
static void test_in_use(void)
{
    qbm_activate_args args = { .size = sizeof(args),
                               .flags = QBM_ACTIVATE_DATA };
    qbm_image *one, *other;

    write_text("twin.qbm", "{\"QBM\": {\"version\": 1, \"image\": "
               "{\"file\": \"data.qbm.raw\", \"format\": \"raw\"}}}");
    OK(open_image("data.qbm", 0, &one));
    OK(activate(one, QBM_ACTIVATE_DATA, 0));
    OK(open_image("twin.qbm", 0, &other));
    FAILS(EAGAIN, qbm_activate, other, &args, &error);
    OK(qbm_close(one, &error));
    OK(activate(other, QBM_ACTIVATE_DATA, 0));
    OK(qbm_close(other, &error));
}

void test_data(const struct images *images)
{
    char buffer[512] = { 0 };
    uint64_t bytes = 0;
    qbm_image *data;

    test_activate(images);
    test_in_use();

    FAILS(EBADF, qbm_pread, images->writer, 0, 512, buffer, &error);
    FAILS(EBADF, qbm_pwrite, images->writer, 0, 512, buffer, &error);
    FAILS(EBADF, qbm_zero, images->writer, 0, 512, 0, &error);
    FAILS(EBADF, qbm_discard, images->writer, 0, 512, &error);
    FAILS(EBADF, qbm_flush, images->writer, &error);
    FAILS(EBADF, qbm_truncate, images->writer, SIZE, &error);

    OK(open_image("data.qbm", 0, &data));
    OK(activate(data, QBM_ACTIVATE_DATA, 0));
    FAILS(EINVAL, qbm_pread, NULL, 0, 512, buffer, &error);
    FAILS(EINVAL, qbm_pread, data, 0, 512, NULL, &error);
    RANGE(qbm_pread, buffer, &error);
    FAILS(EINVAL, qbm_pwrite, NULL, 0, 512, buffer, &error);
    FAILS(EINVAL, qbm_pwrite, data, 0, 512, NULL, &error);
    RANGE(qbm_pwrite, buffer, &error);
    FAILS(EINVAL, qbm_zero, NULL, 0, 512, 0, &error);
    FAILS(EINVAL, qbm_zero, data, 0, 512, 2, &error);
    RANGE(qbm_zero, 0, &error);
    FAILS(EINVAL, qbm_discard, NULL, 0, 512, &error);
    RANGE(qbm_discard, &error);
    FAILS(EINVAL, qbm_flush, NULL, &error);
    FAILS(EINVAL, qbm_truncate, NULL, SIZE, &error);
    FAILS(EFBIG, qbm_truncate, data, UINT64_MAX, &error);
    FAILS(EINVAL, qbm_co_truncate_begin, data, SIZE, &error);
    FAILS(EINVAL, qbm_co_truncate_end, data, SIZE, &error);
    OK(qbm_bitmap_count(data, "b0", &bytes, &error));
    CHECK(bytes == 0);
    OK(qbm_close(data, &error));

    OK(open_image("data.qbm", QBM_OPEN_READ_ONLY, &data));
    OK(activate(data, QBM_ACTIVATE_DATA | QBM_ACTIVATE_READ_ONLY, 0));
    OK(qbm_pread(data, 0, 512, buffer, &error));
    FAILS(EROFS, qbm_pwrite, data, 0, 512, buffer, &error);
    FAILS(EROFS, qbm_zero, data, 0, 512, 0, &error);
    FAILS(EROFS, qbm_discard, data, 0, 512, &error);
    FAILS(EROFS, qbm_truncate, data, SIZE, &error);
    OK(qbm_close(data, &error));
}
