// SPDX-License-Identifier: MIT OR Apache-2.0
//! A full disk, a read-only medium, another process.

use std::process::Command;

use anyhow::{Result, ensure};
use qbm_testkit::{Bench, Output, Snapshot, StorageDaemon};

use super::{image, require_one_line};

/// Runs a script in the bench's directory with mounts of its own, which end with it.
/// `$QEMU_IMG` and `$QEMU_IO` are the programs.
///
/// Nothing where it may not mount: in a container, say.
fn with_mounts(bench: &Bench, script: &str) -> Result<Option<Output>> {
    let probe = Output::of(&mut unshare(bench, "mount -t tmpfs none .")?)?;
    if !probe.status.success() {
        let words = probe.stderr.trim();
        let refused = words.contains("not permitted") || words.contains("ermission denied");
        ensure!(refused, "{probe}");
        Bench::leave_out(&format!("no file system can be mounted: {words}"))?;
        return Ok(None);
    }
    Output::of(&mut unshare(bench, script)?).map(Some)
}

fn unshare(bench: &Bench, script: &str) -> Result<Command> {
    let mut command = Command::new("unshare");
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?) == 0;
    // Whoever is not root is root in a namespace of users.
    command.arg(if root { "-m" } else { "-rm" });
    let program = |name| bench.command(name).get_program().to_owned();
    command
        .args(["sh", "-c", script])
        .env("QEMU_IMG", program("qemu-img"))
        .env("QEMU_IO", program("qemu-io"))
        .current_dir(bench.directory());
    Ok(command)
}

#[test]
fn a_full_disk_at_create() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("adopted.raw", 1 << 20, &[(0, b"data")])?;
    let before = Snapshot::of(bench.directory())?;
    for options in ["", "-o data_file=../adopted.raw"] {
        let Some(output) = with_mounts(
            &bench,
            &format!(
                "mkdir -p full && mount -t tmpfs -o size=64k none full || exit 9
             echo precious >full/precious
             dd if=/dev/zero of=full/filling bs=4k 2>/dev/null
             sums=$(cd full && sha256sum *)
             $QEMU_IMG create -q -f qbm {options} full/disk.qbm {size}; status=$?
             echo \"$sums\" >sums; (cd full && sha256sum --quiet -c ../sums) || exit 9
             rm sums; exit $status",
                size = if options.is_empty() { "1M" } else { "" },
            ),
        )?
        else {
            return Ok(());
        };
        assert_ne!(output.status.code(), Some(9), "{output}");
        require_one_line(output.refused()?, &["disk.qbm", "No space left"])?;
        before.require_untouched()?;
    }
    Ok(())
}

/// The image that is there stays as it is, and usable.
#[test]
fn a_full_disk_when_a_bitmap_is_added() -> Result<()> {
    let bench = Bench::new()?;
    let Some(output) = with_mounts(&bench, "
        mkdir full && mount -t tmpfs -o size=256k none full || exit 9
        cd full && $QEMU_IMG create -q -f qbm disk.qbm 1G && $QEMU_IMG bitmap --add -f qbm disk.qbm b0 || exit 9
        before=$($QEMU_IMG info --output=json disk.qbm)
        dd if=/dev/zero of=filling bs=4k 2>/dev/null
        $QEMU_IMG bitmap --add -g 512 -f qbm disk.qbm b1; status=$?
        rm filling
        [ \"$before\" = \"$($QEMU_IMG info --output=json disk.qbm)\" ] || exit 9
        $QEMU_IO -f qbm -c 'write -P 1 0 64k' disk.qbm || exit 9
        exit $status")?
    else {
        return Ok(());
    };
    assert_ne!(output.status.code(), Some(9), "{output}");
    let refusal = output.refused()?;
    assert!(refusal.stderr.contains("No space left"), "{refusal}");
    Ok(())
}

#[test]
fn a_read_only_medium() -> Result<()> {
    let bench = image()?;
    let before = Snapshot::of(bench.directory())?;
    let Some(output) = with_mounts(
        &bench,
        "
        mount --bind . . && mount -o remount,ro,bind . || exit 9
        cd \"$PWD\" || exit 9
        $QEMU_IO -r -f qbm -c 'read -P 7 0 64k' disk.qbm || exit 8
        $QEMU_IMG info disk.qbm | grep -q 'name: b1' || exit 8
        $QEMU_IO -f qbm -c 'write 0 64k' disk.qbm",
    )?
    else {
        return Ok(());
    };
    assert!(!matches!(output.status.code(), Some(8 | 9)), "{output}");
    require_one_line(output.refused()?, &["disk.qbm", "Read-only file system"])?;
    before.require_untouched()
}

/// A file that may be read and not written; root may write any file.
#[test]
fn a_data_image_that_may_not_be_written() -> Result<()> {
    let bench = image()?;
    let before = Snapshot::of(bench.directory())?;
    let descriptor = bench.read("disk.qbm")?;
    let Some(output) = with_mounts(
        &bench,
        "
        mount --bind disk.qbm.raw disk.qbm.raw && mount -o remount,ro,bind disk.qbm.raw || exit 9
        $QEMU_IO -r -f qbm -c 'read -P 7 0 64k' disk.qbm || exit 8
        $QEMU_IO -f qbm -c 'write 0 64k' disk.qbm",
    )?
    else {
        return Ok(());
    };
    assert!(!matches!(output.status.code(), Some(8 | 9)), "{output}");
    let refusal = output.refused()?;
    assert!(refusal.stderr.contains("disk.qbm.raw"), "{refusal}");
    // A session began and ended; the descriptor was written, and is what it was.
    assert_eq!(bench.read("disk.qbm")?, descriptor);
    before.without("disk.qbm").require_kept()
}

#[test]
fn two_writers() -> Result<()> {
    let bench = image()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let before = Snapshot::of(bench.directory())?;
    for args in ["-f qbm -c quit disk.qbm", "-r -f qbm -c quit disk.qbm"] {
        let refusal = bench.run("qemu-io", args)?.refused()?;
        assert!(refusal.stderr.contains("disk.qbm"), "{refusal}");
        assert!(refusal.stderr.contains(r#""write" lock"#), "{refusal}");
    }
    // Who shares sees that it is in use, and changes nothing.
    let info = bench.img("info -U --output=json disk.qbm")?;
    let info: serde_json::Value = serde_json::from_str(&info.stdout)?;
    let flags = &info["format-specific"]["data"]["bitmaps"][0]["flags"];
    assert_eq!(*flags, serde_json::json!(["in-use", "auto"]));
    before.require_untouched()?;

    let mut client = daemon.export()?;
    client.write(0, b"still writing")?;
    drop(client);
    daemon.quit()?;
    Ok(())
}
