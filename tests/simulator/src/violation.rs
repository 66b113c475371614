// SPDX-License-Identifier: MIT OR Apache-2.0
//! A promise that did not hold.

use std::fmt;

/// Which promise, what was seen, and how it came to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `I1` to `I6`, or `API` where an answer is not what the interface says.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
    /// Where, the innermost first.
    pub context: Vec<String>,
}

impl Violation {
    /// A violation without context.
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self {
            invariant,
            text: text.into(),
            context: Vec::new(),
        }
    }

    /// The same, told with where it was.
    #[must_use]
    pub fn within(mut self, place: impl Into<String>) -> Self {
        self.context.push(place.into());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "violated {}: {}", self.invariant, self.text)?;
        for place in &self.context {
            write!(formatter, "\n    {place}")?;
        }
        Ok(())
    }
}
