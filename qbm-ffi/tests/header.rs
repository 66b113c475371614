// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed header says what the crate says.

use std::env;
use std::fs;
use std::path::Path;

#[test]
fn the_header_is_the_generated_one() {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_directory.join("cbindgen.toml")).unwrap();
    let mut generated = Vec::new();
    cbindgen::generate_with_config(crate_directory, config)
        .unwrap()
        .write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();

    let path = crate_directory.join("../include/qbm.h");
    if env::var_os("QBM_WRITE_HEADER").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(
        committed == generated,
        "include/qbm.h is not what qbm-ffi says: run `make header` and look at the difference"
    );
}
