/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "errors.h"

void test_system(const struct images *images)
{
    (void)images;
}
