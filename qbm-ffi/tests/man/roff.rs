// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a man page: man(7) macros that groff and mandoc both know.

/// Where the source of a page is broken.
const LINE_CHARACTERS: usize = 90;

/// Font of a piece of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Font {
    Roman,
    Bold,
    Italic,
}

/// A page as it grows.
pub(crate) struct Roff {
    page: String,
    /// Text since the last request: escaped, not yet broken into lines.
    text: String,
    /// Text that comes next begins a paragraph, unless a request comes that begins one itself.
    paragraph: bool,
}

impl Roff {
    pub(crate) fn new(first_line: &str) -> Self {
        Self {
            page: format!("{first_line}\n"),
            text: String::new(),
            paragraph: false,
        }
    }

    /// A request on a line of its own, its arguments escaped already.
    pub(crate) fn request(&mut self, line: &str) {
        self.end_line();
        self.paragraph = false;
        self.page.push_str(line);
        self.page.push('\n');
    }

    /// What comes next is a paragraph.
    pub(crate) fn paragraph(&mut self) {
        self.end_line();
        let mut lines = self.page.lines().rev();
        let (last, before) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        // A heading, on one line or two, is followed by its first paragraph as it is.
        let heading = last.starts_with(".SS ")
            || last.starts_with(".SH ")
            || [".SS", ".SH"].contains(&before);
        self.paragraph = !heading;
    }

    /// As `paragraph`, where no text of ours comes next.
    pub(crate) fn begin_paragraph(&mut self) {
        self.paragraph();
        if std::mem::take(&mut self.paragraph) {
            self.page.push_str(".PP\n");
        }
    }

    /// Adds to the running text.
    pub(crate) fn text(&mut self, text: &str, font: Font) {
        self.text.push_str(&in_font(text, font));
    }

    /// The text until here is a line, or several: the page's source is broken, not its output.
    pub(crate) fn end_line(&mut self) {
        if !self.text.trim().is_empty() && std::mem::take(&mut self.paragraph) {
            self.page.push_str(".PP\n");
        }
        for line in fold(&unbroken_names(&std::mem::take(&mut self.text))) {
            // A control character at its beginning would make it a request.
            if line.starts_with(['.', '\'']) {
                self.page.push_str("\\&");
            }
            self.page.push_str(&line);
            self.page.push('\n');
        }
    }

    /// Lines that are shown as they stand, indented.
    pub(crate) fn example(&mut self, code: &str) {
        self.end_line();
        self.page.push_str(".IP \"\" 4\n.EX\n");
        for line in code.trim_end().lines() {
            let line = escape(line);
            if line.starts_with(['.', '\'']) {
                self.page.push_str("\\&");
            }
            self.page.push_str(&line);
            self.page.push('\n');
        }
        self.page.push_str(".EE\n");
        self.paragraph = true;
    }

    pub(crate) fn finish(mut self) -> String {
        self.end_line();
        self.page
    }
}

/// Escaped text that begins and ends in the roman font.
pub(crate) fn in_font(text: &str, font: Font) -> String {
    match font {
        Font::Roman => prose(text),
        Font::Bold => format!("\\fB{}\\fR", escape(text)),
        Font::Italic => format!("\\fI{}\\fR", escape(text)),
    }
}

/// Names are not hyphenated: a search must find them.
pub(crate) fn unbroken_names(text: &str) -> String {
    let word = |word: &str| {
        if word.contains("\\f") {
            format!("\\%{word}")
        } else {
            word.to_owned()
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// As `escape`, but a line may be broken after the hyphen of a word.
fn prose(text: &str) -> String {
    let letter = |at: Option<usize>| {
        at.and_then(|at| text.as_bytes().get(at))
            .is_some_and(u8::is_ascii_alphabetic)
    };
    let mut escaped = String::new();
    for (at, part) in text
        .match_indices('-')
        .chain([(text.len(), "")])
        .scan(0, |start, (at, _)| {
            let part = (at, &text[*start..at]);
            *start = at + 1;
            Some(part)
        })
    {
        escaped.push_str(&escape(part));
        if at < text.len() {
            let in_word = letter(at.checked_sub(1)) && letter(Some(at + 1));
            escaped.push_str(if in_word { "-" } else { "\\-" });
        }
    }
    escaped
}

/// Text as roff wants it: what could be typed or copied keeps its characters.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            '"' => escaped.push_str("\\(dq"),
            ' '..='\u{7e}' => escaped.push(character),
            other => escaped.push_str(ascii(other)),
        }
    }
    escaped
}

/// A page is ASCII, so that it reads the same in every locale.
fn ascii(character: char) -> &'static str {
    match character {
        '─' => "\\-",
        '│' => "|",
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' => "+",
        '►' => ">",
        '◄' => "<",
        '▲' => "\\(ha",
        '▼' => "v",
        '⊇' => "contains",
        other => panic!("man pages: no ASCII for {other:?}"),
    }
}

/// An argument of a request.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

fn fold(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LINE_CHARACTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
