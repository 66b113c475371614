// SPDX-License-Identifier: MIT OR Apache-2.0
//! Markdown as the project's documents use it, to roff.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::inline::{self, Piece};
use crate::roff::{Font, Roff};
use crate::table::Table;

/// Writes a document, or a part of one, into a page.
pub(crate) fn write(markdown: &str, roff: &mut Roff) {
    let mut writer = Writer {
        roff,
        font: Font::Roman,
        lists: Vec::new(),
        in_item: false,
        table: None,
        code: None,
        link: Link::None,
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        writer.event(event);
    }
}

struct Writer<'a> {
    roff: &'a mut Roff,
    font: Font,
    /// The lists that we are in; of a numbered one, the next number.
    lists: Vec<Option<u64>>,
    /// The item's first paragraph needs no request of its own.
    in_item: bool,
    table: Option<Table>,
    /// A block of code, as far as it was read.
    code: Option<String>,
    link: Link,
}

/// What becomes of a link's text.
enum Link {
    None,
    /// It stays, and the address follows where a reader can use it.
    To(String),
    /// A document that is a man page as well: its name takes the text's place.
    Page,
}

/// The documents that are man pages.
const PAGES: [(&str, &str); 1] = [("FORMAT.md", "qbm-format(5)")];

impl Writer<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.code.is_some() => {
                self.code.as_mut().expect("is some").push_str(&text)
            }
            Event::Text(text) if self.font == Font::Roman => {
                for piece in inline::pieces(&text) {
                    self.put(piece);
                }
            }
            Event::Text(text) => self.put(Piece::new(&text, self.font)),
            Event::Code(code) => self.put(Piece::new(&code, Font::Bold)),
            Event::SoftBreak => self.put(Piece::new(" ", Font::Roman)),
            Event::Html(html) => assert!(html.starts_with("<!--"), "man pages: HTML: {html}"),
            other => panic!("man pages: no roff for {other:?}"),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph if self.in_item => self.in_item = false,
            Tag::Paragraph if self.lists.is_empty() => self.roff.paragraph(),
            Tag::Paragraph => self.roff.request(".IP"),
            Tag::Heading { level, .. } => {
                self.roff.request(if level == HeadingLevel::H2 {
                    ".SH"
                } else {
                    ".SS"
                });
            }
            Tag::CodeBlock(_) => self.code = Some(String::new()),
            Tag::List(first) => {
                if !self.lists.is_empty() {
                    self.roff.request(".RS");
                }
                self.lists.push(first);
            }
            Tag::Item => {
                let list = self.lists.last_mut().expect("an item is in a list");
                let request = match list {
                    Some(number) => {
                        *number += 1;
                        format!(".IP {}. 4", *number - 1)
                    }
                    None => ".IP \\(bu 3".to_owned(),
                };
                self.roff.request(&request);
                self.in_item = true;
            }
            Tag::Table(_) => self.table = Some(Table::default()),
            Tag::TableHead | Tag::TableRow => self.rows().push(Vec::new()),
            Tag::TableCell => self
                .rows()
                .last_mut()
                .expect("a cell is in a row")
                .push(Vec::new()),
            Tag::Emphasis => self.font = Font::Italic,
            Tag::Strong => self.font = Font::Bold,
            Tag::Link { dest_url, .. } => self.begin_link(&dest_url),
            Tag::HtmlBlock => {}
            other => panic!("man pages: no roff for {other:?}"),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) | TagEnd::Item => self.roff.end_line(),
            TagEnd::CodeBlock => self.roff.example(&self.code.take().expect("began")),
            TagEnd::Emphasis | TagEnd::Strong => self.font = Font::Roman,
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.roff.paragraph();
                } else {
                    self.roff.request(".RE");
                }
            }
            TagEnd::Table => self.table.take().expect("began").write(self.roff),
            TagEnd::Link => {
                if let Link::To(target) = std::mem::replace(&mut self.link, Link::None)
                    && target.starts_with("https://")
                {
                    self.put(Piece::new(&format!(" <{target}>"), Font::Roman));
                }
            }
            _ => {}
        }
    }

    fn begin_link(&mut self, target: &str) {
        self.link = match PAGES
            .iter()
            .find(|(document, _)| target.ends_with(document))
        {
            Some((_, page)) => {
                self.put(Piece::new(page, Font::Bold));
                Link::Page
            }
            None => Link::To(target.to_owned()),
        };
    }

    fn put(&mut self, piece: Piece) {
        if matches!(self.link, Link::Page) {
            return;
        }
        match &mut self.table {
            Some(table) => {
                let row = table.rows.last_mut().expect("text is in a row");
                row.last_mut().expect("text is in a cell").push(piece);
            }
            None => self.roff.text(&piece.text, piece.font),
        }
    }

    fn rows(&mut self) -> &mut Vec<Vec<Vec<Piece>>> {
        &mut self.table.as_mut().expect("a row is in a table").rows
    }
}
