/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: bitmaps that stay in memory while the image is elsewhere
 *
 * When a node is inactivated, BdrvDirtyBitmaps that are in use stay, and those
 * that leave by migration do, which may yet fail.  Whoever has the image
 * meanwhile may write to it: what stayed has missed that (I2).
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qbm-internal.h"

/*
 * Remembers which BdrvDirtyBitmaps stay, and how we leave the image: busy ones
 * cannot go, and those that leave by migration are needed if that fails.
 */
void qbm_drv_remember_stayed(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDirtyInfoList *list = bdrv_query_dirty_bitmaps(bs), *item;
    qbm_info info = { .size = sizeof(info) };

    g_hash_table_remove_all(s->stayed_names);
    for (item = list; item; item = item->next) {
        /* Also those that are not to be stored, as they leave */
        if (item->value->name && item->value->persistent) {
            g_hash_table_add(s->stayed_names, g_strdup(item->value->name));
        }
    }
    qapi_free_BlockDirtyInfoList(list);
    s->has_left = qbm_get_info(s->image, &info, NULL) >= 0;
    s->left_generation = info.generation;
}

/* We have the image again.  Has anybody else written to it? */
bool qbm_drv_is_as_left(BDRVQbmState *s)
{
    qbm_info info = { .size = sizeof(info) };

    return qbm_get_info(s->image, &info, NULL) >= 0 &&
           (info.flags & QBM_INFO_CONTINUED) &&
           info.generation == s->left_generation;
}

/*
 * If somebody else has written to the image, bitmaps that stayed have missed
 * that.  Otherwise there is nothing to be remembered.
 */
void qbm_drv_doubt_stayed(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDirtyInfoList *list, *item;

    s->stayed_are_behind = s->has_left && !qbm_drv_is_as_left(s);
    s->has_left = false;
    if (!s->stayed_are_behind) {
        g_hash_table_remove_all(s->stayed_names);
        return;
    }
    list = bdrv_query_dirty_bitmaps(bs);
    for (item = list; item; item = item->next) {
        if (item->value->name && !item->value->persistent) {
            /* Has taken the place of one that was removed */
            g_hash_table_remove(s->stayed_names, item->value->name);
        }
    }
    qapi_free_BlockDirtyInfoList(list);
    qbm_drv_doubt_transient(bs);
}

/* Bitmaps that are there follow the image, whose size others have changed */
int qbm_drv_follow_size(BlockDriverState *bs, int64_t old_size, Error **errp)
{
    int64_t size = bs->total_sectors * BDRV_SECTOR_SIZE;
    BdrvDirtyBitmap *bitmap;

    if (size == old_size) {
        return 0;
    }
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (qbm_drv_bitmap_is_busy(bitmap)) {
            error_setg(errp, "The image has changed from %" PRId64 " to %"
                       PRId64 " bytes, which bitmap '%s' cannot follow while "
                       "it is in use", old_size, size,
                       bdrv_dirty_bitmap_name(bitmap));
            bs->total_sectors = old_size / BDRV_SECTOR_SIZE;
            return -EBUSY;
        }
    }
    bdrv_dirty_bitmap_truncate(bs, size);
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (size > old_size && bdrv_dirty_bitmap_name(bitmap) &&
            bdrv_dirty_bitmap_enabled(bitmap) &&
            !bdrv_dirty_bitmap_readonly(bitmap))
        {
            bdrv_set_dirty_bitmap(bitmap, old_size, size - old_size);
        }
    }
    return 0;
}

/* Sets the bits that are set in the stored copy of @bitmap */
static int merge_stored(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    int64_t size = bdrv_dirty_bitmap_size(bitmap);
    qbm_error error = QBM_DRV_ERROR_INIT;
    uint64_t start = 0, bytes = 0;
    int ret;

    do {
        ret = qbm_bitmap_next_extent(s->image, name, start + bytes, &start,
                                     &bytes, &error);
        if (ret < 0) {
            return qbm_drv_set_error(errp, ret, &error);
        }
        if (ret > 0 && start < size) {
            bdrv_set_dirty_bitmap(bitmap, start, MIN(bytes, size - start));
        }
    } while (ret > 0);
    return 0;
}

/*
 * @bitmap stayed while others wrote to the image.  Takes over what they have
 * stored under its name, if @info tells of a usable one; otherwise nothing says
 * what it has missed.
 */
void qbm_drv_catch_up(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                      const qbm_bitmap_info *info)
{
    BDRVQbmState *s = bs->opaque;
    bool readonly = bdrv_dirty_bitmap_readonly(bitmap);
    Error *local_err = NULL;

    bdrv_dirty_bitmap_set_readonly(bitmap, false);
    if (info &&
        info->granularity_bytes == bdrv_dirty_bitmap_granularity(bitmap) &&
        merge_stored(s, bitmap, &local_err) >= 0)
    {
        if (bdrv_dirty_bitmap_has_successor(bitmap)) {
            /* Whoever has it goes on as they are */
        } else if (info->flags & QBM_BITMAP_RECORDING) {
            bdrv_enable_dirty_bitmap(bitmap);
        } else {
            bdrv_disable_dirty_bitmap(bitmap);
        }
    } else {
        warn_report("Bitmap '%s' of node '%s' is inconsistent: '%s' was "
                    "written to while the node was inactive, and has no such "
                    "bitmap that can be used",
                    bdrv_dirty_bitmap_name(bitmap), bdrv_get_node_name(bs),
                    s->descriptor_path);
        error_free(local_err);
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    }
    bdrv_dirty_bitmap_set_readonly(bitmap, readonly);
}

/* Deals with those that have no stored copy any more */
void qbm_drv_give_up_stayed(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BdrvDirtyBitmap *bitmap;
    GHashTableIter iter;
    gpointer name;

    if (!s->stayed_are_behind) {
        return;
    }
    g_hash_table_iter_init(&iter, s->stayed_names);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        bitmap = bdrv_find_dirty_bitmap(bs, name);
        if (bitmap && !bdrv_dirty_bitmap_inconsistent(bitmap)) {
            qbm_drv_catch_up(bs, bitmap, NULL);
        }
    }
    g_hash_table_remove_all(s->stayed_names);
    s->stayed_are_behind = false;
}
