/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: sessions
 *
 * A session lasts from activation to inactivation; while it does, the library
 * records writes.  Opening, closing and migration begin and end it, and
 * reopening (qbm-reopen.c).
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "trace.h"
#include "qbm-internal.h"

int qbm_drv_open_descriptor(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    qbm_open_args args = {
        .size = sizeof(args),
        /* The locks on the descriptor are those of bs->file */
        .flags = QBM_OPEN_NO_LOCK | (bs->force_share ? QBM_OPEN_SHARED : 0) |
                 (bdrv_is_read_only(bs) ? QBM_OPEN_READ_ONLY : 0),
    };
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    assert(!s->image);
    ret = qbm_open(s->descriptor_path, &args, &s->image, &error);
    if (ret < 0) {
        s->image = NULL;
        return qbm_drv_set_error(errp, ret, &error);
    }
    /* A check tells the same, and more */
    if (!(bs->open_flags & BDRV_O_CHECK)) {
        qbm_drv_report_notices(s);
    }
    return 0;
}

/*
 * Starts a session, or a read-only equivalent of one.  May be called with one
 * active.  Blocks; may run in a worker thread.
 */
int qbm_drv_activate(BlockDriverState *bs, bool read_only, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    qbm_activate_args args = {
        .size = sizeof(args),
        .flags = (read_only ? QBM_ACTIVATE_READ_ONLY : 0) |
                 (s->trust_data ? QBM_ACTIVATE_TRUST_DATA : 0),
        .durability = s->durability,
        .image_size_bytes = bs->total_sectors * BDRV_SECTOR_SIZE,
        .data_file = s->given_data_path,
    };
    qbm_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;
    int ret;

    if (!s->image) {
        error_setg(errp, "Descriptor '%s' is not open", s->descriptor_path);
        return -EIO;
    }

    assert(!s->writable);
    trace_qbm_activate(bs, args.image_size_bytes, read_only);
    ret = qbm_get_info(s->image, &info, &error);
    if (ret >= 0 && (info.flags & QBM_INFO_ACTIVE)) {
        ret = qbm_inactivate(s->image, &error);
    }
    if (ret >= 0) {
        ret = qbm_activate(s->image, &args, &error);
    }
    qbm_drv_report_notices(s);
    if (ret < 0) {
        return qbm_drv_set_error(errp, ret, &error);
    }
    qatomic_store_release(&s->writable, !read_only);
    return 0;
}

/* Is the data image another than it was? */
static bool GRAPH_RDLOCK data_file_replaced(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    g_autofree char *name = NULL;

    if (!s->data_file || !s->data_file->bs || !s->data_file->bs->drv) {
        return false;
    }
    name = qbm_drv_data_file_name(bs);
    return strcmp(name, s->data_name) != 0;
}

/*
 * A node has no callback that tells of a new child, but it is drained while it
 * gets one, at whatever depth.  What changes the graph is in the main thread,
 * and does so no more when the drained section ends.
 */
void TSA_NO_TSA qbm_drv_drain_end(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;

    if (!qemu_in_main_thread()) {
        /* So does QEMU 7.2 call us for a node in an iothread */
        qemu_bh_schedule(s->drain_end_bh);
    } else if (s->writable && data_file_replaced(bs)) {
        qemu_bh_schedule(s->reconcile_bh);
    }
}

void qbm_drv_drain_end_bh(void *opaque)
{
    qbm_drv_drain_end(opaque);
}

/*
 * When a job or a reopen has put another file in the place of the data image,
 * lets the library look at that one from now on: the bitmaps describe it, and
 * the seal must not vouch for the old one.  The node must be drained.
 *
 * The file is not the one that the old seal was for, but all that was written
 * to it went through us, or was copied from the old one.
 */
void qbm_drv_follow_data_file(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    bool trust_data = s->trust_data;
    bool replaced;
    Error *local_err = NULL;

    if (!s->writable) {
        return;
    }
    replaced = data_file_replaced(bs);
    if (replaced) {
        qbm_drv_take_data_file(bs, true);
    }
    if (s->data_file_unsealed) {
        qbm_drv_give_up_bitmaps(bs);
        return;
    }
    if (!replaced) {
        return;
    }
    if (qbm_drv_store_bitmaps(bs, &local_err) < 0) {
        warn_reportf_err(local_err, "Persistent bitmaps of node '%s': ",
                         bdrv_get_node_name(bs));
        local_err = NULL;
    }
    qatomic_store_release(&s->writable, false);
    s->trust_data = true;
    if (qbm_drv_activate(bs, false, &local_err) < 0) {
        /* The next write tries again */
        error_reportf_err(local_err, "Cannot record writes to node '%s': ",
                          bdrv_get_node_name(bs));
    }
    s->trust_data = trust_data;
}

/*
 * Ends the session.  The BdrvDirtyBitmaps of stored bitmaps go with it, since
 * others may change the image from now on.  If it is going elsewhere, bitmaps
 * that migration takes along leave.
 */
static int GRAPH_RDLOCK end_session(BlockDriverState *bs, bool leaving)
{
    BDRVQbmState *s = bs->opaque;
    qbm_error error = QBM_DRV_ERROR_INIT;
    Error *local_err = NULL;
    int ret = 0;

    GLOBAL_STATE_CODE();

    if (!s->image) {
        return 0;
    }
    trace_qbm_inactivate(bs);
    qemu_bh_cancel(s->reconcile_bh);

    /* An export, say, may still be writing */
    bdrv_drained_begin(bs);
    qbm_drv_follow_data_file(bs);
    if (s->writable) {
        ret = qbm_drv_store_bitmaps(bs, &local_err);
        if (leaving) {
            qbm_drv_drop_leaving_bitmaps(bs);
        }
        qatomic_store_release(&s->writable, false);
    }
    /* For the permissions of an inactive node, which come next */
    s->data_claimed = false;
    if (qbm_inactivate(s->image, &error) < 0 && ret >= 0) {
        error_setg(&local_err, "%s", error.message);
        ret = -EINVAL;
    }
    qbm_drv_report_notices(s);
    qbm_drv_release_bitmaps(bs);
    qbm_drv_remember_stayed(bs);
    bdrv_drained_end(bs);

    if (ret < 0) {
        error_reportf_err(local_err, "Lost persistent bitmaps during "
                          "inactivation of node '%s': ",
                          bdrv_get_device_or_node_name(bs));
    }
    return ret;
}

int qbm_drv_inactivate(BlockDriverState *bs)
{
    return end_session(bs, true);
}

/* A migration that is still under way takes nothing from who closes an image */
void qbm_drv_end_session(BlockDriverState *bs)
{
    end_session(bs, false);
}

void coroutine_fn
qbm_drv_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    BDRVQbmState *s = bs->opaque;
    int64_t old_size = bs->total_sectors * BDRV_SECTOR_SIZE;
    qbm_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;

    /* Also ends the session if we cannot be activated, or a parent cannot */
    qemu_bh_schedule(s->reconcile_bh);

    /* A parent could not be activated the last time, after we were */
    qatomic_store_release(&s->writable, false);
    if (data_file_replaced(bs)) {
        qbm_drv_take_data_file(bs, true);
    }
    /* Whoever had the image in the meantime has changed the descriptor */
    qbm_close(s->image, NULL);
    s->image = NULL;
    if (qbm_drv_open_descriptor(bs, errp) < 0) {
        return;
    }
    if (qbm_get_info(s->image, &info, &error) < 0) {
        error_setg(errp, "%s", error.message);
        return;
    }
    if (!s->data_file_given && strcmp(s->data_path, info.data_file)) {
        error_setg(errp, "Descriptor '%s' has changed: the data image is '%s' "
                   "now, no longer '%s'", s->descriptor_path, info.data_file,
                   s->data_path);
        return;
    }
    qbm_drv_claim_for_stored(bs, bs->open_flags);
    if (qbm_drv_co_take_claim(bs, errp) < 0 ||
        qbm_drv_set_size(bs, errp) < 0 ||
        qbm_drv_follow_size(bs, old_size, errp) < 0 ||
        qbm_drv_activate(bs, bdrv_is_read_only(bs), errp) < 0)
    {
        goto fail;
    }
    qbm_drv_doubt_stayed(bs);
    if (qbm_drv_load_bitmaps(bs, false, errp) < 0) {
        goto fail;
    }
    qbm_drv_take_back_bitmaps(bs);
    qbm_drv_co_update_claim(bs);
    return;

fail:
    error_prepend(errp, "Could not activate '%s': ", s->descriptor_path);
    s->data_claimed = false;
}
