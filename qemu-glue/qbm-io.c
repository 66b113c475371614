/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: requests and the size of the image
 *
 * Everything goes to the data image.  What changes it is announced to libqbm
 * first, which records it, and reported afterwards.  Recording is quick and
 * done in place, unless it has to wait for a disk: then in a worker thread.
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "trace.h"
#include "qbm-internal.h"

typedef int QbmBeginFunc(qbm_image *image, uint64_t offset, uint64_t bytes,
                         qbm_ticket *ticket);
typedef int QbmWaitFunc(qbm_image *image, const qbm_ticket *ticket,
                        qbm_error *error);
typedef void QbmEndFunc(qbm_image *image, const qbm_ticket *ticket);

/* A kind of change to the data image, as the library wants to hear of it */
typedef struct QbmTracker {
    QbmBeginFunc *begin;
    QbmWaitFunc *wait;
    QbmEndFunc *end;
} QbmTracker;

static const QbmTracker track_write = {
    .begin = qbm_co_writev_begin,
    .wait = qbm_co_writev_wait,
    .end = qbm_co_writev_end,
};

static const QbmTracker track_write_zeroes = {
    .begin = qbm_co_write_zeroes_begin,
    .wait = qbm_co_write_zeroes_wait,
    .end = qbm_co_write_zeroes_end,
};

static const QbmTracker track_discard = {
    .begin = qbm_co_discard_begin,
    .wait = qbm_co_discard_wait,
    .end = qbm_co_discard_end,
};

static int activate_worker(void *opaque)
{
    BlockDriverState *bs = opaque;
    Error *local_err = NULL;
    int ret;

    ret = qbm_drv_activate(bs, false, &local_err);
    if (ret < 0) {
        error_reportf_err(local_err, "Cannot record writes to node '%s': ",
                          bdrv_get_node_name(bs));
    }
    return ret;
}

/*
 * When an inactivation fails after we took part in it (another node could not,
 * or a parent goes on writing), the block layer considers the node active and
 * lets writes come.  Start a session again then, before the first of them (I1),
 * and have the bitmaps loaded.
 */
int coroutine_fn qbm_drv_co_ensure_writable(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    int ret = 0;

    if (likely(qatomic_load_acquire(&s->writable))) {
        return 0;
    }

    qemu_co_mutex_lock(&s->resume_lock);
    if (!s->writable) {
        ret = thread_pool_submit_co(activate_worker, bs);
        if (ret >= 0) {
            /* From here on it is we who change the image */
            s->has_left = s->has_left && !qbm_drv_is_as_left(s);
            qemu_bh_schedule(s->reconcile_bh);
        }
    }
    qemu_co_mutex_unlock(&s->resume_lock);
    return ret;
}

typedef struct WaitCall {
    qbm_image *image;
    QbmWaitFunc *wait;
    const qbm_ticket *ticket;
} WaitCall;

static int wait_worker(void *opaque)
{
    WaitCall *call = opaque;

    return call->wait(call->image, call->ticket, NULL);
}

/*
 * Records a change of the data image before it is made (I1).  On success,
 * tracker->end must be called afterwards, whatever came of it.
 */
static int coroutine_fn GRAPH_RDLOCK
track_begin(BlockDriverState *bs, const QbmTracker *tracker, int64_t offset,
            int64_t bytes, qbm_ticket *ticket)
{
    BDRVQbmState *s = bs->opaque;
    WaitCall call;
    int ret;

    ret = qbm_drv_co_ensure_writable(bs);
    if (ret < 0) {
        return ret;
    }

    call = (WaitCall) {
        .image = s->image,
        .wait = tracker->wait,
        .ticket = ticket,
    };
    ret = tracker->begin(s->image, offset, bytes, ticket);
    if (ret == QBM_MUST_WAIT) {
        trace_qbm_write_wait(bs, offset, bytes);
        ret = thread_pool_submit_co(wait_worker, &call);
        if (ret < 0) {
            tracker->end(s->image, ticket);
        }
    }
    return ret;
}

int coroutine_fn
qbm_drv_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset,
                       BdrvRequestFlags flags)
{
    BDRVQbmState *s = bs->opaque;

    return bdrv_co_preadv_part(s->data_file, offset, bytes, qiov, qiov_offset,
                               flags);
}

/*
 * The size of the image changes by truncation only.  A format driver above us
 * that extends its file by writing past the end is told that it cannot.
 */
static bool is_beyond_end(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return offset + bytes > bs->total_sectors * BDRV_SECTOR_SIZE;
}

int coroutine_fn
qbm_drv_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        BdrvRequestFlags flags)
{
    BDRVQbmState *s = bs->opaque;
    qbm_ticket ticket;
    int ret;

    if (is_beyond_end(bs, offset, bytes)) {
        return -ENOSPC;
    }
    ret = track_begin(bs, &track_write, offset, bytes, &ticket);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pwritev_part(s->data_file, offset, bytes, qiov, qiov_offset,
                               flags);
    track_write.end(s->image, &ticket);
    return ret;
}

int coroutine_fn
qbm_drv_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         BdrvRequestFlags flags)
{
    BDRVQbmState *s = bs->opaque;
    qbm_ticket ticket;
    int ret;

    if (is_beyond_end(bs, offset, bytes)) {
        return -ENOSPC;
    }
    ret = track_begin(bs, &track_write_zeroes, offset, bytes, &ticket);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pwrite_zeroes(s->data_file, offset, bytes, flags);
    track_write_zeroes.end(s->image, &ticket);
    return ret;
}

int coroutine_fn
qbm_drv_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVQbmState *s = bs->opaque;
    qbm_ticket ticket;
    int ret;

    ret = track_begin(bs, &track_discard, offset, bytes, &ticket);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pdiscard(s->data_file, offset, bytes);
    track_discard.end(s->image, &ticket);
    return ret;
}

int coroutine_fn
qbm_drv_co_copy_range_from(BlockDriverState *bs,
                           BdrvChild *src, int64_t src_offset,
                           BdrvChild *dst, int64_t dst_offset,
                           int64_t bytes, BdrvRequestFlags read_flags,
                           BdrvRequestFlags write_flags)
{
    BDRVQbmState *s = bs->opaque;

    return bdrv_co_copy_range_from(s->data_file, src_offset, dst, dst_offset,
                                   bytes, read_flags, write_flags);
}

int coroutine_fn
qbm_drv_co_copy_range_to(BlockDriverState *bs,
                         BdrvChild *src, int64_t src_offset,
                         BdrvChild *dst, int64_t dst_offset,
                         int64_t bytes, BdrvRequestFlags read_flags,
                         BdrvRequestFlags write_flags)
{
    BDRVQbmState *s = bs->opaque;
    qbm_ticket ticket;
    int ret;

    if (is_beyond_end(bs, dst_offset, bytes)) {
        return -ENOSPC;
    }
    ret = track_begin(bs, &track_write, dst_offset, bytes, &ticket);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_copy_range_to(src, src_offset, s->data_file, dst_offset,
                                bytes, read_flags, write_flags);
    track_write.end(s->image, &ticket);
    return ret;
}

int coroutine_fn
qbm_drv_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                        int64_t bytes, int64_t *pnum, int64_t *map,
                        BlockDriverState **file)
{
    BDRVQbmState *s = bs->opaque;
    int ret;

    if (!bdrv_backing_chain_next(s->data_file->bs)) {
        *pnum = bytes;
        *map = offset;
        *file = s->data_file->bs;
        return BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
    }

    /*
     * A data image that has a backing file does not have all of its content
     * itself, but we have, and no backing file where others would look for it.
     */
    ret = bdrv_co_block_status_above(s->data_file->bs, NULL, offset, bytes,
                                     pnum, map, file);
    if (ret < 0) {
        return ret;
    }
    ret &= BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID |
           BDRV_BLOCK_COMPRESSED;
    return ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO) ?
        ret : ret | BDRV_BLOCK_DATA;
}

/* Size */

int64_t coroutine_fn
qbm_drv_co_getlength(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    qbm_info info = { .size = sizeof(info) };
    int ret;

    if (s->data_file) {
        return bdrv_co_getlength(s->data_file->bs);
    }
    ret = qbm_get_info(s->image, &info, NULL);
    return ret < 0 ? ret : info.image_size_bytes;
}

typedef struct TruncateCall {
    qbm_image *image;
    int (*func)(qbm_image *image, uint64_t size_bytes, qbm_error *error);
    uint64_t size;
    qbm_error error;
} TruncateCall;

static int truncate_worker(void *opaque)
{
    TruncateCall *call = opaque;

    return call->func(call->image, call->size, &call->error);
}

int coroutine_fn
qbm_drv_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                    PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    int64_t old_size = bs->total_sectors * BDRV_SECTOR_SIZE;
    int64_t new_size;
    TruncateCall call = { .error = QBM_DRV_ERROR_INIT };
    int ret, end_ret;

    ret = qbm_drv_check_resize(bs, offset, errp);
    if (ret < 0) {
        return ret;
    }
    ret = qbm_drv_co_ensure_writable(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot record the resize");
        return ret;
    }

    call.image = s->image;
    call.func = qbm_co_truncate_begin;
    call.size = offset;
    ret = thread_pool_submit_co(truncate_worker, &call);
    if (ret < 0) {
        return qbm_drv_set_error(errp, ret, &call.error);
    }

    ret = bdrv_co_truncate(s->data_file, offset, exact, prealloc, flags, errp);

    /* Even a failed resize may have changed the size */
    new_size = bdrv_co_getlength(s->data_file->bs);
    call.func = qbm_co_truncate_end;
    call.size = new_size < 0 ? old_size : new_size;
    end_ret = thread_pool_submit_co(truncate_worker, &call);
    if (end_ret < 0) {
        /* The guest has its new size; it is the bitmaps that suffer (I5) */
        warn_report("%s", call.error.message);
    }
    qbm_drv_report_notices(s);

    if (ret >= 0 && new_size > old_size) {
        qbm_drv_grow_bitmaps(bs, old_size, new_size);
    }
    return ret;
}

/* Without the data image (BDRV_O_NO_IO), ask the file system about it */
int64_t coroutine_fn
qbm_drv_co_get_allocated_file_size(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    int64_t descriptor_size, data_size;
    struct stat st;

    descriptor_size = bdrv_co_get_allocated_file_size(bs->file->bs);
    if (descriptor_size < 0) {
        return descriptor_size;
    }
    if (s->data_file) {
        data_size = bdrv_co_get_allocated_file_size(s->data_file->bs);
    } else if (stat(s->data_path, &st) < 0) {
        data_size = -errno;
    } else {
        data_size = (int64_t)st.st_blocks * 512;
    }
    return data_size < 0 ? data_size : descriptor_size + data_size;
}
