// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody writes through an export of the source, which does not let go of the disk: the
//! change of hands fails half-way, and not a write of it may be missed.

use anyhow::Result;
use qbm_testkit::load::Load;
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::{Bench, Machine, NBD_EXPORT, migration, oracle};
use serde_json::json;

use crate::Pair;

const REQUESTS_IN_FLIGHT: usize = 8;

/// Loads the disk of a machine; it is the whole change since `before`.
fn load(bench: &Bench, machine: &mut Machine, seed: u64) -> Result<Load> {
    bench.sparse("before", 64 << 20, &[])?;
    let socket = bench.path(".load");
    let listen = json!({ "addr": { "type": "unix", "data": { "path": socket } } });
    let export = json!({
        "type": "nbd", "id": "load", "node-name": "disk", "name": NBD_EXPORT, "writable": true,
    });
    machine.qmp.execute("nbd-server-start", listen)?;
    machine.qmp.execute("block-export-add", export)?;
    let client = NbdClient::connect(&socket, NBD_EXPORT)?;
    let load = Load::start(client, REQUESTS_IN_FLIGHT, seed);
    load.wait_for(50)?;
    Ok(load)
}

fn require_complete(bench: &Bench) -> Result<()> {
    let bitmap = bench.descriptor("disk")?.bitmap("b0")?;
    let verdict = oracle::judge(&bench.path("before"), &bench.path("disk.raw"), &bitmap)?;
    assert!(verdict.changed_count > 0);
    verdict.require_complete()
}

#[test]
fn the_source_goes_on() -> Result<()> {
    for (seed, way) in [(1, &[][..]), (2, &["dirty-bitmaps"])] {
        for kill in [false, true] {
            let mut pair = Pair::shared("qbm", way)?;
            let load = load(&pair.bench, &mut pair.source, seed)?;
            pair.start()?;
            load.wait_for_more(50)?;
            migration::go_on(&mut pair.source.qmp)?;
            migration::wait_for(&mut pair.source.qmp, "failed")?;
            load.wait_for_more(200)?;
            if kill {
                pair.source.kill()?;
                load.join()?;
            } else {
                load.stop()?;
                pair.source.quit()?;
            }
            require_complete(&pair.bench)?;
            let stored = qbm_testkit::life::found(&pair.bench, "qbm", "disk")?;
            assert!(stored[0].recording, "{stored:?}");
        }
    }
    Ok(())
}

#[test]
fn it_is_not_made_inactive() -> Result<()> {
    if Bench::new()?.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    let mut pair = Pair::shared("qbm", &[])?;
    let load = load(&pair.bench, &mut pair.source, 3)?;
    let state = json!({ "node-name": "disk", "active": false });
    for _ in 0..10 {
        let words = pair
            .source
            .qmp
            .refuses("blockdev-set-active", state.clone())?;
        assert!(words.contains("Operation not permitted"), "{words}");
        load.wait_for_more(20)?;
    }
    pair.source.kill()?;
    load.join()?;
    require_complete(&pair.bench)
}
