/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: creating an image and its data image
 *
 * The library makes the descriptor and finds a name for the data image, which
 * is made as any raw image is, by the file driver.
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/error-report.h"
#include "qbm-internal.h"

typedef struct CreateCall {
    const char *path;
    const qbm_create_args *args;
    qbm_error error;
} CreateCall;

static int create_worker(void *opaque)
{
    CreateCall *call = opaque;

    return qbm_create(call->path, call->args, &call->error);
}

/* Has the library make the descriptor @path, its data image, or both */
int coroutine_fn
qbm_drv_co_create_files(const char *path, const qbm_create_args *args,
                        Error **errp)
{
    CreateCall call = {
        .path = path,
        .args = args,
        .error = QBM_DRV_ERROR_INIT,
    };
    int ret;

    ret = thread_pool_submit_co(create_worker, &call);
    return ret < 0 ? qbm_drv_set_error(errp, ret, &call.error) : ret;
}

static int sync_worker(void *opaque)
{
    int fd = qemu_open(opaque, O_RDWR | O_BINARY, NULL);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = qemu_fdatasync(fd) < 0 ? -errno : 0;
    qemu_close(fd);
    return ret;
}

/* Makes of the sparse file @path a raw image as @how says, and durable */
static int coroutine_fn GRAPH_UNLOCKED
make_raw_image(char *path, const BlockdevCreateOptionsFile *how, Error **errp)
{
    BlockdevCreateOptions options = {
        .driver = BLOCKDEV_DRIVER_FILE,
        .u.file = *how,
    };
    int ret;

    options.u.file.filename = path;
    ret = bdrv_find_format("file")->bdrv_co_create(&options, errp);
    if (ret < 0) {
        return ret;
    }
    ret = thread_pool_submit_co(sync_worker, path);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot sync '%s'", path);
    }
    return ret;
}

/*
 * Makes a raw data image as @how says, but for its name, and a descriptor for
 * it.  Preallocation may take long: if there could be no descriptor, it is not
 * begun.  After an error nothing new is left.
 */
int coroutine_fn
qbm_drv_co_create_new(const char *path, qbm_create_args *args,
                      const BlockdevCreateOptionsFile *how, Error **errp)
{
    g_autofree char *real_path = qbm_drv_follow_link(g_strdup(path));
    g_autofree char *data_path = g_malloc(PATH_MAX);
    g_autofree char *shown_path = NULL;
    g_autofree char *data_name = NULL;
    uint32_t flags = args->flags;
    int ret;

    args->flags = flags | QBM_CREATE_DATA_ONLY;
    args->image_size_bytes = how->size;
    args->data_file_out = data_path;
    args->data_file_out_size = PATH_MAX;
    ret = qbm_drv_co_create_files(path, args, errp);
    if (ret < 0) {
        return ret;
    }
    data_name = g_path_get_basename(data_path);
    if (ret > 0) {
        shown_path = path_combine(real_path, data_name);
        info_report("'%s.raw' exists already and is left alone; the data image "
                    "of '%s' is '%s'", real_path, path, shown_path);
    }

    ret = make_raw_image(data_path, how, errp);
    if (ret >= 0) {
        args->flags = flags;
        args->data_file = data_name;
        args->data_file_out = NULL;
        ret = qbm_drv_co_create_files(path, args, errp);
    }
    if (ret < 0) {
        unlink(data_path);
    }
    return ret;
}
