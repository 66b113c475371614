// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariant I1, seen from the data image: when a change arrives there, its bits are on
//! disk already.
//!
//! The data image is served by the test itself, which looks into the bitmap file before
//! it answers.

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use qbm_testkit::bitmap_file::BitmapFile;
use qbm_testkit::load::Load;
use qbm_testkit::nbd::{NbdServer, Operation, Request};
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::json;

const DISK_BYTES: usize = 16 << 20;
const GRANULARITY_BYTES: u64 = 4096;
const REQUESTS_IN_FLIGHT: usize = 16;
const SEED: u64 = 16;

/// What the data image saw.
#[derive(Debug, Default)]
struct Seen {
    changes_count: u64,
    too_early: Vec<String>,
}

/// Loads an image of the durability given; gives what its data image saw.
fn watch(durability: &str) -> Result<Seen> {
    let bench = Bench::new()?;
    let create = format!("create -q -f qbm -o durability={durability} disk.qbm {DISK_BYTES}");
    bench.img(&create)?;
    bench.img(&format!(
        "bitmap --add -g {GRANULARITY_BYTES} -f qbm disk.qbm b0"
    ))?;
    let bits = bench.descriptor("disk.qbm")?.bitmap_path("b0")?;

    let seen = Arc::new(Mutex::new(Seen::default()));
    let watcher = Arc::clone(&seen);
    let server = NbdServer::start(&bench.path(".data.nbd"), DISK_BYTES, move |request| {
        let bitmap = BitmapFile::read(&bits, GRANULARITY_BYTES);
        let mut seen = watcher
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(request.operation, Operation::Read | Operation::Flush) {
            return;
        }
        seen.changes_count += 1;
        if !bitmap.is_ok_and(|bitmap| marks(&bitmap, request)) {
            let Request {
                operation,
                offset,
                length_bytes,
                ..
            } = request;
            seen.too_early
                .push(format!("{operation:?} {offset}+{length_bytes}"));
        }
    })?;
    let data = json!({
        "driver": "nbd", "export": "data",
        "server": { "type": "unix", "path": server.socket() },
    });
    let mut daemon =
        StorageDaemon::with_image_options(&bench, "disk.qbm", &json!({ "data-file": data }))?;
    let load = Load::start(daemon.export()?, REQUESTS_IN_FLIGHT, SEED);
    load.wait_for(500)?;
    load.stop()?;
    daemon.quit()?;
    let mut seen = seen
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(std::mem::take(&mut *seen))
}

/// Whether all of the request's granules are set.
fn marks(bitmap: &BitmapFile, request: &Request) -> bool {
    let first = request.offset / GRANULARITY_BYTES;
    let end = (request.offset + u64::from(request.length_bytes)).div_ceil(GRANULARITY_BYTES);
    (first..end).all(|granule| bitmap.is_set(granule))
}

#[test]
fn bits_are_on_disk_before_the_data_moves() -> Result<()> {
    let seen = watch("process")?;
    ensure!(
        seen.changes_count > 100,
        "too little was seen: {}",
        seen.changes_count
    );
    ensure!(
        seen.too_early.is_empty(),
        "{} of {} changes came before their bits: {:?}",
        seen.too_early.len(),
        seen.changes_count,
        seen.too_early.iter().take(5).collect::<Vec<_>>()
    );
    Ok(())
}

/// The control: where bits stay in memory, the same watch sees it.
#[test]
fn the_watch_sees_bits_that_are_late() -> Result<()> {
    let seen = watch("close")?;
    ensure!(!seen.too_early.is_empty(), "the watch is blind");
    Ok(())
}
