/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: dirty bitmaps, from memory to the library
 *
 * Bits are or'ed into a stored bitmap beside guest writes, and taken off it
 * only with the node drained (see qbm-bitmap.c).
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "trace.h"
#include "qbm-internal.h"

/*
 * Writes the bits of @bitmap to its stored copy: adds them or, if @exact,
 * replaces what is there, for which the node must be drained.
 */
int qbm_drv_write_bits(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, bool exact,
                       Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t chunk = bdrv_dirty_bitmap_serialization_coverage(QBM_DRV_CHUNK,
                                                              bitmap);
    g_autofree uint8_t *buf = g_malloc(QBM_DRV_CHUNK);
    qbm_error error = QBM_DRV_ERROR_INIT;
    uint64_t offset = 0;
    int ret = 0;

    trace_qbm_bitmap_store(s->descriptor_path, name, exact);
    while (offset < size) {
        uint64_t start = size, end = size;
        int64_t dirty;

        /* Guest writes set bits in other threads */
        bdrv_dirty_bitmap_lock(bitmap);
        dirty = bdrv_dirty_bitmap_next_dirty(bitmap, offset, INT64_MAX);
        if (dirty >= 0) {
            start = QEMU_ALIGN_DOWN(dirty, chunk);
            end = MIN(start + chunk, size);
            bdrv_dirty_bitmap_serialize_part(bitmap, buf, start, end - start);
        }
        bdrv_dirty_bitmap_unlock(bitmap);

        if (exact && start > offset) {
            ret = qbm_bitmap_store_bits(s->image, name, offset, start - offset,
                                        NULL, 0, &error);
        }
        if (ret >= 0 && end > start) {
            size_t bits_size = DIV_ROUND_UP(end - start, granularity * 8ULL);

            ret = exact ?
                qbm_bitmap_store_bits(s->image, name, start, end - start, buf,
                                      bits_size, &error) :
                qbm_bitmap_merge_bits(s->image, name, start, end - start, buf,
                                      bits_size, &error);
        }
        if (ret < 0) {
            return qbm_drv_set_error(errp, ret, &error);
        }
        offset = end;
    }
    return 0;
}

/*
 * Others have written to the image, so that what transient bitmaps have is not
 * all: should they be stored one day, then with all bits.
 */
void qbm_drv_doubt_transient(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDirtyInfoList *list = bdrv_query_dirty_bitmaps(bs), *item;

    for (item = list; item; item = item->next) {
        if (item->value->name && !item->value->persistent) {
            g_hash_table_add(s->doubtful_names, g_strdup(item->value->name));
        }
    }
    qapi_free_BlockDirtyInfoList(list);
}

static int store_transient(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                           Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    int64_t size = bdrv_dirty_bitmap_size(bitmap);
    bool doubtful = g_hash_table_contains(s->unstored_names, name) ||
                    g_hash_table_contains(s->doubtful_names, name);

    if (!qbm_drv_bitmap_fits(size, granularity)) {
        error_setg(errp, "its granularity, %" PRIu32 ", is too small for an "
                   "image of %" PRId64 " bytes", granularity, size);
        return -EFBIG;
    }
    if (qbm_drv_claim_data(bs, errp) < 0) {
        return -EPERM;
    }
    if (doubtful) {
        bdrv_set_dirty_bitmap(bitmap, 0, size);
    }
    if (qbm_drv_ensure_stored(bs, bitmap, errp) < 0) {
        return -EIO;
    }
    if (qbm_drv_write_bits(s, bitmap, false, errp) < 0) {
        /* If it stays, it has too many bits, not too few */
        qbm_bitmap_remove(s->image, name, NULL);
        return -EIO;
    }
    return 0;
}

/*
 * Makes a transient bitmap persistent and stores it, if the image stores all of
 * them.  What cannot be stored stays as it is.
 *
 * One that is busy has to wait until it is given back: it may be incomplete, on
 * its way here by migration.
 */
void qbm_drv_adopt_bitmap(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    BDRVQbmState *s = bs->opaque;
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    Error *local_err = NULL;

    if (qbm_drv_bitmap_is_busy(bitmap) || !qbm_drv_persists_all(s)) {
        return;
    }
    if (s->data_file_unsealed) {
        g_hash_table_add(s->unstored_names, g_strdup(name));
        return;
    }
    trace_qbm_bitmap_adopt(bs, name);
    if (store_transient(bs, bitmap, &local_err) >= 0) {
        s->adopting_bitmap = true;
        bdrv_dirty_bitmap_set_persistence(bitmap, true);
        s->adopting_bitmap = false;
        g_hash_table_remove(s->unstored_names, name);
        g_hash_table_remove(s->doubtful_names, name);
        /* The stored one still has more bits */
        qemu_bh_schedule(s->reconcile_bh);
        return;
    }
    qbm_drv_update_claim(bs);
    if (g_hash_table_add(s->unstored_names, g_strdup(name))) {
        warn_reportf_err(local_err, "Bitmap '%s' of node '%s' is not stored in "
                         "the image and stays in memory: ", name,
                         bdrv_get_node_name(bs));
    } else {
        error_free(local_err);
    }
}

void qbm_drv_adopt_bitmaps(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BdrvDirtyBitmap *bitmap;

    if (!s->writable) {
        return;
    }
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
            /* The block layer knows which are none of our business */
            bdrv_dirty_bitmap_changed(bitmap);
        }
    }
}

/*
 * Makes the stored bitmaps exact (I3).  The node must be drained.
 *
 * A bitmap that is lent to a job is two in memory, itself and the successor
 * that records meanwhile.  The stored one has the bits of both and stays so.
 */
int qbm_drv_store_bitmaps(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    BdrvDirtyBitmap *bitmap;
    int result = 0;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        Error *local_err = NULL;

        if (!qbm_drv_bitmap_is_kept(bitmap) ||
            bdrv_dirty_bitmap_has_successor(bitmap))
        {
            continue;
        }
        if (qbm_drv_ensure_stored(bs, bitmap, &local_err) < 0 ||
            qbm_drv_write_bits(s, bitmap, true, &local_err) < 0)
        {
            error_prepend(&local_err, "Bitmap '%s': ",
                          bdrv_dirty_bitmap_name(bitmap));
            qbm_drv_distrust_stored(s, bitmap);
            /* One bad bitmap must not cost the others; tell about the first */
            error_propagate(result ? NULL : errp, local_err);
            result = -EINVAL;
        }
    }
    return result;
}

/*
 * Gives up the stored copies of all bitmaps, since the data image is one that a
 * seal cannot tell from what the descriptor names.  What is in memory describes
 * the disk that the guest has, and stays as long as QEMU runs.
 */
void qbm_drv_give_up_bitmaps(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (qbm_drv_bitmap_is_kept(bitmap)) {
            warn_report("The data image of node '%s' is no longer '%s', and no "
                        "local file: bitmap '%s' becomes inconsistent in '%s'",
                        bdrv_get_node_name(bs), s->opened_data_name,
                        bdrv_dirty_bitmap_name(bitmap), s->descriptor_path);
            qbm_drv_distrust_stored(s, bitmap);
            bdrv_dirty_bitmap_set_persistence(bitmap, false);
        }
    }
}
