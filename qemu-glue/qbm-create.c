/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: creating images
 *
 * The library makes the descriptor; a new data image is made as any raw image
 * is, by the file driver.  An adopted image is opened only to learn its format
 * and size, read-only: not a byte of it is written (I6).
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qapi/util.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/option.h"
#include "qbm-internal.h"

#define QBM_OPT_DATA_FILE_FORMAT  "data_file_format"

/* How many names are tried for a new data image, as the library does */
#define DATA_NAMES_MAX  10000

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
        {
            .name = QBM_OPT_STORED_PERSIST_BITMAPS,
            .type = QEMU_OPT_STRING,
            .help = "Which bitmaps are stored (marked, all)",
        },
        {
            .name = BLOCK_OPT_PREALLOC,
            .type = QEMU_OPT_STRING,
            .help = "Preallocation mode of a new data image (allowed values: "
                    "off, falloc, full)",
        },
        { /* end of list */ }
    }
};

/* Descriptors that this process made over images that had existed before */
static GHashTable *adopted;

static char *absolute_path(const char *path)
{
    g_autofree char *directory = g_get_current_dir();

    return path_is_absolute(path) ? g_strdup(path) :
        g_build_filename(directory, path, NULL);
}

static void remember_adopted(const char *path, bool is_adopted)
{
    g_autofree char *absolute = absolute_path(path);

    GLOBAL_STATE_CODE();

    if (!adopted) {
        adopted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    if (is_adopted) {
        g_hash_table_add(adopted, g_steal_pointer(&absolute));
    } else {
        g_hash_table_remove(adopted, absolute);
    }
}

/*
 * Did this process make the descriptor @path over an existing image?  Who has
 * just made an image, as qemu-img convert has, must not take it for empty then.
 */
bool qbm_drv_adopted_here(const char *path)
{
    GLOBAL_STATE_CODE();
    return adopted && g_hash_table_contains(adopted, path);
}

int qbm_drv_parse_preallocation(const char *str, PreallocMode *prealloc,
                                Error **errp)
{
    int mode = qapi_enum_parse(&PreallocMode_lookup, str, PREALLOC_MODE_OFF,
                               NULL);

    /* What cannot be parsed gives the default */
    if (str && (mode == PREALLOC_MODE_METADATA ||
                strcmp(str, PreallocMode_str(mode)))) {
        error_setg(errp, "preallocation must be 'off', 'falloc' or 'full', "
                   "not '%s'", str);
        return -EINVAL;
    }
    *prealloc = mode;
    return 0;
}

typedef struct CreateCall {
    const char *path;
    qbm_create_args args;
    qbm_error error;
} CreateCall;

static int create_worker(void *opaque)
{
    CreateCall *call = opaque;

    return qbm_create(call->path, &call->args, &call->error);
}

/* Makes the descriptor of the data image @data_file */
static int coroutine_fn
create_descriptor(const char *path, uint32_t flags, uint64_t size,
                  const char *data_file, const char *data_format,
                  const qbm_defaults *defaults, Error **errp)
{
    g_autofree CreateCall *call = g_new0(CreateCall, 1);
    int ret;

    call->path = path;
    call->error = (qbm_error) QBM_DRV_ERROR_INIT;
    call->args = (qbm_create_args) {
        .size = sizeof(call->args),
        .flags = flags,
        .durability = defaults->durability,
        .image_size_bytes = size,
        .data_file = data_file,
        .data_format = data_format,
        .persist_bitmaps = defaults->persist_bitmaps,
    };
    ret = thread_pool_submit_co(create_worker, call);
    return ret < 0 ? qbm_drv_set_error(errp, ret, &call->error) : 0;
}

/*
 * Makes an empty file beside the descriptor, under a name that was free, and
 * returns it open.  A name that is taken is left alone, whatever it leads to.
 */
static int reserve_data_file(const char *descriptor, char **path, Error **errp)
{
    g_autofree char *name = NULL;
    int number, fd;

    for (number = 0; number < DATA_NAMES_MAX; number++) {
        Error *local_err = NULL;

        g_free(name);
        name = number ? g_strdup_printf("%s.%d.raw", descriptor, number) :
            g_strdup_printf("%s.raw", descriptor);
        fd = qemu_create(name, O_RDWR | O_EXCL | O_BINARY, 0644, &local_err);
        if (fd >= 0) {
            if (number) {
                info_report("'%s.raw' exists already and is left alone; the "
                            "data image of '%s' is '%s'", descriptor,
                            descriptor, name);
            }
            *path = g_steal_pointer(&name);
            return fd;
        }
        if (errno != EEXIST) {
            int ret = -errno;

            error_propagate(errp, local_err);
            return ret;
        }
        error_free(local_err);
    }
    error_setg(errp, "All %d names for a data image of '%s' are taken",
               DATA_NAMES_MAX, descriptor);
    return -EEXIST;
}

static int sync_worker(void *opaque)
{
    int *fd = opaque;

    return qemu_fdatasync(*fd) < 0 ? -errno : 0;
}

/*
 * Makes a raw data image as @how says, whose filename is made up here, and a
 * descriptor for it.  After an error nothing new is left.
 */
static int coroutine_fn GRAPH_UNLOCKED
create_with_new_data(const char *path, uint32_t flags,
                     const BlockdevCreateOptionsFile *how,
                     const qbm_defaults *defaults, Error **errp)
{
    BlockdevCreateOptions options = {
        .driver = BLOCKDEV_DRIVER_FILE,
        .u.file = *how,
    };
    g_autofree char *data_path = NULL;
    g_autofree char *name = NULL;
    int fd, ret;

    /* Preallocation may take long; what cannot be is better known before */
    ret = create_descriptor(path, flags | QBM_CREATE_DRY_RUN, how->size, NULL,
                            NULL, defaults, errp);
    if (ret < 0) {
        return ret;
    }
    fd = reserve_data_file(path, &data_path, errp);
    if (fd < 0) {
        return fd;
    }
    name = g_path_get_basename(data_path);
    options.u.file.filename = data_path;
    ret = bdrv_find_format("file")->bdrv_co_create(&options, errp);
    if (ret >= 0) {
        ret = thread_pool_submit_co(sync_worker, &fd);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Cannot sync '%s'", data_path);
        }
    }
    if (ret >= 0) {
        ret = create_descriptor(path, flags, how->size, name, "raw", defaults,
                                errp);
    }
    qemu_close(fd);
    if (ret < 0) {
        unlink(data_path);
        return ret;
    }
    remember_adopted(path, false);
    return 0;
}

static int coroutine_fn GRAPH_UNLOCKED
create_over(const char *path, uint32_t flags, uint64_t size,
            const char *data_file, const char *data_format,
            const qbm_defaults *defaults, Error **errp)
{
    int ret;

    ret = create_descriptor(path, flags, size, data_file, data_format,
                            defaults, errp);
    if (ret >= 0) {
        remember_adopted(path, true);
    }
    return ret;
}

/*
 * Learns format and length of the image that is to be adopted.  If @format is
 * not given, the image must be raw: with any other format, a guest that writes
 * the header of an image into its raw disk could choose what we would open.
 */
static int64_t coroutine_fn GRAPH_UNLOCKED
examine_data_file(const char *filename, bool remote, const char *format,
                  Error **errp)
{
    ERRP_GUARD();
    BlockDriver *protocol;
    BlockDriverState *bs;
    struct stat st;
    QDict *options;
    int64_t size;

    if (format && !qbm_drv_check_data_format(format, errp)) {
        error_prepend(errp, "data_file_format: ");
        return -EINVAL;
    }
    if (!remote && stat(filename, &st) == 0 && !S_ISREG(st.st_mode) &&
        !S_ISBLK(st.st_mode))
    {
        error_setg(errp, "data_file: '%s' is neither a regular file nor a "
                   "block device", filename);
        return -EINVAL;
    }
    protocol = bdrv_find_protocol(filename, remote, errp);
    if (!protocol) {
        error_prepend(errp, "data_file '%s': ", filename);
        return -EINVAL;
    }

    options = qdict_new();
    if (format) {
        qdict_put_str(options, "driver", format);
    }
    if (!remote) {
        qdict_put_str(options, "file.driver", protocol->format_name);
        qdict_put_str(options, "file.filename", filename);
    }
    /* Without I/O an encrypted image needs no key */
    bs = bdrv_co_open(remote ? filename : NULL, NULL, options,
                      BDRV_O_NO_BACKING | BDRV_O_NO_IO, errp);
    if (!bs) {
        error_prepend(errp, "data_file: ");
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

static int coroutine_fn GRAPH_UNLOCKED
create_with_data_file(const char *filename, const char *data_file,
                      const char *format, uint64_t size,
                      const qbm_defaults *defaults, Error **errp)
{
    g_autofree char *path = NULL;
    int64_t data_size;
    bool remote;
    int ret;

    strstart(data_file, "file:", &data_file);
    if (!data_file[0]) {
        error_setg(errp, "data_file is empty; it must name an image");
        return -EINVAL;
    }
    /* What the user names may be elsewhere, unlike what a descriptor names */
    remote = path_has_protocol(data_file);
    path = remote ? g_strdup(data_file) : path_combine(filename, data_file);

    data_size = examine_data_file(path, remote, format, errp);
    if (data_size < 0) {
        return data_size;
    }
    if (size != UINT64_MAX) {
        ret = check_size(size, data_size, path, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return create_over(filename, remote ? QBM_CREATE_REMOTE_DATA : 0, data_size,
                       data_file, format ?: "raw", defaults, errp);
}

int coroutine_fn
qbm_drv_co_create_opts(BlockDriver *drv, const char *filename, QemuOpts *opts,
                       Error **errp)
{
    const char *format = qemu_opt_get(opts, QBM_OPT_DATA_FILE_FORMAT);
    const char *data_file = qemu_opt_get(opts, BLOCK_OPT_DATA_FILE);
    uint64_t size = qemu_opt_get_size(opts, BLOCK_OPT_SIZE, UINT64_MAX);
    BlockdevCreateOptionsFile how = { 0 };
    qbm_defaults defaults;
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
    if (data_file) {
        return create_with_data_file(filename, data_file, format, size,
                                     &defaults, errp);
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
    how.size = ROUND_UP(size, BDRV_SECTOR_SIZE);
    return create_with_new_data(filename, 0, &how, &defaults, errp);
}

/*
 * Finds the name under which a descriptor is to have what the protocol node @bs
 * gives access to.  Returns 1 if that is no local file, else 0.
 */
static int GRAPH_RDLOCK
name_data_node(BlockDriverState *bs, char **name, Error **errp)
{
    const char *filename;

    bs = bdrv_skip_filters(bs);
    filename = qdict_get_try_str(bs->options, "filename");
    if (!strcmp(bs->drv->format_name, "host_device") && filename) {
        *name = absolute_path(filename);
        return 0;
    }
    if (!strcmp(bs->drv->format_name, "file")) {
        return qbm_drv_local_path(bs, "The data image of a new QBM image",
                                  name, errp);
    }
    /* Only who asks for a name has it made up */
    bdrv_refresh_filename(bs);
    if (!bs->exact_filename[0]) {
        error_setg(errp, "The data image of a new QBM image must have a name; "
                   "node '%s' of type '%s' has none", bdrv_get_node_name(bs),
                   bs->drv->format_name);
        return -EINVAL;
    }
    *name = g_strdup(bs->exact_filename);
    return 1;
}

/*
 * Finds the name of the image that a node gives access to, its format and its
 * length.
 */
static int64_t coroutine_fn GRAPH_RDLOCK
examine_data_node(BlockDriverState *node, char **path, bool *remote,
                  const char **format, Error **errp)
{
    BlockDriverState *bs = bdrv_skip_filters(node);
    int64_t size;
    int ret;

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
    ret = name_data_node(bs, path, errp);
    if (ret < 0) {
        return ret;
    }
    *remote = ret > 0;
    size = bdrv_co_getlength(node);
    if (size < 0) {
        error_setg_errno(errp, -size, "Cannot get the size of '%s'", *path);
    }
    return size;
}

static int coroutine_fn GRAPH_UNLOCKED
create_with_node(const char *path, BlockDriverState *data_bs, uint64_t size,
                 const qbm_defaults *defaults, Error **errp)
{
    g_autofree char *data_path = NULL;
    const char *format;
    bool remote = false;
    int64_t data_size;
    int ret;

    bdrv_graph_co_rdlock();
    data_size = examine_data_node(data_bs, &data_path, &remote, &format, errp);
    bdrv_graph_co_rdunlock();
    if (data_size < 0) {
        return data_size;
    }
    ret = check_size(size, data_size, data_path, errp);
    if (ret < 0) {
        return ret;
    }
    return create_over(path, QBM_CREATE_NO_LOCK |
                       (remote ? QBM_CREATE_REMOTE_DATA : 0), data_size,
                       data_path, format, defaults, errp);
}

int coroutine_fn
qbm_drv_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsQbm *opts = &options->u.qbm;
    BlockDriverState *bs, *data_bs = NULL;
    BlockBackend *blk = NULL;
    g_autofree char *path = NULL;
    qbm_defaults defaults;
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
    if (opts->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "The image size is too large");
        return -EFBIG;
    }

    if (opts->has_preallocation &&
        qbm_drv_parse_preallocation(PreallocMode_str(opts->preallocation),
                                    &how.preallocation, errp) < 0) {
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
        ret = create_with_node(path, data_bs, opts->size, &defaults, errp);
    } else {
        ret = create_with_new_data(path, QBM_CREATE_NO_LOCK, &how, &defaults,
                                   errp);
    }

out:
    blk_co_unref(blk);
    bdrv_co_unref(data_bs);
    bdrv_co_unref(bs);
    return ret;
}
