/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: persistent dirty bitmaps for images of any format
 *
 * A QBM image is a JSON descriptor, which the "file" child is, that ties a data
 * image, the "data-file" child, to bitmap files.  Guest data goes straight to
 * the data image.  libqbm reads and writes the rest; it is asked before and
 * told after each write (see qbm-internal.h).
 */

#include "qemu/osdep.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "trace.h"
#include "qbm-internal.h"

#define QBM_OPT_TRUST_DATA  "trust-data"

static QemuOptsList qbm_drv_runtime_opts = {
    .name = "qbm",
    .head = QTAILQ_HEAD_INITIALIZER(qbm_drv_runtime_opts.head),
    .desc = {
        {
            .name = QBM_OPT_DURABILITY,
            .type = QEMU_OPT_STRING,
            .help = "what the bitmaps survive (close, process)",
        },
        {
            .name = QBM_OPT_PERSIST_BITMAPS,
            .type = QEMU_OPT_STRING,
            .help = "which bitmaps are stored (marked, all)",
        },
        {
            .name = QBM_OPT_TRUST_DATA,
            .type = QEMU_OPT_BOOL,
            .help = "keep bitmaps although the data image was changed while "
                    "the image was closed (default: off)",
        },
        { /* end of list */ }
    },
};

/* Makes an Error of what the library said.  Returns @ret. */
int qbm_drv_set_error(Error **errp, int ret, const qbm_error *error)
{
    if (error->message[0]) {
        error_setg(errp, "%s", error->message);
    } else {
        error_setg_errno(errp, -ret, "libqbm");
    }
    return ret;
}

void qbm_drv_report_notices(BDRVQbmState *s)
{
    char buf[2048];

    while (s->image && qbm_take_notice(s->image, buf, sizeof(buf)) > 0) {
        trace_qbm_notice(s->descriptor_path, buf);
        warn_report("%s", buf);
    }
}

static void GRAPH_RDLOCK take_over_flags(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDriverState *data_bs = s->data_file->bs;

    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED |
        (BDRV_REQ_FUA & data_bs->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) &
         data_bs->supported_zero_flags);
    bs->supported_truncate_flags = data_bs->supported_truncate_flags &
        BDRV_REQ_ZERO_WRITE;
}

static int open_options(BDRVQbmState *s, QDict *options, Error **errp)
{
    QemuOpts *opts;
    int ret = -EINVAL;

    opts = qemu_opts_create(&qbm_drv_runtime_opts, NULL, 0, &error_abort);
    if (qemu_opts_absorb_qdict(opts, options, errp)) {
        ret = qbm_drv_parse_durability(qemu_opt_get(opts, QBM_OPT_DURABILITY),
                                       &s->durability, errp);
        if (ret >= 0) {
            ret = qbm_drv_parse_persist_bitmaps(
                QBM_OPT_PERSIST_BITMAPS,
                qemu_opt_get(opts, QBM_OPT_PERSIST_BITMAPS),
                &s->persist_bitmaps, errp);
        }
        s->trust_data = qemu_opt_get_bool(opts, QBM_OPT_TRUST_DATA, false);
    }
    qemu_opts_del(opts);
    return ret;
}

static void close_state(BDRVQbmState *s)
{
    qbm_error error = QBM_DRV_ERROR_INIT;

    if (qbm_close(s->image, &error) < 0) {
        error_report("%s", error.message);
    }
    s->image = NULL;
    s->writable = false;
    qemu_bh_delete(s->reconcile_bh);
    s->reconcile_bh = NULL;
    qemu_bh_delete(s->drain_end_bh);
    s->drain_end_bh = NULL;
    g_hash_table_destroy(s->unstored_names);
    g_hash_table_destroy(s->doubtful_names);
    g_hash_table_destroy(s->stayed_names);
    g_free(s->descriptor_path);
    g_free(s->data_path);
    g_free(s->given_data_path);
    g_free(s->data_name);
    g_free(s->opened_data_name);
}

static int GRAPH_UNLOCKED
qbm_drv_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    int ret;

    GLOBAL_STATE_CODE();

    qemu_co_mutex_init(&s->resume_lock);

    ret = open_options(s, options, errp);
    if (ret < 0) {
        return ret;
    }
    if (!bdrv_open_child(NULL, options, "file", bs, &child_of_bds,
                         BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY, false, errp))
    {
        return -EINVAL;
    }

    bdrv_graph_rdlock_main_loop();
    ret = qbm_drv_local_path(bs->file->bs, "A QBM descriptor",
                             &s->descriptor_path, errp);
    bdrv_graph_rdunlock_main_loop();
    if (ret < 0) {
        return ret;
    }
    s->descriptor_path = qbm_drv_follow_link(s->descriptor_path);
    trace_qbm_open(bs, s->descriptor_path, flags);
    s->reconcile_bh = aio_bh_new(iohandler_get_aio_context(),
                                 qbm_drv_reconcile_bh, bs);
    s->drain_end_bh = aio_bh_new(iohandler_get_aio_context(),
                                 qbm_drv_drain_end_bh, bs);
    s->unstored_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                              NULL);
    s->doubtful_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                              NULL);
    s->stayed_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                            NULL);

    ret = qbm_drv_open_descriptor(bs, errp);
    if (ret < 0) {
        goto fail;
    }
    qbm_drv_claim_for_stored(bs, flags);
    ret = qbm_drv_open_data_file(bs, options, flags, errp);
    if (ret < 0) {
        goto fail;
    }

    bdrv_graph_rdlock_main_loop();
    if (s->data_file) {
        take_over_flags(bs);
        ret = qbm_drv_set_size(bs, errp);
    }
    if (ret >= 0 && !(flags & (BDRV_O_NO_IO | BDRV_O_CHECK | BDRV_O_INACTIVE)))
    {
        ret = qbm_drv_activate(bs, bdrv_is_read_only(bs), errp);
        if (ret >= 0) {
            ret = qbm_drv_load_bitmaps(bs, false, errp);
        }
        if (ret >= 0) {
            qbm_drv_update_claim(bs);
        }
    }
    bdrv_graph_rdunlock_main_loop();
    if (ret < 0) {
        goto fail;
    }

    return 0;

fail:
    bdrv_release_named_dirty_bitmaps(bs);
    close_state(s);
    if (s->data_file) {
        bdrv_graph_wrlock();
        bdrv_unref_child(bs, s->data_file);
        bdrv_graph_wrunlock();
        s->data_file = NULL;
    }
    return ret;
}

static void GRAPH_UNLOCKED qbm_drv_close(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (s->writable) {
        qbm_drv_end_session(bs);
    }
    /* The data image is a child and closed as such */
    close_state(s);
}

/* Children */

static void qbm_drv_child_perm(BlockDriverState *bs, BdrvChild *c,
                               BdrvChildRole role,
                               BlockReopenQueue *reopen_queue,
                               uint64_t parent_perm, uint64_t parent_shared,
                               uint64_t *nperm, uint64_t *nshared)
{
    BDRVQbmState *s = bs->opaque;

    bdrv_default_perms(bs, c, role, reopen_queue, parent_perm, parent_shared,
                       nperm, nshared);
    if (role & BDRV_CHILD_DATA) {
        /* As raw does: what is written there is what the parents write */
        *nperm &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
        if (!(bs->open_flags & BDRV_O_CHECK)) {
            *nperm |= parent_perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE);
        }
        /* Repairs leave it alone (I6), and others must, meanwhile */
        if (s->data_claimed || (bs->open_flags & BDRV_O_CHECK)) {
            *nshared &= ~BLK_PERM_WRITE;
        }
    }
}

static void GRAPH_RDLOCK
qbm_drv_gather_child_options(BlockDriverState *bs, QDict *target,
                             bool backing_overridden)
{
    BDRVQbmState *s = bs->opaque;

    qdict_put(target, "file", qobject_ref(bs->file->bs->full_open_options));
    if (s->data_file_given) {
        qdict_put(target, QBM_OPT_DATA_FILE,
                  qobject_ref(s->data_file->bs->full_open_options));
    }
}

static void GRAPH_RDLOCK qbm_drv_refresh_filename(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDriverState *file_bs = bs->file->bs;

    /* Opening the descriptor would not give what the user asked for */
    if (!s->data_file_given && file_bs->drv->protocol_name) {
        pstrcpy(bs->exact_filename, sizeof(bs->exact_filename),
                file_bs->exact_filename);
    }
}

static void GRAPH_RDLOCK qbm_drv_cancel_in_flight(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;

    bdrv_cancel_in_flight(s->data_file->bs);
}

static int qbm_drv_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    return qbm_probe(buf, buf_size);
}

static BlockDriver bdrv_qbm = {
    .format_name = "qbm",
    .instance_size = sizeof(BDRVQbmState),
    .is_format = true,
    .create_opts = &qbm_drv_create_opts,
    .amend_opts = &qbm_drv_amend_opts,

    .bdrv_probe = qbm_drv_probe,
    .bdrv_open = qbm_drv_open,
    .bdrv_close = qbm_drv_close,
    .bdrv_inactivate = qbm_drv_inactivate,
    .bdrv_co_invalidate_cache = qbm_drv_co_invalidate_cache,
    .bdrv_reopen_prepare = qbm_drv_reopen_prepare,
    .bdrv_reopen_commit_post = qbm_drv_reopen_commit_post,
    .bdrv_reopen_abort = qbm_drv_reopen_abort,
    .bdrv_co_create = qbm_drv_co_create,
    .bdrv_co_create_opts = qbm_drv_co_create_opts,
    .bdrv_amend_options = qbm_drv_amend_options,
    .bdrv_co_amend = qbm_drv_co_amend,
    .bdrv_measure = qbm_drv_measure,
    .bdrv_co_check = qbm_drv_co_check,

    .bdrv_child_perm = qbm_drv_child_perm,
    .bdrv_gather_child_options = qbm_drv_gather_child_options,
    .bdrv_refresh_filename = qbm_drv_refresh_filename,
    .bdrv_cancel_in_flight = qbm_drv_cancel_in_flight,
    .bdrv_drain_end = qbm_drv_drain_end,

    .bdrv_co_preadv_part = qbm_drv_co_preadv_part,
    .bdrv_co_pwritev_part = qbm_drv_co_pwritev_part,
    .bdrv_co_pwrite_zeroes = qbm_drv_co_pwrite_zeroes,
    .bdrv_co_pdiscard = qbm_drv_co_pdiscard,
    .bdrv_co_copy_range_from = qbm_drv_co_copy_range_from,
    .bdrv_co_copy_range_to = qbm_drv_co_copy_range_to,
    .bdrv_co_block_status = qbm_drv_co_block_status,

    .bdrv_co_getlength = qbm_drv_co_getlength,
    .bdrv_co_truncate = qbm_drv_co_truncate,
    .bdrv_co_get_allocated_file_size = qbm_drv_co_get_allocated_file_size,

    .bdrv_co_get_info = qbm_drv_co_get_info,
    .bdrv_get_specific_info = qbm_drv_get_specific_info,
    .bdrv_has_zero_init = qbm_drv_has_zero_init,
    .bdrv_probe_blocksizes = qbm_drv_probe_blocksizes,
    .bdrv_probe_geometry = qbm_drv_probe_geometry,

    .bdrv_supports_persistent_dirty_bitmap =
        qbm_drv_supports_persistent_dirty_bitmap,
    .bdrv_co_can_store_new_dirty_bitmap = qbm_drv_co_can_store_new_dirty_bitmap,
    .bdrv_co_remove_persistent_dirty_bitmap =
        qbm_drv_co_remove_persistent_dirty_bitmap,
    .bdrv_dirty_bitmap_changed = qbm_drv_dirty_bitmap_changed,
};

static void qbm_drv_init(void)
{
    qbm_drv_init_paths();
    bdrv_register(&bdrv_qbm);
}

block_init(qbm_drv_init);
