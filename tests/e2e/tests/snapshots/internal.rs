// SPDX-License-Identifier: MIT OR Apache-2.0
//! Internal snapshots: a descriptor has no room for the data of another time.

use anyhow::Result;
use qbm_testkit::life::{blockdev, found, image, recording};
use qbm_testkit::{Bench, Machine, migration};
use serde_json::json;

fn machine(bench: &Bench) -> Result<Machine> {
    image(bench, "qbm", "disk")?;
    Machine::start(bench, &blockdev("qbm", "disk"))
}

/// The machine goes on as if nothing had been asked.
fn require_unharmed(bench: &Bench, mut machine: Machine) -> Result<()> {
    migration::write(&mut machine.qmp, "disk", 7, 0, 4096)?;
    machine.quit()?;
    assert_eq!(found(bench, "qbm", "disk")?, [recording("b0", 1)]);
    Ok(())
}

#[test]
fn savevm() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    let words = migration::human(&mut machine.qmp, "savevm now")?;
    assert!(
        words.contains("'disk' is writable but does not support snapshots"),
        "{words}"
    );
    let words = migration::human(&mut machine.qmp, "loadvm now")?;
    assert!(words.contains("Error"), "{words}");
    let words = migration::human(&mut machine.qmp, "delvm now")?;
    assert!(words.contains("Error"), "{words}");
    require_unharmed(&bench, machine)
}

#[test]
fn snapshot_save() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    let job = json!({ "job-id": "save", "tag": "now", "vmstate": "disk", "devices": ["disk"] });
    machine.qmp.execute("snapshot-save", job)?;
    let concluded =
        |data: &serde_json::Value| data["id"] == "save" && data["status"] == "concluded";
    machine.qmp.event("JOB_STATUS_CHANGE", concluded)?;
    let jobs = machine.qmp.execute("query-jobs", json!({}))?;
    let words = jobs[0]["error"].as_str().unwrap_or_default();
    assert!(
        words.contains("'disk' is writable but does not support snapshots"),
        "{jobs}"
    );
    require_unharmed(&bench, machine)
}

#[test]
fn of_one_disk() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    let snapshot = json!({ "device": "disk", "name": "now" });
    let command = "blockdev-snapshot-internal-sync";
    let words = machine.qmp.refuses(command, snapshot.clone())?;
    assert!(
        words.contains("'qbm'") && words.contains("internal snapshots"),
        "{words}"
    );
    let command = "blockdev-snapshot-delete-internal-sync";
    let words = machine.qmp.refuses(command, snapshot)?;
    assert!(words.contains("Operation not supported"), "{words}");
    require_unharmed(&bench, machine)
}

#[test]
fn qemu_img() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let reasons = [
        ("-c", "does not support internal snapshots"),
        ("-d", "not found"),
        ("-a", "dirty bitmaps"),
    ];
    for (verb, reason) in reasons {
        let refusal = bench.img_refuses(["snapshot", verb, "now", "disk"])?;
        assert!(refusal.stderr.contains(reason), "{refusal}");
    }
    assert_eq!(bench.img("snapshot -l disk")?.stdout, "");
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 0)]);
    Ok(())
}
