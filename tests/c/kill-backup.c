/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Kills qbm-backup at random moments: kill-backup SEED KILLS QBM-BACKUP DIRECTORY
 *
 * A round: a process writes the disk through libqbm and may be killed; target or
 * image may be replaced by what they were some rounds ago, the target removed,
 * another one be made; then qbm-backup is killed a few times, with more writes
 * in between, and at last left to end. Target and disk must be the same then,
 * and nothing be marked.
 *
 * Every other kill comes after a random time, the others at a random system call,
 * before or after it: what takes no time to do is hit as well. The latter need
 * ptrace(). KILLS counts the former, where they hit. SEED repeats what is written
 * and chosen, but no moment of time.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <qbm.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)
#define DISK_BYTES_MIN (6 * MIB)
#define DISK_BYTES_MAX (12 * MIB)
#define WRITE_BYTES_MAX ((uint64_t)96 << 10)
#define IMAGE "disk.qbm"
#define BITMAP "daily"

static uint64_t seed, state;
static const char *qbm_backup;
static qbm_error error = { .size = sizeof(error) };
/* How long a whole run takes, and how often one stops at system calls. */
static int64_t whole_nanoseconds = 100000000;
static uint64_t whole_stops = 400;
static bool can_trace = true;
static uint64_t kills_hit, stops_hit, writers_killed, runs_completed;
static uint64_t resumed_bytes;

enum manner { UNHARMED, AT_A_TIME, AT_A_CALL };

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    printf("kill-backup: seed %" PRIu64 ", after %" PRIu64 " and %" PRIu64
           " kills: ", seed, kills_hit, stops_hit);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
    fflush(stdout);
    if (system("test ! -e errors || cat errors") != 0) {
        puts("what qbm-backup said is lost");
    }
    exit(1);
}

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            fail("line %d: %s (%s; %s)", __LINE__, #condition,               \
                 strerror(errno), error.message);                            \
        }                                                                    \
    } while (0)

/* splitmix64 */
static uint64_t below(uint64_t limit)
{
    uint64_t value = state += UINT64_C(0x9e3779b97f4a7c15);

    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (value ^ (value >> 31)) % limit;
}

static int64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static qbm_image *open_image(uint32_t open_flags, uint32_t activate_flags)
{
    qbm_open_args open_args = { .size = sizeof(open_args),
                                .flags = open_flags };
    qbm_activate_args activate_args = {
        .size = sizeof(activate_args),
        .flags = QBM_ACTIVATE_DATA | activate_flags,
    };
    qbm_image *image = NULL;

    CHECK(qbm_open(IMAGE, &open_args, &image, &error) == 0);
    CHECK(qbm_activate(image, &activate_args, &error) == 0);
    return image;
}

/* What is marked; -1 without the bitmap. A kill must never cost it. */
static int64_t count_dirty(uint64_t *disk_bytes)
{
    qbm_image *image = open_image(QBM_OPEN_READ_ONLY, QBM_ACTIVATE_READ_ONLY);
    qbm_bitmap_info bitmap = { .size = sizeof(bitmap) };
    qbm_info info = { .size = sizeof(info) };
    uint64_t bytes = 0;
    bool found;

    found = qbm_bitmap_find(image, BITMAP, &bitmap, &error) == 0;
    CHECK(!found || !(bitmap.flags & QBM_BITMAP_INCONSISTENT));
    CHECK(!found || qbm_bitmap_count(image, BITMAP, &bytes, &error) == 0);
    CHECK(qbm_get_info(image, &info, &error) == 0);
    *disk_bytes = info.image_size_bytes;
    CHECK(qbm_close(image, &error) == 0);
    return found ? (int64_t)bytes : -1;
}

/* In a process of its own: writes all over the disk, and resizes it at times. */
static void write_disk(void)
{
    static char data[WRITE_BYTES_MAX];
    qbm_image *image = open_image(0, 0);
    qbm_info info = { .size = sizeof(info) };
    uint64_t writes = 1 + below(150);

    CHECK(qbm_get_info(image, &info, &error) == 0);
    while (writes--) {
        uint64_t size = info.image_size_bytes;
        uint64_t bytes = 1 + below(WRITE_BYTES_MAX);
        uint64_t offset = below(size - bytes + 1);

        switch (below(12)) {
        case 0:
            CHECK(qbm_zero(image, offset, bytes, QBM_ZERO_MAY_UNMAP,
                           &error) == 0);
            break;
        case 1:
            CHECK(qbm_discard(image, offset, bytes, &error) == 0);
            break;
        case 2:
            CHECK(qbm_flush(image, &error) == 0);
            break;
        case 3:
            if (below(6) == 0) {
                size = DISK_BYTES_MIN + below(DISK_BYTES_MAX - DISK_BYTES_MIN);
                CHECK(qbm_truncate(image, size & ~(uint64_t)511, &error) == 0);
                CHECK(qbm_get_info(image, &info, &error) == 0);
                break;
            }
            /* fall through */
        default:
            memset(data, (int)below(256), bytes);
            memcpy(data + bytes / 2, &writes, bytes < 16 ? 0 : sizeof(writes));
            CHECK(qbm_pwrite(image, offset, bytes, data, &error) == 0);
        }
    }
    CHECK(qbm_close(image, &error) == 0);
    exit(0);
}

/* Waits for a child, and kills it after a time if one is given. */
static int reap(pid_t child, int64_t nanoseconds)
{
    struct timespec delay = { .tv_sec = (time_t)(nanoseconds / 1000000000),
                              .tv_nsec = (long)(nanoseconds % 1000000000) };
    int status;

    CHECK(child > 0);
    if (nanoseconds >= 0) {
        nanosleep(&delay, NULL);
        kill(child, SIGKILL);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static int64_t some_delay(void)
{
    return (int64_t)below((uint64_t)whole_nanoseconds);
}

/* Containers may forbid it. */
static bool may_trace(void)
{
    pid_t child = fork();

    if (child == 0) {
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    }
    return reap(child, -1) == 0;
}

/* Which file holds the target's tags. */
static ino_t tags_inode(void)
{
    struct stat file;

    return stat("target.qbm-backup", &file) == 0 ? file.st_ino : 0;
}

/*
 * Waits for a traced child, and kills it when it has stopped some times: since it
 * began, or since it replaced the tags, where the order of few calls matters.
 */
static int reap_at_call(pid_t child)
{
    bool from_tags_on = below(2);
    uint64_t stops = below(from_tags_on ? 150 : whole_stops);
    ino_t tags = tags_inode();
    uint64_t stopped = 0;
    long signal;
    int status;

    CHECK(child > 0);
    /* The first stop is that of exec(). */
    CHECK(waitpid(child, &status, 0) == child);
    while (WIFSTOPPED(status)) {
        /* Our own signal is no news; another is the child's. */
        signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        if (from_tags_on && tags_inode() != tags) {
            from_tags_on = false;
            stopped = 0;
        }
        if (stopped++ >= stops && !from_tags_on) {
            kill(child, SIGKILL);
        } else if (ptrace(PTRACE_SYSCALL, child, NULL, (void *)signal) < 0) {
            CHECK(errno == ESRCH);
        }
        CHECK(waitpid(child, &status, 0) == child);
    }
    whole_stops = stopped > whole_stops ? stopped : whole_stops;
    return status;
}

static void run_writer(void)
{
    bool is_killed = below(3) == 0;
    int64_t delay = is_killed ? some_delay() : -1;
    uint64_t child_state = below(UINT64_MAX);
    pid_t child = fork();
    int status;

    if (child == 0) {
        state = child_state;
        write_disk();
    }
    status = reap(child, delay);
    if (is_killed && WIFSIGNALED(status)) {
        writers_killed++;
    } else {
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

static void exec_backup(const char *target, bool is_traced)
{
    if (freopen("output", "w", stdout) && freopen("errors", "w", stderr) &&
        (!is_traced || ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0)) {
        execl(qbm_backup, "qbm-backup", "--checkpoint", "262144", IMAGE,
              BITMAP, target, (char *)NULL);
    }
    _exit(127);
}

/* Runs qbm-backup; whether it ended by itself, and then with 0. */
static bool run_backup(const char *target, enum manner manner)
{
    uint64_t disk_bytes, copied_bytes, of_bytes;
    int64_t before = count_dirty(&disk_bytes), after;
    int64_t delay = manner == AT_A_TIME ? some_delay() : -1;
    int64_t began = now_nanoseconds();
    char line[256] = "", format[64];
    FILE *output;
    int status;
    pid_t child = fork();

    if (child == 0) {
        exec_backup(target, manner == AT_A_CALL);
    }
    status = manner == AT_A_CALL ? reap_at_call(child)
                                 : reap(child, delay);
    if (manner != UNHARMED && WIFSIGNALED(status) &&
        WTERMSIG(status) == SIGKILL) {
        *(manner == AT_A_CALL ? &stops_hit : &kills_hit) += 1;
        after = count_dirty(&disk_bytes);
        /* Less is marked, but not nothing: that much is not copied again. */
        resumed_bytes += after > 0 && after < before
            ? (uint64_t)(before - after) : 0;
        return false;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fail("qbm-backup ended with status 0x%x", (unsigned)status);
    }
    if (manner != AT_A_CALL) {
        whole_nanoseconds =
            (whole_nanoseconds + now_nanoseconds() - began) / 2 + 1;
    }
    runs_completed++;

    /* It copied what was marked, or all, and nothing is marked any more. */
    CHECK((output = fopen("output", "r")) != NULL);
    CHECK(fgets(line, sizeof(line), output) != NULL);
    fclose(output);
    snprintf(format, sizeof(format), "%s: up to date: %%" SCNu64 " of %%"
             SCNu64 " bytes copied", target);
    CHECK(sscanf(line, format, &copied_bytes, &of_bytes) == 2);
    CHECK(copied_bytes == of_bytes);
    CHECK((int64_t)copied_bytes == before || copied_bytes == disk_bytes);
    CHECK(count_dirty(&disk_bytes) == 0);
    return true;
}

static int open_whole(const char *path, uint64_t *size_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat file;

    CHECK(fd >= 0 && fstat(fd, &file) == 0);
    *size_bytes = (uint64_t)file.st_size;
    return fd;
}

static void compare(const char *target)
{
    static char *whole[2];
    uint64_t disk_bytes, target_bytes, offset, lost = 0, first = 0;
    int disk = open_whole("disk.qbm.raw", &disk_bytes);
    int copy = open_whole(target, &target_bytes);

    if (disk_bytes != target_bytes) {
        fail("%s has %" PRIu64 " bytes, the disk %" PRIu64, target,
             target_bytes, disk_bytes);
    }
    whole[0] = realloc(whole[0], disk_bytes);
    whole[1] = realloc(whole[1], disk_bytes);
    CHECK(whole[0] && whole[1]);
    CHECK(pread(disk, whole[0], disk_bytes, 0) == (ssize_t)disk_bytes);
    CHECK(pread(copy, whole[1], disk_bytes, 0) == (ssize_t)disk_bytes);
    for (offset = 0; offset < disk_bytes; offset += 512) {
        if (memcmp(whole[0] + offset, whole[1] + offset, 512)) {
            first = lost++ ? first : offset;
        }
    }
    close(disk);
    close(copy);
    if (lost) {
        fail("%" PRIu64 " blocks lost in %s, the first at %" PRIu64, lost,
             target, first);
    }
}

static void shell(const char *command)
{
    if (system(command) != 0) {
        fail("failed: %s", command);
    }
}

/* What else may happen between two backups. */
static void disturb(void)
{
    switch (below(8)) {
    case 0:
        shell("rm -f target");
        break;
    case 1:
        shell("test ! -e target || cp target target.qbm-backup old-target");
        break;
    case 2:
        shell("test ! -e old-target/target || cp old-target/* .");
        break;
    case 3:
        /* The image forgets a backup. Its times too: only the tags can tell. */
        shell("rm -f old-image/* && cp -p disk.qbm* old-image");
        run_writer();
        run_backup("target", UNHARMED);
        shell("rm disk.qbm* && cp -p old-image/* .");
        break;
    case 4:
        if (run_backup("other", below(2) ? UNHARMED : AT_A_TIME)) {
            compare("other");
        }
        break;
    }
}

int main(int argc, char **argv)
{
    qbm_create_args create_args = { .size = sizeof(create_args),
                                    .image_size_bytes = DISK_BYTES_MIN };
    uint64_t kills_wanted;

    if (argc != 5) {
        fputs("usage: kill-backup SEED KILLS QBM-BACKUP DIRECTORY\n", stderr);
        return 2;
    }
    state = seed = strtoull(argv[1], NULL, 10);
    kills_wanted = strtoull(argv[2], NULL, 10);
    qbm_backup = argv[3];
    CHECK(chdir(argv[4]) == 0);
    shell("mkdir old-target old-image");
    can_trace = may_trace();
    CHECK(qbm_create(IMAGE, &create_args, &error) == 0);

    while (kills_hit < kills_wanted) {
        uint64_t kills = 1 + below(5);

        run_writer();
        disturb();
        while (kills-- && kills_hit < kills_wanted) {
            run_backup("target", can_trace && below(2) ? AT_A_CALL : AT_A_TIME);
            if (below(3) == 0) {
                run_writer();
            }
        }
        run_backup("target", UNHARMED);
        compare("target");
    }
    if (!resumed_bytes) {
        fail("no kill was resumed: everything was copied again each time");
    }
    printf("kill-backup: seed %" PRIu64 ", %" PRIu64 " kills (and %" PRIu64
           " at system calls, %" PRIu64 " of writers), %" PRIu64 " runs"
           " completed, %" PRIu64 " bytes resumed, 0 blocks lost\n", seed,
           kills_hit, stops_hit, writers_killed, runs_completed, resumed_bytes);
    return 0;
}
