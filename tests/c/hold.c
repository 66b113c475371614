/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Opens an image and keeps it open until its input ends: hold write|read|shared|data-write|data-read IMAGE
 *
 * Prints "length" once it has it. Exits with 3 when another process has the image.
 */
#include <qbm.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    qbm_error error = { sizeof(error), 0, { 0 } };
    qbm_open_args open_args = { sizeof(open_args), 0, 0 };
    qbm_activate_args activate_args = { sizeof(activate_args), 0, 0, 0, NULL };
    qbm_info info = { .size = sizeof(info) };
    qbm_image *image = NULL;
    int writable;
    int data;
    int ret;

    if (argc != 3) {
        return 2;
    }
    data = !strncmp(argv[1], "data-", 5);
    writable = !strcmp(argv[1] + (data ? 5 : 0), "write");
    if (!strcmp(argv[1], "shared")) {
        open_args.flags = QBM_OPEN_SHARED;
    } else if (!writable) {
        open_args.flags = QBM_OPEN_READ_ONLY;
    }
    ret = qbm_open(argv[2], &open_args, &image, &error);
    if (ret == 0) {
        ret = qbm_get_info(image, &info, &error);
    }
    if (ret == 0) {
        activate_args.flags = writable ? 0 : QBM_ACTIVATE_READ_ONLY;
        if (data) {
            activate_args.flags |= QBM_ACTIVATE_DATA;
        } else {
            activate_args.image_size_bytes = info.image_size_bytes;
        }
        ret = qbm_activate(image, &activate_args, &error);
    }
    if (ret == 0) {
        puts("length");
        fflush(stdout);
        while (getchar() != EOF) {
        }
    } else {
        fprintf(stderr, "%s\n", error.message);
    }
    qbm_close(image, NULL);
    return ret == -EAGAIN ? 3 : ret != 0;
}
