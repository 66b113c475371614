/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The thread that changes bitmaps beside the writers, and logs from which moment on each must have every write. */
#include "threads.h"

#include <errno.h>

static uint64_t now(struct run *run)
{
    return atomic_fetch_add(&run->clock, 1) + 1;
}

/* All that was over by now may be missing. */
static void begins_anew(struct changed *bitmap, uint64_t moment)
{
    atomic_store(&bitmap->since, moment);
    atomic_store(&bitmap->since_low, moment);
    atomic_store(&bitmap->low_until, 0);
}

static void add(struct worker *worker, struct changed *bitmap)
{
    uint64_t granularity_bytes = UINT64_C(512)
                                 << random_below(&worker->random, 12);

    OK(qbm_bitmap_add(worker->image, bitmap->name, granularity_bytes,
                      QBM_BITMAP_RECORDING, &error));
    begins_anew(bitmap, now(worker->run));
    atomic_store(&bitmap->exists, 1);
}

/* An incremental copy, in steps, with one of its ends. */
static void copy(struct worker *worker, struct changed *bitmap)
{
    qbm_image *image = worker->image;
    uint64_t frozen, again, end, offset, moment;
    int steps = random_below(&worker->random, 3);

    OK(qbm_bitmap_freeze(image, bitmap->name, &error));
    moment = now(worker->run);
    OK(qbm_bitmap_count(image, bitmap->name, &frozen, &error));
    for (offset = 0; steps > 0; steps--) {
        offset += random_below(&worker->random, SIZE / 2);
        /* Before the call: a kill in it may find either */
        end = atomic_load(&bitmap->low_until);
        atomic_store(&bitmap->since_low, moment);
        atomic_store(&bitmap->low_until, offset > end ? offset : end);
        OK(qbm_bitmap_checkpoint(image, bitmap->name, offset, &error));
    }
    /* Writers do not show in what is frozen */
    OK(qbm_bitmap_count(image, bitmap->name, &again, &error));
    CHECK(offset > 0 ? again <= frozen : again == frozen);
    CHECK(qbm_bitmap_clear(image, bitmap->name, &error) == -EBUSY);
    if (random_below(&worker->random, 2)) {
        OK(qbm_bitmap_commit(image, bitmap->name, &error));
        begins_anew(bitmap, moment);
    } else {
        OK(qbm_bitmap_abort(image, bitmap->name, &error));
    }
}

static void rename_it(struct worker *worker, struct changed *bitmap)
{
    char name[sizeof(bitmap->name)];

    snprintf(name, sizeof(name), "%c%s", bitmap->name[0] == 'x' ? 'y' : 'x',
             bitmap->name + 1);
    OK(qbm_bitmap_rename(worker->image, bitmap->name, name, &error));
    strcpy(bitmap->name, name);
}

static void change(struct worker *worker, struct changed *bitmap)
{
    const char *sources[] = { UNTOUCHED };
    qbm_image *image = worker->image;

    switch (random_below(&worker->random, 9)) {
    case 0:
        OK(qbm_bitmap_remove(image, bitmap->name, &error));
        atomic_store(&bitmap->exists, 0);
        break;
    case 1:
        OK(qbm_bitmap_clear(image, bitmap->name, &error));
        begins_anew(bitmap, now(worker->run));
        break;
    case 2:
        OK(qbm_bitmap_merge(image, bitmap->name, sources, 1, &error));
        break;
    case 3:
        rename_it(worker, bitmap);
        break;
    case 4:
        OK(qbm_bitmap_set_granularity(image, bitmap->name, UINT64_C(512)
                                      << random_below(&worker->random, 12),
                                      &error));
        break;
    case 5:
        OK(qbm_bitmap_set_recording(image, bitmap->name, false, &error));
        OK(qbm_bitmap_set_recording(image, bitmap->name, true, &error));
        begins_anew(bitmap, now(worker->run));
        break;
    case 6:
        OK(qbm_flush(image, &error));
        break;
    default:
        copy(worker, bitmap);
    }
}

void *change_bitmaps(void *opaque)
{
    struct worker *worker = opaque;
    struct run *run = worker->run;

    do {
        struct changed *bitmap =
            &run->bitmaps[random_below(&worker->random, BITMAPS)];

        atomic_store(&bitmap->unsettled, 1);
        if (atomic_load(&bitmap->exists)) {
            /* Before it may lose bits rightly */
            judge_changed(run, worker->image, bitmap);
            change(worker, bitmap);
        } else {
            add(worker, bitmap);
        }
        atomic_store(&bitmap->unsettled, 0);
        atomic_fetch_add(&run->changes_count, 1);
    } while (atomic_load(&run->writers_left) > 0);
    return NULL;
}
