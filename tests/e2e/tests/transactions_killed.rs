// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGKILL at each system call that a bitmap command makes to change a file: what is
//! found afterwards is what was before the command or after it, or has more bits.
//!
//! strace counts a thread's calls and sends the signal.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, action, bitmap_action};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What changes files.
const CALLS: &str = "pwrite64,pwritev,pwritev2,ftruncate,fallocate,fsync,fdatasync,\
                     openat,unlink,unlinkat,rename,renameat,renameat2,linkat";

/// The granules of each bitmap.
type Bits = BTreeMap<String, Vec<u64>>;

/// `b0` has granule 0, `b1` 0 and 16, `off` 16 and records no more.
fn prepare(bench: &Bench) -> Result<()> {
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let mut client = daemon.export()?;
    bitmaps::add(&mut daemon.qmp, "off", 64 * KIB)?;
    bitmaps::add(&mut daemon.qmp, "b1", 64 * KIB)?;
    client.write(MIB, &[1; 100])?;
    bitmaps::run(&mut daemon.qmp, "disable", "off")?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    client.write(0, &[1; 100])?;
    daemon.quit().map(drop)
}

/// The bitmaps that can be used; none may be inconsistent.
fn stored(bench: &Bench) -> Result<Bits> {
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    for bitmap in bitmaps::list(&mut daemon.qmp, "disk")? {
        ensure!(bitmap.get("inconsistent").is_none(), "{bitmap}");
    }
    daemon.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    let mut bits = Bits::new();
    for name in descriptor.bitmap_names() {
        bits.insert(name.clone(), descriptor.bitmap(&name)?.granules());
    }
    Ok(bits)
}

/// A command whose work is interrupted.
struct Interrupted<'a> {
    /// What comes before it, unharmed.
    setup: &'a dyn Fn(&Bench, &mut StorageDaemon) -> Result<()>,
    command: &'a str,
    arguments: Value,
    /// The event that follows its reply when all is done.
    event: Option<&'a str>,
    /// The bitmaps when nothing interrupts it.
    after: Bits,
}

impl Interrupted<'_> {
    /// Runs it, killed at the call `number` of a thread; gives whether that was reached,
    /// nothing where strace may not attach to a process that is not its child.
    fn kill_at(&self, bench: &Bench, number: u32) -> Result<Option<bool>> {
        let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
        (self.setup)(bench, &mut daemon)?;
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e"])
            .arg(format!("trace={CALLS}"))
            .arg("-e")
            .arg(format!("inject={CALLS}:signal=KILL:when={number}"))
            .args(["-p", &daemon.process_id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .context("strace")?;
        let stderr = strace.stderr.take().context("no stderr of strace")?;
        let mut attached = String::new();
        BufReader::new(stderr).read_line(&mut attached)?;
        if attached.contains("Operation not permitted") {
            Bench::leave_out(attached.trim())?;
            strace.wait()?;
            return Ok(None);
        }
        ensure!(attached.contains("attached"), "strace: {attached}");

        // Whether QEMU refuses it does not matter here.
        daemon.qmp.start(self.command, self.arguments.clone())?;
        let mut killed = daemon.qmp.reply().is_err();
        if let (false, Some(event)) = (killed, self.event) {
            killed = daemon.qmp.event(event, |_| true).is_err();
        }
        // What is done after the reply counts, too.
        let killed = killed || daemon.qmp.execute("query-jobs", json!({})).is_err();
        drop(daemon);
        strace.wait()?;
        Ok(Some(killed))
    }

    /// Kills it everywhere, `least` times or more: else strace counts something else.
    fn kill_everywhere(&self, least: u32) -> Result<()> {
        for number in 1.. {
            let bench = Bench::new()?;
            prepare(&bench)?;
            let before = stored(&bench)?;
            let Some(killed) = self.kill_at(&bench, number)? else {
                return Ok(());
            };
            let found = stored(&bench).with_context(|| format!("call {number}"))?;
            require_between(&before, &found, &self.after)
                .with_context(|| format!("call {number}: {before:?}, then {found:?}"))?;
            if !killed {
                println!("killed {} times", number - 1);
                ensure!(number > least, "killed {} times only", number - 1);
                return Ok(());
            }
        }
        unreachable!("it is killed for ever")
    }
}

fn transaction(actions: &[Value], after: Bits) -> Interrupted<'static> {
    Interrupted {
        // A thread that is new makes calls of its own, and the numbers would not be the same.
        setup: &|_, daemon| {
            bitmaps::add(&mut daemon.qmp, "warm", 64 * KIB)
                .and_then(|()| bitmaps::run(&mut daemon.qmp, "remove", "warm"))
        },
        command: "transaction",
        arguments: json!({ "actions": actions }),
        event: None,
        after,
    }
}

/// A bitmap that is there before and after is there, and lacks nothing of both.
fn require_between(before: &Bits, found: &Bits, after: &Bits) -> Result<()> {
    for (name, granules) in before {
        let Some(granules_after) = after.get(name) else {
            continue;
        };
        let found = found
            .get(name)
            .with_context(|| format!("bitmap {name:?} is gone"))?;
        for granule in granules {
            ensure!(
                found.contains(granule) || !granules_after.contains(granule),
                "bitmap {name:?} lacks granule {granule}"
            );
        }
    }
    for name in found.keys() {
        let known = before.contains_key(name) || after.contains_key(name);
        ensure!(known, "bitmap {name:?} is left over");
    }
    Ok(())
}

fn bits(list: &[(&str, &[u64])]) -> Bits {
    list.iter()
        .map(|(name, granules)| ((*name).to_owned(), granules.to_vec()))
        .collect()
}

fn everything() -> Vec<Value> {
    let mut add = bitmap_action("add", "new");
    add["data"]["persistent"] = json!(true);
    let merge = json!({ "node": "disk", "target": "b0", "bitmaps": ["off"] });
    vec![
        add,
        bitmap_action("clear", "b0"),
        action("block-dirty-bitmap-merge", merge),
        bitmap_action("disable", "b1"),
        bitmap_action("enable", "off"),
    ]
}

#[test]
fn a_transaction_that_succeeds() -> Result<()> {
    let after = bits(&[
        ("b0", &[16]),
        ("b1", &[0, 16]),
        ("off", &[16]),
        ("new", &[]),
    ]);
    transaction(&everything(), after).kill_everywhere(3)
}

#[test]
fn a_transaction_that_is_rolled_back() -> Result<()> {
    let after = bits(&[("b0", &[0]), ("b1", &[0, 16]), ("off", &[16])]);
    let mut actions = everything();
    actions.push(action("abort", json!({})));
    let mut interrupted = transaction(&actions, after);
    // While it is under way, it is there.
    interrupted.after.insert("new".to_owned(), Vec::new());
    interrupted.kill_everywhere(3)
}

/// A removal is made at once in QEMU, and taken back by adding the bitmap again: killed in
/// between, it is gone.  What remains may not be wrong.
#[test]
fn a_removal_that_is_rolled_back() -> Result<()> {
    let after = bits(&[("b1", &[0, 16]), ("off", &[16])]);
    let actions = [bitmap_action("remove", "b0"), action("abort", json!({}))];
    transaction(&actions, after).kill_everywhere(3)
}

/// A backup that has copied everything gives its bitmap back, emptied.
#[test]
fn the_end_of_a_backup() -> Result<()> {
    let setup = |bench: &Bench, daemon: &mut StorageDaemon| {
        bench.sparse("target.raw", 64 << 20, &[])?;
        backup::open_target(&mut daemon.qmp, "target", "raw", "target.raw")?;
        let job = json!({
            "job-id": "backup", "device": "disk", "target": "target",
            "sync": "incremental", "bitmap": "b1", "auto-finalize": false,
        });
        daemon.qmp.execute("blockdev-backup", job)?;
        let pending = |data: &Value| data["status"] == "pending";
        daemon.qmp.event("JOB_STATUS_CHANGE", pending).map(drop)
    };
    let interrupted = Interrupted {
        setup: &setup,
        command: "job-finalize",
        arguments: json!({ "id": "backup" }),
        event: Some("BLOCK_JOB_COMPLETED"),
        after: bits(&[("b0", &[0]), ("b1", &[]), ("off", &[16])]),
    };
    interrupted.kill_everywhere(1)
}
