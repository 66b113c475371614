// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers on the wire, big endian, and the protocol's magic ones.

use std::io::Read;

use anyhow::Result;

pub(super) const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Fixed newstyle, and no padding after the export's description: of either side.
pub(super) const HANDSHAKE_FLAGS: u16 = 3;
pub(super) const OPTION_GO: u32 = 7;
pub(super) const REPLY_ACK: u32 = 1;
pub(super) const REPLY_INFO: u32 = 3;
pub(super) const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
pub(super) const INFO_EXPORT: u16 = 0;

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
