/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: what its parts share
 *
 * libqbm decides and keeps everything that can be decided without QEMU: the
 * descriptor, the bitmap files, what must be recorded before a write.  The
 * driver moves the guest's data, and keeps QEMU's bitmaps and the library's
 * together.  I1 to I7 are the invariants of QBM's design document.
 *
 * The library's functions begin with qbm_, the driver's own with qbm_drv_.
 */

#ifndef BLOCK_QBM_INTERNAL_H
#define BLOCK_QBM_INTERNAL_H

#include "block/dirty-bitmap.h"
#include "qemu/coroutine.h"
#include "qbm-compat.h"
#include <qbm.h>

/* The option that names the data image, and the child that it is */
#define QBM_OPT_DATA_FILE   "data-file"

/* The name of an option for opening, and of one for creating and amending */
#define QBM_OPT_DURABILITY  "durability"
/* Another, whose name is written in the way of each */
#define QBM_OPT_PERSIST_BITMAPS         "persist-bitmaps"
#define QBM_OPT_STORED_PERSIST_BITMAPS  "persist_bitmaps"

/* The same for creating and amending */
#define QBM_OPT_DEF_DURABILITY                                      \
    {                                                               \
        .name = QBM_OPT_DURABILITY,                                 \
        .type = QEMU_OPT_STRING,                                    \
        .help = "What the bitmaps survive (close, process)",        \
    }
#define QBM_OPT_DEF_STORED_PERSIST_BITMAPS                          \
    {                                                               \
        .name = QBM_OPT_STORED_PERSIST_BITMAPS,                     \
        .type = QEMU_OPT_STRING,                                    \
        .help = "Which bitmaps are stored (marked, all)",           \
    }

/* Bits are moved between memory and library in pieces of this many bytes */
#define QBM_DRV_CHUNK 65536

#define QBM_DRV_ERROR_INIT { .size = sizeof(qbm_error) }

typedef struct BDRVQbmState {
    /* The data image.  NULL only with BDRV_O_NO_IO or BDRV_O_CHECK. */
    BdrvChild *data_file;
    /* The data image was named by the user, not by the descriptor */
    bool data_file_given;

    char *descriptor_path;      /* absolute */
    char *data_path;            /* as the descriptor has it, made absolute */
    /* With a data image that the user gave: its local file or "", else NULL */
    char *given_data_path;
    char *data_name;            /* tells the data image from others, and */
    char *opened_data_name;     /* the one that was opened */
    bool data_file_unsealed;    /* no seal would be of the data image alone */
    bool data_claimed;          /* nobody else may write to the data image */
    uint32_t durability;        /* QBM_DURABILITY_*, as the user asked for */
    uint32_t persist_bitmaps;   /* QBM_PERSIST_BITMAPS_*, likewise */
    bool trust_data;            /* the user vouches for the data image */

    /* NULL after an activation that could not open the descriptor again */
    qbm_image *image;
    /*
     * The library has a session of ours and records writes.  Changes only while
     * no write is in flight, or under @resume_lock from false to true.
     */
    bool writable;
    CoMutex resume_lock;

    /* The running reopen has ended our session (undo that on abort) */
    bool reopen_ended_session;
    /* The running reopen has made the data image writable (likewise) */
    bool reopen_opened_data;

    /* The BdrvDirtyBitmaps are just being made from the stored ones */
    bool loading_bitmaps;
    /* A transient BdrvDirtyBitmap is just being made persistent */
    bool adopting_bitmap;
    /* The names of those that could not be, as the user was told */
    GHashTable *unstored_names;
    /* The names of transient ones that were in memory while others wrote */
    GHashTable *doubtful_names;
    /* Our last session has ended, with this generation of the image, */
    bool has_left;
    uint64_t left_generation;
    /* and persistent BdrvDirtyBitmaps of these names stayed in memory. */
    GHashTable *stayed_names;
    /* Others have written to the image since, and the bitmaps missed that */
    bool stayed_are_behind;
    QEMUBH *drain_end_bh;
    QEMUBH *reconcile_bh;
} BDRVQbmState;

/* qbm.c */
int qbm_drv_set_error(Error **errp, int ret, const qbm_error *error);
void qbm_drv_report_notices(BDRVQbmState *s);

/* qbm-amend.c */
extern QemuOptsList qbm_drv_amend_opts;
int qbm_drv_parse_durability(const char *str, uint32_t *durability,
                             Error **errp);
int qbm_drv_parse_persist_bitmaps(const char *option, const char *str,
                                  uint32_t *persist_bitmaps, Error **errp);
int qbm_drv_parse_defaults(QemuOpts *opts, qbm_defaults *defaults,
                           Error **errp);
void qbm_drv_take_defaults(const QbmDurability *durability,
                           const QbmPersistBitmaps *persist_bitmaps,
                           qbm_defaults *defaults);
bool qbm_drv_persists_all(BDRVQbmState *s);
int GRAPH_RDLOCK
qbm_drv_amend_options(BlockDriverState *bs, QemuOpts *opts,
                      BlockDriverAmendStatusCB *status_cb, void *cb_opaque,
                      bool force, Error **errp);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_amend(BlockDriverState *bs, BlockdevAmendOptions *options,
                 bool force, Error **errp);

/* qbm-session.c */
int qbm_drv_open_descriptor(BlockDriverState *bs, Error **errp);
int qbm_drv_activate(BlockDriverState *bs, bool read_only, Error **errp);
int GRAPH_RDLOCK qbm_drv_inactivate(BlockDriverState *bs);
void GRAPH_RDLOCK qbm_drv_end_session(BlockDriverState *bs);
void qbm_drv_drain_end(BlockDriverState *bs);
void qbm_drv_drain_end_bh(void *opaque);
void GRAPH_RDLOCK qbm_drv_follow_data_file(BlockDriverState *bs);
void coroutine_fn GRAPH_RDLOCK
qbm_drv_co_invalidate_cache(BlockDriverState *bs, Error **errp);

/* qbm-reopen.c */
int GRAPH_UNLOCKED
qbm_drv_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                       Error **errp);
void GRAPH_UNLOCKED qbm_drv_reopen_commit_post(BDRVReopenState *state);
void GRAPH_UNLOCKED qbm_drv_reopen_abort(BDRVReopenState *state);

/* qbm-names.c */
void qbm_drv_init_paths(void);
char *qbm_drv_absolute_path(const char *filename);
char *qbm_drv_follow_link(char *path);
bool qbm_drv_is_plain_raw(BlockDriverState *bs);
int GRAPH_RDLOCK qbm_drv_local_path(BlockDriverState *bs, const char *what,
                                    char **path, Error **errp);
const char *qbm_drv_data_url(BDRVQbmState *s);
char * GRAPH_RDLOCK qbm_drv_data_file_path(BlockDriverState *bs);
char * GRAPH_RDLOCK qbm_drv_data_file_name(BlockDriverState *bs);

/* qbm-data-file.c */
bool qbm_drv_check_data_format(const char *format, Error **errp);
int no_coroutine_fn GRAPH_UNLOCKED
qbm_drv_open_data_file(BlockDriverState *bs, QDict *options, int flags,
                       Error **errp);
void GRAPH_RDLOCK qbm_drv_take_data_file(BlockDriverState *bs, bool given);
int GRAPH_RDLOCK qbm_drv_set_size(BlockDriverState *bs, Error **errp);

/* qbm-claim.c */
void qbm_drv_claim_for_stored(BlockDriverState *bs, int flags);
int GRAPH_RDLOCK qbm_drv_claim_data(BlockDriverState *bs, Error **errp);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_claim_data(BlockDriverState *bs, Error **errp);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_take_claim(BlockDriverState *bs, Error **errp);
void qbm_drv_claim_at_reopen(BlockDriverState *bs, bool read_only);
void GRAPH_RDLOCK qbm_drv_update_claim(BlockDriverState *bs);
void coroutine_fn GRAPH_RDLOCK qbm_drv_co_update_claim(BlockDriverState *bs);

/* qbm-check.c */
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix);

/* qbm-info.c */
BlockMeasureInfo *qbm_drv_measure(QemuOpts *opts, BlockDriverState *in_bs,
                                  Error **errp);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_get_info(BlockDriverState *bs, BlockDriverInfo *bdi);
ImageInfoSpecific * GRAPH_RDLOCK
qbm_drv_get_specific_info(BlockDriverState *bs, Error **errp);
int GRAPH_RDLOCK qbm_drv_has_zero_init(BlockDriverState *bs);
int GRAPH_RDLOCK
qbm_drv_probe_blocksizes(BlockDriverState *bs, BlockSizes *bsz);
int GRAPH_RDLOCK
qbm_drv_probe_geometry(BlockDriverState *bs, HDGeometry *geo);

/* qbm-io.c */
int coroutine_fn GRAPH_RDLOCK qbm_drv_co_ensure_writable(BlockDriverState *bs);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset,
                       BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_copy_range_from(BlockDriverState *bs,
                           BdrvChild *src, int64_t src_offset,
                           BdrvChild *dst, int64_t dst_offset,
                           int64_t bytes, BdrvRequestFlags read_flags,
                           BdrvRequestFlags write_flags);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_copy_range_to(BlockDriverState *bs,
                         BdrvChild *src, int64_t src_offset,
                         BdrvChild *dst, int64_t dst_offset,
                         int64_t bytes, BdrvRequestFlags read_flags,
                         BdrvRequestFlags write_flags);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                        int64_t bytes, int64_t *pnum, int64_t *map,
                        BlockDriverState **file);
int64_t coroutine_fn GRAPH_RDLOCK qbm_drv_co_getlength(BlockDriverState *bs);
int64_t coroutine_fn GRAPH_RDLOCK
qbm_drv_co_get_allocated_file_size(BlockDriverState *bs);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                    PreallocMode prealloc, BdrvRequestFlags flags,
                    Error **errp);

/* qbm-bitmap-load.c */
int qbm_drv_load_bitmaps(BlockDriverState *bs, bool only_missing, Error **errp);
void qbm_drv_release_bitmaps(BlockDriverState *bs);
void qbm_drv_set_bitmaps_readonly(BlockDriverState *bs);

/* qbm-bitmap-record.c */
int qbm_drv_ensure_stored(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                          Error **errp);
void qbm_drv_distrust_stored(BDRVQbmState *s, BdrvDirtyBitmap *bitmap);
void qbm_drv_drop_leaving_bitmaps(BlockDriverState *bs);
void qbm_drv_take_back_bitmaps(BlockDriverState *bs);

/* qbm-bitmap-store.c */
int qbm_drv_write_bits(BDRVQbmState *s, BdrvDirtyBitmap *bitmap, bool exact,
                       Error **errp);
void qbm_drv_doubt_transient(BlockDriverState *bs);
void qbm_drv_adopt_bitmap(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);
void qbm_drv_adopt_bitmaps(BlockDriverState *bs);
int qbm_drv_store_bitmaps(BlockDriverState *bs, Error **errp);
void qbm_drv_give_up_bitmaps(BlockDriverState *bs);

/* qbm-stayed.c */
void qbm_drv_remember_stayed(BlockDriverState *bs);
bool qbm_drv_is_as_left(BDRVQbmState *s);
void qbm_drv_doubt_stayed(BlockDriverState *bs);
int qbm_drv_follow_size(BlockDriverState *bs, int64_t old_size, Error **errp);
void qbm_drv_catch_up(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                      const qbm_bitmap_info *info);
void qbm_drv_give_up_stayed(BlockDriverState *bs);

/* qbm-bitmap.c */
bool qbm_drv_bitmap_is_busy(BdrvDirtyBitmap *bitmap);
GArray *qbm_drv_list_bitmaps(BDRVQbmState *s, Error **errp);
bool qbm_drv_bitmap_is_kept(BdrvDirtyBitmap *bitmap);
bool qbm_drv_bitmap_fits(uint64_t size, uint64_t granularity);
int qbm_drv_check_resize(BlockDriverState *bs, uint64_t new_size, Error **errp);
void qbm_drv_grow_bitmaps(BlockDriverState *bs, int64_t old_size,
                          int64_t new_size);
void qbm_drv_reconcile_bh(void *opaque);

bool qbm_drv_supports_persistent_dirty_bitmap(BlockDriverState *bs);
bool coroutine_fn GRAPH_RDLOCK
qbm_drv_co_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                      uint32_t granularity, Error **errp);
int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                          const char *name, Error **errp);
void qbm_drv_dirty_bitmap_changed(BlockDriverState *bs,
                                  BdrvDirtyBitmap *bitmap);

/* qbm-create.c */
/* Stands for the size of the data image, which exists */
#define QBM_DRV_SIZE_NOT_GIVEN  UINT64_MAX

extern QemuOptsList qbm_drv_create_opts;
int qbm_drv_parse_preallocation(const char *str, PreallocMode *prealloc,
                                Error **errp);
int coroutine_fn GRAPH_UNLOCKED
qbm_drv_co_create_opts(BlockDriver *drv, const char *filename, QemuOpts *opts,
                       Error **errp);
int coroutine_fn GRAPH_UNLOCKED
qbm_drv_co_create(BlockdevCreateOptions *options, Error **errp);

/* qbm-create-new.c */
int coroutine_fn
qbm_drv_co_create_files(const char *path, const qbm_create_args *args,
                        Error **errp);
int coroutine_fn GRAPH_UNLOCKED
qbm_drv_co_create_new(const char *path, qbm_create_args *args,
                      const BlockdevCreateOptionsFile *how, Error **errp);

/* qbm-create-over.c */
bool qbm_drv_has_adopted(void);
int coroutine_fn GRAPH_UNLOCKED
qbm_drv_co_create_over_file(const char *path, qbm_create_args *args,
                            const char *data_file, const char *format,
                            Error **errp);
int coroutine_fn GRAPH_UNLOCKED
qbm_drv_co_create_over_node(const char *path, qbm_create_args *args,
                            BlockDriverState *data_bs, Error **errp);

#endif /* BLOCK_QBM_INTERNAL_H */
