/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The caller's error buffer, of whatever version; and what may be NULL. */
#include "test.h"

#include <errno.h>

qbm_error error = { .size = sizeof(error) };

/* As a later version of the header may have it. */
struct later_error {
    qbm_error known;
    unsigned char tail[64];
};

static int fail(qbm_error *buffer)
{
    qbm_open_args args = { .size = sizeof(args) };
    qbm_image *image;

    return qbm_open("/nonexistent/x.qbm", &args, &image, buffer);
}

static int is_filled_with(const void *start, size_t size, unsigned char value)
{
    const unsigned char *bytes = start;
    size_t i;

    for (i = 0; i < size; i++) {
        if (bytes[i] != value) {
            return 0;
        }
    }
    return 1;
}

int main(void)
{
    struct later_error later;
    qbm_error small;
    size_t sizes[] = { 0, 1, sizeof(size_t), sizeof(error) - 1 };
    size_t i;
    char path[3000];
    qbm_open_args args = { .size = sizeof(args) };
    qbm_image *image;

    CHECK(fail(NULL) == -ENOENT);
    CHECK(fail(&error) == -ENOENT && error.errnum == ENOENT);
    CHECK(strstr(error.message, "/nonexistent/x.qbm") != NULL);

    /* Too small: left alone */
    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(&small, 0xa5, sizeof(small));
        small.size = sizes[i];
        CHECK(fail(&small) == -ENOENT && small.size == sizes[i]);
        CHECK(is_filled_with(&small.errnum, sizeof(small) - sizeof(size_t),
                             0xa5));
    }

    /* Larger: what is known is filled, what is not is zeroed, and the size stays */
    memset(&later, 0xa5, sizeof(later));
    later.known.size = sizeof(later);
    CHECK(fail(&later.known) == -ENOENT && later.known.errnum == ENOENT);
    CHECK(later.known.size == sizeof(later));
    CHECK(strcmp(later.known.message, error.message) == 0);
    CHECK(is_filled_with(later.tail, sizeof(later.tail), 0));

    /* A long name is cut in the message, which ends inside the buffer */
    memset(path, 'n', sizeof(path) - 1);
    path[sizeof(path) - 1] = 0;
    CHECK(qbm_open(path, &args, &image, &error) == -ENAMETOOLONG);
    CHECK(memchr(error.message, 0, sizeof(error.message)) != NULL);

    /* A success leaves the buffer as it is; NULL closes and frees to nothing */
    memset(&later, 0xa5, sizeof(later));
    later.known.size = sizeof(qbm_error);
    CHECK(qbm_close(NULL, &later.known) == 0 && qbm_close(NULL, NULL) == 0);
    CHECK(is_filled_with(&later.known.errnum, 4, 0xa5));
    qbm_report_free(NULL);
    return 0;
}
