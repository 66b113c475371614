/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What must be true afterwards. */
#include "threads.h"

struct bits {
    const char *name;
    uint64_t granularity_bytes;
    uint64_t count;
    unsigned char *bytes;
};

static struct bits load(qbm_image *image, const char *name)
{
    qbm_bitmap_info info = { .size = sizeof(info) };
    struct bits bits = { .name = name };

    OK(qbm_bitmap_find(image, name, &info, &error));
    CHECK(!(info.flags & QBM_BITMAP_INCONSISTENT));
    bits.granularity_bytes = info.granularity_bytes;
    bits.count = (SIZE + info.granularity_bytes - 1) / info.granularity_bytes;
    bits.bytes = calloc(1, bits.count / 8 + 8);
    CHECK(bits.bytes != NULL);
    OK(qbm_bitmap_load_bits(image, name, 0, SIZE, bits.bytes,
                            bits.count / 8 + 8, &error));
    return bits;
}

static int is_dirty(const struct bits *bits, uint64_t block)
{
    return bits->bytes[block / 8] >> (block % 8) & 1;
}

/* Every block of a write must be dirty. */
static void demand(const struct bits *bits, uint64_t offset, uint64_t bytes)
{
    uint64_t block = offset / bits->granularity_bytes;
    uint64_t last = (offset + bytes - 1) / bits->granularity_bytes;

    for (; block <= last; block++) {
        if (!is_dirty(bits, block)) {
            fprintf(stderr, "bitmap %s: missed a write of %" PRIu64 " bytes "
                    "at %" PRIu64 ": block %" PRIu64 " of %" PRIu64 "\n",
                    bits->name, bytes, offset, block, bits->granularity_bytes);
            exit(1);
        }
    }
}

void judge_changed(struct run *run, qbm_image *image, struct changed *bitmap)
{
    /* Writes go on: what ends after this may come after the bits are loaded */
    uint64_t until = atomic_load(&run->clock);
    uint64_t since = atomic_load(&bitmap->since);
    uint64_t since_low = atomic_load(&bitmap->since_low);
    uint64_t low_until = atomic_load(&bitmap->low_until);
    struct bits bits = load(image, bitmap->name);
    int i, j;

    for (i = 0; i < WRITERS; i++) {
        for (j = 0; j < WRITES_MAX; j++) {
            struct write *write = &run->writes[i][j];
            uint64_t end = atomic_load(&write->end);

            if (end && end <= until && atomic_load(&write->alive) >
                (write->offset < low_until ? since_low : since)) {
                demand(&bits, write->offset, write->bytes);
            }
        }
    }
    free(bits.bytes);
}

static uint64_t judge_untouched(struct run *run, qbm_image *image, int exact)
{
    struct bits bits = load(image, UNTOUCHED);
    unsigned char *written = calloc(1, bits.count);
    uint64_t block, dirty = 0;
    int i, j;

    CHECK(written != NULL);
    for (i = 0; i < WRITERS; i++) {
        for (j = 0; j < WRITES_MAX; j++) {
            struct write *write = &run->writes[i][j];

            if (!atomic_load(&write->end)) {
                continue;
            }
            demand(&bits, write->offset, write->bytes);
            for (block = write->offset / UNTOUCHED_GRANULARITY;
                 block <= (write->offset + write->bytes - 1) /
                          UNTOUCHED_GRANULARITY; block++) {
                written[block] = 1;
            }
        }
    }
    for (block = 0; block < bits.count; block++) {
        dirty += is_dirty(&bits, block);
        if (exact && is_dirty(&bits, block) && !written[block]) {
            fprintf(stderr, "bitmap %s: block %" PRIu64 " is dirty, and "
                    "nobody wrote it\n", bits.name, block);
            exit(1);
        }
    }
    free(written);
    free(bits.bytes);
    return dirty;
}

uint64_t judge_bitmaps(struct run *run, qbm_image *image, int exact)
{
    int i;

    for (i = 0; i < BITMAPS; i++) {
        struct changed *bitmap = &run->bitmaps[i];

        if (atomic_load(&bitmap->exists) && !atomic_load(&bitmap->unsettled)) {
            judge_changed(run, image, bitmap);
        }
    }
    return judge_untouched(run, image, exact);
}

void judge_data(struct run *run, qbm_image *image)
{
    unsigned char data[STRIPE];
    uint64_t offset;

    for (offset = 0; offset + STRIPE <= SIZE; offset += STRIPE) {
        if (IS_DISCARDED(offset)) {
            continue;
        }
        OK(qbm_pread(image, offset, STRIPE, data, &error));
        if (memcmp(data, run->data + offset, STRIPE) != 0) {
            fprintf(stderr, "data at %" PRIu64 " is not what was written\n",
                    offset);
            exit(1);
        }
    }
}

void judge_blocks(qbm_image *image)
{
    static const unsigned char zeros[STRIPE];
    struct bits bits = load(image, UNTOUCHED);
    unsigned char data[STRIPE];
    uint64_t offset;

    for (offset = 0; offset + STRIPE <= SIZE; offset += STRIPE) {
        OK(qbm_pread(image, offset, STRIPE, data, &error));
        if (memcmp(data, zeros, STRIPE) != 0) {
            demand(&bits, offset, STRIPE);
        }
    }
    free(bits.bytes);
}
