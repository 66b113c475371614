/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: the data image
 *
 * It is an image that the user named, or the one that the descriptor names.  A
 * descriptor is untrusted: what it names is a path, never parsed for protocols.
 */

#include "qemu/osdep.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qbm-internal.h"

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
    if (!strcmp(drv->format_name, "qbm")) {
        error_setg(errp, "a QBM image cannot be the data image of another");
        return false;
    }
    return true;
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
    bool read_only = bs->force_share || (flags & BDRV_O_CHECK) ||
                     (!raw && bdrv_is_read_only(bs));
    bool exists;
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
    /* To open a FIFO, say, could take forever, or have an effect */
    exists = stat(info->data_file, &data_st) == 0;
    if (exists && !S_ISREG(data_st.st_mode) && !S_ISBLK(data_st.st_mode)) {
        error_setg(errp, "it is neither a regular file nor a block device");
        return NULL;
    }
    if (exists && stat(s->descriptor_path, &descriptor_st) == 0 &&
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

/* Tells apart from now on what the data image is, which the user gave or not */
void qbm_drv_take_data_file(BlockDriverState *bs, bool given)
{
    BDRVQbmState *s = bs->opaque;

    g_free(s->given_data_path);
    g_free(s->data_name);
    s->data_file_given = given;
    s->given_data_path = given ? qbm_drv_data_file_path(bs) : NULL;
    s->data_name = qbm_drv_data_file_name(bs);
    if (!s->opened_data_name) {
        s->opened_data_name = g_strdup(s->data_name);
    }
    /*
     * Without a file's time, a seal would vouch for what the descriptor names
     * just as well, unless that is an image elsewhere, which is not opened.
     */
    s->data_file_unsealed = given && !*s->given_data_path &&
                            !qbm_drv_data_url(s) &&
                            strcmp(s->data_name, s->opened_data_name);
}

int qbm_drv_open_data_file(BlockDriverState *bs, QDict *options, int flags,
                           Error **errp)
{
    ERRP_GUARD();
    BDRVQbmState *s = bs->opaque;
    qbm_info info = { .size = sizeof(info) };
    qbm_error error = QBM_DRV_ERROR_INIT;
    BlockDriverState *data_bs;
    const char *url;
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
        qbm_drv_take_data_file(bs, true);
        return check_given_data_file(bs, &info, errp) ? 0 : -EINVAL;
    }

    if ((flags & BDRV_O_CHECK) && (info.flags & QBM_INFO_SIZE_KNOWN) &&
        access(s->data_path, F_OK) < 0)
    {
        /* That is for the check to tell */
        return 0;
    }
    if (flags & BDRV_O_NO_IO) {
        /* Even to open what a descriptor names may have an effect */
        error_setg(errp, "The descriptor '%s' does not record the size of its "
                   "data image '%s', which is opened only if there is I/O",
                   s->descriptor_path, s->data_path);
        error_append_hint(errp, "Once the image has been open for writing, the "
                          "size is on record.\n");
        return -EINVAL;
    }
    url = qbm_drv_data_url(s);
    if (url) {
        error_setg(errp, "Cannot open the data image '%s' of '%s': there is no "
                   "such file; the option data-file has to say how to get at "
                   "an image elsewhere", url, s->descriptor_path);
        return -EINVAL;
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
    if (!s->data_file) {
        return -EINVAL;
    }
    bdrv_graph_rdlock_main_loop();
    qbm_drv_take_data_file(bs, false);
    bdrv_graph_rdunlock_main_loop();
    return 0;
}

/* Learns the size of the data image, which is the size of ours */
int qbm_drv_set_size(BlockDriverState *bs, Error **errp)
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
