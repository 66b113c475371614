/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A plugin's life: the library is loaded, used and unloaded again: dlopen LIBRARY DESCRIPTOR [ROUNDS]
 *
 * Not linked with libqbm. Says what is left after it.
 */
#define _GNU_SOURCE
#include "test.h"

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>

#define SIZE (UINT64_C(1) << 20)
/* What may be lost in all rounds: the C library's own memory is not exactly the same each time. */
#define LOST_MAX 4096

qbm_error error = { sizeof(error), 0, { 0 } };
static const char *library;
static const char *path;
static unsigned mappings_of_one;
static int rounds = 100;

/* A data pointer to a function pointer, as POSIX has it. */
#define LOAD(handle, name)                                                   \
    __typeof__(&name) name##_;                                               \
    *(void **)(&name##_) = dlsym(handle, #name);                             \
    CHECK(name##_ != NULL)

static void *load(void)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);

    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return handle;
}

/* A session with a bitmap, writes and an error. */
static void use(void *handle)
{
    qbm_open_args open_args = { .size = sizeof(open_args) };
    qbm_activate_args activate_args = { .size = sizeof(activate_args),
                                        .image_size_bytes = SIZE };
    qbm_image *image;
    qbm_ticket ticket;
    uint64_t offset;
    LOAD(handle, qbm_open);
    LOAD(handle, qbm_activate);
    LOAD(handle, qbm_bitmap_add);
    LOAD(handle, qbm_bitmap_next_dirty);
    LOAD(handle, qbm_bitmap_remove);
    LOAD(handle, qbm_co_writev_begin);
    LOAD(handle, qbm_co_writev_end);
    LOAD(handle, qbm_close);

    CHECK(qbm_open_("/nonexistent", &open_args, &image, &error) < 0);
    CHECK(qbm_open_(path, &open_args, &image, &error) == 0);
    CHECK(qbm_activate_(image, &activate_args, &error) == 0);
    CHECK(qbm_bitmap_add_(image, "b", 65536, QBM_BITMAP_RECORDING, &error)
          == 0);
    CHECK(qbm_co_writev_begin_(image, 70000, 1, &ticket) == 0);
    qbm_co_writev_end_(image, &ticket);
    CHECK(qbm_bitmap_next_dirty_(image, "b", 0, &offset, &error) == 1);
    CHECK(offset == 65536);
    CHECK(qbm_bitmap_remove_(image, "b", &error) == 0);
    CHECK(qbm_close_(image, &error) == 0);
}

/* How many mappings of the library there are. */
static unsigned mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    unsigned count = 0;

    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps)) {
        count += strstr(line, "libqbm") != NULL;
    }
    fclose(maps);
    return count;
}

static void *unload(void *handle)
{
    CHECK(dlclose(handle) == 0);
    return NULL;
}

static void run(void *(*start)(void *), void *argument)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, start, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void *whole_life(void *unused)
{
    void *handle = load();

    use(handle);
    unload(handle);
    return unused;
}

static void in_a_thread(void)
{
    run(whole_life, NULL);
}

struct user {
    void *handle;
    sem_t used;
    sem_t may_end;
};

static void *use_and_wait(void *opaque)
{
    struct user *user = opaque;

    use(user->handle);
    sem_post(&user->used);
    sem_wait(&user->may_end);
    return NULL;
}

/* Loaded here, used in one thread, unloaded in another while the first lives. */
static void by_another_thread(void)
{
    struct user user = { .handle = load() };
    pthread_t thread;

    sem_init(&user.used, 0, 0);
    sem_init(&user.may_end, 0, 0);
    CHECK(pthread_create(&thread, NULL, use_and_wait, &user) == 0);
    sem_wait(&user.used);
    run(unload, user.handle);
    /* What the thread still has to run at its end is still there */
    sem_post(&user.may_end);
    CHECK(pthread_join(thread, NULL) == 0);
}

/*
 * glibc keeps a library while a thread lives that has a destructor in it, and
 * looks again only when another library is closed.
 */
static void really_unloaded(void)
{
    void *other;

    run(whole_life, NULL);
    other = dlopen("libanl.so.1", RTLD_NOW);
    CHECK(other != NULL && dlclose(other) == 0);
    CHECK(mappings() == 0);
}

static void repeat(const char *what, void (*life)(void))
{
    unsigned fds = descriptors();
    size_t before = 0;
    ptrdiff_t lost;
    int i;

    for (i = 0; i < rounds; i++) {
        if (i == rounds / 10) {
            before = mallinfo2().uordblks;
        }
        life();
        CHECK(descriptors() == fds);
        CHECK(mappings() <= mappings_of_one);
    }
    lost = mallinfo2().uordblks - before;
    if (lost > LOST_MAX) {
        fprintf(stderr, "%s: %td bytes are lost in %d rounds\n", what, lost,
                rounds - rounds / 10);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    void *handle;

    if (argc < 3) {
        fprintf(stderr, "usage: dlopen LIBRARY DESCRIPTOR [ROUNDS]\n");
        return 2;
    }
    if (argc > 3) {
        rounds = atoi(argv[3]);
    }
    library = argv[1];
    path = argv[2];
    CHECK(mappings() == 0);
    handle = load();
    mappings_of_one = mappings();
    CHECK(mappings_of_one > 0);
    unload(handle);
    CHECK(mappings() == 0);

    repeat("in a thread", in_a_thread);
    repeat("by another thread", by_another_thread);
    repeat("really unloaded", really_unloaded);
    printf("%d times in 3 ways\n", rounds);
    return 0;
}
