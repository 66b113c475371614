/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: reopening, from reading to writing and back
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qbm-internal.h"

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
    qbm_drv_set_bitmaps_readonly(bs);
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
