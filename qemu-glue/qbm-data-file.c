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

/* Does a "raw" node give access to all of its file, and so changes nothing? */
bool qbm_drv_is_plain_raw(BlockDriverState *bs)
{
    return bs->drv && !strcmp(bs->drv->format_name, "raw") &&
           !qdict_haskey(bs->options, "offset") &&
           !qdict_haskey(bs->options, "size");
}

static char *start_directory;

void qbm_drv_init_paths(void)
{
    start_directory = g_get_current_dir();
}

/*
 * Daemons go to the root directory when their disks are open.  What they opened
 * by a relative name is where they came from.
 */
static char *absolute_path(const char *filename)
{
    g_autofree char *directory = g_get_current_dir();
    g_autofree char *path = g_build_filename(directory, filename, NULL);
    char *start_path = g_build_filename(start_directory, filename, NULL);

    if (access(start_path, F_OK) < 0 && access(path, F_OK) == 0) {
        g_free(start_path);
        return g_steal_pointer(&path);
    }
    return start_path;
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

    while (qbm_drv_is_plain_raw(file_bs)) {
        file_bs = bdrv_skip_filters(file_bs->file->bs);
    }
    if (!file_bs->drv) {
        error_setg(errp, "%s: node '%s' is unusable", what,
                   bdrv_get_node_name(file_bs));
        return -ENOMEDIUM;
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
    *path = absolute_path(filename);
    return 0;
}

/*
 * What a descriptor names is a local file.  When there is none and the name
 * looks like that of an image elsewhere, the image was made over that one, and
 * whoever opens it has to say how to get there.  Returns the name, or NULL.
 */
const char *qbm_drv_data_url(BDRVQbmState *s)
{
    g_autofree char *directory = g_path_get_dirname(s->descriptor_path);
    const char *name;

    if (!strstart(s->data_path, directory, &name) || name[0] != '/' ||
        !path_has_protocol(name + 1) || access(s->data_path, F_OK) == 0)
    {
        return NULL;
    }
    return name + 1;
}

/*
 * Only of a local file can the library see whether it was changed.  Returns ""
 * for a data image that is none.
 */
char *qbm_drv_data_file_path(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    char *path;

    if (qbm_drv_local_path(s->data_file->bs, "The data image", &path, NULL) < 0)
    {
        return g_strdup("");
    }
    return path;
}

/*
 * Tells the data image from others: the path of a local file, or what is on top
 * of what, down to a file name.
 */
char *qbm_drv_data_file_name(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;
    BlockDriverState *data_bs = bdrv_skip_filters(s->data_file->bs);
    char *path = qbm_drv_data_file_path(bs);
    GString *name;

    if (*path) {
        return path;
    }
    g_free(path);
    if (qemu_in_main_thread()) {
        /* Of an image elsewhere, only who asks for a name has it made up */
        bdrv_refresh_filename(data_bs);
    }
    name = g_string_new(data_bs->drv->format_name);
    while (bdrv_primary_bs(data_bs)) {
        data_bs = bdrv_skip_filters(bdrv_primary_bs(data_bs));
        g_string_append_printf(name, ":%s", data_bs->drv ?
                               data_bs->drv->format_name : "");
    }
    g_string_append_printf(name, ":%s", data_bs->filename);
    return g_string_free(name, false);
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

    /* To open a FIFO, say, could take forever, or have an effect */
    if (stat(info->data_file, &data_st) == 0 && !S_ISREG(data_st.st_mode) &&
        !S_ISBLK(data_st.st_mode))
    {
        error_setg(errp, "it is neither a regular file nor a block device");
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
        s->data_file_given = true;
        s->given_data_path = qbm_drv_data_file_path(bs);
        s->data_name = qbm_drv_data_file_name(bs);
        s->opened_data_name = g_strdup(s->data_name);
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
    s->data_name = qbm_drv_data_file_name(bs);
    s->opened_data_name = g_strdup(s->data_name);
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
