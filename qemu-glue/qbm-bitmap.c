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
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qbm-internal.h"

/* Bits are moved in pieces of this many bytes */
#define CHUNK_BYTES (64 * KiB)

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

static bool is_busy(BdrvDirtyBitmap *bitmap)
{
    return bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY, NULL) < 0;
}

/* Is @bitmap one whose stored copy follows it? */
static bool is_kept(BdrvDirtyBitmap *bitmap)
{
    return bdrv_dirty_bitmap_name(bitmap) &&
           bdrv_dirty_bitmap_get_persistence(bitmap) &&
           !bdrv_dirty_bitmap_inconsistent(bitmap) &&
           !bdrv_dirty_bitmap_readonly(bitmap);
}

/* From memory to the library */

/*
 * Sees to it that there is a stored bitmap for @bitmap, which can be trusted
 * and records guest writes if @bitmap does.
 */
static int ensure_stored(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    bool recording = bdrv_dirty_bitmap_recording(bitmap);
    qbm_bitmap_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    ret = qbm_bitmap_find(s->image, name, &info, &error);
    if (ret == -ENOENT) {
        /* Its bits follow; killed before that, it must not look clean (I2) */
        ret = qbm_bitmap_add(s->image, name, granularity, QBM_BITMAP_ALL_DIRTY |
                             (recording ? QBM_BITMAP_RECORDING : 0), &error);
    } else if (ret >= 0) {
        if ((info.flags & QBM_BITMAP_INCONSISTENT) ||
            info.granularity_bytes != granularity) {
            error_setg(errp, "the stored bitmap cannot be used any more");
            return -EINVAL;
        }
        if (recording != !!(info.flags & QBM_BITMAP_RECORDING)) {
            ret = qbm_bitmap_set_recording(s->image, name, recording, &error);
        }
    }
    return ret < 0 ? qbm_drv_set_error(errp, ret, &error) : 0;
}

/*
 * Writes the bits of @bitmap to its stored copy: adds them or, if @exact,
 * replaces what is there, for which the node must be drained.
 */
static int write_bits(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, bool exact,
                      Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t chunk = bdrv_dirty_bitmap_serialization_coverage(CHUNK_BYTES,
                                                              bitmap);
    g_autofree uint8_t *buf = g_malloc(CHUNK_BYTES);
    qbm_error error = QBM_DRV_ERROR_INIT;
    uint64_t offset = 0;
    int ret = 0;

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
 * Gives up the stored copy of @bitmap, which could not be brought up to date:
 * it must not be taken for good later (I2).
 */
static void distrust_stored(BDRVQbmState *s, BdrvDirtyBitmap *bitmap)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    ret = qbm_bitmap_set_inconsistent(s->image, name, &error);
    if (ret < 0 && ret != -ENOENT) {
        /* Our session record remains then, which says as much */
        error_report("Cannot mark bitmap '%s' inconsistent: %s",
                     name, error.message);
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

        if (!is_kept(bitmap) || bdrv_dirty_bitmap_has_successor(bitmap)) {
            continue;
        }
        if (ensure_stored(s, bitmap, &local_err) < 0 ||
            write_bits(s, bitmap, true, &local_err) < 0)
        {
            error_prepend(&local_err, "Bitmap '%s': ",
                          bdrv_dirty_bitmap_name(bitmap));
            distrust_stored(s, bitmap);
            /* One bad bitmap must not cost the others; tell about the first */
            error_propagate(result ? NULL : errp, local_err);
            result = -EINVAL;
        }
    }
    return result;
}

/*
 * Removes the stored copies of bitmaps that migration is taking elsewhere, as
 * QEMU has qcow2 lose them: the disk may go on changing there.
 */
void qbm_drv_drop_leaving_bitmaps(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDirtyInfoList *list = bdrv_query_dirty_bitmaps(bs), *item;

    for (item = list; item; item = item->next) {
        const BlockDirtyInfo *info = item->value;
        qbm_error error = QBM_DRV_ERROR_INIT;
        BdrvDirtyBitmap *bitmap;
        int ret;

        if (!info->name || !info->persistent) {
            continue;
        }
        bitmap = bdrv_find_dirty_bitmap(bs, info->name);
        if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
            continue;
        }
        ret = qbm_bitmap_remove(s->image, info->name, &error);
        if (ret < 0 && ret != -ENOENT) {
            warn_report("Bitmap '%s' of '%s' is not removed: %s", info->name,
                        s->descriptor_path, error.message);
        }
    }
    qapi_free_BlockDirtyInfoList(list);
}

/* A BlockDriver function, see block_int-common.h */
void qbm_drv_dirty_bitmap_changed(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    BDRVQbmState *s = bs->opaque;
    Error *local_err = NULL;

    if (!s->writable || s->loading_bitmaps || !is_kept(bitmap)) {
        return;
    }
    if (ensure_stored(s, bitmap, &local_err) < 0 ||
        write_bits(s, bitmap, false, &local_err) < 0)
    {
        distrust_stored(s, bitmap);
        warn_reportf_err(local_err, "Bitmap '%s' of node '%s' could not be "
                         "saved: ", bdrv_dirty_bitmap_name(bitmap),
                         bdrv_get_node_name(bs));
    }
    qbm_drv_report_notices(s);
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
    Error *local_err = NULL;

    /* Whoever is waited for below may drop the last reference */
    bdrv_ref(bs);
    /* Clearing a bit beside a write to its granule could lose that write */
    bdrv_drained_begin(bs);
    bdrv_graph_rdlock_main_loop();
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
    bdrv_drained_end(bs);
    bdrv_unref(bs);
}

/* From the library to memory */

static int read_bits(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t chunk = bdrv_dirty_bitmap_serialization_coverage(CHUNK_BYTES,
                                                              bitmap);
    g_autofree uint8_t *buf = g_malloc(CHUNK_BYTES);
    qbm_error error = QBM_DRV_ERROR_INIT;
    uint64_t offset = 0;
    int ret;

    while (offset < size) {
        uint64_t dirty = 0, start, end;

        ret = qbm_bitmap_next_dirty(s->image, name, offset, &dirty, &error);
        if (ret == 0 || (ret > 0 && dirty >= size)) {
            break;
        }
        if (ret > 0) {
            start = QEMU_ALIGN_DOWN(dirty, chunk);
            end = MIN(start + chunk, size);
            /* QEMU reads whole words, the library writes the bits there are */
            memset(buf, 0, CHUNK_BYTES);
            ret = qbm_bitmap_load_bits(s->image, name, start, end - start, buf,
                                       CHUNK_BYTES, &error);
        }
        if (ret < 0) {
            return qbm_drv_set_error(errp, ret, &error);
        }
        bdrv_dirty_bitmap_deserialize_part(bitmap, buf, start, end - start,
                                           false);
        offset = end;
    }
    bdrv_dirty_bitmap_deserialize_finish(bitmap);
    return 0;
}

static void create_bitmap(BlockDriverState *bs, const qbm_bitmap_info *info,
                          bool usable)
{
    BDRVQbmState *s = bs->opaque;
    uint64_t size = bs->total_sectors * BDRV_SECTOR_SIZE;
    /* An inconsistent bitmap may have none; it is there to be removed */
    uint64_t granularity = info->granularity_bytes ?: 64 * KiB;
    BdrvDirtyBitmap *bitmap;
    Error *local_err = NULL;

    if (DIV_ROUND_UP(size, granularity) > GRANULES_MAX ||
        granularity > 1U << 31)
    {
        warn_report("Bitmap '%s' of '%s' is too big for QEMU; it is not loaded",
                    info->name, s->descriptor_path);
        return;
    }

    bitmap = bdrv_create_dirty_bitmap(bs, granularity, info->name, &local_err);
    if (!bitmap) {
        warn_reportf_err(local_err, "Bitmap '%s' of '%s' is not loaded: ",
                         info->name, s->descriptor_path);
        return;
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, true);

    if (usable && read_bits(s, bitmap, &local_err) < 0) {
        /* Costs the bitmap, not the disk (I5) */
        warn_reportf_err(local_err, "Bitmap '%s' of '%s': ", info->name,
                         s->descriptor_path);
        if (s->writable) {
            distrust_stored(s, bitmap);
        }
        usable = false;
    }
    if (!usable) {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    } else if (!(info->flags & QBM_BITMAP_RECORDING)) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    if (!s->writable) {
        bdrv_dirty_bitmap_set_readonly(bitmap, true);
    }
}

/*
 * There is a BdrvDirtyBitmap of the name of a stored one already.  Returns
 * whether it shall stay.
 */
static bool keep_bitmap(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                        const qbm_bitmap_info *info, bool usable)
{
    BDRVQbmState *s = bs->opaque;
    Error *local_err = NULL;

    if (!s->writable) {
        return true;
    }
    if (is_busy(bitmap)) {
        bdrv_dirty_bitmap_set_readonly(bitmap, false);
        return true;
    }

    if (bdrv_dirty_bitmap_inconsistent(bitmap) ||
        bdrv_dirty_bitmap_readonly(bitmap))
    {
        /*
         * It was made from the stored one when the node was read-only.  Now
         * that we may write, the library may have found that one good after
         * all (after a crash), or bad.
         */
        if (usable == bdrv_dirty_bitmap_inconsistent(bitmap)) {
            return false;
        }
        bdrv_dirty_bitmap_set_readonly(bitmap, false);
        return true;
    }

    /*
     * It came by migration, or stayed because it was to leave by one, and is
     * at least as good as the stored one, which has the guest's writes up to
     * the change of hands.
     */
    if (bdrv_dirty_bitmap_get_persistence(bitmap) &&
        (ensure_stored(s, bitmap, &local_err) < 0 ||
         write_bits(s, bitmap, false, &local_err) < 0))
    {
        distrust_stored(s, bitmap);
        warn_reportf_err(local_err, "Bitmap '%s' of '%s': ", info->name,
                         s->descriptor_path);
    }
    return true;
}

/*
 * Makes BdrvDirtyBitmaps of the stored bitmaps.  A bitmap that cannot be used
 * becomes an inconsistent one and is no error (I5).  With @only_missing, the
 * BdrvDirtyBitmaps that are there stay as they are.
 */
int qbm_drv_load_bitmaps(BlockDriverState *bs, bool only_missing, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    uint32_t bad_flags = QBM_BITMAP_INCONSISTENT;
    g_autoptr(GArray) list = NULL;
    guint i;

    list = qbm_drv_list_bitmaps(s, errp);
    if (!list) {
        return -EIO;
    }
    if (!s->writable) {
        /* Somebody writes, or died writing and only a writer can tell */
        bad_flags |= QBM_BITMAP_IN_USE;
    }

    s->loading_bitmaps = true;
    for (i = 0; i < list->len; i++) {
        const qbm_bitmap_info *info = &g_array_index(list, qbm_bitmap_info, i);
        BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, info->name);
        bool usable = !(info->flags & bad_flags);

        if (bitmap && (only_missing ||
                       keep_bitmap(bs, bitmap, info, usable))) {
            continue;
        }
        if (bitmap) {
            bdrv_release_dirty_bitmap(bitmap);
        }
        create_bitmap(bs, info, usable);
    }
    s->loading_bitmaps = false;
    return 0;
}

/* When the node changes */

/*
 * Drops the BdrvDirtyBitmaps of stored bitmaps: with the session we lose
 * control of them.  Those that leave by migration are not ours any more.
 */
void qbm_drv_release_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap, *next;

    for (bitmap = bdrv_dirty_bitmap_first(bs); bitmap; bitmap = next) {
        next = bdrv_dirty_bitmap_next(bitmap);
        if (bdrv_dirty_bitmap_name(bitmap) &&
            bdrv_dirty_bitmap_get_persistence(bitmap) && !is_busy(bitmap))
        {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

void qbm_drv_set_bitmaps_readonly(BlockDriverState *bs, bool readonly)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bdrv_dirty_bitmap_name(bitmap) &&
            bdrv_dirty_bitmap_get_persistence(bitmap))
        {
            bdrv_dirty_bitmap_set_readonly(bitmap, readonly);
        }
    }
}

int qbm_drv_check_resize(BlockDriverState *bs, Error **errp)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        /* Inconsistent ones have no bits to care for */
        if (bdrv_dirty_bitmap_name(bitmap) &&
            bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO,
                                    errp) < 0)
        {
            return -ENOTSUP;
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
        if (is_kept(bitmap) && bdrv_dirty_bitmap_enabled(bitmap)) {
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
    if (DIV_ROUND_UP(size, granularity) > GRANULES_MAX) {
        error_setg(errp, "Granularity %" PRIu32 " is too small for an image of "
                   "%" PRIu64 " bytes", granularity, size);
        goto fail;
    }

    ret = qbm_drv_co_ensure_writable(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "No write access");
        goto fail;
    }
    call.image = s->image;
    ret = thread_pool_submit_co(add_worker, &call);
    if (ret < 0) {
        qbm_drv_set_error(errp, ret, &call.error);
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
    ret = thread_pool_submit_co(remove_worker, &call);
    /* Absence is not an error, see bdrv_co_remove_persistent_dirty_bitmap() */
    return ret < 0 && ret != -ENOENT ?
        qbm_drv_set_error(errp, ret, &call.error) : 0;
}
