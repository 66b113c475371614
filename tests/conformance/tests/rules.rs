// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every rule of the specification has a test that names it, and no test names a rule that there is not.

use anyhow::{Result, ensure};
use qbm_conformance::{fixtures, rules, tree};

#[test]
fn every_rule_has_a_test_that_names_it() -> Result<()> {
    let specified = rules::rules(&tree().join("qbm-core/FORMAT.md"))?;
    ensure!(!specified.is_empty(), "no rules");
    let named = rules::named(&tree(), &fixtures())?;
    for rule in &specified {
        let places = named.get(rule).cloned().unwrap_or_default();
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        println!("{rule}\t{}", places.join("\n\t"));
    }
    let untested: Vec<String> = specified
        .iter()
        .filter(|rule| !named.contains_key(rule))
        .map(ToString::to_string)
        .collect();
    let unknown: Vec<String> = named
        .iter()
        .filter(|(rule, _)| !specified.contains(rule))
        .map(|(rule, places)| format!("{rule} in {places:?}"))
        .collect();
    ensure!(unknown.is_empty(), "no such rules: {unknown:?}");
    ensure!(untested.is_empty(), "rules without a test: {untested:?}");
    Ok(())
}
