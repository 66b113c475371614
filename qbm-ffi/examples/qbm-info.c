/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * qbm-info: what a QBM image is made of, its state, and its bitmaps.
 *
 *     cc qbm-info.c $(pkg-config --cflags --libs qbm) -o qbm-info
 *     qbm-info [--json] IMAGE
 *
 * Changes nothing, and may be used beside a running virtual machine. What the
 * library has to tell goes to stderr.
 *
 * Exit codes: 0 all is told; 1 something could not be told (stderr says what
 * and why); 2 wrong usage.
 */
#include <qbm.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: qbm-info [--json] IMAGE\n"
    "Tells what the QBM image IMAGE is made of, its state, and its bitmaps.\n";

static qbm_error error = { .size = sizeof(error) };

static int failed(const char *path)
{
    fprintf(stderr, "qbm-info: %s: %s\n", path, error.message);
    return 1;
}

/*
 * A JSON string, for people too: names of bitmaps may hold whatever a terminal
 * obeys. U+0080 to U+009F are control characters as well, in two bytes.
 */
static void put_string(const char *text)
{
    const unsigned char *at;

    putchar('"');
    for (at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\') {
            printf("\\%c", *at);
        } else if (*at < 0x20 || *at == 0x7f) {
            printf("\\u%04x", *at);
        } else if (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0) {
            at++;
            printf("\\u%04x", *at);
        } else {
            putchar(*at);
        }
    }
    putchar('"');
}

static const char *boolean(uint32_t value)
{
    return value ? "true" : "false";
}

/* -1: unknown */
static void put_number(int64_t value)
{
    if (value < 0) {
        fputs("null", stdout);
    } else {
        printf("%" PRId64, value);
    }
}

typedef struct bitmap_facts {
    qbm_bitmap_info info;
    int64_t dirty_bytes;            /* -1: unknown, or worth nothing */
    int64_t user_data_bytes;        /* -1: none */
} bitmap_facts;

static int get_bitmap(const qbm_image *image, uint32_t index, bitmap_facts *out)
{
    uint64_t dirty_bytes;
    size_t data_bytes;
    int ret;

    out->info.size = sizeof(out->info);
    out->dirty_bytes = out->user_data_bytes = -1;
    ret = qbm_bitmap_get(image, index, &out->info, &error);
    if (ret < 0) {
        return ret;
    }
    /* -ENOENT: inconsistent, or in use by somebody else */
    ret = qbm_bitmap_count(image, out->info.name, &dirty_bytes, &error);
    if (ret == 0) {
        out->dirty_bytes = (int64_t)dirty_bytes;
    } else if (ret != -ENOENT) {
        return ret;
    }
    /* Without room for it, we are told its size. */
    ret = qbm_bitmap_get_user_data(image, out->info.name, NULL, 0,
                                   &data_bytes, &error);
    if (ret == -ERANGE || ret == 1) {
        out->user_data_bytes = (int64_t)data_bytes;
        ret = 0;
    }
    return ret;
}

static void print_bitmap(const bitmap_facts *bitmap)
{
    uint32_t flags = bitmap->info.flags;

    fputs("  ", stdout);
    put_string(bitmap->info.name);
    printf(": granularity %" PRIu64, bitmap->info.granularity_bytes);
    if (flags & QBM_BITMAP_INCONSISTENT) {
        fputs(", inconsistent: good for removal only", stdout);
    } else {
        fputs(flags & QBM_BITMAP_RECORDING ? ", recording" : ", disabled",
              stdout);
    }
    if (flags & QBM_BITMAP_IN_USE) {
        fputs(", in use", stdout);
    }
    if (bitmap->dirty_bytes >= 0) {
        printf(", %" PRId64 " bytes dirty", bitmap->dirty_bytes);
    }
    if (bitmap->user_data_bytes >= 0) {
        printf(", %" PRId64 " bytes of user data", bitmap->user_data_bytes);
    }
    putchar('\n');
}

static void print_bitmap_json(const bitmap_facts *bitmap)
{
    uint32_t flags = bitmap->info.flags;

    fputs("{\"name\": ", stdout);
    put_string(bitmap->info.name);
    printf(", \"granularity-bytes\": %" PRIu64 ", \"recording\": %s"
           ", \"in-use\": %s, \"inconsistent\": %s, \"dirty-bytes\": ",
           bitmap->info.granularity_bytes,
           boolean(flags & QBM_BITMAP_RECORDING),
           boolean(flags & QBM_BITMAP_IN_USE),
           boolean(flags & QBM_BITMAP_INCONSISTENT));
    put_number(bitmap->dirty_bytes);
    fputs(", \"user-data-bytes\": ", stdout);
    put_number(bitmap->user_data_bytes);
    putchar('}');
}

static void print_image(const char *path, const qbm_info *info,
                        const char *state, bool json)
{
    const char *durability =
        info->durability == QBM_DURABILITY_CLOSE ? "close" : "process";
    int64_t size_bytes = info->flags & QBM_INFO_SIZE_KNOWN
        ? (int64_t)info->image_size_bytes : -1;

    fputs(json ? "{\"image\": " : "image: ", stdout);
    put_string(path);
    fputs(json ? ", \"data-file\": " : "\ndata image: ", stdout);
    put_string(info->data_file);
    fputs(json ? ", \"data-format\": " : "\ndata format: ", stdout);
    put_string(info->data_format);
    fputs(json ? ", \"size-bytes\": " : "\nsize in bytes: ", stdout);
    if (size_bytes < 0 && !json) {
        fputs("unknown", stdout);
    } else {
        put_number(size_bytes);
    }
    if (json) {
        printf(", \"durability\": \"%s\", \"state\": \"%s\", \"bitmaps\": [",
               durability, state);
    } else {
        printf("\ndurability: %s\nstate: %s\nbitmaps: %" PRIu32 "\n",
               durability, state, info->bitmaps_count);
    }
}

/*
 * Loads the bitmaps, for their bits to be counted; writes nothing. Only a raw
 * data image is the library's to open; of others we say the size recorded last.
 */
static int activate(qbm_image *image, const qbm_info *info)
{
    qbm_activate_args args = { .size = sizeof(args),
                               .flags = QBM_ACTIVATE_READ_ONLY };

    if (!strcmp(info->data_format, "raw")) {
        args.flags |= QBM_ACTIVATE_DATA;
    } else if (info->flags & QBM_INFO_SIZE_KNOWN) {
        args.image_size_bytes = info->image_size_bytes;
        args.data_file = "";
    } else {
        return 0;
    }
    return qbm_activate(image, &args, &error);
}

int main(int argc, char **argv)
{
    qbm_open_args open_args = { .size = sizeof(open_args),
                                .flags = QBM_OPEN_READ_ONLY };
    qbm_info info = { .size = sizeof(info) };
    qbm_image *image = NULL;
    const char *state = "closed";
    const char *path;
    char notice[2048];
    bool json = false;
    uint32_t index;
    int result = 0;
    int ret;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "--json")) {
        json = true;
    } else if (argc != 2 || argv[1][0] == '-') {
        fputs(usage, stderr);
        return 2;
    }
    path = argv[argc - 1];

    /* Whoever writes holds a lock. Only without one a session means a crash. */
    ret = qbm_open(path, &open_args, &image, &error);
    if (ret == -EAGAIN) {
        state = "in use by another process";
        open_args.flags = QBM_OPEN_SHARED;
        ret = qbm_open(path, &open_args, &image, &error);
    }
    if (ret < 0) {
        return failed(path);
    }
    ret = qbm_get_info(image, &info, &error);
    if (ret == 0 && open_args.flags != QBM_OPEN_SHARED) {
        if (info.flags & QBM_INFO_IN_USE) {
            state = "not closed cleanly";
        }
        if (activate(image, &info) < 0) {
            result = failed(path);
        }
        ret = qbm_get_info(image, &info, &error);
    }
    while (qbm_take_notice(image, notice, sizeof(notice)) == 1) {
        fprintf(stderr, "qbm-info: %s\n", notice);
    }
    if (ret == 0) {
        print_image(path, &info, state, json);
    }
    for (index = 0; ret == 0 && index < info.bitmaps_count; index++) {
        bitmap_facts bitmap;

        ret = get_bitmap(image, index, &bitmap);
        if (ret == 0 && json) {
            fputs(index ? ", " : "", stdout);
            print_bitmap_json(&bitmap);
        } else if (ret == 0) {
            print_bitmap(&bitmap);
        }
    }
    if (ret < 0) {
        result = failed(path);
    } else if (json) {
        puts("]}");
    }
    qbm_close(image, NULL);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "qbm-info: stdout: %s\n", strerror(errno));
        result = 1;
    }
    return result;
}
