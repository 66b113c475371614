// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resizing, with a bitmap.

use anyhow::Result;
use qbm_testkit::Bench;

#[test]
fn a_grown_disk_has_its_new_tail_marked() -> Result<()> {
    let bench = Bench::new()?;
    // The old end lies within a granule.
    bench.image_with_bitmap("disk.qbm", "1025k", "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 64k"])?;
    bench.img("resize -q -f qbm disk.qbm 2M")?;

    assert_eq!(bench.info("disk.qbm")?["virtual-size"], 2 << 20);
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.length_bytes(), 4);
    let expected: Vec<u64> = [0].into_iter().chain(16..32).collect();
    assert_eq!(bitmap.granules(), expected);
    bench.io("disk.qbm", &["write -P 2 2032k 16k", "read -P 0 1025k 512"])?;
    Ok(())
}

#[test]
fn a_shrunk_disk_forgets_the_bits_beyond_its_end() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "2M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 64k", "write -P 1 1984k 64k"])?;
    bench.img("resize -q --shrink -f qbm disk.qbm 1M")?;

    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.length_bytes(), 2);
    assert_eq!(bitmap.granules(), [0]);
    bench.io("disk.qbm", &["read -P 1 0 64k", "write -P 2 960k 64k"])?;
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(),
        [0, 15]
    );
    Ok(())
}

/// What was behind the end is gone: after growing again it is new, and marked.
#[test]
fn shrunk_and_grown_again() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "2M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 1M"])?;
    bench.img("bitmap --clear -f qbm disk.qbm b0")?;
    bench.img("resize -q --shrink -f qbm disk.qbm 1M")?;
    bench.img("resize -q -f qbm disk.qbm 2M")?;

    bench.io("disk.qbm", &["read -P 0 1M 1M"])?;
    let expected: Vec<u64> = (16..32).collect();
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(),
        expected
    );
    Ok(())
}
