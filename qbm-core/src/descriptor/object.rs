// SPDX-License-Identifier: MIT OR Apache-2.0
//! A JSON object whose members keep their order and, unless replaced, their text.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::error::quoted;

/// Members in their order. A name that occurs twice does not parse: which one counts would be a guess.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object {
    members: Vec<(String, Box<RawValue>)>,
}

impl Object {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.iter()
            .find(|(member, _)| *member == name)
            .map(|(_, value)| value)
    }

    /// Replaces a member where it stands, or appends it.
    pub(crate) fn set(&mut self, name: &str, value: &impl Serialize) {
        // Only strings, numbers, booleans and maps with string keys come here: they always serialize.
        let Ok(value) = to_raw_value(value) else {
            return;
        };
        match self.members.iter_mut().find(|(member, _)| member == name) {
            Some((_, old)) => *old = value,
            None => self.members.push((name.to_owned(), value)),
        }
    }

    /// [`set`](Self::set) for `Some`, [`unset`](Self::unset) for `None`.
    pub(crate) fn set_or_unset(&mut self, name: &str, value: Option<&impl Serialize>) {
        match value {
            Some(value) => self.set(name, value),
            None => self.unset(name),
        }
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.members.retain(|(member, _)| member != name);
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        for (member, _) in &mut self.members {
            if member == from {
                to.clone_into(member);
            }
        }
    }
}

impl FromIterator<(String, Box<RawValue>)> for Object {
    fn from_iter<I: IntoIterator<Item = (String, Box<RawValue>)>>(members: I) -> Self {
        Self {
            members: members.into_iter().collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                let mut seen = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!(
                            "member {} occurs twice",
                            quoted(name)
                        )));
                    }
                    members.push((name, value));
                }
                Ok(Object { members })
            }
        }

        deserializer.deserialize_map(Members)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len()))?;
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_text_are_kept() {
        let text = r#"{"b":1e400,"a":{"x" : [ ]},"c":"\u0041"}"#;
        let mut object: Object = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), text);
        object.set("a", &5);
        object.unset("c");
        object.set("d", &true);
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"b":1e400,"a":5,"d":true}"#
        );
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let error = serde_json::from_str::<Object>(r#"{"a":1,"a":2}"#).unwrap_err();
        assert!(error.to_string().contains("\"a\" occurs twice"), "{error}");
    }
}
