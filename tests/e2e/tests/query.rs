// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QEMU says of bitmaps: the same for qbm as for qcow2, member by member.

use anyhow::{Context, Result};
use qbm_testkit::bitmaps::{bitmap_action, on_disk};
use qbm_testkit::{Bench, Machine};
use serde_json::{Value, json};

const FORMATS: [&str; 2] = ["qcow2", "qbm"];

/// A QEMU with the image of a format as drive `disk`, and one to back it up to.
struct Side {
    bench: Bench,
    machine: Machine,
    format: &'static str,
    answers: Vec<(String, Value)>,
}

impl Side {
    fn new(format: &'static str, options: &str) -> Result<Self> {
        let bench = Bench::new()?;
        bench.img(["create", "-q", "-f", format, "disk", "64M"])?;
        bench.img(["bitmap", "--add", "-f", format, "disk", "old"])?;
        bench.io_as(format, "disk", &["write 1M 64k"])?;
        bench.sparse("target.raw", 64 << 20, &[])?;
        let machine = boot(&bench, format, options)?;
        Ok(Self {
            bench,
            machine,
            format,
            answers: Vec::new(),
        })
    }

    /// Runs a command; what it returns, or the error's class, goes on record.
    fn command(&mut self, command: &str, arguments: &Value) -> Result<()> {
        self.machine.qmp.start(command, arguments.clone())?;
        let reply = self.machine.qmp.reply()?;
        let outcome = match reply.get("error") {
            Some(error) => json!({ "error": error["class"] }),
            None => json!({ "return": reply["return"] }),
        };
        self.answers
            .push((format!("{command} {arguments}"), outcome));
        self.query(command)
    }

    /// Records how the two query commands describe the bitmaps.
    fn query(&mut self, after: &str) -> Result<()> {
        let devices = self.machine.qmp.execute("query-block", json!({}))?;
        let nodes = self
            .machine
            .qmp
            .execute("query-named-block-nodes", json!({}))?;
        let device = find(&devices, "device", "drive")?;
        let node = find(&nodes, "node-name", "disk")?;
        for (query, value) in [
            ("query-block", &device["dirty-bitmaps"]),
            (
                "query-block: inserted",
                &device["inserted"]["dirty-bitmaps"],
            ),
            ("query-named-block-nodes", &node["dirty-bitmaps"]),
        ] {
            self.answers
                .push((format!("{query} after {after}"), in_order(value)));
        }
        Ok(())
    }

    fn guest_writes(&mut self, offset: &str) -> Result<()> {
        let write = format!("qemu-io drive \"write {offset} 64k\"");
        self.command("human-monitor-command", &json!({ "command-line": write }))
    }

    fn again(&mut self, killed: bool, options: &str) -> Result<()> {
        let machine = boot_later(&self.bench, self.format, options);
        let old = std::mem::replace(&mut self.machine, Machine::start(&self.bench, "")?);
        if killed {
            old.kill()?;
        } else {
            old.quit()?;
        }
        self.machine = machine()?;
        self.query("being opened again")
    }
}

fn boot(bench: &Bench, format: &str, options: &str) -> Result<Machine> {
    boot_later(bench, format, options)()
}

fn boot_later<'a>(
    bench: &'a Bench,
    format: &str,
    options: &str,
) -> impl FnOnce() -> Result<Machine> + use<'a> {
    let disk =
        format!("if=none,id=drive,node-name=disk,driver={format},file.filename=disk{options}");
    let args = [
        "-drive".to_owned(),
        disk,
        "-blockdev".to_owned(),
        "driver=raw,node-name=target,file.driver=file,file.filename=target.raw".to_owned(),
    ];
    move || Machine::start(bench, &args[..])
}

/// The order of bitmaps in a list is not a promise.
fn in_order(list: &Value) -> Value {
    let mut list = list.clone();
    if let Some(bitmaps) = list.as_array_mut() {
        bitmaps.sort_by_key(|bitmap| bitmap["name"].to_string());
    }
    list
}

fn find<'a>(list: &'a Value, key: &str, name: &str) -> Result<&'a Value> {
    let list = list.as_array().context("no list")?;
    list.iter()
        .find(|entry| entry[key] == name)
        .with_context(|| format!("there is no {name:?}"))
}

/// Runs the same for both formats; their answers must be equal.
fn side_by_side(options: &str, run: impl Fn(&mut Side) -> Result<()>) -> Result<()> {
    let mut recorded = Vec::new();
    for format in FORMATS {
        let mut side = Side::new(format, options)?;
        side.query("being opened")?;
        run(&mut side).with_context(|| format.to_owned())?;
        recorded.push(side.answers);
    }
    assert!(recorded[0].len() > 3, "nothing was asked");
    assert_eq!(recorded[0].len(), recorded[1].len());
    for (qcow2, qbm) in recorded[0].iter().zip(&recorded[1]) {
        assert_eq!(qcow2, qbm, "left: qcow2, right: qbm");
    }
    Ok(())
}

#[test]
fn bitmaps_of_every_kind() -> Result<()> {
    side_by_side("", |side| {
        side.guest_writes("0")?;
        for (name, persistent, disabled) in [
            ("p", true, false),
            ("pd", true, true),
            ("m", false, false),
            ("md", false, true),
        ] {
            let mut add = on_disk(name);
            add["persistent"] = json!(persistent);
            add["disabled"] = json!(disabled);
            side.command("block-dirty-bitmap-add", &add)?;
        }
        let mut fine = on_disk("fine");
        fine["persistent"] = json!(true);
        fine["granularity"] = json!(512);
        side.command("block-dirty-bitmap-add", &fine)?;
        side.guest_writes("2M")?;
        for verb in ["disable", "clear", "enable", "remove"] {
            side.command(&format!("block-dirty-bitmap-{verb}"), &on_disk("p"))?;
        }
        let merge = json!({ "node": "disk", "target": "md", "bitmaps": ["old", "m"] });
        side.command("block-dirty-bitmap-merge", &merge)?;
        for verb in ["disable", "clear", "enable", "remove"] {
            side.command(&format!("block-dirty-bitmap-{verb}"), &on_disk("gone"))?;
        }
        side.again(false, "")?;
        side.command("query-jobs", &json!({}))
    })
}

#[test]
fn a_bitmap_that_a_job_has() -> Result<()> {
    side_by_side("", |side| {
        let job = json!({
            "job-id": "job", "device": "disk", "target": "target", "sync": "incremental",
            "bitmap": "old", "auto-finalize": false,
        });
        side.command("blockdev-backup", &job)?;
        let pending = |data: &Value| data["status"] == "pending";
        side.machine.qmp.event("JOB_STATUS_CHANGE", pending)?;
        side.guest_writes("3M")?;
        for verb in ["disable", "clear", "enable", "remove"] {
            side.command(&format!("block-dirty-bitmap-{verb}"), &on_disk("old"))?;
        }
        side.machine
            .qmp
            .execute("job-finalize", json!({ "id": "job" }))?;
        side.machine.qmp.event("BLOCK_JOB_COMPLETED", |_| true)?;
        side.query("the job's end")
    })
}

#[test]
fn in_transactions() -> Result<()> {
    side_by_side("", |side| {
        let mut add = bitmap_action("add", "new");
        add["data"]["persistent"] = json!(true);
        let list = [
            add,
            bitmap_action("clear", "old"),
            bitmap_action("disable", "old"),
            bitmap_action("remove", "old"),
        ];
        for count in 0..=list.len() {
            let mut actions = list[..count].to_vec();
            actions.push(json!({ "type": "abort", "data": {} }));
            side.command("transaction", &json!({ "actions": actions }))?;
        }
        side.command("transaction", &json!({ "actions": list }))
    })
}

#[test]
fn a_read_only_node() -> Result<()> {
    side_by_side(",read-only=on", |side| {
        for verb in ["disable", "enable", "clear", "remove"] {
            side.command(&format!("block-dirty-bitmap-{verb}"), &on_disk("old"))?;
        }
        // qcow2 would take a persistent one as well, and not store it.
        side.command("block-dirty-bitmap-add", &on_disk("passing"))
    })
}

/// What a kill costs qcow2, it costs qbm at durability=close: both show it alike.
#[test]
fn an_inconsistent_bitmap() -> Result<()> {
    let mut recorded = Vec::new();
    for (format, options) in [("qcow2", ""), ("qbm", ",durability=close")] {
        let mut side = Side::new(format, options)?;
        side.guest_writes("0")?;
        side.again(true, options)?;
        for verb in ["disable", "enable", "clear"] {
            side.command(&format!("block-dirty-bitmap-{verb}"), &on_disk("old"))?;
        }
        side.again(false, options)?;
        side.command("block-dirty-bitmap-remove", &on_disk("old"))?;
        recorded.push(side.answers);
    }
    assert_eq!(recorded[0], recorded[1], "left: qcow2, right: qbm");
    let shown = recorded[1]
        .iter()
        .any(|(_, answer)| answer[0]["inconsistent"] == true);
    assert!(shown, "{:?}", recorded[1]);
    Ok(())
}
