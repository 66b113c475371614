/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tracked I/O. */
#include "errors.h"

void test_data(const struct images *images)
{
    (void)images;
}
