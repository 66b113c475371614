/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs with a bug each, that valgrind and the sanitizers must find: canary BUG DESCRIPTOR */
#include "test.h"

#include <limits.h>
#include <pthread.h>

qbm_error error = { .size = sizeof(error) };

static int shared;

static void *count(void *unused)
{
    shared++;
    return unused;
}

int main(int argc, char **argv)
{
    char *memory = malloc(100);
    volatile int number = INT_MAX;
    qbm_ticket *ticket = malloc(sizeof(*ticket));
    qbm_image *image;
    pthread_t thread;

    CHECK(argc == 3);
    if (strcmp(argv[1], "use-after-free") == 0) {
        free(memory);
        memory[5] = 'x';
        return 0;
    }
    if (strcmp(argv[1], "leak") == 0) {
        memory = NULL;
        return memory != NULL;
    }
    free(memory);
    if (strcmp(argv[1], "overflow") == 0) {
        number = number + argc;
    }
    if (strcmp(argv[1], "race") == 0) {
        CHECK(pthread_create(&thread, NULL, count, NULL) == 0);
        shared++;
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(create(argv[2], 4096) >= 0);
    OK(open_image(argv[2], 0, &image));
    OK(activate(image, 0, 4096));
    if (strcmp(argv[1], "library-writes-freed") == 0) {
        /* It is the library that steps into this one */
        free(ticket);
        CHECK(qbm_co_writev_begin(image, 0, 1, ticket) == 0);
        return 0;
    }
    free(ticket);
    if (strcmp(argv[1], "handle-leak") != 0) {
        OK(qbm_close(image, &error));
    }
    image = NULL;
    return 0;
}
