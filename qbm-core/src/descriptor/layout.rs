// SPDX-License-Identifier: MIT OR Apache-2.0
//! A descriptor's text as a person reads it: indented, two spaces a level.

/// Levels that are indented: as deep as what we know goes. Deeper ones stay on one line.
const LEVELS_MAX: usize = 6;

/// Lays JSON text out; `None` when that takes more than `limit_bytes`. Strings and numbers stay as they are written,
/// white space between them does not.
pub(super) fn indent(json: &str, limit_bytes: usize) -> Option<String> {
    let mut layout = Layout {
        out: String::with_capacity(json.len().min(limit_bytes)),
        level: 0,
        has_just_opened: false,
    };
    let (mut in_string, mut is_escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            layout.out.push(character);
            in_string = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
        } else if !character.is_ascii_whitespace() {
            layout.add(character);
            in_string = character == '"';
        }
        if layout.out.len() > limit_bytes {
            return None;
        }
    }
    Some(layout.out)
}

struct Layout {
    out: String,
    level: usize,
    /// The last character opened an object or an array; an empty one stays on its line.
    has_just_opened: bool,
}

impl Layout {
    /// A character outside strings.
    fn add(&mut self, character: char) {
        let is_closing = matches!(character, '}' | ']');
        if is_closing {
            let was_indented = self.level <= LEVELS_MAX;
            self.level = self.level.saturating_sub(1);
            if was_indented && !self.has_just_opened {
                self.line();
            }
        } else if self.has_just_opened && self.level <= LEVELS_MAX {
            self.line();
        }
        self.has_just_opened = matches!(character, '{' | '[');
        self.out.push(character);
        match character {
            '{' | '[' => self.level = self.level.saturating_add(1),
            ',' if self.level <= LEVELS_MAX => self.line(),
            ',' | ':' => self.out.push(' '),
            _ => {}
        }
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(json: &str) -> String {
        indent(json, usize::MAX).unwrap()
    }

    #[test]
    fn strings_and_numbers_are_left_alone() {
        let json = r#"{"a,b":"x{\"[ \\","n":[1e400,{}],"e":[ ]}"#;
        let pretty = laid_out(json);
        assert_eq!(
            pretty,
            "{\n  \"a,b\": \"x{\\\"[ \\\\\",\n  \"n\": [\n    1e400,\n    {}\n  ],\n  \"e\": []\n}"
        );
        assert_eq!(laid_out(&pretty), pretty);
    }

    #[test]
    fn deep_levels_stay_on_their_line() {
        // A level of indentation on each of many lines made gigabytes of a stranger's few kilobytes.
        let deep = format!(
            "{}1,[2,{{\"a\":3}}]{}",
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        let pretty = laid_out(&deep);
        assert!(pretty.len() < 2 * deep.len());
        assert!(pretty.contains("[1, [2, {\"a\": 3}]]"), "{pretty}");
        assert_eq!(pretty.lines().count(), 2 * LEVELS_MAX + 1);
        assert_eq!(laid_out(&pretty), pretty);
    }

    #[test]
    fn what_would_grow_too_much_is_not_laid_out() {
        assert_eq!(indent("[1,2,3]", 10), None);
        assert!(indent("[1,2,3]", 30).is_some());
    }
}
