/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A C program's session with libqbm: an image is made, written, crashed, found again. */
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (UINT64_C(1) << 20)
#define GRANULARITY UINT64_C(65536)

qbm_error error = { sizeof(error), 0, { 0 } };

static qbm_image *activated(const char *path)
{
    qbm_open_args open_args = { sizeof(open_args), 0, 0 };
    qbm_activate_args activate_args = { sizeof(activate_args), 0,
                                        QBM_DURABILITY_PROCESS, SIZE, NULL };
    qbm_image *image = NULL;

    CHECK(qbm_open(path, &open_args, &image, &error) == 0);
    CHECK(qbm_activate(image, &activate_args, &error) == 0);
    return image;
}

static void write_at(qbm_image *image, uint64_t offset)
{
    qbm_ticket ticket;

    CHECK(qbm_co_writev_begin(image, offset, 1, &ticket) == 0);
    qbm_co_writev_end(image, &ticket);
}

int main(int argc, char **argv)
{
    qbm_create_args create_args;
    qbm_image *image;
    uint64_t offset;
    char notice[512];
    pid_t child;
    int status;

    if (argc != 2) {
        fprintf(stderr, "usage: session DESCRIPTOR\n");
        return 2;
    }
    memset(&create_args, 0, sizeof(create_args));
    create_args.size = sizeof(create_args);
    create_args.image_size_bytes = SIZE;
    CHECK(qbm_create(argv[1], &create_args, &error) == 0);

    /* The writer ends without closing anything */
    child = fork();
    if (child == 0) {
        image = activated(argv[1]);
        CHECK(qbm_bitmap_add(image, "daily", GRANULARITY, QBM_BITMAP_RECORDING,
                             &error) == 0);
        write_at(image, 3 * GRANULARITY + 5);
        abort();
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);

    image = activated(argv[1]);
    CHECK(qbm_take_notice(image, notice, sizeof(notice)) == 1);
    CHECK(strstr(notice, "not closed cleanly") != NULL);
    CHECK(qbm_bitmap_next_dirty(image, "daily", 0, &offset, &error) == 1);
    CHECK(offset == 3 * GRANULARITY);
    CHECK(qbm_bitmap_next_dirty(image, "daily", 4 * GRANULARITY, &offset,
                                &error) == 0);
    CHECK(qbm_bitmap_add(image, "daily", GRANULARITY, 0, &error) == -EEXIST);
    CHECK(qbm_close(image, &error) == 0);
    CHECK(qbm_close(NULL, NULL) == 0);
    printf("%d.%d.%d\n", QBM_VERSION_MAJOR, QBM_VERSION_MINOR,
           QBM_VERSION_PATCH);
    puts(qbm_version());
    return 0;
}
