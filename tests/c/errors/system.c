/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the system refuses: no descriptors left, no space left, no permission. */
#define _GNU_SOURCE
#include "errors.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Everything that opens a file, with no descriptor left to open one. */
static void test_no_descriptors(void)
{
    qbm_create_args create_args = { .size = sizeof(create_args),
                                    .image_size_bytes = SIZE };
    qbm_open_args open_args = { .size = sizeof(open_args) };
    qbm_activate_args args = { .size = sizeof(args), .image_size_bytes = SIZE };
    qbm_check_args check_args = { .size = sizeof(check_args) };
    qbm_bitmap_info before = { .size = sizeof(before) };
    qbm_bitmap_info after = { .size = sizeof(after) };
    const char *sources[] = { "b1" };
    qbm_image *image, *idle, *other;
    qbm_report *report;
    struct rlimit usual, none;
    int next;

    make_image("limited.qbm");
    make_image("idle-limited.qbm");
    OK(open_image("limited.qbm", 0, &image));
    OK(activate(image, 0, SIZE));
    OK(qbm_bitmap_add(image, "b1", GRANULARITY, 0, &error));
    OK(open_image("idle-limited.qbm", 0, &idle));
    OK(qbm_bitmap_find(image, "b0", &before, &error));

    next = open("/dev/null", O_RDONLY);
    close(next);
    CHECK(getrlimit(RLIMIT_NOFILE, &usual) == 0);
    none = usual;
    none.rlim_cur = next;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    FAILS(EMFILE, qbm_create, "none.qbm", &create_args, &error);
    FAILS(EMFILE, qbm_open, "limited.qbm", &open_args, &other, &error);
    FAILS(EMFILE, qbm_activate, idle, &args, &error);
    FAILS(EMFILE, qbm_check, "checked.qbm", &check_args, &report, &error);
    FAILS(EMFILE, qbm_bitmap_add, image, "b2", 512, 0, &error);
    FAILS(EMFILE, qbm_bitmap_remove, image, "b0", &error);
    FAILS(EMFILE, qbm_bitmap_rename, image, "b0", "b2", &error);
    FAILS(EMFILE, qbm_bitmap_set_recording, image, "b0", false, &error);
    FAILS(EMFILE, qbm_bitmap_clear, image, "b0", &error);
    FAILS(EMFILE, qbm_bitmap_merge, image, "b0", sources, 1, &error);
    FAILS(EMFILE, qbm_bitmap_set_granularity, image, "b0", 512, &error);
    FAILS(EMFILE, qbm_bitmap_set_user_data, image, "b0", "x", 1, &error);
    FAILS(EMFILE, qbm_bitmap_set_inconsistent, image, "b1", &error);
    FAILS(EMFILE, qbm_co_truncate_begin, image, 2 * SIZE, &error);
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);

    OK(qbm_bitmap_find(image, "b0", &after, &error));
    CHECK(after.flags == before.flags);
    CHECK(after.granularity_bytes == before.granularity_bytes);
    FAILS(ENOENT, qbm_bitmap_find, image, "b2", &after, &error);
    OK(qbm_close(idle, &error));
    OK(qbm_close(image, &error));
}

/* Fills the file system that path is on. */
static void fill(const char *path)
{
    static char block[4096] = "x";
    int fd = open(path, O_WRONLY | O_CREAT, 0600);

    CHECK(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0) {
    }
    CHECK(errno == ENOSPC && close(fd) == 0);
}

/* The directory "full" is a file system of its own, with 256 KiB. */
static void test_no_space(void)
{
    qbm_create_args create_args = { .size = sizeof(create_args),
                                    .image_size_bytes = SIZE };
    qbm_activate_args args = { .size = sizeof(args), .image_size_bytes = SIZE };
    qbm_bitmap_info info = { .size = sizeof(info) };
    unsigned char bits[256] = { 0xff };
    static char data[65536];
    qbm_image *image, *idle;

    make_image("full/idle.qbm");
    make_image("full/data.qbm");
    OK(open_image("full/idle.qbm", 0, &idle));
    OK(open_image("full/data.qbm", 0, &image));
    OK(activate(image, QBM_ACTIVATE_DATA, 0));
    OK(qbm_bitmap_add(image, "b1", 512, 0, &error));
    fill("full/rest");
    FAILS(ENOSPC, qbm_create, "full/new.qbm", &create_args, &error);
    FAILS(ENOSPC, qbm_activate, idle, &args, &error);
    FAILS(ENOSPC, qbm_pwrite, image, 0, sizeof(data), data, &error);
    FAILS(ENOSPC, qbm_zero, image, 0, sizeof(data), 0, &error);
    FAILS(ENOSPC, qbm_bitmap_set_user_data, image, "b0", data, 512, &error);
    FAILS(ENOSPC, qbm_bitmap_merge_bits, image, "b1", 0, SIZE, bits,
          sizeof(bits), &error);
    /* A bitmap that could not take a bit is inconsistent, and the others are not */
    OK(qbm_bitmap_find(image, "b0", &info, &error));
    OK(qbm_bitmap_find(image, "b1", &info, &error));
    CHECK(unlink("full/rest") == 0);
    OK(qbm_close(idle, &error));
    qbm_close(image, NULL);
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {
        .version = _LINUX_CAPABILITY_VERSION_3
    };
    struct __user_cap_data_struct none[2] = { { 0 } };

    CHECK(syscall(SYS_capset, &header, none) == 0);
}

/* In a child that has no more rights than a user. */
static void test_no_permission(void)
{
    qbm_create_args create_args = { .size = sizeof(create_args),
                                    .image_size_bytes = SIZE };
    qbm_open_args open_args = { .size = sizeof(open_args) };
    qbm_check_args check_args = { .size = sizeof(check_args) };
    qbm_image *image;
    qbm_report *report;
    pid_t child;
    int status;

    make_image("locked.qbm");
    CHECK(chmod("locked.qbm", 0) == 0 && mkdir("locked", 0500) == 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        drop_capabilities();
        FAILS(EACCES, qbm_open, "locked.qbm", &open_args, &image, &error);
        FAILS(EACCES, qbm_check, "locked.qbm", &check_args, &report, &error);
        FAILS(EACCES, qbm_create, "locked/x.qbm", &create_args, &error);
        fflush(stdout);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

void test_system(const struct images *images)
{
    (void)images;
    test_no_descriptors();
    test_no_permission();
    CHECK(mkdir("full", 0700) == 0);
    if (mount("none", "full", "tmpfs", 0, "size=256k") == 0) {
        test_no_space();
        umount("full");
    } else {
        fprintf(stderr, "skipped: a full file system cannot be mounted\n");
    }
}
