// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fonts within a sentence.

use crate::roff::Font;

/// A piece of text in one font.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) font: Font,
}

impl Piece {
    pub(crate) fn new(text: &str, font: Font) -> Self {
        Self {
            text: text.to_owned(),
            font,
        }
    }
}

/// Finds what has a font of its own: functions, constants, errno values and pages are bold, arguments and members
/// italic; and what stands between backquotes is bold.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            push(&mut pieces, part, Font::Bold);
        } else {
            pieces.append(&mut names(part));
        }
    }
    pieces
}

fn names(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest.find(is_word).unwrap_or(rest.len());
        push(&mut pieces, &rest[..start], Font::Roman);
        rest = &rest[start..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if is_errno(word) && pieces.last().is_some_and(|piece| piece.text.ends_with('-')) {
            pieces.last_mut().expect("there is one").text.pop();
            pieces.push(Piece::new(&format!("-{word}"), Font::Bold));
            rest = after;
            continue;
        }
        let font = font_of(word, pieces.last().map_or("", |piece| &piece.text), after);
        push(&mut pieces, word, font);
        rest = after;
    }
    pieces
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn font_of(word: &str, before: &str, after: &str) -> Font {
    let lower = |word: &str| {
        word.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let upper = |word: &str| {
        word.chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let page = after
        .strip_prefix('(')
        .is_some_and(|rest| rest.starts_with(['1', '3', '5', '7', ')']));
    let name = word.starts_with("qbm_") || page;
    let has_underscore = word.contains('_');
    if name && lower(word) || has_underscore && upper(word) {
        Font::Bold
    } else if lower(word) && (has_underscore || before.ends_with('*')) {
        Font::Italic
    } else {
        Font::Roman
    }
}

fn is_errno(word: &str) -> bool {
    word.len() >= 3
        && word.starts_with('E')
        && word
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

fn push(pieces: &mut Vec<Piece>, text: &str, font: Font) {
    match pieces.last_mut() {
        Some(last) if last.font == font => last.text.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::new(text, font)),
    }
}
