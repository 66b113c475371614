// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QEMU system emulator without a guest: what migrates, takes snapshots and shuts
//! down.  The monitor writes in the guest's place.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::qmp::Qmp;
use crate::{Args, Bench, Process};

/// A running system emulator with no guest in it.  Killed when dropped.
#[derive(Debug)]
pub struct Machine {
    /// The monitor.
    pub qmp: Qmp,
    process: Process,
}

impl Machine {
    /// Starts a machine called `name`, whose name no other of the bench has.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(bench: &Bench, name: &str, args: impl Args) -> Result<Self> {
        let mut command = bench.command("qemu-system-x86_64");
        let monitor = bench.path(&format!(".{name}.qmp"));
        command
            .args(["-machine", "none", "-accel", "tcg", "-nodefaults"])
            .args(["-display", "none", "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .args(args.list());
        let mut process = Process::start(&mut command, bench.path(&format!(".{name}.stderr")))?;
        let qmp = Qmp::connect(&monitor, &mut process)?;
        Ok(Self { qmp, process })
    }

    /// Runs a command of the human monitor; gives what it printed.
    ///
    /// # Errors
    /// When the monitor does not answer.
    pub fn human(&mut self, line: &str) -> Result<String> {
        let arguments = json!({ "command-line": line });
        let reply = self.qmp.execute("human-monitor-command", arguments)?;
        Ok(reply.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a command of qemu-io on a node, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn io(&mut self, node: &str, command: &str) -> Result<()> {
        let output = self.human(&format!("qemu-io {node} \"{command}\""))?;
        let bad = ["failed", "rror", "Pattern"];
        ensure!(
            !bad.iter().any(|word| output.contains(word)),
            "{command}: {output}"
        );
        Ok(())
    }

    /// The granules that a bitmap of a node marks, as its count of bytes.
    ///
    /// # Errors
    /// When there is no such bitmap.
    pub fn bitmap(&mut self, node: &str, name: &str) -> Result<Value> {
        let nodes = self
            .qmp
            .execute("query-named-block-nodes", json!({ "flat": true }))?;
        let nodes = nodes.as_array().context("no nodes")?;
        let node = nodes.iter().find(|found| found["node-name"] == node);
        let bitmaps = node.context("no such node")?["dirty-bitmaps"].as_array();
        bitmaps
            .and_then(|list| list.iter().find(|bitmap| bitmap["name"] == name))
            .cloned()
            .with_context(|| format!("there is no bitmap {name:?}"))
    }

    /// Waits until the migration has one of the states given; gives it.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn migrated(&mut self, states: &[&str]) -> Result<String> {
        let event = self.qmp.event("MIGRATION", |data| {
            states.iter().any(|state| data["status"] == *state)
        })?;
        Ok(event["data"]["status"].as_str().unwrap_or("").to_owned())
    }

    /// Sets capabilities of migration; its events are one.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn migration_capabilities(&mut self, names: &[&str]) -> Result<()> {
        let list: Vec<Value> = names
            .iter()
            .chain(&["events"])
            .map(|name| json!({ "capability": name, "state": true }))
            .collect();
        let arguments = json!({ "capabilities": list });
        self.qmp.execute("migrate-set-capabilities", arguments)?;
        Ok(())
    }

    /// QEMU's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end, which must be a success; gives its standard error.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn wait(mut self) -> Result<String> {
        self.process.wait_success()
    }

    /// Ends it in order; gives what it wrote to its standard error.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn quit(mut self) -> Result<String> {
        self.qmp.quit()?;
        self.wait()
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}
