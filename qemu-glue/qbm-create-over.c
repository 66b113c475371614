/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: creating an image over one that exists
 *
 * The data image is opened only to learn its format and size, read-only, or is
 * a node that is there already: not a byte of it is written (I6).
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qbm-internal.h"

/* This process has made a descriptor over an image that had existed before */
static bool has_adopted;

/*
 * Who has just made an image, as qemu-img convert has, may take it for empty,
 * but not one that was adopted.  A process that made both takes none for empty.
 */
bool qbm_drv_has_adopted(void)
{
    GLOBAL_STATE_CODE();
    return has_adopted;
}

/*
 * Makes the descriptor at @path of the data image @data_path, whose size,
 * @data_size bytes, is to be the one that the user gave, if any.
 */
static int coroutine_fn
create_over(const char *path, qbm_create_args *args, int64_t data_size,
            const char *data_path, Error **errp)
{
    uint64_t size = args->image_size_bytes;
    int ret;

    GLOBAL_STATE_CODE();

    if (size != QBM_DRV_SIZE_NOT_GIVEN &&
        ROUND_UP(size, BDRV_SECTOR_SIZE) != data_size)
    {
        error_setg(errp, "The size, %" PRIu64 " bytes, is not that of the data "
                   "image '%s', %" PRId64 " bytes", size, data_path, data_size);
        return -EINVAL;
    }
    args->image_size_bytes = data_size;
    ret = qbm_drv_co_create_files(path, args, errp);
    if (ret >= 0) {
        has_adopted = true;
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

    if (!format && !qbm_drv_check_data_format(bs->drv->format_name, errp)) {
        error_prepend(errp, "'%s': ", filename);
        size = -EINVAL;
    } else if (!format && strcmp(bs->drv->format_name, "raw")) {
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

int coroutine_fn
qbm_drv_co_create_over_file(const char *path, qbm_create_args *args,
                            const char *data_file, const char *format,
                            Error **errp)
{
    g_autofree char *real_path = NULL;
    g_autofree char *data_path = NULL;
    int64_t data_size;
    bool remote;

    strstart(data_file, "file:", &data_file);
    if (!data_file[0]) {
        error_setg(errp, "data_file is empty; it must name an image");
        return -EINVAL;
    }
    /* What the user names may be elsewhere, unlike what a descriptor names */
    remote = path_has_protocol(data_file);
    real_path = qbm_drv_follow_link(g_strdup(path));
    data_path = remote ? g_strdup(data_file) :
                path_combine(real_path, data_file);

    data_size = examine_data_file(data_path, remote, format, errp);
    if (data_size < 0) {
        return data_size;
    }
    args->flags |= remote ? QBM_CREATE_REMOTE_DATA : 0;
    args->data_file = data_file;
    args->data_format = format ?: "raw";
    return create_over(path, args, data_size, data_path, errp);
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
        *name = qbm_drv_absolute_path(filename);
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

int coroutine_fn
qbm_drv_co_create_over_node(const char *path, qbm_create_args *args,
                            BlockDriverState *data_bs, Error **errp)
{
    g_autofree char *data_path = NULL;
    const char *format;
    bool remote = false;
    int64_t data_size;

    bdrv_graph_co_rdlock();
    data_size = examine_data_node(data_bs, &data_path, &remote, &format, errp);
    bdrv_graph_co_rdunlock();
    if (data_size < 0) {
        return data_size;
    }
    args->flags |= remote ? QBM_CREATE_REMOTE_DATA : 0;
    args->data_file = data_path;
    args->data_format = format;
    return create_over(path, args, data_size, data_path, errp);
}
