/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: the QEMU versions that it is built with
 *
 * The driver is written for QEMU 10.0.  All that it needs to know of QEMU 7.2
 * is here: headers, what has another name there, what is not there yet (the
 * graph lock and its annotations) and what is there still (AioContext locks).
 */

#ifndef BLOCK_QBM_COMPAT_H
#define BLOCK_QBM_COMPAT_H

#include "block/block_int.h"
#include "block/block-io.h"

#if QEMU_VERSION_MAJOR >= 10

#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "system/block-backend.h"

/* There are no AioContext locks any more */
static inline AioContext *qbm_drv_lock_context(BlockDriverState *bs)
{
    return NULL;
}

static inline void qbm_drv_unlock_context(AioContext *context)
{
}

static inline void
qbm_drv_copy_cluster_size(BlockDriverInfo *to, const BlockDriverInfo *from)
{
    to->cluster_size = from->cluster_size;
    to->subcluster_size = from->subcluster_size;
}

#else /* QEMU 7.2 */

#include "block/thread-pool.h"
#include "qapi/qmp/qdict.h"
#include "qapi/qmp/qstring.h"
#include "sysemu/block-backend.h"

/* For drained sections of functions that QEMU calls without the lock */
static inline AioContext *qbm_drv_lock_context(BlockDriverState *bs)
{
    AioContext *context = bdrv_get_aio_context(bs);

    aio_context_acquire(context);
    return context;
}

static inline void qbm_drv_unlock_context(AioContext *context)
{
    aio_context_release(context);
}

static inline void
qbm_drv_copy_cluster_size(BlockDriverInfo *to, const BlockDriverInfo *from)
{
    to->cluster_size = from->cluster_size;
}

/* The graph changes in the main thread only, with all requests drained */
#define GRAPH_RDLOCK
#define GRAPH_UNLOCKED
#define TSA_NO_TSA
#define no_coroutine_fn
#define GRAPH_RDLOCK_GUARD_MAINLOOP()  GLOBAL_STATE_CODE()
#define bdrv_graph_rdlock_main_loop()  GLOBAL_STATE_CODE()
#define bdrv_graph_rdunlock_main_loop()
#define bdrv_graph_co_rdlock()
#define bdrv_graph_co_rdunlock()
#define bdrv_graph_wrlock()
#define bdrv_graph_wrunlock()

/* Functions, and members of BlockDriver, that are called in coroutines, too */
#define bdrv_co_block_status_above      bdrv_block_status_above
#define bdrv_co_get_allocated_file_size bdrv_get_allocated_file_size
#define bdrv_co_get_info                bdrv_get_info
#define bdrv_co_getlength               bdrv_getlength
#define bdrv_co_open                    bdrv_open
#define bdrv_co_open_blockdev_ref       bdrv_open_blockdev_ref
#define bdrv_co_unref                   bdrv_unref
#define blk_co_new_with_bs              blk_new_with_bs
#define blk_co_unref                    blk_unref

/* This one is called in a coroutine here, and was not later */
#define bdrv_drain_end  bdrv_co_drain_end

#define BDRV_BLOCK_COMPRESSED  0    /* not told */

/* The pool is that of the thread that the coroutine runs in */
#define thread_pool_submit_co(func, arg) \
    thread_pool_submit_co( \
        aio_get_thread_pool(qemu_get_current_aio_context()), func, arg)

#endif

#endif /* BLOCK_QBM_COMPAT_H */
