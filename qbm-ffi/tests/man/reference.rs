// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sections of a page that come from the header: synopsis, functions, structures, constants.

use crate::header::{Item, Kind, Member, Parameter};
use crate::inline;
use crate::roff::{Font, Roff, escape, in_font};

/// Columns of a prototype in the synopsis.
const PROTOTYPE_CHARACTERS: usize = 72;

pub(crate) fn synopsis(items: &[&Item], roff: &mut Roff) {
    roff.request(".SH SYNOPSIS");
    roff.request(".nf");
    roff.request(".B #include <qbm.h>");
    for item in items {
        if let Kind::Function {
            returns,
            parameters,
        } = &item.kind
        {
            roff.request(".PP");
            prototype(&item.name, returns, parameters, roff);
        }
    }
    roff.request(".fi");
    roff.paragraph();
    for piece in [
        ("cc", Font::Bold),
        (" prog.c ", Font::Roman),
        ("$(pkg-config --cflags --libs qbm)", Font::Bold),
    ] {
        roff.text(piece.0, piece.1);
    }
}

fn prototype(name: &str, returns: &str, parameters: &[Parameter], roff: &mut Roff) {
    let head = format!("{returns}{name}(");
    let indent = " ".repeat(head.len());
    let mut line = in_font(&head, Font::Bold);
    let mut column = head.len();
    for (at, parameter) in parameters.iter().enumerate() {
        let end = if at + 1 < parameters.len() { "," } else { ");" };
        let characters = parameter.before.len() + parameter.name.len() + end.len();
        if at > 0 && column + 1 + characters > PROTOTYPE_CHARACTERS {
            roff.request(&line);
            line = indent.clone();
            column = indent.len();
        } else if at > 0 {
            line.push(' ');
            column += 1;
        }
        line.push_str(&in_font(&parameter.before, Font::Bold));
        line.push_str(&in_font(&parameter.name, Font::Italic));
        line.push_str(&in_font(end, Font::Bold));
        column += characters;
    }
    roff.request(&line);
}

pub(crate) fn functions(items: &[&Item], roff: &mut Roff) {
    section(
        "FUNCTIONS",
        items,
        |item| matches!(item.kind, Kind::Function { .. }),
        roff,
        |item, roff| {
            roff.request(&format!(".SS {}()", item.name));
            description(&item.doc, roff);
        },
    );
}

pub(crate) fn structures(items: &[&Item], roff: &mut Roff) {
    section(
        "STRUCTURES",
        items,
        |item| matches!(item.kind, Kind::Structure { .. }),
        roff,
        |item, roff| {
            let Kind::Structure { members } = &item.kind else {
                return;
            };
            roff.request(&format!(".SS {}", item.name));
            description(&item.doc, roff);
            if !members.is_empty() {
                structure(&item.name, members, roff);
            }
        },
    );
}

/// The declaration, to be copied, then what each member is.
fn structure(name: &str, members: &[Member], roff: &mut Roff) {
    let mut code = format!("typedef struct {name} {{\n");
    for member in members {
        code.push_str(&format!("    {};\n", member.declaration));
    }
    code.push_str(&format!("}} {name};"));
    roff.example(&code);
    for member in members {
        roff.request(".TP");
        roff.request(&in_font(member_name(&member.declaration), Font::Italic));
        paragraphs(&member.doc, roff, ".IP");
    }
    roff.paragraph();
}

fn member_name(declaration: &str) -> &str {
    let name = &declaration[declaration.rfind([' ', '*']).map_or(0, |at| at + 1)..];
    name.split('[').next().expect("split gives one")
}

pub(crate) fn constants(items: &[&Item], roff: &mut Roff) {
    section(
        "CONSTANTS",
        items,
        |item| matches!(item.kind, Kind::Constant { .. }),
        roff,
        |item, roff| {
            let Kind::Constant { value } = &item.kind else {
                return;
            };
            roff.request(".TP");
            roff.request(&format!(
                "\\fB{}\\fR ({})",
                escape(&item.name),
                escape(value)
            ));
            paragraphs(&item.doc, roff, ".IP");
        },
    );
}

fn section(
    title: &str,
    items: &[&Item],
    belongs: impl Fn(&Item) -> bool,
    roff: &mut Roff,
    write: impl Fn(&Item, &mut Roff),
) {
    let mut items = items.iter().filter(|item| belongs(item)).peekable();
    if items.peek().is_some() {
        roff.request(&format!(".SH {title}"));
    }
    for item in items {
        write(item, roff);
    }
}

fn description(doc: &str, roff: &mut Roff) {
    paragraphs(doc, roff, "");
}

/// A comment's paragraphs, after the first begun by `request`, or plain ones. What a function returns and its errors begin
/// one of their own.
pub(crate) fn paragraphs(doc: &str, roff: &mut Roff, request: &str) {
    let begin = |roff: &mut Roff| {
        if request.is_empty() {
            roff.paragraph()
        } else {
            roff.request(request)
        }
    };
    let doc = doc
        .trim()
        .replace("\nErrors: ", "\n\nErrors: ")
        .replace(" Errors: ", "\n\nErrors: ");
    for (at, paragraph) in doc.split("\n\n").enumerate() {
        if at > 0 || request.is_empty() {
            begin(roff);
        }
        if lines(paragraph, roff) {
            begin(roff);
        }
    }
    roff.end_line();
}

/// Lines that begin with "- " are a list. Whether there was one.
fn lines(text: &str, roff: &mut Roff) -> bool {
    let mut in_list = false;
    for line in text.lines() {
        let line = line.trim();
        let line = match line.strip_prefix("- ") {
            Some(item) => {
                roff.request(".IP \\(bu 3");
                in_list = true;
                item
            }
            None => line,
        };
        for piece in inline::pieces(line) {
            roff.text(&piece.text, piece.font);
        }
        roff.text(" ", Font::Roman);
    }
    roff.end_line();
    in_list
}
