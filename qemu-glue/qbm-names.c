/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: what the descriptor and the data image are called
 *
 * The library opens files by name, and what a data image is called tells it
 * from others.
 */

#include "qemu/osdep.h"
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
char *qbm_drv_absolute_path(const char *filename)
{
    g_autofree char *directory = g_get_current_dir();
    g_autofree char *path = g_build_filename(directory, filename, NULL);
    char *start_path;

    if (path_is_absolute(filename)) {
        return g_strdup(filename);
    }
    start_path = g_build_filename(start_directory, filename, NULL);
    if (access(start_path, F_OK) < 0 && access(path, F_OK) == 0) {
        g_free(start_path);
        return g_steal_pointer(&path);
    }
    return start_path;
}

/*
 * What a descriptor names is beside the descriptor, not beside a symbolic link
 * to it; the library does the same.  Takes over @path.
 */
char *qbm_drv_follow_link(char *path)
{
    char *real_path = NULL;
    char *result = path;

    if (g_file_test(path, G_FILE_TEST_IS_SYMLINK)) {
        real_path = realpath(path, NULL);
    }
    if (real_path) {
        result = g_strdup(real_path);
        g_free(path);
        free(real_path);
    }
    return result;
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
    *path = qbm_drv_absolute_path(filename);
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
