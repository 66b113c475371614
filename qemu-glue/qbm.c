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
#include "block/block-io.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "trace.h"
#include "qbm-internal.h"

#define QBM_OPT_DATA_FILE   "data-file"
#define QBM_OPT_DURABILITY  "durability"
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
            .name = QBM_OPT_TRUST_DATA,
            .type = QEMU_OPT_BOOL,
            .help = "keep bitmaps although the data image was changed while "
                    "the image was closed (default: off)",
        },
        { /* end of list */ }
    },
};

static BlockDriver bdrv_qbm;

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
        warn_report("%s", buf);
    }
}

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

/* Does a "raw" node give access to all of its file, and so changes nothing? */
bool qbm_drv_is_plain_raw(BlockDriverState *bs)
{
    return !strcmp(bs->drv->format_name, "raw") &&
           !qdict_haskey(bs->options, "offset") &&
           !qdict_haskey(bs->options, "size");
}

/*
 * Finds the absolute path of the local file that the protocol node under @bs
 * has open, because the library opens it by name.  @what names it in errors.
 */
int qbm_drv_local_path(BlockDriverState *bs, const char *what, char **path,
                       Error **errp)
{
    BlockDriverState *file_bs = bdrv_skip_filters(bs);
    const char *filename;
    g_autofree char *directory = NULL;

    while (qbm_drv_is_plain_raw(file_bs)) {
        file_bs = bdrv_skip_filters(file_bs->file->bs);
    }
    filename = qdict_get_try_str(file_bs->options, "filename");

    if (strcmp(file_bs->drv->format_name, "file") || !filename) {
        error_setg(errp, "%s must be a local file; node '%s' is of type '%s'",
                   what, bdrv_get_node_name(file_bs),
                   file_bs->drv->format_name);
        return -EINVAL;
    }
    if (strstart(filename, "/dev/fdset/", NULL)) {
        error_setg(errp, "%s must be a file with a name, not a passed file "
                   "descriptor", what);
        return -EINVAL;
    }
    if (path_is_absolute(filename)) {
        *path = g_strdup(filename);
        return 0;
    }
    /* Activation after a migration opens it again, maybe from elsewhere */
    directory = g_get_current_dir();
    *path = g_build_filename(directory, filename, NULL);
    return 0;
}

/*
 * A descriptor is untrusted: the format it names for its data image must be
 * one, not a protocol, nor a filter or a node made for tests.
 */
bool qbm_drv_check_data_format(const char *format, Error **errp)
{
    BlockDriver *drv = bdrv_find_format(format);

    if (!drv || !drv->is_format || drv->protocol_name) {
        error_setg(errp, "this QEMU has no image format '%s'", format);
        return false;
    }
    if (drv == &bdrv_qbm) {
        error_setg(errp, "a QBM image cannot be the data image of another");
        return false;
    }
    return true;
}

/* Opening and closing */

static int open_descriptor(BlockDriverState *bs, Error **errp)
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
    qbm_drv_report_notices(s);
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

/*
 * Opens the image that the descriptor names, as a node of its own.
 *
 * It does not inherit from @bs: blockdev-reopen would want all of its options
 * repeated then.  So that a reopen of @bs from read-only to writable needs no
 * reopen of this node, it is always open for writing, but for raw images this
 * means only that they can become so: auto-read-only leaves the file open
 * read-only, and unlocked for others to read, until there is a writer.  Other
 * formats may write to an image just because they may.
 */
static BlockDriverState *
open_stored_data_file(BlockDriverState *bs, const qbm_info *info, int flags,
                      Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    bool raw = !strcmp(info->data_format, "raw");
    bool read_only = bs->force_share || (!raw && bdrv_is_read_only(bs));
    struct stat data_st, descriptor_st;
    BlockDriver *protocol;
    QDict *options;

    if (!qbm_drv_check_data_format(info->data_format, errp)) {
        return NULL;
    }
    if (strstart(info->data_file, "/dev/fdset/", NULL)) {
        error_setg(errp, "its name means a passed file descriptor");
        return NULL;
    }
    if (stat(s->descriptor_path, &descriptor_st) == 0 &&
        stat(info->data_file, &data_st) == 0 &&
        descriptor_st.st_dev == data_st.st_dev &&
        descriptor_st.st_ino == data_st.st_ino)
    {
        error_setg(errp, "it is the descriptor itself");
        return NULL;
    }

    /* Protocol prefixes and json: have no meaning in a descriptor */
    protocol = bdrv_find_protocol(info->data_file, false, errp);
    if (!protocol) {
        return NULL;
    }

    options = qdict_new();
    qdict_put_str(options, "driver", info->data_format);
    qdict_put_str(options, "file.driver", protocol->format_name);
    qdict_put_str(options, "file.filename", info->data_file);
    qdict_put_str(options, BDRV_OPT_READ_ONLY, read_only ? "on" : "off");
    qdict_put_str(options, BDRV_OPT_AUTO_READ_ONLY,
                  raw && !read_only ? "on" : "off");
    qdict_put_str(options, BDRV_OPT_FORCE_SHARE,
                  bs->force_share ? "on" : "off");
    qdict_put_str(options, BDRV_OPT_DISCARD, "unmap");
    flags &= BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_NATIVE_AIO |
             BDRV_O_IO_URING | BDRV_O_NO_IO | BDRV_O_INACTIVE;
    return bdrv_open(NULL, NULL, options, flags, errp);
}

/* Is the node that the user named of the format that the descriptor names? */
static bool GRAPH_RDLOCK
check_given_data_file(BlockDriverState *bs, const qbm_info *info, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    BlockDriverState *data_bs = bdrv_skip_filters(s->data_file->bs);
    const char *format = data_bs->drv->protocol_name ?
        "raw" : data_bs->drv->format_name;

    if (strcmp(format, info->data_format)) {
        error_setg(errp, "Node '%s' gives access to an image of format '%s', "
                   "but the data image of '%s' is of format '%s'",
                   bdrv_get_node_name(data_bs), format, s->descriptor_path,
                   info->data_format);
        return false;
    }
    return true;
}

static int no_coroutine_fn GRAPH_UNLOCKED
open_data_file(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    ERRP_GUARD();
    BDRVQbmState *s = bs->opaque;
    qbm_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;
    BlockDriverState *data_bs;
    int ret;

    ret = qbm_get_info(s->image, &info, &error);
    if (ret < 0) {
        return qbm_drv_set_error(errp, ret, &error);
    }
    s->data_path = g_strdup(info.data_file);

    if ((flags & BDRV_O_NO_IO) && (info.flags & QBM_INFO_SIZE_KNOWN)) {
        /* Without I/O, the descriptor tells all there is to know */
        qdict_extract_subqdict(options, NULL, QBM_OPT_DATA_FILE ".");
        qdict_del(options, QBM_OPT_DATA_FILE);
        return 0;
    }

    s->data_file = bdrv_open_child(NULL, options, QBM_OPT_DATA_FILE, bs,
                                   &child_of_bds, BDRV_CHILD_DATA, true, errp);
    if (*errp) {
        return -EINVAL;
    }
    if (s->data_file) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        s->data_file_given = true;
        /* Only of a local file can the library see whether it was changed */
        if (qbm_drv_local_path(s->data_file->bs, "The data image",
                               &s->given_data_path, NULL) < 0) {
            s->given_data_path = g_strdup("");
        }
        return check_given_data_file(bs, &info, errp) ? 0 : -EINVAL;
    }

    data_bs = open_stored_data_file(bs, &info, flags, errp);
    if (!data_bs) {
        error_prepend(errp, "Cannot open the data image '%s' of '%s': ",
                      info.data_file, s->descriptor_path);
        return -EINVAL;
    }
    bdrv_graph_wrlock();
    s->data_file = bdrv_attach_child(bs, data_bs, QBM_OPT_DATA_FILE,
                                     &child_of_bds, BDRV_CHILD_DATA, errp);
    bdrv_graph_wrunlock();
    return s->data_file ? 0 : -EINVAL;
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
        s->trust_data = qemu_opt_get_bool(opts, QBM_OPT_TRUST_DATA, false);
    }
    qemu_opts_del(opts);
    return ret;
}

/* Learns the size of the data image, which is the size of ours */
static int GRAPH_RDLOCK set_size(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    int64_t size = bdrv_getlength(s->data_file->bs);

    if (size < 0) {
        error_setg_errno(errp, -size, "Cannot get the size of the data image "
                         "'%s'", s->data_path);
        return size;
    }
    bs->total_sectors = size / BDRV_SECTOR_SIZE;
    return 0;
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
    g_free(s->descriptor_path);
    g_free(s->data_path);
    g_free(s->given_data_path);
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
    trace_qbm_open(bs, s->descriptor_path, flags);
    s->reconcile_bh = aio_bh_new(iohandler_get_aio_context(),
                                 qbm_drv_reconcile_bh, bs);

    ret = open_descriptor(bs, errp);
    if (ret < 0) {
        goto fail;
    }
    ret = open_data_file(bs, options, flags, errp);
    if (ret < 0) {
        goto fail;
    }

    bdrv_graph_rdlock_main_loop();
    if (s->data_file) {
        take_over_flags(bs);
        ret = set_size(bs, errp);
    }
    if (ret >= 0 && !(flags & (BDRV_O_NO_IO | BDRV_O_INACTIVE))) {
        ret = qbm_drv_activate(bs, bdrv_is_read_only(bs), errp);
        if (ret >= 0) {
            ret = qbm_drv_load_bitmaps(bs, false, errp);
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

/*
 * Ends the session.  The BdrvDirtyBitmaps of stored bitmaps go with it, since
 * others may change the image from now on.
 */
static int GRAPH_RDLOCK qbm_drv_inactivate(BlockDriverState *bs)
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
    if (s->writable) {
        ret = qbm_drv_store_bitmaps(bs, &local_err);
        qbm_drv_drop_leaving_bitmaps(bs);
        qatomic_store_release(&s->writable, false);
    }
    if (qbm_inactivate(s->image, &error) < 0 && ret >= 0) {
        error_setg(&local_err, "%s", error.message);
        ret = -EINVAL;
    }
    qbm_drv_report_notices(s);
    qbm_drv_release_bitmaps(bs);
    bdrv_drained_end(bs);

    if (ret < 0) {
        error_reportf_err(local_err, "Lost persistent bitmaps during "
                          "inactivation of node '%s': ",
                          bdrv_get_device_or_node_name(bs));
    }
    return ret;
}

static void GRAPH_UNLOCKED qbm_drv_close(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (s->writable) {
        qbm_drv_inactivate(bs);
    }
    /* The data image is a child and closed as such */
    close_state(s);
}

static void coroutine_fn GRAPH_RDLOCK
qbm_drv_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    BDRVQbmState *s = bs->opaque;
    qbm_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;

    /* Whoever had the image in the meantime has changed the descriptor */
    qbm_close(s->image, NULL);
    s->image = NULL;
    if (open_descriptor(bs, errp) < 0) {
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
    if (set_size(bs, errp) < 0 ||
        qbm_drv_activate(bs, bdrv_is_read_only(bs), errp) < 0 ||
        qbm_drv_load_bitmaps(bs, false, errp) < 0)
    {
        error_prepend(errp, "Could not activate '%s': ", s->descriptor_path);
        return;
    }
    qemu_bh_schedule(s->reconcile_bh);
}

/* Reopening */

/* Ends the session, but keeps the image open for reading */
static int GRAPH_RDLOCK make_read_only(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    int ret;

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
    if (strcmp(path, s->descriptor_path)) {
        error_setg(errp, "Cannot change the descriptor from '%s' to '%s'",
                   s->descriptor_path, path);
        return -EINVAL;
    }
    return 0;
}

static void GRAPH_UNLOCKED qbm_drv_reopen_abort(BDRVReopenState *state)
{
    BlockDriverState *bs = state->bs;
    BDRVQbmState *s = bs->opaque;

    if (s->reopen_opened_data) {
        s->reopen_opened_data = false;
        bdrv_reopen_set_read_only(s->data_file->bs, true, NULL);
    }
    if (s->reopen_ended_session) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        s->reopen_ended_session = false;
        make_writable(bs);
    }
}

static int GRAPH_UNLOCKED
qbm_drv_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
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

    if (ret < 0) {
        /* The block layer undoes only what was prepared with success */
        qbm_drv_reopen_abort(state);
    }
    return ret;
}

static void GRAPH_UNLOCKED qbm_drv_reopen_commit_post(BDRVReopenState *state)
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

/* Children */

static void qbm_drv_child_perm(BlockDriverState *bs, BdrvChild *c,
                               BdrvChildRole role,
                               BlockReopenQueue *reopen_queue,
                               uint64_t parent_perm, uint64_t parent_shared,
                               uint64_t *nperm, uint64_t *nshared)
{
    bdrv_default_perms(bs, c, role, reopen_queue, parent_perm, parent_shared,
                       nperm, nshared);
    if (role & BDRV_CHILD_DATA) {
        /* As raw does: what is written there is what the parents write */
        *nperm &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
        *nperm |= parent_perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE);
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

static BlockMeasureInfo *qbm_drv_measure(QemuOpts *opts,
                                         BlockDriverState *in_bs, Error **errp)
{
    BlockMeasureInfo *info;
    int64_t required;

    if (in_bs) {
        required = bdrv_getlength(in_bs);
        if (required < 0) {
            error_setg_errno(errp, -required, "Unable to get image size");
            return NULL;
        }
    } else {
        required = ROUND_UP(qemu_opt_get_size_del(opts, BLOCK_OPT_SIZE, 0),
                            BDRV_SECTOR_SIZE);
    }

    /* That of the raw image; the rest is small and of no fixed size */
    info = g_new0(BlockMeasureInfo, 1);
    info->required = required;
    info->fully_allocated = info->required;
    return info;
}

/* What the image is like */

static int qbm_drv_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    return qbm_probe(buf, buf_size);
}

static int coroutine_fn GRAPH_RDLOCK
qbm_drv_co_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    BDRVQbmState *s = bs->opaque;
    BlockDriverInfo data_bdi;

    /* Only what concerns I/O; snapshots and the like stay in the data image */
    if (s->data_file && bdrv_co_get_info(s->data_file->bs, &data_bdi) >= 0) {
        bdi->cluster_size = data_bdi.cluster_size;
        bdi->subcluster_size = data_bdi.subcluster_size;
    }
    return 0;
}

static QbmBitmapInfoList *list_bitmap_info(const GArray *bitmaps, bool ours)
{
    QbmBitmapInfoList *list = NULL, **tail = &list;
    guint i;

    for (i = 0; i < bitmaps->len; i++) {
        const qbm_bitmap_info *bitmap = &g_array_index(bitmaps, qbm_bitmap_info,
                                                       i);
        QbmBitmapInfo *info = g_new0(QbmBitmapInfo, 1);
        QbmBitmapInfoFlagsList **flags_tail = &info->flags;
        bool inconsistent = bitmap->flags & QBM_BITMAP_INCONSISTENT;

        info->name = g_strdup(bitmap->name);
        info->granularity = MIN(bitmap->granularity_bytes, UINT32_MAX);
        if (inconsistent) {
            QAPI_LIST_APPEND(flags_tail, QBM_BITMAP_INFO_FLAGS_INCONSISTENT);
        } else if (ours || (bitmap->flags & QBM_BITMAP_IN_USE)) {
            /* Like qcow2, tell what the image says: we are using it */
            QAPI_LIST_APPEND(flags_tail, QBM_BITMAP_INFO_FLAGS_IN_USE);
        }
        if (bitmap->flags & QBM_BITMAP_RECORDING) {
            QAPI_LIST_APPEND(flags_tail, QBM_BITMAP_INFO_FLAGS_AUTO);
        }
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

static ImageInfoSpecific * GRAPH_RDLOCK
qbm_drv_get_specific_info(BlockDriverState *bs, Error **errp)
{
    BDRVQbmState *s = bs->opaque;
    qbm_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;
    g_autoptr(GArray) bitmaps = NULL;
    ImageInfoSpecific *spec_info;
    ImageInfoSpecificQbm *data;
    int ret;

    if (!s->image) {
        error_setg(errp, "Descriptor '%s' is not open", s->descriptor_path);
        return NULL;
    }
    ret = qbm_get_info(s->image, &info, &error);
    if (ret < 0) {
        qbm_drv_set_error(errp, ret, &error);
        return NULL;
    }
    bitmaps = qbm_drv_list_bitmaps(s, errp);
    if (!bitmaps) {
        return NULL;
    }

    data = g_new0(ImageInfoSpecificQbm, 1);
    data->data_file = g_strdup(info.data_file);
    data->data_file_format = g_strdup(info.data_format);
    data->durability = info.durability == QBM_DURABILITY_CLOSE ?
        BLOCKDEV_QBM_DURABILITY_CLOSE : BLOCKDEV_QBM_DURABILITY_PROCESS;
    data->bitmaps = list_bitmap_info(bitmaps, s->writable);
    data->has_bitmaps = data->bitmaps;

    spec_info = g_new0(ImageInfoSpecific, 1);
    spec_info->type = IMAGE_INFO_SPECIFIC_KIND_QBM;
    spec_info->u.qbm.data = data;
    return spec_info;
}

static int GRAPH_RDLOCK qbm_drv_has_zero_init(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;

    return s->data_file && bdrv_has_zero_init(s->data_file->bs);
}

static int GRAPH_RDLOCK
qbm_drv_probe_blocksizes(BlockDriverState *bs, BlockSizes *bsz)
{
    BDRVQbmState *s = bs->opaque;

    return bdrv_probe_blocksizes(s->data_file->bs, bsz);
}

static int GRAPH_RDLOCK
qbm_drv_probe_geometry(BlockDriverState *bs, HDGeometry *geo)
{
    BDRVQbmState *s = bs->opaque;

    return bdrv_probe_geometry(s->data_file->bs, geo);
}

static BlockDriver bdrv_qbm = {
    .format_name = "qbm",
    .instance_size = sizeof(BDRVQbmState),
    .is_format = true,
    .create_opts = &qbm_drv_create_opts,

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
    .bdrv_measure = qbm_drv_measure,

    .bdrv_child_perm = qbm_drv_child_perm,
    .bdrv_gather_child_options = qbm_drv_gather_child_options,
    .bdrv_refresh_filename = qbm_drv_refresh_filename,
    .bdrv_cancel_in_flight = qbm_drv_cancel_in_flight,

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
    bdrv_register(&bdrv_qbm);
}

block_init(qbm_drv_init);
