/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Does one thing to a raw disk, for shell scripts:
 *
 *     disk IMAGE create BYTES close|process
 *     disk IMAGE write OFFSET BYTES CHARACTER
 *     disk IMAGE truncate BYTES
 *     disk IMAGE add BITMAP GRANULARITY
 *     disk IMAGE disable BITMAP
 *     disk IMAGE tag BITMAP TEXT
 */
#include <qbm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qbm_error error = { .size = sizeof(error) };

static int create(const char *path, const char *bytes, const char *durability)
{
    qbm_create_args args = { .size = sizeof(args) };

    args.image_size_bytes = strtoull(bytes, NULL, 10);
    args.durability = strcmp(durability, "close") ? QBM_DURABILITY_PROCESS
                                                  : QBM_DURABILITY_CLOSE;
    return qbm_create(path, &args, &error);
}

static int write_disk(qbm_image *image, char **argv)
{
    size_t bytes = strtoull(argv[4], NULL, 10);
    char *data = malloc(bytes);
    int ret = -1;

    if (data) {
        memset(data, argv[5][0], bytes);
        ret = qbm_pwrite(image, strtoull(argv[3], NULL, 10), bytes, data,
                         &error);
    }
    free(data);
    return ret;
}

static int change(qbm_image *image, int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[2], "write")) {
        return write_disk(image, argv);
    }
    if (argc == 4 && !strcmp(argv[2], "truncate")) {
        return qbm_truncate(image, strtoull(argv[3], NULL, 10), &error);
    }
    if (argc == 5 && !strcmp(argv[2], "add")) {
        return qbm_bitmap_add(image, argv[3], strtoull(argv[4], NULL, 10),
                              QBM_BITMAP_RECORDING, &error);
    }
    if (argc == 4 && !strcmp(argv[2], "disable")) {
        return qbm_bitmap_set_recording(image, argv[3], false, &error);
    }
    if (argc == 5 && !strcmp(argv[2], "tag")) {
        return qbm_bitmap_set_user_data(image, argv[3], argv[4],
                                        strlen(argv[4]), &error);
    }
    strcpy(error.message, "usage: see disk.c");
    return -1;
}

int main(int argc, char **argv)
{
    qbm_open_args open_args = { .size = sizeof(open_args) };
    qbm_activate_args activate_args = { .size = sizeof(activate_args),
                                        .flags = QBM_ACTIVATE_DATA };
    qbm_image *image = NULL;
    int ret, closed = 0;

    if (argc == 5 && !strcmp(argv[2], "create")) {
        ret = create(argv[1], argv[3], argv[4]);
    } else if (argc < 3) {
        return 2;
    } else {
        ret = qbm_open(argv[1], &open_args, &image, &error);
        ret = ret < 0 ? ret : qbm_activate(image, &activate_args, &error);
        ret = ret < 0 ? ret : change(image, argc, argv);
        closed = qbm_close(image, ret < 0 ? NULL : &error);
    }
    if (ret < 0 || closed < 0) {
        fprintf(stderr, "disk: %s\n", error.message);
        return 1;
    }
    return 0;
}
