// SPDX-License-Identifier: MIT OR Apache-2.0
//! QBM is put under a disk while a guest writes to it: from then on no write is missed.

mod export;
mod guest;
