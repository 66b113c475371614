/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: creating images
 *
 * The library makes the descriptor and, unless an existing image is adopted,
 * the data image.  An adopted image is opened only to learn its format and
 * size, read-only: not a byte of it is written (I6).
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/option.h"
#include "qbm-internal.h"

#define QBM_OPT_DATA_FILE_FORMAT  "data_file_format"
#define QBM_OPT_DURABILITY        "durability"

QemuOptsList qbm_drv_create_opts = {
    .name = "qbm-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(qbm_drv_create_opts.head),
    .desc = {
        {
            .name = BLOCK_OPT_SIZE,
            .type = QEMU_OPT_SIZE,
            .help = "Virtual disk size",
        },
        {
            .name = BLOCK_OPT_DATA_FILE,
            .type = QEMU_OPT_STRING,
            .help = "File name of an existing image to adopt as it is "
                    "(default: a new raw image)",
        },
        {
            .name = QBM_OPT_DATA_FILE_FORMAT,
            .type = QEMU_OPT_STRING,
            .help = "Format of that image",
        },
        {
            .name = QBM_OPT_DURABILITY,
            .type = QEMU_OPT_STRING,
            .help = "What the bitmaps survive (close, process)",
        },
        { /* end of list */ }
    }
};

typedef struct CreateCall {
    const char *path;
    qbm_create_args args;
    char data_file[4096];
    qbm_error error;
} CreateCall;

static int create_worker(void *opaque)
{
    CreateCall *call = opaque;

    return qbm_create(call->path, &call->args, &call->error);
}

/* With data_file == NULL, makes a raw data image of @size bytes, too */
static int coroutine_fn
create_image(const char *path, uint32_t flags, uint64_t size,
             const char *data_file, const char *data_format,
             uint32_t durability, Error **errp)
{
    g_autofree CreateCall *call = g_new0(CreateCall, 1);
    int ret;

    call->path = path;
    call->error = (qbm_error) QBM_DRV_ERROR_INIT;
    call->args = (qbm_create_args) {
        .size = sizeof(call->args),
        .flags = flags,
        .durability = durability,
        .image_size_bytes = size,
        .data_file = data_file,
        .data_format = data_format,
        .data_file_out = call->data_file,
        .data_file_out_size = sizeof(call->data_file),
    };
    ret = thread_pool_submit_co(create_worker, call);
    if (ret < 0) {
        return qbm_drv_set_error(errp, ret, &call->error);
    }
    if (ret > 0) {
        info_report("'%s.raw' exists already and is left alone; the data image "
                    "of '%s' is '%s'", path, path, call->data_file);
    }
    return 0;
}

/*
 * Learns format and length of the image that is to be adopted.  If @format is
 * not given, the image must be raw: with any other format, a guest that writes
 * the header of an image into its raw disk could choose what we would open.
 */
static int64_t coroutine_fn GRAPH_UNLOCKED
examine_data_file(const char *filename, const char *format, Error **errp)
{
    ERRP_GUARD();
    BlockDriver *protocol;
    BlockDriverState *bs;
    QDict *options;
    int64_t size;

    if (format && !qbm_drv_check_data_format(format, errp)) {
        error_prepend(errp, "data_file_format: ");
        return -EINVAL;
    }
    protocol = bdrv_find_protocol(filename, false, errp);
    if (!protocol) {
        return -EINVAL;
    }

    options = qdict_new();
    if (format) {
        qdict_put_str(options, "driver", format);
    }
    qdict_put_str(options, "file.driver", protocol->format_name);
    qdict_put_str(options, "file.filename", filename);
    bs = bdrv_co_open(NULL, NULL, options, BDRV_O_NO_BACKING, errp);
    if (!bs) {
        return -EINVAL;
    }

    if (!format && strcmp(bs->drv->format_name, "raw")) {
        error_setg(errp, "'%s' looks like an image of format '%s'; say "
                   "data_file_format=%s if the guest shall see what is in that "
                   "image, or data_file_format=raw if it shall see the file as "
                   "it is", filename, bs->drv->format_name,
                   bs->drv->format_name);
        size = -EINVAL;
    } else {
        bdrv_graph_co_rdlock();
        size = bdrv_co_getlength(bs);
        bdrv_graph_co_rdunlock();
        if (size < 0) {
            error_setg_errno(errp, -size, "Cannot get the size of '%s'",
                             filename);
        }
    }
    bdrv_co_unref(bs);
    return size;
}

static int check_size(uint64_t size, int64_t data_size, const char *data_file,
                      Error **errp)
{
    if (ROUND_UP(size, BDRV_SECTOR_SIZE) != data_size) {
        error_setg(errp, "The size, %" PRIu64 " bytes, is not that of the data "
                   "image '%s', %" PRId64 " bytes", size, data_file, data_size);
        return -EINVAL;
    }
    return 0;
}

int coroutine_fn
qbm_drv_co_create_opts(BlockDriver *drv, const char *filename, QemuOpts *opts,
                       Error **errp)
{
    const char *format = qemu_opt_get(opts, QBM_OPT_DATA_FILE_FORMAT);
    const char *data_file = qemu_opt_get(opts, BLOCK_OPT_DATA_FILE);
    uint64_t size = qemu_opt_get_size(opts, BLOCK_OPT_SIZE, UINT64_MAX);
    uint32_t durability;
    int64_t data_size;
    int ret;

    ret = qbm_drv_parse_durability(qemu_opt_get(opts, QBM_OPT_DURABILITY),
                                   &durability, errp);
    if (ret < 0) {
        return ret;
    }
    if (!strstart(filename, "file:", &filename) && path_has_protocol(filename))
    {
        error_setg(errp, "A QBM descriptor must be a local file, not '%s'",
                   filename);
        return -EINVAL;
    }

    if (data_file && !data_file[0]) {
        error_setg(errp, "data_file is empty; it must name an image");
        return -EINVAL;
    }
    if (data_file) {
        g_autofree char *path = path_combine(filename, data_file);

        data_size = examine_data_file(path, format, errp);
        if (data_size < 0) {
            return data_size;
        }
        if (size != UINT64_MAX) {
            ret = check_size(size, data_size, path, errp);
            if (ret < 0) {
                return ret;
            }
        }
        return create_image(filename, 0, data_size, data_file,
                            format ?: "raw", durability, errp);
    }

    if (format) {
        error_setg(errp, "data_file_format is of use with data_file only");
        return -EINVAL;
    }
    if (size == UINT64_MAX) {
        error_setg(errp, "Image creation needs a size parameter");
        return -EINVAL;
    }
    if (size > BDRV_MAX_LENGTH) {
        error_setg(errp, "The image size is too large");
        return -EFBIG;
    }
    return create_image(filename, 0, ROUND_UP(size, BDRV_SECTOR_SIZE), NULL,
                        NULL, durability, errp);
}

/* Finds the local file, its format and length, that a node gives access to */
static int64_t coroutine_fn GRAPH_RDLOCK
examine_data_node(BlockDriverState *node, char **path, const char **format,
                  Error **errp)
{
    BlockDriverState *bs = bdrv_skip_filters(node);
    int64_t size;

    *format = "raw";
    if (!bs->drv->protocol_name) {
        *format = bs->drv->format_name;
        if (!qbm_drv_check_data_format(*format, errp)) {
            return -EINVAL;
        }
        if (!bs->file || (!strcmp(*format, "raw") && !qbm_drv_is_plain_raw(bs)))
        {
            error_setg(errp, "Node '%s' is not a whole image",
                       bdrv_get_node_name(bs));
            return -EINVAL;
        }
        bs = bs->file->bs;
    }
    size = qbm_drv_local_path(bs, "The data image of a new QBM image", path,
                              errp);
    if (size < 0) {
        return size;
    }
    size = bdrv_co_getlength(node);
    if (size < 0) {
        error_setg_errno(errp, -size, "Cannot get the size of '%s'", *path);
    }
    return size;
}

static int coroutine_fn GRAPH_UNLOCKED
create_with_node(const char *path, BlockDriverState *data_bs, uint64_t size,
                 uint32_t durability, Error **errp)
{
    g_autofree char *data_path = NULL;
    const char *format;
    int64_t data_size;
    int ret;

    bdrv_graph_co_rdlock();
    data_size = examine_data_node(data_bs, &data_path, &format, errp);
    bdrv_graph_co_rdunlock();
    if (data_size < 0) {
        return data_size;
    }
    ret = check_size(size, data_size, data_path, errp);
    if (ret < 0) {
        return ret;
    }
    return create_image(path, QBM_CREATE_NO_LOCK, data_size, data_path, format,
                        durability, errp);
}

int coroutine_fn
qbm_drv_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsQbm *opts = &options->u.qbm;
    BlockDriverState *bs, *data_bs = NULL;
    BlockBackend *blk = NULL;
    g_autofree char *path = NULL;
    uint32_t durability = QBM_DURABILITY_DEFAULT;
    int ret;

    assert(options->driver == BLOCKDEV_DRIVER_QBM);

    if (opts->has_durability) {
        durability = opts->durability == BLOCKDEV_QBM_DURABILITY_CLOSE ?
            QBM_DURABILITY_CLOSE : QBM_DURABILITY_PROCESS;
    }
    if (opts->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "The image size is too large");
        return -EFBIG;
    }

    bs = bdrv_co_open_blockdev_ref(opts->file, errp);
    if (!bs) {
        return -EIO;
    }
    /* For its locks, under which the library replaces what is in the file */
    blk = blk_co_new_with_bs(bs, BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL,
                             errp);
    if (!blk) {
        ret = -EPERM;
        goto out;
    }
    bdrv_graph_co_rdlock();
    ret = qbm_drv_local_path(bs, "A QBM descriptor", &path, errp);
    bdrv_graph_co_rdunlock();
    if (ret < 0) {
        goto out;
    }

    if (opts->data_file) {
        data_bs = bdrv_co_open_blockdev_ref(opts->data_file, errp);
        if (!data_bs) {
            ret = -EIO;
            goto out;
        }
        ret = create_with_node(path, data_bs, opts->size, durability, errp);
    } else {
        ret = create_image(path, QBM_CREATE_NO_LOCK,
                           ROUND_UP(opts->size, BDRV_SECTOR_SIZE), NULL, NULL,
                           durability, errp);
    }

out:
    blk_co_unref(blk);
    bdrv_co_unref(data_bs);
    bdrv_co_unref(bs);
    return ret;
}
