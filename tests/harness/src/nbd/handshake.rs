// SPDX-License-Identifier: MIT OR Apache-2.0
//! Choosing an export.

use std::io::{Read, Write};

use anyhow::{Result, bail, ensure};

const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Fixed newstyle, and no padding after the export's description.
const CLIENT_FLAGS: u32 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;

/// Opens the export `name`; gives its size in bytes.
pub(super) fn go(stream: &mut (impl Read + Write), name: &str) -> Result<u64> {
    ensure!(read_u64(stream)? == SERVER_MAGIC, "not an NBD server");
    ensure!(
        read_u64(stream)? == OPTION_MAGIC,
        "not a newstyle NBD server"
    );
    let _server_flags = read_u16(stream)?;
    stream.write_all(&CLIENT_FLAGS.to_be_bytes())?;

    let name_bytes = u32::try_from(name.len())?;
    let mut option = Vec::new();
    option.extend(OPTION_MAGIC.to_be_bytes());
    option.extend(OPTION_GO.to_be_bytes());
    option.extend((4 + name_bytes + 2).to_be_bytes());
    option.extend(name_bytes.to_be_bytes());
    option.extend(name.as_bytes());
    // No particular information is asked for: the size comes anyway.
    option.extend(0_u16.to_be_bytes());
    stream.write_all(&option)?;

    let mut size_bytes = None;
    loop {
        ensure!(
            read_u64(stream)? == OPTION_REPLY_MAGIC,
            "not an NBD option reply"
        );
        let _option = read_u32(stream)?;
        let kind = read_u32(stream)?;
        let mut data = vec![0; read_u32(stream)? as usize];
        stream.read_exact(&mut data)?;
        match kind {
            REPLY_ACK => break,
            REPLY_INFO => {
                let mut data = data.as_slice();
                if read_u16(&mut data)? == INFO_EXPORT {
                    size_bytes = Some(read_u64(&mut data)?);
                }
            }
            _ => bail!("export {name:?}: {}", String::from_utf8_lossy(&data)),
        }
    }
    size_bytes.ok_or_else(|| anyhow::anyhow!("export {name:?}: the server did not say its size"))
}

pub(super) fn read_u16(stream: &mut impl Read) -> Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

pub(super) fn read_u32(stream: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

pub(super) fn read_u64(stream: &mut impl Read) -> Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
