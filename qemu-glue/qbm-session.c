/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: sessions
 *
 * A session lasts from activation to inactivation; while it does, the library
 * records writes.  Opening, closing, migration and reopening begin and end it.
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
 * Remembers which BdrvDirtyBitmaps stay, and how we leave the image: busy ones
 * cannot go, and those that leave by migration are needed if that fails.
 */
static void remember_stayed(BlockDriverState *bs)
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
static void doubt_what_stayed(BlockDriverState *bs)
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
    remember_stayed(bs);
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

/* Bitmaps that are there follow the image, whose size others have changed */
static int GRAPH_RDLOCK
follow_size(BlockDriverState *bs, int64_t old_size, Error **errp)
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
        follow_size(bs, old_size, errp) < 0 ||
        qbm_drv_activate(bs, bdrv_is_read_only(bs), errp) < 0)
    {
        goto fail;
    }
    doubt_what_stayed(bs);
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

/* Reopening */

/* Ends the session, but keeps the image open for reading */
static int GRAPH_RDLOCK make_read_only(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    int ret;

    qbm_drv_follow_data_file(bs);
    ret = qbm_drv_store_bitmaps(bs, errp);
    if (ret < 0) {
        return ret;
    }
    qatomic_store_release(&s->writable, false);
    s->reopen_ended_session = true;
    qbm_drv_set_bitmaps_readonly(bs, true);
    return qbm_drv_activate(bs, true, errp);
}

/*
 * If this fails, the bitmaps stay read-only and so does the disk: the block
 * layer refuses writes that a read-only bitmap could not record.
 */
static void GRAPH_RDLOCK make_writable(BlockDriverState *bs)
{
    Error *local_err = NULL;

    if (qbm_drv_activate(bs, false, &local_err) < 0 ||
        qbm_drv_load_bitmaps(bs, false, &local_err) < 0)
    {
        error_reportf_err(local_err, "%s: Failed to make dirty bitmaps "
                          "writable: ", bdrv_get_node_name(bs));
    }
    qbm_drv_update_claim(bs);
}

/* The "file" option may name another node, but not another descriptor */
static int GRAPH_RDLOCK
check_new_file(BDRVReopenState *state, Error **errp)
{
    BDRVQbmState *s = state->bs->opaque;
    const char *name = qdict_get_try_str(state->options, "file");
    BlockDriverState *file_bs = name ? bdrv_lookup_bs(NULL, name, NULL) : NULL;
    g_autofree char *path = NULL;
    int ret;

    if (!file_bs) {
        return 0;
    }
    ret = qbm_drv_local_path(file_bs, "A QBM descriptor", &path, errp);
    if (ret < 0) {
        return ret;
    }
    path = qbm_drv_follow_link(path);
    if (strcmp(path, s->descriptor_path)) {
        error_setg(errp, "Cannot change the descriptor from '%s' to '%s'",
                   s->descriptor_path, path);
        return -EINVAL;
    }
    return 0;
}

void qbm_drv_reopen_abort(BDRVReopenState *state)
{
    BlockDriverState *bs = state->bs;
    BDRVQbmState *s = bs->opaque;

    if (s->reopen_opened_data) {
        s->reopen_opened_data = false;
        bdrv_reopen_set_read_only(s->data_file->bs, true, NULL);
    }
    bdrv_graph_rdlock_main_loop();
    if (s->reopen_ended_session) {
        s->reopen_ended_session = false;
        make_writable(bs);
    } else {
        qbm_drv_update_claim(bs);
    }
    bdrv_graph_rdunlock_main_loop();
}

int qbm_drv_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                           Error **errp)
{
    BlockDriverState *bs = state->bs;
    BDRVQbmState *s = bs->opaque;
    bool read_only = !(state->flags & BDRV_O_RDWR);
    bool data_read_only;
    int ret;

    GLOBAL_STATE_CODE();

    s->reopen_ended_session = false;
    s->reopen_opened_data = false;

    bdrv_graph_rdlock_main_loop();
    ret = check_new_file(state, errp);
    if (ret >= 0 && read_only && s->writable) {
        ret = make_read_only(bs, errp);
    }
    data_read_only = s->data_file && bdrv_is_read_only(s->data_file->bs);
    bdrv_graph_rdunlock_main_loop();

    if (ret >= 0 && !read_only && bs->force_share) {
        error_setg(errp, "A node with force-share=on cannot become writable");
        ret = -EINVAL;
    }
    if (ret >= 0 && !read_only && data_read_only && !s->data_file_given) {
        ret = bdrv_reopen_set_read_only(s->data_file->bs, false, errp);
        s->reopen_opened_data = ret >= 0;
    }
    if (ret >= 0) {
        qbm_drv_claim_at_reopen(bs, read_only);
    }

    if (ret < 0) {
        /* The block layer undoes only what was prepared with success */
        qbm_drv_reopen_abort(state);
    }
    return ret;
}

void qbm_drv_reopen_commit_post(BDRVReopenState *state)
{
    BlockDriverState *bs = state->bs;
    BDRVQbmState *s = bs->opaque;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    /* Only now may we write to the file */
    if ((state->flags & BDRV_O_RDWR) && !s->writable &&
        !(bs->open_flags & (BDRV_O_NO_IO | BDRV_O_INACTIVE)))
    {
        make_writable(bs);
    }
}
