// SPDX-License-Identifier: MIT OR Apache-2.0
//! `tests/crash.sh`: kills QEMU under load and looks for a lost block.
//!
//! Usage: `crash [ROUNDS [SEED]]`; 50 rounds by default, and a new seed every day.

use std::env;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

const ROUNDS: u32 = 50;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("The crash run failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = env::args().skip(1);
    let rounds = match args.next() {
        Some(text) => text
            .parse()
            .with_context(|| format!("{text:?} is no number of rounds"))?,
        None => ROUNDS,
    };
    let seed = match args.next() {
        Some(text) => text
            .parse()
            .with_context(|| format!("{text:?} is no seed"))?,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / SECONDS_PER_DAY,
    };
    println!("{rounds} rounds, seed {seed}");
    let summary = qbm_e2e::crash::run(rounds, seed, |line| println!("{line}"))?;
    println!("{summary}");
    Ok(())
}
