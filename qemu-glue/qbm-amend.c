/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: stored defaults, and their change
 *
 * The descriptor stores what holds when an image is opened without saying
 * otherwise: what the bitmaps survive, and which of them are stored at all.
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/option.h"
#include "trace.h"
#include "qbm-internal.h"

QemuOptsList qbm_drv_amend_opts = {
    .name = "qbm-amend-opts",
    .head = QTAILQ_HEAD_INITIALIZER(qbm_drv_amend_opts.head),
    .desc = {
        QBM_OPT_DEF_DURABILITY,
        QBM_OPT_DEF_STORED_PERSIST_BITMAPS,
        { /* end of list */ }
    }
};

int qbm_drv_parse_durability(const char *str, uint32_t *durability,
                             Error **errp)
{
    if (!str) {
        *durability = QBM_DURABILITY_DEFAULT;
    } else if (!strcmp(str, "close")) {
        *durability = QBM_DURABILITY_CLOSE;
    } else if (!strcmp(str, "process")) {
        *durability = QBM_DURABILITY_PROCESS;
    } else {
        error_setg(errp, "durability must be 'close' or 'process', not '%s'",
                   str);
        return -EINVAL;
    }
    return 0;
}

/* @option is the name that the user knows */
int qbm_drv_parse_persist_bitmaps(const char *option, const char *str,
                                  uint32_t *persist_bitmaps, Error **errp)
{
    if (!str) {
        *persist_bitmaps = QBM_PERSIST_BITMAPS_DEFAULT;
    } else if (!strcmp(str, "marked")) {
        *persist_bitmaps = QBM_PERSIST_BITMAPS_MARKED;
    } else if (!strcmp(str, "all")) {
        *persist_bitmaps = QBM_PERSIST_BITMAPS_ALL;
    } else {
        error_setg(errp, "%s must be 'marked' or 'all', not '%s'", option, str);
        return -EINVAL;
    }
    return 0;
}

/* From the options for creating and amending */
int qbm_drv_parse_defaults(QemuOpts *opts, qbm_defaults *defaults, Error **errp)
{
    int ret;

    defaults->size = sizeof(*defaults);
    ret = qbm_drv_parse_durability(qemu_opt_get(opts, QBM_OPT_DURABILITY),
                                   &defaults->durability, errp);
    if (ret < 0) {
        return ret;
    }
    return qbm_drv_parse_persist_bitmaps(
        QBM_OPT_STORED_PERSIST_BITMAPS,
        qemu_opt_get(opts, QBM_OPT_STORED_PERSIST_BITMAPS),
        &defaults->persist_bitmaps, errp);
}

/* The same from QMP; what was not given is NULL */
void qbm_drv_take_defaults(const QbmDurability *durability,
                           const QbmPersistBitmaps *persist_bitmaps,
                           qbm_defaults *defaults)
{
    *defaults = (qbm_defaults) { .size = sizeof(*defaults) };
    if (durability) {
        defaults->durability = *durability == BLOCKDEV_QBM_DURABILITY_CLOSE ?
            QBM_DURABILITY_CLOSE : QBM_DURABILITY_PROCESS;
    }
    if (persist_bitmaps) {
        defaults->persist_bitmaps =
            *persist_bitmaps == BLOCKDEV_QBM_PERSIST_BITMAPS_ALL ?
            QBM_PERSIST_BITMAPS_ALL : QBM_PERSIST_BITMAPS_MARKED;
    }
}

/* Are all bitmaps to be stored?  What the node was opened with wins. */
bool qbm_drv_persists_all(BDRVQbmState *s)
{
    qbm_info info = { .size = sizeof(info) };

    if (s->persist_bitmaps != QBM_PERSIST_BITMAPS_DEFAULT) {
        return s->persist_bitmaps == QBM_PERSIST_BITMAPS_ALL;
    }
    return qbm_get_info(s->image, &info, NULL) >= 0 &&
           info.persist_bitmaps == QBM_PERSIST_BITMAPS_ALL;
}

typedef struct AmendCall {
    qbm_image *image;
    qbm_defaults defaults;
    qbm_error error;
} AmendCall;

static int amend_worker(void *opaque)
{
    AmendCall *call = opaque;

    return qbm_set_defaults(call->image, &call->defaults, &call->error);
}

static int check_amendable(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    const char *reason = NULL;

    if (bdrv_is_read_only(bs)) {
        reason = "No write access";
    } else if (bs->open_flags & BDRV_O_INACTIVE) {
        reason = "The node is inactive";
    }
    if (reason) {
        error_setg(errp, "Cannot amend '%s': %s", s->descriptor_path, reason);
        return -EACCES;
    }
    return 0;
}

/* For qemu-img */
int qbm_drv_amend_options(BlockDriverState *bs, QemuOpts *opts,
                          BlockDriverAmendStatusCB *status_cb, void *cb_opaque,
                          bool force, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    AmendCall call = {
        .image = s->image,
        .error = QBM_DRV_ERROR_INIT,
    };
    int ret;

    GLOBAL_STATE_CODE();

    ret = check_amendable(bs, errp);
    if (ret >= 0) {
        ret = qbm_drv_parse_defaults(opts, &call.defaults, errp);
    }
    if (ret < 0) {
        return ret;
    }
    trace_qbm_amend(bs, call.defaults.durability,
                    call.defaults.persist_bitmaps);
    ret = amend_worker(&call);
    return ret < 0 ? qbm_drv_set_error(errp, ret, &call.error) : 0;
}

typedef struct AdoptCall {
    BlockDriverState *bs;
    Coroutine *co;
} AdoptCall;

static void adopt_bh(void *opaque)
{
    AdoptCall *call = opaque;

    qbm_drv_adopt_bitmaps(call->bs);
    aio_co_wake(call->co);
}

/* For x-blockdev-amend, whose job runs in the context of the node */
int coroutine_fn
qbm_drv_co_amend(BlockDriverState *bs, BlockdevAmendOptions *options,
                 bool force, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    BlockdevAmendOptionsQbm *opts = &options->u.qbm;
    AmendCall call = { .error = QBM_DRV_ERROR_INIT };
    AdoptCall adopt = { .bs = bs, .co = qemu_coroutine_self() };
    int ret;

    ret = check_amendable(bs, errp);
    if (ret < 0) {
        return ret;
    }
    qbm_drv_take_defaults(opts->has_durability ? &opts->durability : NULL,
                          opts->has_persist_bitmaps ?
                          &opts->persist_bitmaps : NULL, &call.defaults);

    /* Whoever ends the session drains the node first */
    bdrv_inc_in_flight(bs);
    ret = qbm_drv_co_ensure_writable(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot amend '%s'", s->descriptor_path);
        goto out;
    }
    trace_qbm_amend(bs, call.defaults.durability,
                    call.defaults.persist_bitmaps);
    call.image = s->image;
    ret = thread_pool_submit_co(amend_worker, &call);
    if (ret < 0) {
        qbm_drv_set_error(errp, ret, &call.error);
        goto out;
    }
    /* Bitmaps that are there become persistent, too, and before the job ends */
    aio_bh_schedule_oneshot(qemu_get_aio_context(), adopt_bh, &adopt);
    qemu_coroutine_yield();

out:
    bdrv_dec_in_flight(bs);
    return ret;
}
