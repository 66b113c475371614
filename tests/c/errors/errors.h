/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every error path once. A topic is one function; what it made fail is compared with the header afterwards. */
#ifndef QBM_ERRORS_H
#define QBM_ERRORS_H

#include "../test.h"

#include <errno.h>

#define SIZE (UINT64_C(1) << 20)
#define GRANULARITY UINT64_C(65536)

/* Expects a call to fail with an errno, and a line that says why. */
#define FAILS(errnum, function, ...)                                         \
    failed(__FILE__, __LINE__, #function, errnum, #errnum,                   \
           (forget_error(), function(__VA_ARGS__)), 1)

/* The same of a function that has nowhere to put a line. */
#define FAILS_MUTELY(errnum, function, ...)                                  \
    failed(__FILE__, __LINE__, #function, errnum, #errnum,                   \
           function(__VA_ARGS__), 0)

/* A function that cannot fail is given what it must bear. */
#define BEARS(function, ...) (function(__VA_ARGS__), borne(#function))

void forget_error(void);
void failed(const char *file, int line, const char *function, int errnum,
            const char *errno_name, int returned, int has_message);
void borne(const char *function);

/* A copy of a structure as a later version of the header would have it; *tail is its first unknown byte, 0. */
void *grown(const void *structure, size_t size, unsigned char **tail);

void write_text(const char *path, const char *text);

/* An image of its own with the bitmap "b0", closed. */
void make_image(const char *path);

/* One open for each state. All have "b0", recording, and "lost", inconsistent. */
struct images {
    qbm_image *idle;        /* opened, not active */
    qbm_image *reader;      /* active, not for writing */
    qbm_image *writer;      /* active for writing */
};

void test_image(const struct images *images);
void test_defaults(const struct images *images);
void test_bitmaps(const struct images *images);
void test_changes(const struct images *images);
void test_extents(const struct images *images);
void test_copy(const struct images *images);
void test_check(const struct images *images);
void test_data(const struct images *images);
void test_driver(const struct images *images);
void test_fork(const struct images *images);
void test_system(const struct images *images);

#endif
