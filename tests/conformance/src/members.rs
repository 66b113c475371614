// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON objects whose members keep their order and their text.

use std::fmt;

use anyhow::{Result, ensure};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object's members in their order.
#[derive(Debug, Default)]
pub struct Members(pub Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

impl Members {
    /// Reads an object.
    ///
    /// # Errors
    /// The text is no JSON object.
    pub fn read(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// The value of a member, as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let member = self.0.iter().find(|(member, _)| member == name);
        member.map(|(_, value)| value.get())
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// JSON text without the white space between its tokens.
#[must_use]
pub fn squeezed(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |character: &char| {
        if in_string {
            in_string = escaped || *character != '"';
            escaped = !escaped && *character == '\\';
            return true;
        }
        in_string = *character == '"';
        !character.is_ascii_whitespace()
    };
    text.chars().filter(keep).collect()
}

/// Fails unless the members that `is_foreign` tells are all kept: value to the letter, place among those that stayed (X2).
///
/// # Errors
/// Says which member is not.
pub fn ensure_kept(
    place: &str,
    before: &str,
    after: &str,
    is_foreign: fn(&str) -> bool,
) -> Result<()> {
    let (old, new) = (Members::read(before)?, Members::read(after)?);
    for (name, value) in &old.0 {
        if is_foreign(name) {
            let kept = new.get(name).map(squeezed);
            ensure!(
                kept.as_deref() == Some(&squeezed(value.get())),
                "{place}: {name} was {value}, is {kept:?}"
            );
        }
    }
    let stayed: Vec<&str> = old.names();
    let order_before: Vec<_> = stayed
        .iter()
        .filter(|name| new.get(name).is_some())
        .collect();
    let new_names = new.names();
    let order_after: Vec<_> = new_names
        .iter()
        .filter(|name| old.get(name).is_some())
        .collect();
    ensure!(
        order_before == order_after,
        "{place}: members were {order_before:?}, are {order_after:?}"
    );
    Ok(())
}
