/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: dirty bitmaps
 *
 * While an image is open for writing, each persistent bitmap exists twice: as
 * a BdrvDirtyBitmap, which jobs and QMP work with, and in libqbm, which records
 * guest writes by itself, before they happen.  The stored bitmap may have too
 * many bits at any moment but never too few (I1).  So whatever else changes a
 * BdrvDirtyBitmap has its bits added to the stored one at once (or'ing is
 * harmless beside writes), while bits are taken off the stored one only with
 * the node drained.
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "trace.h"
#include "qbm-internal.h"

/*
 * The most bits that a bitmap may have to be held in memory, 512 MiB of them,
 * which is qcow2's limit, too.  HBitmap itself aborts beyond its own.
 */
#define GRANULES_MAX (1ULL << 32)

typedef struct BitmapCall {
    qbm_image *image;
    const char *name;
    uint64_t granularity;
    qbm_error error;
} BitmapCall;

/* Returns the stored bitmaps, as an array of qbm_bitmap_info */
GArray *qbm_drv_list_bitmaps(BDRVQbmState *s, Error **errp)
{
    GArray *list = g_array_new(false, false, sizeof(qbm_bitmap_info));
    qbm_error error = QBM_DRV_ERROR_INIT;
    uint32_t i;
    int ret;

    for (i = 0; ; i++) {
        qbm_bitmap_info info = { .size = sizeof(info) };

        ret = qbm_bitmap_get(s->image, i, &info, &error);
        if (ret == -ENOENT) {
            return list;
        }
        if (ret < 0) {
            qbm_drv_set_error(errp, ret, &error);
            g_array_free(list, true);
            return NULL;
        }
        g_array_append_val(list, info);
    }
}

bool qbm_drv_bitmap_is_busy(BdrvDirtyBitmap *bitmap)
{
    return bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY, NULL) < 0;
}

/* Is @bitmap one whose stored copy follows it? */
bool qbm_drv_bitmap_is_kept(BdrvDirtyBitmap *bitmap)
{
    return bdrv_dirty_bitmap_name(bitmap) &&
           bdrv_dirty_bitmap_get_persistence(bitmap) &&
           !bdrv_dirty_bitmap_inconsistent(bitmap) &&
           !bdrv_dirty_bitmap_readonly(bitmap);
}

/* Can the bits for a disk of @size bytes be held in memory? */
bool qbm_drv_bitmap_fits(uint64_t size, uint64_t granularity)
{
    return granularity && granularity <= QBM_GRANULARITY_MAX &&
           DIV_ROUND_UP(size, granularity) <= GRANULES_MAX;
}

/* A BlockDriver function, see block_int-common.h */
void qbm_drv_dirty_bitmap_changed(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    BDRVQbmState *s = bs->opaque;
    Error *local_err = NULL;

    if (!qemu_in_main_thread()) {
        /* A bitmap is complete that came by postcopy migration */
        qemu_bh_schedule(s->reconcile_bh);
        return;
    }
    if (!s->writable || s->loading_bitmaps || s->adopting_bitmap) {
        return;
    }
    if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
        qbm_drv_adopt_bitmap(bs, bitmap);
        return;
    }
    if (!qbm_drv_bitmap_is_kept(bitmap)) {
        return;
    }
    trace_qbm_bitmap_changed(bs, bdrv_dirty_bitmap_name(bitmap));
    if (qbm_drv_ensure_stored(bs, bitmap, &local_err) < 0 ||
        qbm_drv_write_bits(s, bitmap, false, &local_err) < 0)
    {
        qbm_drv_distrust_stored(s, bitmap);
        warn_reportf_err(local_err, "Bitmap '%s' of node '%s' could not be "
                         "saved: ", bdrv_dirty_bitmap_name(bitmap),
                         bdrv_get_node_name(bs));
    }
    qbm_drv_report_notices(s);
    qbm_drv_update_claim(bs);
    /* Bits may have gone, too */
    qemu_bh_schedule(s->reconcile_bh);
}

/*
 * Brings memory and library together when they may have drifted apart: takes
 * bits off the stored bitmaps that memory does not have any more (they would
 * only cost an over-long backup after a crash), and makes BdrvDirtyBitmaps that
 * are missing after qbm_drv_co_ensure_writable().
 *
 * Runs in the context of the I/O handlers, which nobody polls but the main loop
 * itself: in the middle of a QMP command, a transaction say, bits that are gone
 * from memory may yet come back.
 */
void qbm_drv_reconcile_bh(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVQbmState *s = bs->opaque;
    AioContext *context;
    Error *local_err = NULL;

    trace_qbm_reconcile(bs, s->writable);
    /* Whoever is waited for below may drop the last reference */
    bdrv_ref(bs);
    context = qbm_drv_lock_context(bs);
    /* Clearing a bit beside a write to its granule could lose that write */
    bdrv_drained_begin(bs);
    bdrv_graph_rdlock_main_loop();
    if (s->writable && (bs->open_flags & BDRV_O_INACTIVE)) {
        /* A parent could not be activated after we were */
        qbm_drv_end_session(bs);
    }
    qbm_drv_follow_data_file(bs);
    bdrv_graph_rdunlock_main_loop();
    if (s->writable) {
        if (qbm_drv_load_bitmaps(bs, true, &local_err) < 0 ||
            qbm_drv_store_bitmaps(bs, &local_err) < 0)
        {
            warn_reportf_err(local_err, "Persistent bitmaps of node '%s': ",
                             bdrv_get_node_name(bs));
        }
        qbm_drv_report_notices(s);
    }
    bdrv_graph_rdlock_main_loop();
    qbm_drv_update_claim(bs);
    bdrv_graph_rdunlock_main_loop();
    bdrv_drained_end(bs);
    qbm_drv_unlock_context(context);
    /* It may have been moved while it was drained */
    context = qbm_drv_lock_context(bs);
    bdrv_unref(bs);
    qbm_drv_unlock_context(context);
}

int qbm_drv_check_resize(BlockDriverState *bs, uint64_t new_size, Error **errp)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        const char *name = bdrv_dirty_bitmap_name(bitmap);
        uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);

        /* Inconsistent ones have no bits to care for */
        if (name &&
            bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO,
                                    errp) < 0)
        {
            return -ENOTSUP;
        }
        if (qbm_drv_bitmap_is_kept(bitmap) &&
            !qbm_drv_bitmap_fits(new_size, granularity))
        {
            error_setg(errp, "Granularity %" PRIu32 " of bitmap '%s' is too "
                       "small for an image of %" PRIu64 " bytes", granularity,
                       name, new_size);
            return -EFBIG;
        }
    }
    return 0;
}

/*
 * Marks what the image has grown by as dirty.  It need not be new: when an
 * image shrinks and grows again, zeroes replace data that backups have.  The
 * stored bitmaps have these bits already, and QEMU has none there (I1).
 *
 * The block layer resizes the bitmaps after the driver's truncate function,
 * which is too late for this, but finds nothing left to do then.
 */
void qbm_drv_grow_bitmaps(BlockDriverState *bs, int64_t old_size,
                          int64_t new_size)
{
    BdrvDirtyBitmap *bitmap;

    bdrv_dirty_bitmap_truncate(bs, new_size);
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (qbm_drv_bitmap_is_kept(bitmap) &&
            bdrv_dirty_bitmap_enabled(bitmap))
        {
            bdrv_set_dirty_bitmap(bitmap, old_size, new_size - old_size);
        }
    }
}

/* New and removed bitmaps */

bool qbm_drv_supports_persistent_dirty_bitmap(BlockDriverState *bs)
{
    return true;
}

static int add_worker(void *opaque)
{
    BitmapCall *call = opaque;
    int ret;

    /*
     * One that QEMU does not know may be left over from when it could not make
     * the BdrvDirtyBitmap.
     */
    ret = qbm_bitmap_remove(call->image, call->name, &call->error);
    if (ret < 0 && ret != -ENOENT) {
        return ret;
    }
    return qbm_bitmap_add(call->image, call->name, call->granularity,
                          QBM_BITMAP_RECORDING, &call->error);
}

static int remove_worker(void *opaque)
{
    BitmapCall *call = opaque;

    return qbm_bitmap_remove(call->image, call->name, &call->error);
}

/*
 * Adds the bitmap right away.  It is stored and records before QEMU makes its
 * own, so nothing can slip through between the two.
 */
bool coroutine_fn
qbm_drv_co_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                      uint32_t granularity, Error **errp)
{
    ERRP_GUARD();
    BDRVQbmState *s = bs->opaque;
    uint64_t size = bs->total_sectors * BDRV_SECTOR_SIZE;
    BitmapCall call = {
        .name = name,
        .granularity = granularity,
        .error = QBM_DRV_ERROR_INIT,
    };
    int ret;

    if (bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return false;
    }
    if (bdrv_is_read_only(bs)) {
        error_setg(errp, "No write access");
        goto fail;
    }
    if (bs->open_flags & BDRV_O_INACTIVE) {
        error_setg(errp, "The node is inactive");
        goto fail;
    }
    if (s->data_file_unsealed) {
        error_setg(errp, "The data image is no longer '%s', and no local file",
                   s->opened_data_name);
        goto fail;
    }
    if (!qbm_drv_bitmap_fits(size, granularity)) {
        error_setg(errp, "Granularity %" PRIu32 " is too small for an image of "
                   "%" PRIu64 " bytes", granularity, size);
        goto fail;
    }

    ret = qbm_drv_co_ensure_writable(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "No write access");
        goto fail;
    }
    if (qbm_drv_co_claim_data(bs, errp) < 0) {
        goto fail;
    }
    call.image = s->image;
    trace_qbm_bitmap_add(s->descriptor_path, name, granularity);
    ret = thread_pool_submit_co(add_worker, &call);
    if (ret < 0) {
        qbm_drv_set_error(errp, ret, &call.error);
        /* Unless there are others, the claim is to go */
        qemu_bh_schedule(s->reconcile_bh);
        goto fail;
    }
    return true;

fail:
    error_prepend(errp, "Can't make bitmap '%s' persistent in '%s': ",
                  name, bdrv_get_device_or_node_name(bs));
    return false;
}

int coroutine_fn
qbm_drv_co_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                          const char *name, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    BitmapCall call = {
        .image = s->image,
        .name = name,
        .error = QBM_DRV_ERROR_INIT,
    };
    int ret;

    if (!s->writable) {
        error_setg(errp, "Cannot remove bitmap '%s' from '%s': "
                   "No write access", name, s->descriptor_path);
        return -EACCES;
    }
    trace_qbm_bitmap_remove(s->descriptor_path, name);
    ret = thread_pool_submit_co(remove_worker, &call);
    /* The claim may go with it */
    qemu_bh_schedule(s->reconcile_bh);
    /* Absence is not an error, see bdrv_co_remove_persistent_dirty_bitmap() */
    return ret < 0 && ret != -ENOENT ?
        qbm_drv_set_error(errp, ret, &call.error) : 0;
}
