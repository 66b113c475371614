/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* threads DESCRIPTOR [SEED [KILLS]]: with KILLS, the writers' process is killed that often, at random moments. */
#define _GNU_SOURCE
#include "threads.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

qbm_error error = { .size = sizeof(error) };

static void make(struct run *run, const char *path)
{
    char data_file[4096];
    qbm_image *image;
    int i;

    /* A new one: what is left of the run before is not part of this one's */
    snprintf(data_file, sizeof(data_file), "%s.raw", path);
    unlink(data_file);
    memset(run, 0, sizeof(*run));
    for (i = 0; i < BITMAPS; i++) {
        snprintf(run->bitmaps[i].name, sizeof(run->bitmaps[i].name), "x%d", i);
    }
    atomic_store(&run->writers_left, WRITERS);
    OK(create(path, SIZE));
    OK(open_image(path, 0, &image));
    OK(activate(image, QBM_ACTIVATE_DATA, 0));
    OK(qbm_bitmap_add(image, UNTOUCHED, UNTOUCHED_GRANULARITY,
                      QBM_BITMAP_RECORDING, &error));
    OK(qbm_close(image, &error));
}

static void work(struct run *run, const char *path, uint64_t seed)
{
    struct worker workers[WRITERS + 1];
    pthread_t threads[WRITERS + 1];
    char data_file[4096];
    qbm_image *image;
    int i, fd;

    OK(open_image(path, 0, &image));
    OK(activate(image, QBM_ACTIVATE_DATA, 0));
    snprintf(data_file, sizeof(data_file), "%s.raw", path);
    fd = open(data_file, O_RDWR);
    CHECK(fd >= 0);
    for (i = 0; i <= WRITERS; i++) {
        workers[i] = (struct worker) { run, image, fd, i,
                                       (seed + i + 1) * 0x9e3779b97f4a7c15 };
        CHECK(pthread_create(&threads[i], NULL,
                             i < WRITERS ? write_some : change_bitmaps,
                             &workers[i]) == 0);
    }
    for (i = 0; i <= WRITERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    judge_bitmaps(run, image, 1);
    judge_data(run, image);
    OK(qbm_close(image, &error));
    close(fd);
}

static void work_to_the_end(struct run *run, const char *path, uint64_t seed)
{
    unsigned before = descriptors();
    qbm_image *image;
    uint64_t dirty;

    printf("seed %" PRIu64 ": ", seed);
    fflush(stdout);
    make(run, path);
    work(run, path, seed);
    /* The same from disk */
    OK(open_image(path, QBM_OPEN_READ_ONLY, &image));
    OK(activate(image, QBM_ACTIVATE_DATA | QBM_ACTIVATE_READ_ONLY, 0));
    dirty = judge_bitmaps(run, image, 1);
    judge_data(run, image);
    OK(qbm_close(image, &error));
    /* The library's are gone when it has no image open. */
    CHECK(descriptors() == before);
    printf("%llu writes, %llu changes of bitmaps, %" PRIu64 " of %" PRIu64
           " blocks dirty\n",
           atomic_load(&run->writes_count), atomic_load(&run->changes_count),
           dirty, SIZE / UNTOUCHED_GRANULARITY + 1);
}

static void work_until_killed(struct run *run, const char *path, uint64_t seed)
{
    uint64_t random = seed * 0x9e3779b97f4a7c15;
    useconds_t moment;
    qbm_image *image;
    pid_t child;
    int status;

    printf("seed %" PRIu64 ": ", seed);
    fflush(stdout);
    make(run, path);
    child = fork();
    if (child == 0) {
        work(run, path, seed);
        _exit(0);
    }
    random_below(&random, 2);
    moment = 20000 + random_below(&random, 800000);
    usleep(moment);
    kill(child, SIGKILL);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) || status == 0);

    OK(open_image(path, 0, &image));
    OK(activate(image, QBM_ACTIVATE_DATA, 0));
    judge_bitmaps(run, image, 0);
    judge_blocks(image);
    OK(qbm_close(image, &error));
    printf("killed after %u ms: %llu writes, %llu changes of bitmaps\n",
           moment / 1000,
           atomic_load(&run->writes_count), atomic_load(&run->changes_count));
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    int kills = argc > 3 ? atoi(argv[3]) : 0;
    struct run *run;
    int i;

    if (argc < 2) {
        fprintf(stderr, "usage: threads DESCRIPTOR [SEED [KILLS]]\n");
        return 2;
    }
    run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(run != MAP_FAILED);
    if (kills == 0) {
        work_to_the_end(run, argv[1], seed);
    }
    for (i = 0; i < kills; i++) {
        work_until_killed(run, argv[1], seed + i);
    }
    return 0;
}
