/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: dirty bitmaps, from the library to memory
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "trace.h"
#include "qbm-internal.h"

static int read_bits(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t chunk = bdrv_dirty_bitmap_serialization_coverage(QBM_DRV_CHUNK,
                                                              bitmap);
    g_autofree uint8_t *buf = g_malloc(QBM_DRV_CHUNK);
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
            memset(buf, 0, QBM_DRV_CHUNK);
            ret = qbm_bitmap_load_bits(s->image, name, start, end - start, buf,
                                       QBM_DRV_CHUNK, &error);
        }
        if (ret < 0) {
            return qbm_drv_set_error(errp, ret, &error);
        }
        bdrv_dirty_bitmap_deserialize_part(bitmap, buf, start, end - start,
                                           false);
        offset = end;
    }
    /* HBitmap cannot count the bits of a disk of no bytes */
    if (size) {
        bdrv_dirty_bitmap_deserialize_finish(bitmap);
    }
    return 0;
}

static bool fits(BlockDriverState *bs, const qbm_bitmap_info *info)
{
    return qbm_drv_bitmap_fits(bs->total_sectors * BDRV_SECTOR_SIZE,
                               info->granularity_bytes);
}

/* An inconsistent bitmap may have no granularity, or one of too many bits */
static uint32_t unusable_granularity(BlockDriverState *bs,
                                     const qbm_bitmap_info *info)
{
    if (!info->granularity_bytes) {
        return 64 * KiB;
    }
    return fits(bs, info) ? info->granularity_bytes : QBM_GRANULARITY_MAX;
}

static void create_bitmap(BlockDriverState *bs, const qbm_bitmap_info *info,
                          bool usable)
{
    BDRVQbmState *s = bs->opaque;
    /* Bits that cannot be used need none; the bitmap is there to be removed */
    uint64_t granularity = usable ? info->granularity_bytes :
                           unusable_granularity(bs, info);
    BdrvDirtyBitmap *bitmap;
    Error *local_err = NULL;

    trace_qbm_bitmap_load(s->descriptor_path, info->name, granularity, usable,
                          !!(info->flags & QBM_BITMAP_RECORDING));
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
            qbm_drv_distrust_stored(s, bitmap);
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

    if (s->stayed_are_behind &&
        g_hash_table_remove(s->stayed_names, info->name))
    {
        if (!qbm_drv_bitmap_is_busy(bitmap)) {
            return false;
        }
        qbm_drv_catch_up(bs, bitmap, usable ? info : NULL);
    }
    if (!s->writable) {
        return true;
    }
    /*
     * One that was made from the stored bitmap when the node was read-only:
     * now that we may write, the library may have found that one good after
     * all (after a crash), or bad.
     */
    if (!qbm_drv_bitmap_is_busy(bitmap) &&
        (bdrv_dirty_bitmap_inconsistent(bitmap) ||
         bdrv_dirty_bitmap_readonly(bitmap)) &&
        usable == bdrv_dirty_bitmap_inconsistent(bitmap))
    {
        return false;
    }
    bdrv_dirty_bitmap_set_readonly(bitmap, false);

    /*
     * It may have been enabled or disabled meanwhile, or have come by
     * migration, or stayed because it was to leave by one.  It is at least as
     * good as the stored one, which has the guest's writes up to the change of
     * hands.
     */
    if (qbm_drv_bitmap_is_kept(bitmap) &&
        (qbm_drv_ensure_stored(bs, bitmap, &local_err) < 0 ||
         qbm_drv_write_bits(s, bitmap, false, &local_err) < 0))
    {
        qbm_drv_distrust_stored(s, bitmap);
        warn_reportf_err(local_err, "Bitmap '%s' of '%s': ", info->name,
                         s->descriptor_path);
    }
    return true;
}

/*
 * Makes BdrvDirtyBitmaps of the stored bitmaps.  A bitmap that cannot be used
 * becomes an inconsistent one and is no error (I5).  With @only_missing, the
 * BdrvDirtyBitmaps that are there stay as they are.  Transient ones become
 * persistent if the image stores all.
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
        bool good = !(info->flags & bad_flags);
        bool usable = good && fits(bs, info);

        if (bitmap && (only_missing ||
                       keep_bitmap(bs, bitmap, info, usable))) {
            continue;
        }
        if (bitmap) {
            bdrv_release_dirty_bitmap(bitmap);
        }
        if (good && !usable) {
            /* Others can use it */
            warn_report("Bitmap '%s' of '%s' is too big for QEMU: here it can "
                        "only be removed", info->name, s->descriptor_path);
        }
        create_bitmap(bs, info, usable);
    }
    qbm_drv_give_up_stayed(bs);
    s->loading_bitmaps = false;
    qbm_drv_adopt_bitmaps(bs);
    return 0;
}

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
            bdrv_dirty_bitmap_get_persistence(bitmap) &&
            !qbm_drv_bitmap_is_busy(bitmap))
        {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

void qbm_drv_set_bitmaps_readonly(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bdrv_dirty_bitmap_name(bitmap) &&
            bdrv_dirty_bitmap_get_persistence(bitmap))
        {
            bdrv_dirty_bitmap_set_readonly(bitmap, true);
        }
    }
}
