// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables: tagged paragraphs where there are two columns, otherwise for tbl(1), to fit 80 characters.

use crate::inline::Piece;
use crate::roff::{Font, Roff, in_font, unbroken_names};

/// What a page of 80 characters leaves beside its margins.
const WIDTH: usize = 70;
/// Characters between columns.
const GAP: usize = 2;

type Cell = Vec<Piece>;

/// A table as it was read; the first row is the header.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn write(&self, roff: &mut Roff) {
        let columns = self.rows[0].len();
        if columns == 2 && self.natural_widths().iter().sum::<usize>() + GAP > WIDTH {
            self.write_tagged(roff);
        } else {
            self.write_tbl(roff);
        }
    }

    fn write_tagged(&self, roff: &mut Roff) {
        let longest = self.rows[1..]
            .iter()
            .map(|row| length(&row[0]))
            .max()
            .unwrap_or(0);
        let indent = if longest <= 4 { " 6" } else { "" };
        for row in &self.rows[1..] {
            roff.request(&format!(".TP{indent}"));
            for piece in &row[0] {
                roff.text(&piece.text, Font::Bold);
            }
            roff.end_line();
            write_cell(&row[1], roff);
            roff.end_line();
        }
        roff.paragraph();
    }

    fn write_tbl(&self, roff: &mut Roff) {
        let widths = self.widths();
        let wraps = widths != self.natural_widths();
        let formats: Vec<String> = (0..widths.len())
            .map(|column| {
                let gap = if column + 1 < widths.len() {
                    GAP.to_string()
                } else {
                    String::new()
                };
                format!("l{gap}w({}n)", widths[column])
            })
            .collect();
        let row = |row: &Vec<Cell>| -> String {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| guarded(cell, width));
            cells.collect::<Vec<_>>().join("|")
        };
        roff.begin_paragraph();
        roff.request(".TS");
        // Without keep: where a page ends is nothing to a terminal.
        roff.request("nokeep tab(|);");
        roff.request(&format!("{}.", formats.join(" ")));
        let (header, rows) = self.rows.split_first().expect("a table has a header");
        if header.iter().any(|cell| !cell.is_empty()) {
            roff.request(&row(&header.iter().map(bold).collect()));
            roff.request("_");
        }
        for (at, cells) in rows.iter().enumerate() {
            if wraps && at > 0 {
                roff.request("\\&");
            }
            roff.request(&row(cells));
        }
        roff.request(".TE");
        roff.paragraph();
    }

    fn natural_widths(&self) -> Vec<usize> {
        (0..self.rows[0].len())
            .map(|column| {
                self.rows
                    .iter()
                    .map(|row| length(&row[column]))
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// Widths that fit. The column that can spare a character with the fewest lines more loses one, until all fit.
    fn widths(&self) -> Vec<usize> {
        let mut widths = self.natural_widths();
        let least: Vec<usize> = (0..widths.len())
            .map(|column| {
                self.rows
                    .iter()
                    .map(|row| longest_word(&row[column]))
                    .max()
                    .unwrap_or(1)
            })
            .collect();
        while widths.iter().sum::<usize>() + GAP * (widths.len() - 1) > WIDTH {
            let narrower = (0..widths.len())
                .filter(|&column| widths[column] > least[column])
                .min_by_key(|&column| {
                    let mut narrower = widths.clone();
                    narrower[column] -= 1;
                    (self.lines(&narrower), std::cmp::Reverse(widths[column]))
                });
            match narrower {
                Some(column) => widths[column] -= 1,
                None => break,
            }
        }
        widths
    }

    fn lines(&self, widths: &[usize]) -> usize {
        let row = |row: &Vec<Cell>| {
            row.iter()
                .zip(widths)
                .map(|(cell, &width)| lines(cell, width))
                .max()
                .unwrap_or(0)
        };
        self.rows.iter().map(row).sum()
    }
}

fn text(cell: &Cell) -> String {
    cell.iter().map(|piece| piece.text.as_str()).collect()
}

fn length(cell: &Cell) -> usize {
    text(cell).len()
}

fn longest_word(cell: &Cell) -> usize {
    text(cell).split(' ').map(str::len).max().unwrap_or(0)
}

/// How many lines a cell takes in a column.
fn lines(cell: &Cell, width: usize) -> usize {
    let mut lines = 1;
    let mut column = 0;
    for word in text(cell).split(' ') {
        if column > 0 && column + 1 + word.len() > width {
            lines += 1;
            column = 0;
        }
        column += word.len() + usize::from(column > 0);
    }
    lines
}

fn bold(cell: &Cell) -> Cell {
    cell.iter()
        .map(|piece| Piece::new(&piece.text, Font::Bold))
        .collect()
}

/// A cell for tbl, which sees neither its separator nor a request in it.
fn guarded(cell: &Cell, width: usize) -> String {
    let roff = unbroken_names(
        &cell
            .iter()
            .map(|piece| in_font(&piece.text, piece.font))
            .collect::<String>(),
    );
    assert!(!roff.contains('|'), "man pages: a bar in a cell: {roff}");
    let roff = if roff.starts_with(['.', '\'', '_', '=']) {
        format!("\\&{roff}")
    } else {
        roff
    };
    if length(cell) > width {
        format!("T{{\n{roff}\nT}}")
    } else {
        roff
    }
}

fn write_cell(cell: &Cell, roff: &mut Roff) {
    for piece in cell {
        roff.text(&piece.text, piece.font);
    }
}
