/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A child process cannot use its parent's handle, whatever the function. */
#include "errors.h"

#include <sys/wait.h>
#include <unistd.h>

#define CHILD(function, ...) FAILS(ECHILD, function, image, __VA_ARGS__)

static void use_all(qbm_image *image)
{
    qbm_activate_args args = { .size = sizeof(args), .image_size_bytes = SIZE };
    qbm_bitmap_info bitmap = { .size = sizeof(bitmap) };
    qbm_info info = { .size = sizeof(info) };
    const char *sources[] = { "b0" };
    char buffer[512] = { 0 };
    uint64_t offset, bytes;
    size_t size;

    CHILD(qbm_get_info, &info, &error);
    FAILS_MUTELY(ECHILD, qbm_take_notice, image, buffer, sizeof(buffer));
    CHILD(qbm_activate, &args, &error);
    CHILD(qbm_bitmap_get, 0, &bitmap, &error);
    CHILD(qbm_bitmap_find, "b0", &bitmap, &error);
    CHILD(qbm_bitmap_can_store, "b1", 512, &error);
    CHILD(qbm_bitmap_add, "b1", 512, 0, &error);
    CHILD(qbm_bitmap_remove, "b0", &error);
    CHILD(qbm_bitmap_set_recording, "b0", false, &error);
    CHILD(qbm_bitmap_set_inconsistent, "b0", &error);
    CHILD(qbm_bitmap_rename, "b0", "b1", &error);
    CHILD(qbm_bitmap_clear, "b0", &error);
    CHILD(qbm_bitmap_merge, "b0", sources, 1, &error);
    CHILD(qbm_bitmap_set_granularity, "b0", 512, &error);
    CHILD(qbm_bitmap_get_user_data, "b0", buffer, 4, &size, &error);
    CHILD(qbm_bitmap_set_user_data, "b0", buffer, 4, &error);
    CHILD(qbm_bitmap_count, "b0", &bytes, &error);
    CHILD(qbm_bitmap_next_extent, "b0", 0, &offset, &bytes, &error);
    CHILD(qbm_bitmap_next_dirty, "b0", 0, &offset, &error);
    CHILD(qbm_bitmap_load_bits, "b0", 0, SIZE, buffer, 2, &error);
    CHILD(qbm_bitmap_store_bits, "b0", 0, SIZE, buffer, 2, &error);
    CHILD(qbm_bitmap_merge_bits, "b0", 0, SIZE, buffer, 2, &error);
    CHILD(qbm_bitmap_mark_dirty, "b0", 0, 1, &error);
    CHILD(qbm_bitmap_freeze, "b0", &error);
    CHILD(qbm_bitmap_checkpoint, "b0", 0, &error);
    CHILD(qbm_bitmap_commit, "b0", &error);
    CHILD(qbm_bitmap_abort, "b0", &error);
    CHILD(qbm_pread, 0, 512, buffer, &error);
    CHILD(qbm_pwrite, 0, 512, buffer, &error);
    CHILD(qbm_zero, 0, 512, 0, &error);
    CHILD(qbm_discard, 0, 512, &error);
    CHILD(qbm_flush, &error);
    CHILD(qbm_truncate, SIZE / 2, &error);
    CHILD(qbm_co_truncate_begin, SIZE / 2, &error);
    CHILD(qbm_co_truncate_end, SIZE / 2, &error);
    CHILD(qbm_inactivate, &error);
    CHILD(qbm_close, &error);
}

void test_fork(const struct images *images)
{
    qbm_bitmap_info bitmap = { .size = sizeof(bitmap) };
    qbm_image *data, *other;
    uint64_t bytes;
    pid_t child;
    int status;

    (void)images;
    OK(open_image("data.qbm", 0, &data));
    OK(activate(data, QBM_ACTIVATE_DATA, 0));
    /* Or the child writes what is buffered as well */
    fflush(stdout);
    child = fork();
    if (child == 0) {
        use_all(data);
        fflush(stdout);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    /* Nothing of that came true, and the locks are still held */
    OK(qbm_bitmap_find(data, "b0", &bitmap, &error));
    CHECK(bitmap.flags == (QBM_BITMAP_RECORDING | QBM_BITMAP_IN_USE));
    OK(qbm_bitmap_count(data, "b0", &bytes, &error));
    CHECK(bytes == 0);
    FAILS(EAGAIN, open_image, "data.qbm", 0, &other);
    OK(qbm_pwrite(data, 0, 5, "alive", &error));
    OK(qbm_close(data, &error));
}
