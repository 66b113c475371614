// SPDX-License-Identifier: MIT OR Apache-2.0
//! Choosing an export.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};

use super::wire::{
    HANDSHAKE_FLAGS, INFO_EXPORT, OPTION_GO, OPTION_MAGIC, OPTION_REPLY_MAGIC, REPLY_ACK,
    REPLY_INFO, SERVER_MAGIC, read_u16, read_u32, read_u64,
};

/// Opens the export `name`; gives its size in bytes.
pub(super) fn go(stream: &mut (impl Read + Write), name: &str) -> Result<u64> {
    ensure!(read_u64(stream)? == SERVER_MAGIC, "not an NBD server");
    ensure!(
        read_u64(stream)? == OPTION_MAGIC,
        "not a newstyle NBD server"
    );
    let _server_flags = read_u16(stream)?;
    stream.write_all(&u32::from(HANDSHAKE_FLAGS).to_be_bytes())?;

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
    size_bytes.with_context(|| format!("export {name:?}: the server did not say its size"))
}
