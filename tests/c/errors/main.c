/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* errors DIRECTORY: prints "FUNCTION ERRNO" for each error that was seen, "FUNCTION 0" for what cannot fail. */
#include "errors.h"

#include <unistd.h>

qbm_error error = { .size = sizeof(error) };

void forget_error(void)
{
    memset(&error, 0, sizeof(error));
    error.size = sizeof(error);
}

void failed(const char *file, int line, const char *function, int errnum,
            const char *errno_name, int returned, int has_message)
{
    int complete = !has_message ||
                   (error.errnum == errnum && error.message[0] &&
                    !strchr(error.message, '\n'));

    if (returned != -errnum || !complete) {
        fprintf(stderr, "%s:%d: %s: returned %d, expected -%s (%d, \"%s\")\n",
                file, line, function, returned, errno_name, error.errnum,
                error.message);
        exit(1);
    }
    printf("%s %s\n", function, errno_name);
}

void borne(const char *function)
{
    printf("%s 0\n", function);
}

void *grown(const void *structure, size_t size, unsigned char **tail)
{
    const size_t more = 40;
    unsigned char *copy = calloc(1, size + more);

    CHECK(copy != NULL);
    memcpy(copy, structure, size);
    size += more;
    memcpy(copy, &size, sizeof(size));
    *tail = copy + size - more;
    return copy;
}

void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static qbm_image *with_bitmaps(const char *path)
{
    qbm_image *image;

    OK(create(path, SIZE));
    OK(open_image(path, 0, &image));
    OK(activate(image, 0, SIZE));
    OK(qbm_bitmap_add(image, "b0", GRANULARITY, QBM_BITMAP_RECORDING, &error));
    return image;
}

void make_image(const char *path)
{
    OK(qbm_close(with_bitmaps(path), &error));
}

static qbm_image *with_lost_one(const char *path)
{
    qbm_image *image = with_bitmaps(path);

    OK(qbm_bitmap_add(image, "lost", GRANULARITY, 0, &error));
    OK(qbm_bitmap_set_inconsistent(image, "lost", &error));
    return image;
}

int main(int argc, char **argv)
{
    struct images images;
    unsigned before;

    if (argc != 2 || chdir(argv[1]) != 0) {
        fprintf(stderr, "usage: errors DIRECTORY\n");
        return 2;
    }
    before = descriptors();
    OK(qbm_close(with_lost_one("idle.qbm"), &error));
    OK(open_image("idle.qbm", 0, &images.idle));
    OK(qbm_close(with_lost_one("reader.qbm"), &error));
    OK(open_image("reader.qbm", QBM_OPEN_READ_ONLY, &images.reader));
    OK(activate(images.reader, QBM_ACTIVATE_READ_ONLY, SIZE));
    images.writer = with_lost_one("writer.qbm");

    test_image(&images);
    test_defaults(&images);
    test_bitmaps(&images);
    test_changes(&images);
    test_extents(&images);
    test_copy(&images);
    test_check(&images);
    test_data(&images);
    test_driver(&images);
    test_fork(&images);
    test_system(&images);

    OK(qbm_close(images.idle, &error));
    OK(qbm_close(images.reader, &error));
    OK(qbm_close(images.writer, &error));
    CHECK(descriptors() == before);
    return 0;
}
