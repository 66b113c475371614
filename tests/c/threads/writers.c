/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writers: each in its own stripes, which share granules with everybody's. */
#define _GNU_SOURCE
#include "threads.h"

#include <unistd.h>

#define BURST 16

uint64_t random_below(uint64_t *state, uint64_t end)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % end;
}

static void is_alive(struct worker *worker, struct write *write)
{
    struct run *run = worker->run;

    atomic_store(&write->alive, atomic_fetch_add(&run->clock, 1) + 1);
}

static void put(struct worker *worker, struct write *write,
                const unsigned char *data)
{
    qbm_error why = { .size = sizeof(why) };
    qbm_ticket ticket;
    int ret;

    if (worker->number % 2) {
        ret = qbm_pwrite(worker->image, write->offset, write->bytes, data,
                         &why);
    } else {
        ret = qbm_co_writev_begin(worker->image, write->offset, write->bytes,
                                  &ticket);
        if (ret == QBM_MUST_WAIT) {
            ret = qbm_co_writev_wait(worker->image, &ticket, &why);
        }
        if (ret == 0 && pwrite(worker->fd, data, write->bytes, write->offset)
                        != (ssize_t)write->bytes) {
            ret = -1;
        }
        is_alive(worker, write);
        qbm_co_writev_end(worker->image, &ticket);
    }
    if (ret != 0) {
        fprintf(stderr, "write of %" PRIu64 " at %" PRIu64 ": %d (%s)\n",
                write->bytes, write->offset, ret, why.message);
        exit(1);
    }
}

/* Announces what it does not do: a driver's discard, over the stripes of others too. */
static void announce(struct worker *worker, struct write *write)
{
    qbm_ticket ticket;

    if (qbm_co_discard_begin(worker->image, write->offset, write->bytes,
                             &ticket) < 0) {
        abort();
    }
    is_alive(worker, write);
    qbm_co_discard_end(worker->image, &ticket);
}

static void write_one(struct worker *worker, struct write *write)
{
    struct run *run = worker->run;
    uint64_t *random = &worker->random;
    unsigned char data[STRIPE];
    uint64_t start;
    int ret = 0;

    /* The last stripe that is whole is the last to be used */
    start = random_below(random, SIZE / STRIPE / WRITERS) * STRIPE * WRITERS +
            worker->number * STRIPE;
    write->offset = start + random_below(random, STRIPE);
    write->bytes = 1 + random_below(random, start + STRIPE - write->offset);
    is_alive(worker, write);
    if (random_below(random, 40) == 0) {
        write->bytes = 1 + random_below(random, 20000);
        if (write->bytes > SIZE - write->offset) {
            write->bytes = SIZE - write->offset;
        }
        announce(worker, write);
    } else if (IS_DISCARDED(write->offset)) {
        ret = qbm_discard(worker->image, write->offset, write->bytes, NULL);
    } else if (random_below(random, 4) == 0) {
        ret = qbm_zero(worker->image, write->offset, write->bytes,
                       random_below(random, 2) ? QBM_ZERO_MAY_UNMAP : 0, NULL);
        memset(run->data + write->offset, 0, write->bytes);
    } else {
        memset(data, 1 + random_below(random, 255), write->bytes);
        put(worker, write, data);
        memcpy(run->data + write->offset, data, write->bytes);
    }
    if (ret != 0) {
        fprintf(stderr, "zero or discard at %" PRIu64 ": %d\n", write->offset,
                ret);
        exit(1);
    }
    atomic_store(&write->end, atomic_fetch_add(&run->clock, 1) + 1);
    atomic_fetch_add(&run->writes_count, 1);
}

void *write_some(void *opaque)
{
    struct worker *worker = opaque;
    struct run *run = worker->run;
    int i;

    for (i = 0; i < WRITES_MAX; i++) {
        write_one(worker, &run->writes[worker->number][i]);
        if (i % BURST == BURST - 1) {
            usleep(random_below(&worker->random, 100000));
        }
    }
    atomic_fetch_sub(&run->writers_left, 1);
    return NULL;
}
