/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * qbm-backup: an incremental copy of a raw disk.
 *
 *     cc qbm-backup.c $(pkg-config --cflags --libs qbm) -o qbm-backup
 *     qbm-backup [--checkpoint BYTES] IMAGE BITMAP TARGET
 *
 * Brings the raw file TARGET up to date with the disk of the QBM image IMAGE (a
 * descriptor such as disk.qbm; qbm_image(3) shows how a disk gets one):
 * copies what is marked in BITMAP, and unmarks it. The first run makes both and
 * copies everything; from then on they belong to each other and to qbm-backup
 * alone. Nobody else can have IMAGE open for writing meanwhile.
 *
 * TARGET is a copy of the disk once qbm-backup has exited with 0. A run that was
 * killed, failed or was stopped is continued by running it again: what it copied
 * before its last checkpoint, one every 64 MiB, is not copied again.
 *
 * How it stays right: every run draws a new tag and keeps it with BITMAP, as its
 * user data, and beside TARGET, in the file TARGET.qbm-backup. While a tag is in
 * both, BITMAP marks every block in which TARGET may differ from the disk. With
 * a target that was replaced or restored, an image that was rolled back, another
 * target in between, there is none, and everything is copied.
 *
 * An existing TARGET without TARGET.qbm-backup is refused unless it is empty. So
 * is a BITMAP that carries user data of another program.
 *
 * Exit codes: 0 TARGET is up to date; 1 it is not, stderr says why; 2 wrong
 * usage; 3 IMAGE or TARGET is in use by another process; 128 + n stopped by
 * signal n (SIGHUP, SIGINT, SIGTERM).
 */
#define _GNU_SOURCE                 /* getentropy, SEEK_DATA */
#define _FILE_OFFSET_BITS 64
#include <qbm.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)256 << 10)
#define GRANULARITY_BYTES ((uint64_t)64 << 10)
#define TAG_PREFIX "qbm-backup:"
#define TAG_LENGTH 43               /* the prefix and 32 digits; "" is no tag */

static const char usage[] =
    "usage: qbm-backup [--checkpoint BYTES] IMAGE BITMAP TARGET\n"
    "Copies what is marked in BITMAP from the disk of the QBM image IMAGE to the\n"
    "raw file TARGET, and unmarks it. The first run makes BITMAP and TARGET. A run\n"
    "that was killed is continued by the next one; BYTES (64 MiB) is how much that\n"
    "may have to copy again.\n";

static const char *image_path, *bitmap, *target_path;
static char tags_path[PATH_MAX];
static uint64_t checkpoint_bytes = (uint64_t)64 << 20;

static qbm_image *image;
static qbm_error error = { .size = sizeof(error) };
static uint64_t disk_bytes, data_bytes, dirty_bytes, copied_bytes;
static int target;
static bool is_frozen;
static volatile sig_atomic_t stopped_by;

static void stop(int signal)
{
    stopped_by = signal;
}

/* However we end: what was not unmarked stays marked, the image is closed. */
static void leave(void)
{
    if (is_frozen) {
        if (qbm_bitmap_abort(image, bitmap, &error) < 0) {
            warnx("%s: %s", image_path, error.message);
        }
        warnx("%s: not finished: %" PRIu64 " of %" PRIu64 " bytes copied",
              target_path, copied_bytes, dirty_bytes);
    }
    if (qbm_close(image, &error) < 0) {
        warnx("%s: %s", image_path, error.message);
        _exit(1);
    }
}

/* Passes on what the library returns, unless it is an error. */
static int check(int ret)
{
    if (ret < 0) {
        errx(ret == -EAGAIN ? 3 : 1, "%s: %s", image_path, error.message);
    }
    return ret;
}

/* Opens the image for writing: nobody else changes disk or bitmaps meanwhile. */
static void open_image(qbm_info *info)
{
    qbm_open_args open_args = { .size = sizeof(open_args) };
    qbm_activate_args args = { .size = sizeof(args),
                               .flags = QBM_ACTIVATE_DATA };
    char notice[2048];
    struct stat data;
    int ret;

    check(qbm_open(image_path, &open_args, &image, &error));
    check(qbm_get_info(image, info, &error));
    if (info->durability == QBM_DURABILITY_CLOSE) {
        /* So that the bitmap survives our being killed. */
        args.durability = QBM_DURABILITY_PROCESS;
    }
    ret = qbm_activate(image, &args, &error);
    while (qbm_take_notice(image, notice, sizeof(notice)) == 1) {
        warnx("%s", notice);
    }
    check(ret);
    check(qbm_get_info(image, info, &error));
    disk_bytes = info->image_size_bytes;
    /* A file may end within the disk's last 512 bytes. */
    data_bytes = disk_bytes;
    if (stat(info->data_file, &data) == 0 && S_ISREG(data.st_mode)) {
        data_bytes = (uint64_t)data.st_size;
    }
}

static bool is_same_file(const struct stat *file, const char *path)
{
    struct stat other;

    return stat(path, &other) == 0 && other.st_dev == file->st_dev &&
           other.st_ino == file->st_ino;
}

/* Opens or makes the target, and locks it. Returns whether it is empty. */
static bool open_target(const qbm_info *info)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct stat file;

    target = open(target_path, O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0600);
    if (target < 0 || fstat(target, &file) < 0) {
        err(1, "%s: cannot open", target_path);
    }
    if (!S_ISREG(file.st_mode)) {
        errx(1, "%s: is not a regular file", target_path);
    }
    if (is_same_file(&file, info->data_file) ||
        is_same_file(&file, image_path)) {
        errx(1, "%s: belongs to the image itself", target_path);
    }
    if (fcntl(target, F_SETLK, &lock) < 0) {
        err(errno == EAGAIN || errno == EACCES ? 3 : 1, "%s: cannot lock",
            target_path);
    }
    if (file.st_size > 0 && access(tags_path, F_OK) < 0) {
        err(1, "%s: exists, and is not known to be a copy: %s", target_path,
            tags_path);
    }
    return file.st_size == 0;
}

/* Whether a tag is among those beside the target. */
static bool has_tag(const char *wanted)
{
    char first[TAG_LENGTH + 1] = "", second[TAG_LENGTH + 1] = "";
    FILE *file = fopen(tags_path, "re");

    if (!file && errno != ENOENT) {
        err(1, "%s: cannot open", tags_path);
    }
    if (file) {
        int count = fscanf(file, "%43s %43s", first, second);

        fclose(file);
        if (count < 1 || strncmp(first, TAG_PREFIX, strlen(TAG_PREFIX))) {
            errx(1, "%s: was not written by qbm-backup", tags_path);
        }
    }
    return *wanted && (!strcmp(wanted, first) || !strcmp(wanted, second));
}

/* Replaces the tags beside the target as a whole; durable when it returns. */
static void write_tags(const char *first, const char *second)
{
    char path[PATH_MAX + 4];
    FILE *file;
    int directory;

    sprintf(path, "%s.new", tags_path);
    file = fopen(path, "we");
    if (!file || fprintf(file, "%s %s\n", first, second) < 0 ||
        fflush(file) != 0 || fsync(fileno(file)) < 0 || fclose(file) != 0) {
        err(1, "%s: cannot write", path);
    }
    if (rename(path, tags_path) < 0) {
        err(1, "%s: cannot replace", tags_path);
    }
    directory = open(dirname(path), O_RDONLY | O_CLOEXEC);
    if (directory < 0 || fsync(directory) < 0) {
        err(1, "%s: cannot sync its directory", tags_path);
    }
    close(directory);
}

static void draw_tag(char *tag)
{
    unsigned char random[16];
    char *at = tag + sprintf(tag, TAG_PREFIX);
    size_t i;

    if (getentropy(random, sizeof(random)) < 0) {
        err(1, "no random number");
    }
    for (i = 0; i < sizeof(random); i++) {
        at += sprintf(at, "%02x", random[i]);
    }
}

/* Gets the tag that the bitmap carries. */
static void get_bitmap_tag(char *tag)
{
    size_t length = 0;
    int ret = qbm_bitmap_get_user_data(image, bitmap, tag, TAG_LENGTH, &length,
                                       &error);

    if (ret == -ERANGE ||
        (ret == 1 && (length != TAG_LENGTH ||
                      memcmp(tag, TAG_PREFIX, strlen(TAG_PREFIX))))) {
        errx(1, "%s: bitmap \"%s\" carries user data of another program",
             image_path, bitmap);
    }
    tag[check(ret) == 1 ? TAG_LENGTH : 0] = '\0';
}

/*
 * Finds or makes the bitmap. Returns whether it may be trusted to mark all that
 * was written since it carries its tag.
 */
static bool prepare_bitmap(char *tag)
{
    qbm_bitmap_info info = { .size = sizeof(info) };
    int ret = qbm_bitmap_find(image, bitmap, &info, &error);

    if (ret != -ENOENT) {
        check(ret);
        get_bitmap_tag(tag);
        if (!(info.flags & QBM_BITMAP_INCONSISTENT)) {
            return info.flags & QBM_BITMAP_RECORDING;
        }
        warnx("%s: bitmap \"%s\" is inconsistent, and made anew", image_path,
              bitmap);
        check(qbm_bitmap_remove(image, bitmap, &error));
    }
    if (!info.granularity_bytes) {
        info.granularity_bytes = GRANULARITY_BYTES;
    }
    check(qbm_bitmap_add(image, bitmap, info.granularity_bytes,
                         QBM_BITMAP_RECORDING | QBM_BITMAP_ALL_DIRTY, &error));
    return false;
}

static void resize_target(uint64_t bytes)
{
    if (ftruncate(target, (off_t)bytes) < 0) {
        err(1, "%s: cannot resize", target_path);
    }
}

/*
 * Ties target and bitmap to each other. The order makes sure that, whenever we
 * are killed, a tag in both places tells the truth.
 */
static void tie(bool is_empty)
{
    char old[TAG_LENGTH + 1] = "", new[TAG_LENGTH + 1];
    bool is_trusted = prepare_bitmap(old);
    bool is_tied = has_tag(old) && is_trusted && !is_empty;

    if (!is_tied) {
        check(qbm_bitmap_mark_dirty(image, bitmap, 0, disk_bytes, &error));
        check(qbm_bitmap_set_recording(image, bitmap, true, &error));
    }
    draw_tag(new);
    /* Until the bitmap carries the new tag, the old one must do. */
    write_tags(new, is_tied ? old : "");
    check(qbm_bitmap_set_user_data(image, bitmap, new, TAG_LENGTH, &error));
    /* From now on the old one would be that of an image rolled back. */
    if (is_tied) {
        write_tags(new, "");
    }
    /* Last: an empty target is never taken for a copy. */
    resize_target(disk_bytes);
}

/* Zeros need not be written where the target has a hole. */
static bool is_hole(const char *piece, size_t bytes, uint64_t offset)
{
    off_t data;

    if (piece[0] || memcmp(piece, piece + 1, bytes - 1)) {
        return false;
    }
    data = lseek(target, (off_t)offset, SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + bytes;
}

static void copy_piece(uint64_t offset, size_t bytes)
{
    static char piece[PIECE_BYTES];
    size_t done = 0;

    check(qbm_pread(image, offset, bytes, piece, &error));
    if (is_hole(piece, bytes, offset)) {
        return;
    }
    while (done < bytes) {
        ssize_t ret = pwrite(target, piece + done, bytes - done,
                             (off_t)(offset + done));

        if (ret < 0 && errno != EINTR) {
            err(1, "%s: cannot write at %" PRIu64, target_path, offset + done);
        }
        done += ret > 0 ? (size_t)ret : 0;
    }
}

static void sync_target(void)
{
    if (fdatasync(target) < 0) {
        err(1, "%s: cannot sync", target_path);
    }
}

static void show_progress(void)
{
    static time_t shown;
    time_t now = time(NULL);

    if (now != shown && isatty(STDERR_FILENO)) {
        fprintf(stderr, "qbm-backup: %" PRIu64 " of %" PRIu64 " MiB\r",
                copied_bytes >> 20, dirty_bytes >> 20);
        shown = now;
    }
}

/* Copies what is marked, and unmarks what is safe in the target. */
static void copy(void)
{
    uint64_t offset = 0, left, pending = 0;

    check(qbm_bitmap_freeze(image, bitmap, &error));
    is_frozen = true;
    check(qbm_bitmap_count(image, bitmap, &dirty_bytes, &error));
    while (check(qbm_bitmap_next_extent(image, bitmap, offset, &offset, &left,
                                        &error)) == 1) {
        while (left > 0) {
            size_t bytes = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;

            copy_piece(offset, bytes);
            offset += bytes;
            left -= bytes;
            pending += bytes;
            copied_bytes += bytes;
            if (pending >= checkpoint_bytes || stopped_by) {
                sync_target();
                check(qbm_bitmap_checkpoint(image, bitmap, offset, &error));
                pending = 0;
            }
            if (stopped_by) {
                exit(128 + stopped_by);
            }
            show_progress();
        }
    }
    resize_target(data_bytes);
    sync_target();
    check(qbm_bitmap_commit(image, bitmap, &error));
    is_frozen = false;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = stop, .sa_flags = SA_RESTART };
    qbm_info info = { .size = sizeof(info) };
    char *end = "";

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc == 6 && !strcmp(argv[1], "--checkpoint")) {
        checkpoint_bytes = strtoull(argv[2], &end, 10);
    }
    if ((argc != 4 && argc != 6) || *end || checkpoint_bytes == 0) {
        fputs(usage, stderr);
        return 2;
    }
    image_path = argv[argc - 3];
    bitmap = argv[argc - 2];
    target_path = argv[argc - 1];
    if ((size_t)snprintf(tags_path, PATH_MAX, "%s.qbm-backup", target_path) >=
        PATH_MAX) {
        errx(1, "%s: too long a name", target_path);
    }
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    atexit(leave);
    open_image(&info);
    tie(open_target(&info));
    copy();
    printf("%s: up to date: %" PRIu64 " of %" PRIu64 " bytes copied, the disk"
           " has %" PRIu64 "\n", target_path, copied_bytes, dirty_bytes,
           disk_bytes);
    return 0;
}
