/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * qbm-verify: is every block marked that differs?
 *
 *     cc qbm-verify.c $(pkg-config --cflags --libs qbm) -o qbm-verify
 *     qbm-verify PREVIOUS IMAGE BITMAP
 *
 * PREVIOUS is a raw file: the disk as it was when BITMAP was last cleared.
 * Compares it with the raw data image of the QBM image IMAGE. Counts granules,
 * the last one cut at the end of the disk: those that differ, those that are
 * marked in BITMAP, those marked in vain, those missed. Where PREVIOUS is
 * shorter it counts as zeros; where it is longer, the disk was cut, and there
 * is nothing to mark. Opens IMAGE for reading; nobody may have it open for
 * writing.
 *
 * Exit codes: 0 none missed; 1 some missed (the first ones are listed on
 * stdout); 2 wrong usage, or no verdict (stderr says why).
 */
#define _GNU_SOURCE                 /* SEEK_DATA */
#define _FILE_OFFSET_BITS 64
#include <qbm.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)1 << 20)
#define LISTED_MAX 10

static const char usage[] =
    "usage: qbm-verify PREVIOUS IMAGE BITMAP\n"
    "Proves that BITMAP marks every block in which the QBM image IMAGE differs\n"
    "from PREVIOUS, a raw copy made when BITMAP was last cleared.\n";

static qbm_error error = { .size = sizeof(error) };

/* A raw file, and the part of it that is known to read as zeros. */
typedef struct raw_file {
    const char *path;
    int fd;
    uint64_t size_bytes;
    uint64_t hole_start, hole_end;
} raw_file;

static int system_failed(const char *path, const char *what)
{
    fprintf(stderr, "qbm-verify: %s: %s: %s\n", path, what, strerror(errno));
    return -1;
}

static int open_raw(raw_file *file, const char *path)
{
    off_t end;

    memset(file, 0, sizeof(*file));
    file->path = path;
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    /* Works for block devices too. */
    end = file->fd < 0 ? -1 : lseek(file->fd, 0, SEEK_END);
    if (end < 0) {
        return system_failed(path, "cannot open");
    }
    file->size_bytes = (uint64_t)end;
    return 0;
}

/* Whether a range lies in a hole. A file system that has none says no. */
static bool is_hole(raw_file *file, uint64_t start, uint64_t end)
{
    off_t data;

    if (start < file->hole_start || end > file->hole_end) {
        data = start < file->size_bytes
            ? lseek(file->fd, (off_t)start, SEEK_DATA) : -1;
        file->hole_start = start;
        if (data >= 0) {
            file->hole_end = (uint64_t)data;
        } else {
            /* Beyond the end, or no data up to it. */
            file->hole_end = start >= file->size_bytes || errno == ENXIO
                ? UINT64_MAX : start;
        }
    }
    return end <= file->hole_end;
}

/* Reads a piece of the previous copy, and zeros beyond its end. */
static int read_previous(const raw_file *file, uint64_t offset, size_t bytes,
                         char *buf)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t ret = pread(file->fd, buf + done, bytes - done,
                            (off_t)(offset + done));

        if (ret < 0 && errno != EINTR) {
            return system_failed(file->path, "cannot read");
        }
        if (ret == 0) {
            memset(buf + done, 0, bytes - done);
            return 0;
        }
        done += ret > 0 ? (size_t)ret : 0;
    }
    return 0;
}

typedef struct verification {
    const char *image_path, *bitmap;
    qbm_image *image;
    raw_file previous, data;
    uint64_t disk_bytes, granularity_bytes;
    uint64_t differ_bytes, marked_bytes, in_vain_bytes, missed_bytes;
    char *before, *now;
} verification;

static int library_failed(const verification *v)
{
    fprintf(stderr, "qbm-verify: %s: %s\n", v->image_path, error.message);
    return -1;
}

/* Whether a granule differs: 1 or 0, -1 on trouble. */
static int differs(verification *v, uint64_t start, uint64_t end)
{
    if (is_hole(&v->previous, start, end) && is_hole(&v->data, start, end)) {
        return 0;
    }
    while (start < end) {
        size_t bytes = end - start < PIECE_BYTES ? (size_t)(end - start)
                                                 : PIECE_BYTES;

        if (read_previous(&v->previous, start, bytes, v->before) < 0) {
            return -1;
        }
        if (qbm_pread(v->image, start, bytes, v->now, &error) < 0) {
            return library_failed(v);
        }
        if (memcmp(v->before, v->now, bytes)) {
            return 1;
        }
        start += bytes;
    }
    return 0;
}

static int compare(verification *v)
{
    uint64_t extent_start = 0, extent_bytes = 0;
    uint64_t start, end;
    bool more = true;
    int listed = 0;

    for (start = 0; start < v->disk_bytes; start = end) {
        bool is_marked;
        int ret;

        end = v->disk_bytes - start < v->granularity_bytes
            ? v->disk_bytes : start + v->granularity_bytes;
        if (more && start >= extent_start + extent_bytes) {
            ret = qbm_bitmap_next_extent(v->image, v->bitmap, start,
                                         &extent_start, &extent_bytes, &error);
            if (ret < 0) {
                return library_failed(v);
            }
            more = ret == 1;
        }
        is_marked = more && start >= extent_start;
        ret = differs(v, start, end);
        if (ret < 0) {
            return ret;
        }
        v->differ_bytes += ret ? end - start : 0;
        v->marked_bytes += is_marked ? end - start : 0;
        if (is_marked && !ret) {
            v->in_vain_bytes += end - start;
        }
        if (ret && !is_marked) {
            v->missed_bytes += end - start;
            if (listed++ < LISTED_MAX) {
                printf("missed: %" PRIu64 " bytes at %" PRIu64 "\n",
                       end - start, start);
            }
        }
    }
    return 0;
}

/* Opens everything; what is open already is the caller's also on failure. */
static int open_all(verification *v, const char *previous, qbm_info *info)
{
    qbm_open_args open_args = { .size = sizeof(open_args),
                                .flags = QBM_OPEN_READ_ONLY };
    qbm_activate_args activate_args = {
        .size = sizeof(activate_args),
        .flags = QBM_ACTIVATE_READ_ONLY | QBM_ACTIVATE_DATA,
    };
    qbm_bitmap_info bitmap = { .size = sizeof(bitmap) };
    struct stat before, now;
    char notice[2048];

    if (qbm_open(v->image_path, &open_args, &v->image, &error) < 0 ||
        qbm_activate(v->image, &activate_args, &error) < 0 ||
        qbm_get_info(v->image, info, &error) < 0 ||
        qbm_bitmap_find(v->image, v->bitmap, &bitmap, &error) < 0) {
        return library_failed(v);
    }
    while (qbm_take_notice(v->image, notice, sizeof(notice)) == 1) {
        fprintf(stderr, "qbm-verify: %s\n", notice);
    }
    if (bitmap.flags & QBM_BITMAP_INCONSISTENT) {
        fprintf(stderr, "qbm-verify: %s: bitmap \"%s\" is inconsistent\n",
                v->image_path, v->bitmap);
        return -1;
    }
    v->disk_bytes = info->image_size_bytes;
    v->granularity_bytes = bitmap.granularity_bytes;
    v->before = malloc(PIECE_BYTES);
    v->now = malloc(PIECE_BYTES);
    if (!v->before || !v->now) {
        return system_failed(previous, "cannot compare");
    }
    /* The data image by itself is only asked for its holes. */
    if (open_raw(&v->previous, previous) < 0 ||
        open_raw(&v->data, info->data_file) < 0) {
        return -1;
    }
    if (fstat(v->previous.fd, &before) < 0 || fstat(v->data.fd, &now) < 0) {
        return system_failed(previous, "cannot examine");
    }
    if (before.st_dev == now.st_dev && before.st_ino == now.st_ino) {
        fprintf(stderr, "qbm-verify: %s: is the image's own data\n", previous);
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    verification v = { .previous = { .fd = -1 }, .data = { .fd = -1 } };
    qbm_info info = { .size = sizeof(info) };
    int result = 2;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc != 4) {
        fputs(usage, stderr);
        return 2;
    }
    v.image_path = argv[2];
    v.bitmap = argv[3];
    if (open_all(&v, argv[1], &info) == 0 && compare(&v) == 0) {
        printf("%" PRIu64 " bytes of a disk of %" PRIu64 " differ\n"
               "%" PRIu64 " bytes are marked, %" PRIu64 " of them in vain\n"
               "%" PRIu64 " bytes are missed\n",
               v.differ_bytes, v.disk_bytes, v.marked_bytes, v.in_vain_bytes,
               v.missed_bytes);
        result = v.missed_bytes ? 1 : 0;
    }
    if (fflush(stdout) != 0) {
        system_failed("stdout", "cannot write");
        result = 2;
    }
    if (v.previous.fd >= 0) {
        close(v.previous.fd);
    }
    if (v.data.fd >= 0) {
        close(v.data.fd);
    }
    free(v.before);
    free(v.now);
    qbm_close(v.image, NULL);
    return result;
}
