// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps that are not what they were when QEMU comes back to them: a job that is rolled
//! back gives the name to another bitmap, and a merge may have nothing to merge.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, blockdev, image};
use qbm_testkit::{Bench, Machine, bitmaps};
use serde_json::json;

fn machine(bench: &Bench, format: &str) -> Result<Machine> {
    image(bench, format, "disk")?;
    let target = " -blockdev driver=null-co,node-name=target,size=67108864,read-zeroes=on";
    let mut machine = Machine::start(bench, &(blockdev(format, "disk") + target))?;
    bitmaps::add(&mut machine.qmp, "other", 65536)?;
    Ok(machine)
}

/// Mode `always` keeps what was written since the job began, also when it never ran.
#[test]
fn a_backup_is_rolled_back_after_each_action() -> Result<()> {
    for format in FORMATS {
        for verb in ["add", "clear", "enable", "disable", "merge"] {
            for mode in ["on-success", "always", "never"] {
                let bench = Bench::new()?;
                let mut machine = machine(&bench, format)?;
                let name = if verb == "add" { "new" } else { "b0" };
                if verb == "enable" {
                    bitmaps::run(&mut machine.qmp, "disable", name)?;
                }
                let first = if verb == "merge" {
                    let data = json!({ "node": "disk", "target": name, "bitmaps": ["other"] });
                    bitmaps::action("block-dirty-bitmap-merge", data)
                } else {
                    bitmaps::bitmap_action(verb, name)
                };
                let backup = json!({
                    "job-id": "job", "device": "disk", "target": "target", "sync": "bitmap",
                    "bitmap": name, "bitmap-mode": mode,
                });
                let actions = [
                    first,
                    bitmaps::action("blockdev-backup", backup),
                    bitmaps::action("abort", json!({})),
                ];
                let why = bitmaps::transaction_fails(&mut machine.qmp, &actions)?;
                assert!(why.contains("Abort"), "{format} {verb} {mode}: {why}");
                let list = bitmaps::list(&mut machine.qmp, "disk")?;
                assert_eq!(list.len(), 2, "{format} {verb} {mode}: {list:?}");
                let b0 = list.iter().find(|bitmap| bitmap["name"] == "b0");
                assert_eq!(
                    b0.map(|b0| &b0["recording"]),
                    Some(&json!(verb != "enable"))
                );
                machine.quit()?;
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_is_merged() -> Result<()> {
    for format in FORMATS {
        let bench = Bench::new()?;
        let mut machine = machine(&bench, format)?;
        let data = json!({ "node": "disk", "target": "b0", "bitmaps": [] });
        machine.qmp.execute("block-dirty-bitmap-merge", data)?;
        machine.quit()?;
    }
    Ok(())
}
