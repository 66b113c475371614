// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots: those inside an image are refused, those beside it keep its bitmaps.

mod data_node;
mod external;
mod internal;
mod temporary;
