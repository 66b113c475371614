// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image as a file of the host.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use qbm_testkit::{Bench, FuseMount, PATIENCE, Random, StorageDaemon};

use crate::{require_recovered, verdict};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const DISK_BYTES: u64 = 24 * MIB;

fn mounted(bench: &Bench, growable: bool) -> Result<Option<(StorageDaemon, FuseMount, File)>> {
    bench.image_with_bitmap("disk.qbm", "24M", "64k")?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let Some(mount) = FuseMount::export(bench, &mut daemon, "disk", growable)? else {
        return Ok(None);
    };
    let file = File::options().read(true).write(true).open(mount.path())?;
    ensure!(
        file.metadata()?.len() == DISK_BYTES,
        "{:?}",
        file.metadata()
    );
    Ok(Some((daemon, mount, file)))
}

#[test]
fn what_is_written_is_marked() -> Result<()> {
    let bench = Bench::new()?;
    let Some((daemon, _mount, file)) = mounted(&bench, false)? else {
        return Ok(());
    };
    file.write_all_at(b"by a program", MIB)?;
    file.write_all_at(&[1; 10], 2 * MIB + 64 * KIB - 5)?;
    file.sync_all()?;
    bench.host("fallocate", "-p -o 4194304 -l 65536 disk")?;
    bench.host("fallocate", "-z -o 5242880 -l 65536 disk")?;
    let mut back = [0; 12];
    file.read_exact_at(&mut back, MIB)?;
    assert_eq!(&back, b"by a program");
    drop(file);
    let complaints = daemon.quit()?;
    ensure!(complaints.is_empty(), "{complaints}");

    let descriptor = bench.descriptor("disk.qbm")?;
    ensure!(descriptor.session().is_none(), "still in use");
    assert_eq!(descriptor.bitmap("b0")?.granules(), [16, 32, 33, 64, 80]);
    let disk = bench.read("disk.qbm.raw")?;
    assert_eq!(&disk[1 << 20..][..12], b"by a program");
    Ok(())
}

/// A file system in it, made by the host's tools.
#[test]
fn a_file_system_is_made_in_it() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("before.raw", DISK_BYTES, &[])?;
    let Some((daemon, _mount, file)) = mounted(&bench, false)? else {
        return Ok(());
    };
    bench.host("mkfs.ext4", "-q -F disk")?;
    drop(file);
    daemon.quit()?;
    bench.host("e2fsck", "-fn disk.qbm.raw")?;
    let verdict = verdict(&bench)?;
    ensure!(verdict.changed_count > 3, "{verdict:?}");
    verdict.require_complete()
}

#[test]
fn what_it_grows_by_is_marked() -> Result<()> {
    let bench = Bench::new()?;
    let Some((daemon, _mount, file)) = mounted(&bench, true)? else {
        return Ok(());
    };
    file.write_all_at(&[1; 512], DISK_BYTES + MIB)?;
    drop(file);
    daemon.quit()?;
    let granules = bench.descriptor("disk.qbm")?.bitmap("b0")?.granules();
    // The end is rounded to sectors, as QEMU's sizes are.
    let expected: Vec<u64> = (384..=400).collect();
    assert_eq!(granules, expected);
    assert_eq!(
        bench.info("disk.qbm")?["virtual-size"],
        DISK_BYTES + MIB + 512
    );
    Ok(())
}

/// A program writes when the daemon is killed.
#[test]
fn killed_under_a_writer() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("before.raw", DISK_BYTES, &[])?;
    let Some((daemon, mount, file)) = mounted(&bench, false)? else {
        return Ok(());
    };
    let (sender, receiver) = channel();
    let writer = thread::spawn(move || {
        let mut random = Random::new(5);
        loop {
            let length = random.between(1, 100_000);
            let offset = random.below(DISK_BYTES - length);
            let data = random.bytes(usize::try_from(length).unwrap_or(0));
            if file.write_all_at(&data, offset).is_err() || sender.send(()).is_err() {
                break;
            }
        }
    });
    for _ in 0..100 {
        receiver
            .recv_timeout(PATIENCE)
            .context("the writer is stuck")?;
    }
    daemon.kill()?;
    writer.join().map_err(|_| anyhow!("the writer panicked"))?;
    drop(mount);

    require_recovered(&bench)
}
