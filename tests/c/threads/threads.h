/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Many threads write through one handle while another changes its bitmaps. All that happened is logged in memory that
 * outlives the process, so that a parent can judge what a killed child left.
 */
#ifndef QBM_THREADS_H
#define QBM_THREADS_H

#include "../test.h"

#include <stdatomic.h>

/* Not a multiple of any granularity. */
#define SIZE ((UINT64_C(64) << 20) + 1536)
#define WRITERS 16
#define WRITES_MAX 400
#define BITMAPS 4
/* Every byte belongs to one writer: stripes of a size that no granularity fits into. */
#define STRIPE UINT64_C(4096)
/* Of a writer's stripes every fourth is for discards: what is read there afterwards is not certain. */
#define IS_DISCARDED(offset) (((offset) / STRIPE / WRITERS) % 4 == 3)
/* The bitmap that nobody changes: what it says is exact. */
#define UNTOUCHED "untouched"
#define UNTOUCHED_GRANULARITY UINT64_C(4096)

struct write {
    uint64_t offset;
    uint64_t bytes;
    /* The clock when it was certainly not over: begun later, or still in flight. */
    atomic_ullong alive;
    /* The clock when it had returned; 0: it has not. */
    atomic_ullong end;
};

/* What a changed bitmap must have: writes that were not over at a moment. */
struct changed {
    char name[16];
    /* An operation is under way or came to nothing: any of its states may be on disk. */
    atomic_int unsettled;
    atomic_int exists;
    /* Blocks below low_until: since_low. The others: since. */
    atomic_ullong since, since_low, low_until;
};

struct run {
    atomic_ullong clock;
    atomic_int writers_left;
    atomic_ullong writes_count, changes_count;
    struct write writes[WRITERS][WRITES_MAX];
    struct changed bitmaps[BITMAPS];
    /* What the disk must hold, for those who wrote it. */
    unsigned char data[SIZE];
};

struct worker {
    struct run *run;
    qbm_image *image;
    /* The data image, for writes that go past the library as a driver's do. */
    int fd;
    unsigned number;
    uint64_t random;
};

uint64_t random_below(uint64_t *state, uint64_t end);

/* Threads' bodies; each takes a struct worker. */
void *write_some(void *worker);
void *change_bitmaps(void *worker);

/* Holds a changed bitmap against what was logged; beside writers too. */
void judge_changed(struct run *run, qbm_image *image, struct changed *bitmap);
/* Holds every bitmap against what was logged. exact: UNTOUCHED has nothing else. Returns how many blocks it has. */
uint64_t judge_bitmaps(struct run *run, qbm_image *image, int exact);
/* Every byte that is certain. */
void judge_data(struct run *run, qbm_image *image);
/* Where data is, a bit is: whether a write came to its end or not. */
void judge_blocks(qbm_image *image);

#endif
