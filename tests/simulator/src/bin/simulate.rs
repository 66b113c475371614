// SPDX-License-Identifier: MIT OR Apache-2.0
//! `simulate`: explores crashes of random sequences, or replays one. See `--help`.

use std::process::ExitCode;

use qbm_simulator::Stats;
use qbm_simulator::campaign::{Case, campaign, explore};

const HELP: &str = "\
Explores crashes of random sequences of calls against a simulated disk.

  simulate [--seed N] [--crash-points N]     sequences of the seeds N, N + 1, ... until so many crashes were judged
  simulate --seed N --only                   the sequence of that seed, without a fault and with several
  simulate --seed N --sequence JSON [--fault JSON] [--crash LABEL]
                                             one case, as a failure prints it; with a label (as printed), that crash
                                             alone, and every operation of the seam
";

struct Arguments {
    seed: u64,
    crash_points: u64,
    only: bool,
    sequence: Option<String>,
    fault: Option<String>,
    crash: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seed: 1,
        crash_points: 100_000,
        only: false,
        sequence: None,
        fault: None,
        crash: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--only" {
            found.only = true;
            continue;
        }
        let mut value = || given.next().ok_or(format!("{name} wants a value"));
        let number = |text: String| {
            text.parse()
                .map_err(|error| format!("{name} {text}: {error}"))
        };
        match name.as_str() {
            "--seed" => found.seed = number(value()?)?,
            "--crash-points" => found.crash_points = number(value()?)?,
            "--sequence" => found.sequence = Some(value()?),
            "--fault" => found.fault = Some(value()?),
            "--crash" => found.crash = Some(value()?),
            _ => return Err(HELP.to_owned()),
        }
    }
    Ok(found)
}

fn run(arguments: &Arguments, stats: &Stats) -> Result<(), String> {
    let told = |finding: Box<qbm_simulator::campaign::Finding>| finding.to_string();
    let Some(sequence) = &arguments.sequence else {
        if arguments.only {
            return explore(arguments.seed, stats).map_err(told);
        }
        return campaign(arguments.seed, arguments.crash_points, stats).map_err(told);
    };
    let json = |what: &str, error: serde_json::Error| format!("--{what}: {error}");
    let fault = arguments.fault.as_deref().map(serde_json::from_str);
    let case = Case {
        sequence: serde_json::from_str(sequence).map_err(|error| json("sequence", error))?,
        fault: fault.transpose().map_err(|error| json("fault", error))?,
        seed: arguments.seed,
    };
    let result = case.run(arguments.crash.as_deref(), stats);
    result
        .map(|_| ())
        .map_err(|violation| violation.to_string())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let stats = Stats::default();
    let result = run(&arguments, &stats);
    println!("{stats}");
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
