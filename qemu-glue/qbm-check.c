/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QBM BlockDriver: checking and repairing images
 *
 * The library looks at the descriptor and at every bitmap file, and mends them.
 * It neither reads nor writes the data image.  An image that is opened to be
 * checked (BDRV_O_CHECK) has no session and no BdrvDirtyBitmaps, so that there
 * is something left to find.
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qemu/error-report.h"
#include "qbm-internal.h"

typedef struct CheckCall {
    const char *path;
    qbm_check_args args;
    qbm_report *report;
    qbm_error error;
} CheckCall;

static int check_worker(void *opaque)
{
    CheckCall *call = opaque;

    return qbm_check(call->path, &call->args, &call->report, &call->error);
}

static void count_finding(const qbm_finding *finding, BdrvCheckResult *res)
{
    bool repaired = finding->flags & QBM_FINDING_REPAIRED;

    switch (finding->severity) {
    case QBM_SEVERITY_INFORMATION:
        break;
    case QBM_SEVERITY_LEAK:
        res->leaks += !repaired;
        res->leaks_fixed += repaired;
        break;
    default:
        res->corruptions += !repaired;
        res->corruptions_fixed += repaired;
        break;
    }
}

/* Like those of other formats, details go to stderr */
static void tell_finding(BDRVQbmState *s, const qbm_finding *finding)
{
    const char *what = "ERROR";

    if (finding->flags & QBM_FINDING_REPAIRED) {
        what = "Repaired";
    } else if (finding->severity == QBM_SEVERITY_LEAK) {
        what = "Leaked";
    } else if (finding->severity == QBM_SEVERITY_INFORMATION) {
        what = "Note";
    }
    fprintf(stderr, "%s descriptor \"%s\": %s\n", what, s->descriptor_path,
            finding->message);
}

/*
 * After a repair, qemu-img checks once more.  So as not to tell everything
 * twice, what is left is told then.
 */
static int take_report(BDRVQbmState *s, const qbm_report *report,
                       BdrvCheckResult *res)
{
    qbm_report_summary summary = { .size = sizeof(summary) };
    g_autofree qbm_finding *finding = g_new0(qbm_finding, 1);
    bool repaired;
    uint32_t i;
    int ret;

    finding->size = sizeof(*finding);
    ret = qbm_report_get_summary(report, &summary, NULL);
    if (ret < 0) {
        return ret;
    }
    for (i = 0; i < summary.findings_count; i++) {
        ret = qbm_report_get(report, i, finding, NULL);
        if (ret < 0) {
            return ret;
        }
        count_finding(finding, res);
    }
    repaired = res->leaks_fixed || res->corruptions_fixed;
    for (i = 0; i < summary.findings_count; i++) {
        ret = qbm_report_get(report, i, finding, NULL);
        if (ret < 0) {
            return ret;
        }
        if (!repaired || (finding->flags & QBM_FINDING_REPAIRED)) {
            tell_finding(s, finding);
        }
    }
    return 0;
}

static int coroutine_fn run_check(CheckCall *call)
{
    int ret;

    ret = thread_pool_submit_co(check_worker, call);
    if (ret == -ENOENT && (call->args.flags & QBM_CHECK_REPAIR)) {
        /* Without a data image only leaks can be mended */
        error_report("%s", call->error.message);
        call->args.flags &= ~QBM_CHECK_REPAIR;
        ret = thread_pool_submit_co(check_worker, call);
    }
    if (ret < 0) {
        error_report("%s", call->error.message);
    }
    return ret;
}

int coroutine_fn
qbm_drv_co_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix)
{
    BDRVQbmState *s = bs->opaque;
    g_autofree CheckCall *call = g_new0(CheckCall, 1);
    int64_t size = 0;
    int ret;

    if (s->writable) {
        error_report("'%s' is in use by this process", s->descriptor_path);
        return -EBUSY;
    }
    if (s->data_file) {
        size = bdrv_co_getlength(s->data_file->bs);
        if (size < 0) {
            error_report("Cannot get the size of the data image '%s': %s",
                         s->data_path, strerror(-size));
            return size;
        }
    }

    call->path = s->descriptor_path;
    call->error = (qbm_error) QBM_DRV_ERROR_INIT;
    call->args = (qbm_check_args) {
        .size = sizeof(call->args),
        /* The locks on the descriptor are those of bs->file */
        .flags = QBM_CHECK_NO_LOCK |
                 (bs->force_share ? QBM_CHECK_SHARED : 0) |
                 (fix & BDRV_FIX_LEAKS ? QBM_CHECK_REPAIR_LEAKS : 0) |
                 (fix & BDRV_FIX_ERRORS ? QBM_CHECK_REPAIR : 0),
        .image_size_bytes = size,
        .data_file = s->given_data_path,
    };
    if (!s->data_file && qbm_drv_data_url(s)) {
        call->args.data_file = "";
    }
    ret = run_check(call);
    if (ret < 0) {
        /* -ENOTSUP would say that there are no checks at all */
        return ret == -ENOTSUP ? -EINVAL : ret;
    }
    ret = take_report(s, call->report, res);
    qbm_report_free(call->report);
    return ret;
}
