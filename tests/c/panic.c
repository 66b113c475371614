/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A bug in libqbm does not take the program with it: every storage operation
 * of a session panics once, locks held, and the next handle finds the disk
 * right. For a static library with features c-library and test-hooks.
 */
#include <qbm.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GRANULARITY UINT64_C(65536)
#define SIZE (16 * GRANULARITY)

/* Of a feature that no installed library has */
uint64_t qbm_test_panic_at(uint64_t operation);

static qbm_error error = { sizeof(error), 0, { 0 } };
static uint64_t operation;

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            printf("%s:%d: operation %llu: %s (%s)\n", __FILE__, __LINE__,   \
                   (unsigned long long)operation, #condition,                \
                   error.message);                                           \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

/* A call at which the panic came says so, once */
static int is_panic(int32_t result)
{
    if (result != -EIO) {
        return 0;
    }
    CHECK(error.errnum == EIO);
    CHECK(strncmp(error.message, "internal error in libqbm: storage operation "
                  "panics as the test asked: ", 70) == 0);
    error.message[0] = '\0';
    error.errnum = 0;
    return 1;
}

/* Disarms. Whether the panic that was asked for has come */
static int has_come(void)
{
    return qbm_test_panic_at(0) == 0;
}

static int descriptors_count(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory)) {
        count++;
    }
    closedir(directory);
    return count;
}

static qbm_image *opened(const char *path, uint32_t flags)
{
    qbm_open_args args = { sizeof(args), flags, 0 };
    qbm_image *image = NULL;

    CHECK(qbm_open(path, &args, &image, &error) == 0);
    return image;
}

static int32_t activate(qbm_image *image)
{
    qbm_activate_args args = { sizeof(args), 0, QBM_DURABILITY_PROCESS, SIZE,
                               NULL };

    return qbm_activate(image, &args, &error);
}

static int32_t create(const char *path)
{
    qbm_create_args args;

    memset(&args, 0, sizeof(args));
    args.size = sizeof(args);
    args.image_size_bytes = SIZE;
    return qbm_create(path, &args, &error);
}

static int is_in_use(const char *path)
{
    qbm_image *image = opened(path, QBM_OPEN_SHARED);
    qbm_info info = { sizeof(info) };

    CHECK(qbm_get_info(image, &info, &error) == 0);
    CHECK(qbm_close(image, &error) == 0);
    return (info.flags & QBM_INFO_IN_USE) != 0;
}

/* What must be in a bitmap, and what may be, as one bit for each granule */
typedef struct Bits {
    unsigned must;
    unsigned may;
} Bits;

static int32_t write_at(qbm_image *image, unsigned granule, Bits *one,
                        Bits *other)
{
    qbm_ticket ticket;
    int32_t result = qbm_co_writev_begin(image, granule * GRANULARITY, 1,
                                         &ticket);
    unsigned bit = 1u << granule;

    CHECK(result == 0 || result == -EIO);
    one->may |= bit;
    other->may |= bit;
    if (result == 0) {
        one->must |= bit;
        other->must |= bit;
        qbm_co_writev_end(image, &ticket);
    }
    return result;
}

enum { OPEN, ACTIVATE, ADD, WRITE, DATA, CLEAR, REWRITE, MERGE, RENAME, REMOVE,
       CLOSE, STEPS };

static int step(int number, const char *path, qbm_image **image, Bits *old,
                Bits *added)
{
    static const char *const sources[] = { "added" };
    qbm_open_args args = { sizeof(args), 0, 0 };
    uint64_t found;
    int32_t result;

    switch (number) {
    case OPEN:
        *image = (qbm_image *)&args;
        result = qbm_open(path, &args, image, &error);
        CHECK((result == 0) == (*image != NULL));
        return is_panic(result);
    case ACTIVATE:
        return is_panic(activate(*image));
    case ADD:
        return is_panic(qbm_bitmap_add(*image, "added", GRANULARITY,
                                       QBM_BITMAP_RECORDING, &error));
    case WRITE:
        /* These have no error buffer */
        return write_at(*image, 3, old, added) || write_at(*image, 4, old, added);
    case DATA:
        return is_panic(qbm_bitmap_set_user_data(*image, "added", "data", 4,
                                                 &error));
    case CLEAR:
        old->must = 0;
        return is_panic(qbm_bitmap_clear(*image, "old", &error));
    case REWRITE:
        return write_at(*image, 5, old, added) || write_at(*image, 3, old, added);
    case MERGE:
        if (is_panic(qbm_bitmap_merge(*image, "old", sources, 1, &error))) {
            return 1;
        }
        old->must |= added->must;
        return 0;
    case RENAME:
        return is_panic(qbm_bitmap_rename(*image, "old", "new", &error));
    case REMOVE:
        return is_panic(qbm_bitmap_remove(*image, "added", &error));
    default:
        /* Nothing but the panic fails; see that results were looked at */
        CHECK(qbm_bitmap_next_dirty(*image, "new", 0, &found, &error) == 1);
        return is_panic(qbm_close(*image, &error));
    }
}

static void check_poisoned(qbm_image *image)
{
    qbm_info info = { sizeof(info) };
    qbm_ticket ticket;
    uint64_t dirty;

    CHECK(qbm_get_info(image, &info, &error) == -EIO);
    CHECK(qbm_bitmap_count(image, "old", &dirty, &error) == -EIO);
    CHECK(qbm_bitmap_set_recording(image, "old", false, &error) == -EIO);
    CHECK(qbm_co_writev_begin(image, 0, 1, &ticket) == -EIO);
    CHECK(activate(image) == -EIO);
    CHECK(qbm_inactivate(image, &error) == -EIO);
    CHECK(qbm_close(image, &error) == -EIO);
    error.errnum = 0;
    error.message[0] = '\0';
}

/* Whether there is the bitmap; then it has what it must, and nothing else */
static int check_bitmap(qbm_image *image, const char *name, Bits bits)
{
    qbm_bitmap_info info = { sizeof(info) };
    unsigned granule;

    if (qbm_bitmap_find(image, name, &info, &error) == -ENOENT) {
        return 0;
    }
    CHECK(!(info.flags & QBM_BITMAP_INCONSISTENT));
    for (granule = 0; granule < 16; granule++) {
        uint64_t offset = granule * GRANULARITY, start = 0, bytes = 0;
        int32_t found = qbm_bitmap_next_extent(image, name, offset, &start,
                                               &bytes, &error);
        int is_dirty = found == 1 && start == offset;

        CHECK(found >= 0);
        CHECK(is_dirty || !(bits.must & 1u << granule));
        CHECK(!is_dirty || bits.may & 1u << granule);
    }
    return 1;
}

/*
 * One session in which the operation panics. Returns the step that it was in,
 * or STEPS if it never came.
 */
static int session(const char *path, int *in_use)
{
    Bits old = { 1u << 1, 1u << 1 }, added = { 0, 0 };
    qbm_image *image;
    int before, at, has_old, has_new, has_added;

    CHECK(create(path) == 0);
    image = opened(path, 0);
    CHECK(activate(image) == 0);
    CHECK(qbm_bitmap_add(image, "old", GRANULARITY, QBM_BITMAP_RECORDING,
                         &error) == 0);
    CHECK(qbm_bitmap_mark_dirty(image, "old", GRANULARITY, 1, &error) == 0);
    CHECK(qbm_close(image, &error) == 0);

    before = descriptors_count();
    qbm_test_panic_at(operation);
    for (at = OPEN; at < STEPS; at++) {
        if (step(at, path, &image, &old, &added)) {
            break;
        }
    }
    CHECK(has_come() == (at < STEPS));
    if (at > OPEN && at < CLOSE) {
        check_poisoned(image);
    }
    CHECK(descriptors_count() == before);
    *in_use = is_in_use(path);

    image = opened(path, 0);
    CHECK(activate(image) == 0);
    has_old = check_bitmap(image, "old", old);
    has_new = check_bitmap(image, "new", old);
    has_added = check_bitmap(image, "added", added);
    CHECK(has_old + has_new == 1);
    CHECK(at == RENAME || has_new == (at > RENAME));
    CHECK(at == ADD || at == REMOVE || has_added == (at > ADD && at < REMOVE));
    CHECK(qbm_close(image, &error) == 0);
    CHECK(!is_in_use(path));
    return at;
}

static void remove_all(const char *directory)
{
    DIR *listing = opendir(directory);
    struct dirent *entry;
    char path[4096];

    CHECK(listing != NULL);
    while ((entry = readdir(listing))) {
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
            CHECK(unlink(path) == 0);
        }
    }
    closedir(listing);
}

static void sessions(const char *directory, const char *path)
{
    int at, in_use, was_in_use = 0, last = OPEN;

    for (operation = 1;; operation++) {
        at = session(path, &in_use);
        remove_all(directory);
        /* The session begins within the activation and ends within the close */
        CHECK(at >= last);
        CHECK(at != OPEN || !in_use);
        CHECK(at <= ACTIVATE || at >= CLOSE || in_use);
        CHECK(at != ACTIVATE || in_use >= was_in_use);
        CHECK(at != CLOSE || in_use <= was_in_use || last != CLOSE);
        last = at;
        was_in_use = in_use;
        if (at == STEPS) {
            break;
        }
    }
    CHECK(!in_use);
    printf("%llu operations of a session", (unsigned long long)operation - 1);
}

/* A panic where there is no handle: nothing is made, nothing stays open */
static void creations(const char *directory, const char *path)
{
    qbm_image *image;
    int before = descriptors_count(), has_panicked;

    for (operation = 1;; operation++) {
        qbm_test_panic_at(operation);
        has_panicked = is_panic(create(path));
        CHECK(has_come() == has_panicked);
        CHECK(descriptors_count() == before);
        /* What it left is no obstacle; 1: the data image's name was taken */
        CHECK(!has_panicked || create(path) >= 0);
        image = opened(path, 0);
        CHECK(activate(image) == 0);
        CHECK(qbm_close(image, &error) == 0);
        remove_all(directory);
        if (!has_panicked) {
            break;
        }
    }
    printf(", %llu of a creation", (unsigned long long)operation - 1);
}

static void checks(const char *directory, const char *path, uint32_t flags)
{
    qbm_check_args args = { sizeof(args), flags, 0, 0, NULL };
    qbm_report_summary summary = { sizeof(summary) };
    qbm_report *report;
    qbm_image *image;
    int before = descriptors_count(), has_panicked;
    int32_t result;
    Bits bits = { 1u << 2, 1u << 2 }, none = { 0, 0 };

    for (operation = 1;; operation++) {
        /* Left by a panic: there is a crash to recover from */
        CHECK(create(path) == 0);
        image = opened(path, 0);
        CHECK(activate(image) == 0);
        CHECK(qbm_bitmap_add(image, "b", GRANULARITY, QBM_BITMAP_RECORDING,
                             &error) == 0);
        CHECK(write_at(image, 2, &bits, &none) == 0);
        qbm_test_panic_at(1);
        CHECK(is_panic(qbm_bitmap_set_recording(image, "b", false, &error)));
        CHECK(qbm_close(image, &error) == -EIO);
        error.message[0] = '\0';
        CHECK(descriptors_count() == before);

        report = (qbm_report *)&args;
        qbm_test_panic_at(operation);
        result = qbm_check(path, &args, &report, &error);
        has_panicked = is_panic(result);
        CHECK(has_come() == has_panicked);
        CHECK(has_panicked ? report == NULL : result == 0);
        CHECK(descriptors_count() == before);
        qbm_report_free(report);

        CHECK(qbm_check(path, &args, &report, &error) == 0);
        CHECK(qbm_report_get_summary(report, &summary, &error) == 0);
        CHECK(summary.usable_count == 1);
        CHECK(!(flags & QBM_CHECK_REPAIR) || summary.corruptions_count == 0);
        qbm_report_free(report);
        image = opened(path, 0);
        CHECK(activate(image) == 0);
        CHECK(check_bitmap(image, "b", bits));
        CHECK(qbm_close(image, &error) == 0);
        remove_all(directory);
        if (!has_panicked) {
            break;
        }
    }
    printf(", %llu of a %s", (unsigned long long)operation - 1,
           flags & QBM_CHECK_REPAIR ? "repair" : "check");
}

int main(int argc, char **argv)
{
    char path[4096];
    struct stat printed;
    FILE *stream = tmpfile();

    if (argc != 2 || stream == NULL) {
        fprintf(stderr, "usage: panic EMPTY-DIRECTORY\n");
        return 2;
    }
    CHECK(dup2(fileno(stream), STDERR_FILENO) == STDERR_FILENO);
    snprintf(path, sizeof(path), "%s/x.qbm", argv[1]);

    sessions(argv[1], path);
    creations(argv[1], path);
    checks(argv[1], path, 0);
    checks(argv[1], path, QBM_CHECK_REPAIR);
    putchar('\n');

    CHECK(fstat(fileno(stream), &printed) == 0);
    CHECK(printed.st_size == 0);
    return 0;
}
