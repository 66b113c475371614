/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: what the descriptor says of dirty bitmaps
 *
 * Which there are, and whether they record.  Each change of that replaces the
 * descriptor, which waits for the disk several times; while a guest stands
 * still, between two hosts of a migration, the bitmaps are changed together.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "trace.h"
#include "qbm-internal.h"

static void plan(GArray *changes, uint32_t action, BdrvDirtyBitmap *bitmap,
                 uint32_t flags)
{
    qbm_bitmap_change change = {
        .size = sizeof(change),
        .name = bdrv_dirty_bitmap_name(bitmap),
        .granularity_bytes = action == QBM_CHANGE_ADD ?
                             bdrv_dirty_bitmap_granularity(bitmap) : 0,
        .action = action,
        .flags = flags,
    };

    g_array_append_val(changes, change);
}

/* What has to change for the record of @bitmap to be right */
static int plan_record(BDRVQbmState *s, BdrvDirtyBitmap *bitmap,
                       GArray *changes, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint32_t recording = bdrv_dirty_bitmap_recording(bitmap) ?
                         QBM_BITMAP_RECORDING : 0;
    qbm_bitmap_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    ret = qbm_bitmap_find(s->image, name, &info, &error);
    if (ret == -ENOENT) {
        trace_qbm_bitmap_add(s->descriptor_path, name,
                             bdrv_dirty_bitmap_granularity(bitmap));
        /* Its bits follow; killed before that, it must not look clean (I2) */
        plan(changes, QBM_CHANGE_ADD, bitmap, QBM_BITMAP_ALL_DIRTY | recording);
        return 0;
    }
    if (ret < 0) {
        return qbm_drv_set_error(errp, ret, &error);
    }
    if ((info.flags & QBM_BITMAP_INCONSISTENT) ||
        info.granularity_bytes != bdrv_dirty_bitmap_granularity(bitmap))
    {
        error_setg(errp, "the stored bitmap cannot be used any more");
        return -EINVAL;
    }
    if (recording != (info.flags & QBM_BITMAP_RECORDING)) {
        plan(changes, QBM_CHANGE_SET_RECORDING, bitmap, recording);
    }
    return 0;
}

static int change(BDRVQbmState *s, GArray *changes, guint count, Error **errp)
{
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    ret = qbm_bitmap_change_several(s->image,
                                    (const qbm_bitmap_change *)changes->data,
                                    count, &error);
    return ret < 0 ? qbm_drv_set_error(errp, ret, &error) : 0;
}

/*
 * Sees to it that there is a stored bitmap for @bitmap, which can be trusted
 * and records guest writes if @bitmap does.  If that takes a change, others
 * that need one are taken along.
 */
int qbm_drv_ensure_stored(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                          Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    g_autoptr(GArray) changes = g_array_new(false, false,
                                            sizeof(qbm_bitmap_change));
    BdrvDirtyBitmap *other;
    int ret;

    ret = plan_record(s, bitmap, changes, errp);
    if (ret < 0 || !changes->len) {
        return ret;
    }
    FOR_EACH_DIRTY_BITMAP(bs, other) {
        if (other != bitmap && qbm_drv_bitmap_is_kept(other) &&
            !(s->stayed_are_behind &&
              g_hash_table_contains(s->stayed_names,
                                    bdrv_dirty_bitmap_name(other))))
        {
            /* An error will be told when it is that one's turn */
            plan_record(s, other, changes, NULL);
        }
    }
    if (changes->len > 1 && change(s, changes, changes->len, NULL) >= 0) {
        return 0;
    }
    return change(s, changes, 1, errp);
}

/*
 * Gives up the stored copy of @bitmap, which could not be brought up to date:
 * it must not be taken for good later (I2).
 */
void qbm_drv_distrust_stored(BDRVQbmState *s, BdrvDirtyBitmap *bitmap)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    trace_qbm_bitmap_distrust(s->descriptor_path, name);
    ret = qbm_bitmap_set_inconsistent(s->image, name, &error);
    if (ret < 0 && ret != -ENOENT) {
        /* Our session record remains then, which says as much */
        error_report("Cannot mark bitmap '%s' inconsistent: %s",
                     name, error.message);
    }
}

/* Is @bitmap a persistent one that migration is taking elsewhere? */
static bool is_leaving(BlockDriverState *bs, const BlockDirtyInfo *info,
                       BdrvDirtyBitmap **bitmap)
{
    if (!info->name || !info->persistent) {
        return false;
    }
    *bitmap = bdrv_find_dirty_bitmap(bs, info->name);
    return !bdrv_dirty_bitmap_get_persistence(*bitmap);
}

/*
 * Removes the stored copies of bitmaps that migration is taking elsewhere, as
 * QEMU has qcow2 lose them: the disk may go on changing there.
 */
void qbm_drv_drop_leaving_bitmaps(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    g_autoptr(GArray) changes = g_array_new(false, false,
                                            sizeof(qbm_bitmap_change));
    BlockDirtyInfoList *list = bdrv_query_dirty_bitmaps(bs), *item;
    qbm_bitmap_info stored = { .size = sizeof(stored) };
    BdrvDirtyBitmap *bitmap;
    Error *local_err = NULL;

    for (item = list; item; item = item->next) {
        if (is_leaving(bs, item->value, &bitmap) &&
            qbm_bitmap_find(s->image, item->value->name, &stored, NULL) >= 0)
        {
            trace_qbm_bitmap_remove(s->descriptor_path, item->value->name);
            plan(changes, QBM_CHANGE_REMOVE, bitmap, 0);
        }
    }
    if (change(s, changes, changes->len, &local_err) < 0) {
        warn_reportf_err(local_err, "The bitmaps that leave '%s' are not "
                         "removed from it: ", s->descriptor_path);
    }
    qapi_free_BlockDirtyInfoList(list);
}

/*
 * The migration has failed: adds the bitmaps again that it was to take along,
 * with all bits until each is announced.
 */
void qbm_drv_take_back_bitmaps(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    g_autoptr(GArray) changes = g_array_new(false, false,
                                            sizeof(qbm_bitmap_change));
    BlockDirtyInfoList *list = bdrv_query_dirty_bitmaps(bs), *item;
    BdrvDirtyBitmap *bitmap;

    for (item = list; item && s->writable; item = item->next) {
        if (is_leaving(bs, item->value, &bitmap) &&
            !bdrv_dirty_bitmap_inconsistent(bitmap))
        {
            plan_record(s, bitmap, changes, NULL);
        }
    }
    /* What cannot be added is told when that one is announced */
    change(s, changes, changes->len, NULL);
    qapi_free_BlockDirtyInfoList(list);
}
