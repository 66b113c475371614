// SPDX-License-Identifier: MIT OR Apache-2.0
//! `blockdev-reopen` with other options: followed, or refused with the option's name, and
//! then nothing has changed.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, found, image, recording};
use qbm_testkit::{Bench, Machine, bitmaps, migration};
use serde_json::{Value, json};

/// A machine whose `disk` has every option named, over the nodes `file` and `data`.
fn machine(bench: &Bench) -> Result<Machine> {
    image(bench, "qbm", "disk")?;
    bench.sparse("other.raw", 64 << 20, &[])?;
    let mut machine = Machine::start(bench, "")?;
    for (node, file) in [
        ("file", "disk"),
        ("data", "disk.raw"),
        ("other", "other.raw"),
    ] {
        let node = json!({ "driver": "file", "node-name": node, "filename": file });
        machine.qmp.execute("blockdev-add", node)?;
    }
    machine.qmp.execute("blockdev-add", options(&json!({})))?;
    migration::write(&mut machine.qmp, "disk", 7, 0, 4096)?;
    Ok(machine)
}

fn options(changed: &Value) -> Value {
    let mut options = json!({
        "driver": "qbm", "node-name": "disk", "file": "file", "data-file": "data",
        "durability": "process", "trust-data": false,
    });
    for (name, value) in changed.as_object().into_iter().flatten() {
        options[name] = value.clone();
    }
    options
}

fn reopen(changed: &Value) -> Value {
    json!({ "options": [options(changed)] })
}

fn require_unharmed(bench: &Bench, mut machine: Machine) -> Result<()> {
    migration::write(&mut machine.qmp, "disk", 7, 1 << 20, 4096)?;
    machine.kill()?;
    assert_eq!(found(bench, "qbm", "disk")?, [recording("b0", 2)]);
    Ok(())
}

#[test]
fn the_same_options() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    machine.qmp.execute("blockdev-reopen", reopen(&json!({})))?;
    require_unharmed(&bench, machine)
}

/// To read-only and back, with all of them repeated.
#[test]
fn read_only_and_back() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    for read_only in [true, false] {
        let changed = json!({ "read-only": read_only });
        machine.qmp.execute("blockdev-reopen", reopen(&changed))?;
        let list = bitmaps::list(&mut machine.qmp, "disk")?;
        assert_eq!(list[0]["count"], 65536, "{list:?}");
        assert_eq!(bench.descriptor("disk")?.session().is_none(), read_only);
    }
    require_unharmed(&bench, machine)
}

#[test]
fn changes_are_refused_by_name() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    for (name, value, reason) in [
        ("durability", json!("close"), "'durability'"),
        ("trust-data", json!(true), "'trust-data'"),
        ("data-file", json!("other"), "'data-file'"),
        ("file", json!("other"), "the descriptor"),
    ] {
        for read_only in [false, true] {
            let changed = json!({ name: value, "read-only": read_only });
            let words = machine.qmp.refuses("blockdev-reopen", reopen(&changed))?;
            assert!(words.contains(reason), "{name}: {words}");
        }
    }
    require_unharmed(&bench, machine)
}

/// One of several nodes cannot be reopened: the others are as they were.
#[test]
fn all_or_none() -> Result<()> {
    let bench = Bench::new()?;
    let mut machine = machine(&bench)?;
    let good = options(&json!({ "read-only": true }));
    let bad = json!({ "driver": "file", "node-name": "other", "filename": "another.raw" });
    let both = json!({ "options": [good, bad] });
    let words = machine.qmp.refuses("blockdev-reopen", both)?;
    assert!(words.contains("'filename'"), "{words}");
    assert!(bench.descriptor("disk")?.session().is_some());
    require_unharmed(&bench, machine)
}

/// A bitmap can neither be made nor changed while the node is read-only; on its return to
/// writing the stored ones record.
#[test]
fn beside_qcow2() -> Result<()> {
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let args = qbm_testkit::life::blockdev(format, "disk");
        let mut machine = Machine::start(&bench, &args)?;
        let node = |read_only| {
            json!({ "options": [{
                "driver": format, "node-name": "disk", "file": "file", "read-only": read_only,
            }] })
        };
        machine.qmp.execute("blockdev-reopen", node(true))?;
        if format == "qbm" {
            // qcow2 takes it, and loses it in silence.
            let add = json!({ "node": "disk", "name": "b1", "persistent": true });
            let words = machine.qmp.refuses("block-dirty-bitmap-add", add)?;
            assert!(words.contains("No write access"), "{words}");
        }
        for verb in ["clear", "remove"] {
            let command = format!("block-dirty-bitmap-{verb}");
            let words = machine.qmp.refuses(&command, bitmaps::on_disk("b0"))?;
            assert!(words.contains("readonly"), "{words}");
        }
        machine.qmp.execute("blockdev-reopen", node(false))?;
        migration::write(&mut machine.qmp, "disk", 7, 0, 4096)?;
        machine.quit()?;
        assert_eq!(
            found(&bench, format, "disk")?,
            [recording("b0", 1)],
            "{format}"
        );
    }
    Ok(())
}
