/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: who else may write to the data image
 *
 * While a writable node has persistent bitmaps, nobody: they would miss it, and
 * be taken for good all the same (I2).  A node without any shares its data
 * image, so that it can be put over one that is in use, and the user of that
 * be switched to it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qbm-internal.h"

/* qbm_drv_child_perm() does what @data_claimed says */
static int GRAPH_RDLOCK
set_claim(BlockDriverState *bs, bool claim, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    int ret;

    GLOBAL_STATE_CODE();

    if (!s->data_file || s->data_claimed == claim) {
        return 0;
    }
    s->data_claimed = claim;
    ret = bdrv_child_refresh_perms(bs, s->data_file, errp);
    if (ret < 0) {
        s->data_claimed = !claim;
    }
    return ret;
}

static bool claims(BdrvDirtyBitmap *bitmap)
{
    return bdrv_dirty_bitmap_name(bitmap) &&
           bdrv_dirty_bitmap_get_persistence(bitmap) &&
           !bdrv_dirty_bitmap_inconsistent(bitmap);
}

static bool has_stored_bitmap(BDRVQbmState *s)
{
    g_autoptr(GArray) list = s->image ? qbm_drv_list_bitmaps(s, NULL) : NULL;
    guint i;

    for (i = 0; list && i < list->len; i++) {
        const qbm_bitmap_info *info = &g_array_index(list, qbm_bitmap_info, i);

        if (!(info->flags & QBM_BITMAP_INCONSISTENT)) {
            return true;
        }
    }
    return false;
}

/*
 * What is stored counts, too: QEMU does not call a bitmap persistent while a
 * migration takes it along, which may yet be cancelled.
 */
static bool needs_claim(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (claims(bitmap)) {
            return true;
        }
    }
    return has_stored_bitmap(bs->opaque);
}

/*
 * Claims the data image, which is about to be opened, if there are stored
 * bitmaps that writes will be recorded in.
 */
void qbm_drv_claim_for_stored(BlockDriverState *bs, int flags)
{
    BDRVQbmState *s = bs->opaque;

    if ((flags & BDRV_O_RDWR) &&
        !(flags & (BDRV_O_NO_IO | BDRV_O_CHECK | BDRV_O_INACTIVE)))
    {
        s->data_claimed = has_stored_bitmap(s);
    }
}

/* Before a bitmap becomes persistent.  Fails when somebody else writes. */
int qbm_drv_claim_data(BlockDriverState *bs, Error **errp)
{
    return set_claim(bs, true, errp);
}

int coroutine_fn qbm_drv_co_claim_data(BlockDriverState *bs, Error **errp)
{
    AioContext *context = qemu_get_current_aio_context();
    int ret;

    /* The graph's permissions belong to the main thread */
    aio_co_reschedule_self(qemu_get_aio_context());
    ret = set_claim(bs, true, errp);
    aio_co_reschedule_self(context);
    return ret;
}

/*
 * Has the claim take effect on a data image that is open already.  Fails when
 * somebody else writes: unlike the loss of the bitmaps, that can be put right.
 */
int coroutine_fn qbm_drv_co_take_claim(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;

    if (!s->data_claimed) {
        return 0;
    }
    s->data_claimed = false;
    return qbm_drv_co_claim_data(bs, errp);
}

/* What the block layer shall ask for when it commits a reopen */
void qbm_drv_claim_at_reopen(BlockDriverState *bs, bool read_only)
{
    BDRVQbmState *s = bs->opaque;

    s->data_claimed = !read_only && !(bs->open_flags & BDRV_O_INACTIVE) &&
                      needs_claim(bs);
}

/*
 * Follows a change of the bitmaps, or of the session.  Bitmaps that came by a
 * way on which they could not be refused (migration, say) miss what others
 * write, if there are others: they are inconsistent then.
 */
void qbm_drv_update_claim(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BdrvDirtyBitmap *bitmap;
    bool claim = !bdrv_is_read_only(bs) &&
                 !(bs->open_flags & BDRV_O_INACTIVE) && needs_claim(bs);
    Error *local_err = NULL;

    if (set_claim(bs, claim, &local_err) >= 0) {
        return;
    }
    warn_reportf_err(local_err, "Persistent bitmaps of node '%s' miss what "
                     "others write: ", bdrv_get_node_name(bs));
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (claims(bitmap)) {
            qbm_drv_distrust_stored(s, bitmap);
            bdrv_dirty_bitmap_set_inconsistent(bitmap);
        }
    }
}

void coroutine_fn qbm_drv_co_update_claim(BlockDriverState *bs)
{
    AioContext *context = qemu_get_current_aio_context();

    aio_co_reschedule_self(qemu_get_aio_context());
    qbm_drv_update_claim(bs);
    aio_co_reschedule_self(context);
}
