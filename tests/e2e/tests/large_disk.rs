// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk whose size needs more than 32 bits. A function that C did not find declared
//! once gave back half of it: bitmaps ended at 1 GiB, and a write beyond ended QEMU.

use anyhow::Result;
use qbm_testkit::Bench;

#[test]
fn a_write_beyond_4_gib_is_marked() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "5G", "64k")?;
    bench.io("disk.qbm", &["write -P 1 4500M 64k"])?;
    let bits = bench.descriptor("disk.qbm")?.bitmap("b0")?.granules();
    assert_eq!(bits, [4500 * 16]);
    Ok(())
}
