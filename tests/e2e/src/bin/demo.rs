// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make demo`: incremental backup of a guest's raw disk across shutdowns and a crash.

use std::process::ExitCode;

fn main() -> ExitCode {
    match qbm_e2e::demo::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
