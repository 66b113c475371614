/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: what an image is like
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/option.h"
#include "qbm-internal.h"

/* What the bitmap files of a copy of @bs have at most, however many zeroes */
static uint64_t measure_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;
    uint64_t size = 0;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
            uint64_t bits = DIV_ROUND_UP(bdrv_dirty_bitmap_size(bitmap),
                                         bdrv_dirty_bitmap_granularity(bitmap));

            size += DIV_ROUND_UP(bits, 8);
        }
    }
    return size;
}

BlockMeasureInfo *qbm_drv_measure(QemuOpts *opts, BlockDriverState *in_bs,
                                  Error **errp)
{
    BlockMeasureInfo *info;
    PreallocMode prealloc;
    qbm_defaults defaults;
    int64_t required;

    if (qbm_drv_parse_defaults(opts, &defaults, errp) < 0 ||
        qbm_drv_parse_preallocation(qemu_opt_get(opts, BLOCK_OPT_PREALLOC),
                                    &prealloc, errp) < 0)
    {
        return NULL;
    }

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

    /* That of the raw image; the descriptor is small and of no fixed size */
    info = g_new0(BlockMeasureInfo, 1);
    info->required = required;
    info->fully_allocated = info->required;
    info->has_bitmaps = in_bs && bdrv_supports_persistent_dirty_bitmap(in_bs);
    if (info->has_bitmaps) {
        info->bitmaps = measure_bitmaps(in_bs);
    }
    return info;
}

int coroutine_fn
qbm_drv_co_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    BDRVQbmState *s = bs->opaque;
    BlockDriverInfo data_bdi;

    /* Only what concerns I/O; snapshots and the like stay in the data image */
    if (s->data_file && bdrv_co_get_info(s->data_file->bs, &data_bdi) >= 0) {
        qbm_drv_copy_cluster_size(bdi, &data_bdi);
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

ImageInfoSpecific *qbm_drv_get_specific_info(BlockDriverState *bs,
                                             Error **errp)
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
    data->data_file = g_strdup(qbm_drv_data_url(s) ?: info.data_file);
    data->data_file_format = g_strdup(info.data_format);
    data->durability = info.durability == QBM_DURABILITY_CLOSE ?
        BLOCKDEV_QBM_DURABILITY_CLOSE : BLOCKDEV_QBM_DURABILITY_PROCESS;
    data->persist_bitmaps = qbm_drv_persists_all(s) ?
        BLOCKDEV_QBM_PERSIST_BITMAPS_ALL : BLOCKDEV_QBM_PERSIST_BITMAPS_MARKED;
    data->bitmaps = list_bitmap_info(bitmaps, s->writable);
    data->has_bitmaps = data->bitmaps;

    spec_info = g_new0(ImageInfoSpecific, 1);
    spec_info->type = IMAGE_INFO_SPECIFIC_KIND_QBM;
    spec_info->u.qbm.data = data;
    return spec_info;
}

int qbm_drv_has_zero_init(BlockDriverState *bs)
{
    BDRVQbmState *s = bs->opaque;

    return s->data_file && !qbm_drv_has_adopted() &&
           bdrv_has_zero_init(s->data_file->bs);
}

int qbm_drv_probe_blocksizes(BlockDriverState *bs, BlockSizes *bsz)
{
    BDRVQbmState *s = bs->opaque;

    return bdrv_probe_blocksizes(s->data_file->bs, bsz);
}

int qbm_drv_probe_geometry(BlockDriverState *bs, HDGeometry *geo)
{
    BDRVQbmState *s = bs->opaque;

    return bdrv_probe_geometry(s->data_file->bs, geo);
}
