// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed man pages are the generated ones, and everything in the header is on one of them.
//!
//! | page | from |
//! | --- | --- |
//! | introduction, examples | `qbm-ffi/man/*.md` |
//! | synopsis, functions, structures, constants | `include/qbm.h` |
//! | qbm(7), qbm-format(5) | the documents of the tree too |

mod header;
mod inline;
mod markdown;
mod page;
mod reference;
mod roff;
mod table;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use header::{Header, Kind};
use page::Source;

fn man() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

fn header() -> Header {
    Header::read(&fs::read_to_string(man().join("../../include/qbm.h")).unwrap())
}

fn sources() -> Vec<Source> {
    let mut paths: Vec<PathBuf> = fs::read_dir(man())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.iter().map(|path| Source::read(path)).collect()
}

/// Every page by its file name below qbm-ffi/man, those that lead to another one included.
fn generate() -> BTreeMap<String, String> {
    let header = header();
    let root = man().join("../..");
    let mut pages = BTreeMap::new();
    for source in sources() {
        let file_name = source.file_name();
        for item in source.items(&header) {
            if item.name != source.name && !matches!(item.kind, Kind::Constant { .. }) {
                pages.insert(
                    format!("man3/{}.3", item.name),
                    format!(".so {file_name}\n"),
                );
            }
        }
        pages.insert(file_name, source.page(&header, &root));
    }
    pages
}

fn committed() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for section in ["man3", "man5", "man7"] {
        for entry in fs::read_dir(man().join(section)).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = format!("{section}/{}", entry.file_name().to_str().unwrap());
            pages.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
    pages
}

#[test]
fn the_pages_are_the_generated_ones() {
    let generated = generate();
    if env::var_os("QBM_WRITE_MAN").is_some() {
        for name in committed()
            .into_keys()
            .filter(|name| !generated.contains_key(name))
        {
            fs::remove_file(man().join(name)).unwrap();
        }
        for (name, page) in &generated {
            let path = man().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, page).unwrap();
        }
    }
    let committed = committed();
    for name in generated.keys().chain(committed.keys()) {
        assert!(
            generated.get(name) == committed.get(name),
            "qbm-ffi/man/{name} is not what include/qbm.h and qbm-ffi/man/*.md say: run `make man` and look at the difference"
        );
    }
}

#[test]
fn everything_in_the_header_is_on_one_page() {
    let header = header();
    let mut pages: BTreeMap<&str, Vec<String>> = header
        .items
        .iter()
        .map(|item| (&*item.name, Vec::new()))
        .collect();
    for source in sources() {
        for item in source.items(&header) {
            pages
                .get_mut(&*item.name)
                .expect("from the header")
                .push(source.name.clone());
        }
    }
    pages.retain(|_, on| on.len() != 1);
    assert!(
        pages.is_empty(),
        "to be put on one page, by the lists at the top of qbm-ffi/man/*.md: {pages:?}"
    );
}

#[test]
fn the_header_declares_the_exported_functions() {
    let map = fs::read_to_string(man().join("../qbm.map")).unwrap();
    let mut exported: Vec<&str> = map
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .filter(|name| name.starts_with("qbm_"))
        .collect();
    exported.sort_unstable();
    let header = header();
    let mut declared: Vec<&str> = header
        .items
        .iter()
        .filter(|item| matches!(item.kind, Kind::Function { .. }))
        .map(|item| &*item.name)
        .collect();
    declared.sort_unstable();
    assert_eq!(exported, declared, "qbm-ffi/qbm.map and include/qbm.h");
}
