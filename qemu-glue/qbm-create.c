/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: creating images, as qemu-img and QMP ask for it
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qapi/util.h"
#include "qemu/cutils.h"
#include "qemu/option.h"
#include "qbm-internal.h"

#define QBM_OPT_DATA_FILE_FORMAT  "data_file_format"

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
        QBM_OPT_DEF_DURABILITY,
        QBM_OPT_DEF_STORED_PERSIST_BITMAPS,
        {
            .name = BLOCK_OPT_PREALLOC,
            .type = QEMU_OPT_STRING,
            .help = "Preallocation mode of a new data image (allowed values: "
                    "off, falloc, full)",
        },
        { /* end of list */ }
    }
};

int qbm_drv_parse_preallocation(const char *str, PreallocMode *prealloc,
                                Error **errp)
{
    int mode = qapi_enum_parse(&PreallocMode_lookup, str,
                               str ? -1 : PREALLOC_MODE_OFF, NULL);

    if (mode < 0 || mode == PREALLOC_MODE_METADATA) {
        error_setg(errp, "preallocation must be 'off', 'falloc' or 'full', "
                   "not '%s'", str);
        return -EINVAL;
    }
    *prealloc = mode;
    return 0;
}

/* What holds for new data images and for others; without a size, it is NULL */
static int init_args(qbm_create_args *args, uint32_t flags,
                     const uint64_t *size, const qbm_defaults *defaults,
                     Error **errp)
{
    if (size && *size > BDRV_MAX_LENGTH) {
        error_setg(errp, "The image size is too large");
        return -EFBIG;
    }
    *args = (qbm_create_args) {
        .size = sizeof(*args),
        .flags = flags,
        .durability = defaults->durability,
        .image_size_bytes = size ? *size : QBM_DRV_SIZE_NOT_GIVEN,
        .persist_bitmaps = defaults->persist_bitmaps,
    };
    return 0;
}

/* Those of a new raw image, which make no sense for one that exists */
static int parse_data_options(QemuOpts *opts, bool is_new,
                              BlockdevCreateOptionsFile *how, Error **errp)
{
    const char *misplaced = NULL;
    int ret;

    ret = qbm_drv_parse_preallocation(qemu_opt_get(opts, BLOCK_OPT_PREALLOC),
                                      &how->preallocation, errp);
    if (ret < 0) {
        return ret;
    }
    how->has_preallocation = true;
    how->has_nocow = true;
    how->nocow = qemu_opt_get_bool(opts, BLOCK_OPT_NOCOW, false);
    how->has_extent_size_hint = qemu_opt_get(opts, BLOCK_OPT_EXTENT_SIZE_HINT);
    if (how->has_extent_size_hint) {
        how->extent_size_hint = qemu_opt_get_size(opts,
                                                  BLOCK_OPT_EXTENT_SIZE_HINT,
                                                  0);
    }

    if (!is_new && how->preallocation != PREALLOC_MODE_OFF) {
        misplaced = BLOCK_OPT_PREALLOC;
    } else if (!is_new && how->nocow) {
        misplaced = BLOCK_OPT_NOCOW;
    } else if (!is_new && how->has_extent_size_hint) {
        misplaced = BLOCK_OPT_EXTENT_SIZE_HINT;
    }
    if (misplaced) {
        error_setg(errp, "%s cannot be used with data_file: that image is left "
                   "as it is", misplaced);
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
    bool has_size = qemu_opt_get(opts, BLOCK_OPT_SIZE);
    uint64_t size = qemu_opt_get_size(opts, BLOCK_OPT_SIZE, 0);
    BlockdevCreateOptionsFile how = { 0 };
    qbm_defaults defaults;
    qbm_create_args args;
    int ret;

    ret = qbm_drv_parse_defaults(opts, &defaults, errp);
    if (ret < 0) {
        return ret;
    }
    ret = parse_data_options(opts, !data_file, &how, errp);
    if (ret < 0) {
        return ret;
    }
    if (!strstart(filename, "file:", &filename) && path_has_protocol(filename))
    {
        error_setg(errp, "A QBM descriptor must be a local file, not '%s'",
                   filename);
        return -EINVAL;
    }
    ret = init_args(&args, 0, has_size ? &size : NULL, &defaults, errp);
    if (ret < 0) {
        return ret;
    }
    if (data_file) {
        return qbm_drv_co_create_over_file(filename, &args, data_file, format,
                                           errp);
    }

    if (format) {
        error_setg(errp, "data_file_format is of use with data_file only");
        return -EINVAL;
    }
    if (!has_size) {
        error_setg(errp, "Image creation needs a size parameter");
        return -EINVAL;
    }
    how.size = ROUND_UP(size, BDRV_SECTOR_SIZE);
    return qbm_drv_co_create_new(filename, &args, &how, errp);
}

int coroutine_fn
qbm_drv_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsQbm *opts = &options->u.qbm;
    BlockDriverState *bs, *data_bs = NULL;
    BlockBackend *blk = NULL;
    g_autofree char *path = NULL;
    qbm_defaults defaults;
    qbm_create_args args;
    BlockdevCreateOptionsFile how = {
        .size = ROUND_UP(opts->size, BDRV_SECTOR_SIZE),
        .has_preallocation = opts->has_preallocation,
        .preallocation = opts->preallocation,
    };
    int ret;

    assert(options->driver == BLOCKDEV_DRIVER_QBM);

    qbm_drv_take_defaults(opts->has_durability ? &opts->durability : NULL,
                          opts->has_persist_bitmaps ?
                          &opts->persist_bitmaps : NULL, &defaults);
    ret = init_args(&args, QBM_CREATE_NO_LOCK, &opts->size, &defaults, errp);
    if (ret < 0) {
        return ret;
    }
    if (opts->has_preallocation &&
        qbm_drv_parse_preallocation(PreallocMode_str(opts->preallocation),
                                    &how.preallocation, errp) < 0)
    {
        return -EINVAL;
    }
    if (opts->data_file && how.preallocation != PREALLOC_MODE_OFF) {
        error_setg(errp, "preallocation cannot be used with data-file: that "
                   "image is left as it is");
        return -EINVAL;
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
        ret = qbm_drv_co_create_over_node(path, &args, data_bs, errp);
    } else {
        ret = qbm_drv_co_create_new(path, &args, &how, errp);
    }

out:
    blk_co_unref(blk);
    bdrv_co_unref(data_bs);
    bdrv_co_unref(bs);
    return ret;
}
