// SPDX-License-Identifier: MIT OR Apache-2.0
//! `-snapshot`: what is written is thrown away, and the image is only read.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, found, image, recording};
use qbm_testkit::{Bench, Machine, Snapshot, bitmaps, migration};

#[test]
fn nothing_is_written() -> Result<()> {
    for format in FORMATS {
        for option in ["", ",snapshot=on"] {
            let bench = Bench::new()?;
            image(&bench, format, "disk")?;
            bench.io_as(format, "disk", &["write 0 4k"])?;
            let before = Snapshot::of(bench.directory())?;
            let global = if option.is_empty() { "-snapshot " } else { "" };
            let drive =
                format!("{global}-drive if=none,id=drive,format={format},file=disk{option}");
            let mut machine = Machine::start(&bench, &drive)?;
            migration::write(&mut machine.qmp, "drive", 7, 1 << 20, 65536)?;
            machine.quit()?;
            before.require_untouched()?;
            assert_eq!(found(&bench, format, "disk")?, [recording("b0", 1)]);
        }
    }
    Ok(())
}

/// With `commit` the image takes the writes in, and its bitmap marks them.
#[test]
fn committed_after_all() -> Result<()> {
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let drive = format!("-drive if=none,id=drive,format={format},file=disk,snapshot=on");
        let mut machine = Machine::start(&bench, &drive)?;
        migration::write(&mut machine.qmp, "drive", 7, 1 << 20, 65536)?;
        let words = migration::human(&mut machine.qmp, "commit drive")?;
        assert_eq!(words, "", "{format}");
        machine.quit()?;
        assert_eq!(found(&bench, format, "disk")?, [recording("b0", 1)]);
        bench.io_as(format, "disk", &["read -P 7 1M 64k"])?;
    }
    Ok(())
}

/// Bitmaps of what is thrown away cannot be stored.
#[test]
fn no_bitmap_is_stored() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let node =
        "-blockdev driver=qbm,node-name=disk,read-only=on,file.driver=file,file.filename=disk";
    let mut machine = Machine::start(&bench, &node.to_owned())?;
    let bitmap = serde_json::json!({ "node": "disk", "name": "b1", "persistent": true });
    let words = machine.qmp.refuses("block-dirty-bitmap-add", bitmap)?;
    assert!(words.contains("No write access"), "{words}");
    let words = machine
        .qmp
        .refuses("block-dirty-bitmap-clear", bitmaps::on_disk("b0"))?;
    assert!(words.contains("readonly"), "{words}");
    machine.quit()?;
    Ok(())
}
