/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Checks and their reports. */
#include "errors.h"

#include <unistd.h>

void test_check(const struct images *images)
{
    qbm_check_args args = { .size = sizeof(args) };
    qbm_report_summary summary = { .size = sizeof(summary) };
    qbm_finding finding = { .size = sizeof(finding) };
    qbm_report *report = (qbm_report *)&args;
    unsigned char *tail;
    void *later;

    (void)images;
    make_image("checked.qbm");
    FAILS(EINVAL, qbm_check, NULL, &args, &report, &error);
    CHECK(report == NULL);
    FAILS(EINVAL, qbm_check, "checked.qbm", NULL, &report, &error);
    FAILS(EINVAL, qbm_check, "checked.qbm", &args, NULL, &error);
    args.size--;
    FAILS(EINVAL, qbm_check, "checked.qbm", &args, &report, &error);
    args.size++;
    args.flags = 16;
    FAILS(EINVAL, qbm_check, "checked.qbm", &args, &report, &error);
    args.flags = QBM_CHECK_SHARED | QBM_CHECK_REPAIR;
    FAILS(EINVAL, qbm_check, "checked.qbm", &args, &report, &error);
    args.flags = QBM_CHECK_SHARED | QBM_CHECK_REPAIR_LEAKS;
    FAILS(EINVAL, qbm_check, "checked.qbm", &args, &report, &error);
    args.flags = 0;
    args.reserved = 1;
    FAILS(EINVAL, qbm_check, "checked.qbm", &args, &report, &error);
    args.reserved = 0;
    FAILS(EINVAL, qbm_check, "other", &args, &report, &error);
    FAILS(ENOENT, qbm_check, "absent.qbm", &args, &report, &error);
    FAILS(EAGAIN, qbm_check, "writer.qbm", &args, &report, &error);
    FAILS(ENOTSUP, qbm_check, "version.qbm", &args, &report, &error);
    FAILS(EFBIG, qbm_check, "large.qbm", &args, &report, &error);
    args.image_size_bytes = UINT64_MAX;
    FAILS(EFBIG, qbm_check, "checked.qbm", &args, &report, &error);
    args.image_size_bytes = 0;
    CHECK(report == NULL);
    make_image("bare.qbm");
    CHECK(unlink("bare.qbm.raw") == 0);
    args.flags = QBM_CHECK_REPAIR;
    FAILS(ENOENT, qbm_check, "bare.qbm", &args, &report, &error);
    args.flags = 0;

    later = grown(&args, sizeof(args), &tail);
    tail[39] = 1;
    FAILS(E2BIG, qbm_check, "checked.qbm", later, &report, &error);
    tail[39] = 0;
    OK(qbm_check("checked.qbm", later, &report, &error));
    free(later);

    FAILS(EINVAL, qbm_report_get_summary, NULL, &summary, &error);
    FAILS(EINVAL, qbm_report_get_summary, report, NULL, &error);
    summary.size--;
    FAILS(EINVAL, qbm_report_get_summary, report, &summary, &error);
    summary.size++;
    later = grown(&summary, sizeof(summary), &tail);
    OK(qbm_report_get_summary(report, later, &error));
    free(later);
    FAILS(EINVAL, qbm_report_get, NULL, 0, &finding, &error);
    FAILS(EINVAL, qbm_report_get, report, 0, NULL, &error);
    finding.size--;
    FAILS(EINVAL, qbm_report_get, report, 0, &finding, &error);
    finding.size++;
    FAILS(ENOENT, qbm_report_get, report, UINT32_MAX, &finding, &error);
    qbm_report_free(report);
    BEARS(qbm_report_free, NULL);
}
