/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the C tests share: a check that says where it failed, and the usual ways into a session. */
#ifndef QBM_TEST_H
#define QBM_TEST_H

#include <qbm.h>

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each program defines it. Of one thread: not for what several fail at. */
extern qbm_error error;

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__,          \
                    #condition, error.message);                              \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

/* The same for a call that returns 0, with what it returned instead. */
#define OK(call)                                                             \
    do {                                                                     \
        int returned = (call);                                               \
        if (returned != 0) {                                                 \
            fprintf(stderr, "%s:%d: %s: %d (%s)\n", __FILE__, __LINE__,      \
                    #call, returned, error.message);                         \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

static inline int create(const char *path, uint64_t size_bytes)
{
    qbm_create_args args = { .size = sizeof(args),
                             .image_size_bytes = size_bytes };

    return qbm_create(path, &args, &error);
}

static inline int open_image(const char *path, uint32_t flags,
                             qbm_image **image)
{
    qbm_open_args args = { .size = sizeof(args), .flags = flags };

    return qbm_open(path, &args, image, &error);
}

static inline int activate(qbm_image *image, uint32_t flags,
                           uint64_t size_bytes)
{
    qbm_activate_args args = { .size = sizeof(args), .flags = flags,
                               .image_size_bytes = size_bytes };

    return qbm_activate(image, &args, &error);
}

/* How many are open. Asking for each is a bug to valgrind 3.24. */
static inline unsigned descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    CHECK(directory != NULL);
    while (readdir(directory)) {
        count++;
    }
    closedir(directory);
    return count;
}

#endif
