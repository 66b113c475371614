// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGKILL in the middle of a QMP command that changes the descriptor (I4): what is
//! found is the state before it or the one after.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qbm_testkit::load::Load;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, Random, StorageDaemon, backup};
use serde_json::{Value, json};

const DISK_BYTES: u64 = 16 << 20;
const ROUNDS: u32 = 30;
const SEED: u64 = 4;
/// A command takes about this long; the kill comes somewhere within.
const COMMAND_MICROS: u64 = 6000;

/// The bitmap that commands are about; `always` stays, and must lose nothing.
const NAME: &str = "temporary";

#[test]
fn the_old_state_or_the_new_one() -> Result<()> {
    let bench = Bench::new()?;
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    bench.img("bitmap --add -g 4096 -f qbm disk.qbm always")?;
    bench.sparse("beginning.raw", DISK_BYTES, &[])?;
    let mut random = Random::new(SEED);
    for round in 0..ROUNDS {
        kill_in_command(&bench, &mut random)
            .and_then(|()| require_sound(&bench))
            .with_context(|| format!("round {round} of seed {SEED}"))?;
    }
    Ok(())
}

fn kill_in_command(bench: &Bench, random: &mut Random) -> Result<()> {
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let present = backup::query_bitmap(&mut daemon.qmp, NAME)?.is_some();
    let load = Load::start(daemon.export()?, 8, random.draw());
    load.wait_for(20)?;
    let (command, arguments) = a_command(random, present);
    daemon.qmp.start(command, arguments)?;
    sleep(Duration::from_micros(random.below(COMMAND_MICROS)));
    daemon.kill()?;
    load.join().map(drop)
}

fn a_command(random: &mut Random, present: bool) -> (&'static str, Value) {
    let name = json!({ "node": "disk", "name": NAME });
    if !present {
        let mut add = name;
        add["persistent"] = json!(true);
        add["granularity"] = json!(512);
        return ("block-dirty-bitmap-add", add);
    }
    match random.below(6) {
        0 => ("block-dirty-bitmap-clear", name),
        1 => ("block-dirty-bitmap-disable", name),
        2 => ("block-dirty-bitmap-enable", name),
        3 => {
            let merge = json!({ "node": "disk", "target": NAME, "bitmaps": ["always"] });
            ("block-dirty-bitmap-merge", merge)
        }
        _ => ("block-dirty-bitmap-remove", name),
    }
}

/// The image opens, no bitmap is inconsistent, `always` has missed nothing.
fn require_sound(bench: &Bench) -> Result<()> {
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "always")?;
    if let Some(bitmap) = backup::query_bitmap(&mut daemon.qmp, NAME)? {
        ensure!(bitmap.get("inconsistent") != Some(&json!(true)), "{bitmap}");
    }
    daemon.quit()?;
    // QEMU was first to look: it puts in order what a kill left half done.
    let descriptor = bench.descriptor("disk.qbm")?;
    let disk = descriptor.data_file()?;
    judge(
        &bench.path("beginning.raw"),
        &disk,
        &descriptor.bitmap("always")?,
    )?
    .require_complete()
}
