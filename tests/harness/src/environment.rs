// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the QEMU under test and the guest's files are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The QEMU under test: a directory with `bin/` in it.
#[derive(Debug, Clone)]
pub struct Qemu {
    bin: PathBuf,
}

impl Qemu {
    /// The QEMU that the environment variable `QBM_QEMU` names.
    ///
    /// # Errors
    /// When the variable is unset or the directory holds no QEMU; the message says
    /// how to get one.  Tests fail then, they do not skip: a skipped end-to-end
    /// test looks like a passed one.
    pub fn from_env() -> Result<Self> {
        let root = directory("QBM_QEMU", "make qemu")?;
        let bin = root.join("bin");
        ensure!(
            bin.join("qemu-img").exists(),
            "QBM_QEMU={}: there is no bin/qemu-img in it; run `make qemu`",
            root.display()
        );
        Ok(Self { bin })
    }

    /// The path of one of QEMU's programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Major and minor version, as `qemu-img --version` tells them.
    ///
    /// # Errors
    /// When it cannot be run or tells none.
    pub fn version(&self) -> Result<(u32, u32)> {
        let output = Command::new(self.program("qemu-img"))
            .arg("--version")
            .output()
            .context("qemu-img --version")?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_version(&text).with_context(|| format!("no version in {text:?}"))
    }
}

/// What a guest boots from, as `tests/guest/fetch.sh` laid it out.
#[derive(Debug, Clone)]
pub struct GuestFiles {
    root: PathBuf,
}

impl GuestFiles {
    /// The guest files that the environment variable `QBM_GUEST` names.
    ///
    /// # Errors
    /// As [`Qemu::from_env`].
    pub fn from_env() -> Result<Self> {
        let root = directory("QBM_GUEST", "tests/guest/fetch.sh")?;
        let files = Self { root };
        for file in [files.kernel(), files.initramfs(), files.firmware()] {
            ensure!(
                file.exists(),
                "{} is missing: run `tests/guest/fetch.sh`",
                file.display()
            );
        }
        Ok(files)
    }

    /// The Linux kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.root.join("vmlinuz")
    }

    /// The initramfs whose init runs commands from the serial line.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.root.join("initramfs")
    }

    /// The directory of firmware, for `-L`.
    #[must_use]
    pub fn firmware(&self) -> PathBuf {
        self.root.join("firmware")
    }
}

/// From a text such as `qemu-img version 7.2.22 (Debian ...)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn directory(variable: &str, remedy: &str) -> Result<PathBuf> {
    let value = env::var_os(variable).with_context(|| {
        format!("{variable} is not set: run `{remedy}` and set it to the directory that it prints last (`make test` does both)")
    })?;
    let path = Path::new(&value);
    path.canonicalize()
        .with_context(|| format!("{variable}={}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn the_version_is_read_from_what_qemu_img_prints() {
        assert_eq!(parse_version("qemu-img version 10.0.13\n"), Some((10, 0)));
        assert_eq!(
            parse_version("qemu-img version 7.2.22 (Debian 1:7.2)\nCopyright"),
            Some((7, 2))
        );
        assert_eq!(parse_version("something else"), None);
    }
}
