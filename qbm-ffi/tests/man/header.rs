// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads include/qbm.h, as cbindgen lays it out.

/// What the header declares, in its order.
pub(crate) struct Header {
    /// The bullets of the comment at the top.
    pub(crate) conventions: String,
    pub(crate) items: Vec<Item>,
}

pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Constant {
        value: String,
    },
    /// A structure without members is opaque.
    Structure {
        members: Vec<Member>,
    },
    Function {
        returns: String,
        parameters: Vec<Parameter>,
    },
}

pub(crate) struct Member {
    /// As declared, without the semicolon.
    pub(crate) declaration: String,
    pub(crate) doc: String,
}

pub(crate) struct Parameter {
    /// What stands before the name.
    pub(crate) before: String,
    /// Empty in `(void)`.
    pub(crate) name: String,
}

impl Header {
    pub(crate) fn read(text: &str) -> Self {
        let mut lines = text.lines().peekable();
        let mut conventions = None;
        let mut items = Vec::new();
        let mut doc = String::new();
        while let Some(line) = lines.next() {
            match line.trim_end() {
                "" | "}" => {}
                "/*" => {
                    doc = comment(&mut lines);
                    if let Some((_, bullets)) = doc.split_once("Conventions\n") {
                        conventions.get_or_insert(bullets.to_owned());
                    }
                }
                line if line.starts_with("/* SPDX") => {}
                line if line.starts_with("#define QBM_H") => {}
                line if line.starts_with("#define ") => {
                    let (name, value) = line["#define ".len()..]
                        .split_once(' ')
                        .unwrap_or_else(|| panic!("include/qbm.h: {line}: no value"));
                    let kind = Kind::Constant {
                        value: value.to_owned(),
                    };
                    items.push(Item {
                        name: name.to_owned(),
                        doc: take(&mut doc),
                        kind,
                    });
                }
                line if line.starts_with('#') || line.starts_with("extern \"C\"") => {}
                line if line.starts_with("}  // extern") => {}
                line if line.starts_with("typedef struct ") && line.ends_with('{') => {
                    let name = line["typedef struct ".len()..]
                        .trim_end_matches(['{', ' '])
                        .to_owned();
                    let members = members(&name, &mut lines);
                    items.push(Item {
                        name,
                        doc: take(&mut doc),
                        kind: Kind::Structure { members },
                    });
                }
                line if line.starts_with("typedef struct ") && line.ends_with(';') => {
                    let name = last_word(line.trim_end_matches(';')).to_owned();
                    let kind = Kind::Structure {
                        members: Vec::new(),
                    };
                    items.push(Item {
                        name,
                        doc: take(&mut doc),
                        kind,
                    });
                }
                line if line.starts_with(|c: char| c.is_ascii_lowercase())
                    && line.contains('(') =>
                {
                    let mut declaration = line.to_owned();
                    while !declaration.ends_with(';') {
                        let next = lines
                            .next()
                            .expect("include/qbm.h: a declaration without end");
                        declaration.push(' ');
                        declaration.push_str(next.trim());
                    }
                    items.push(function(&declaration, take(&mut doc)));
                }
                other => panic!(
                    "include/qbm.h: the generator of the man pages does not know this: {other}"
                ),
            }
        }
        let conventions = conventions.expect("include/qbm.h: no conventions at the top");
        Self { conventions, items }
    }
}

fn take(doc: &mut String) -> String {
    std::mem::take(doc)
}

/// The text of a comment whose first line was read.
fn comment<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for line in lines {
        let line = line.trim_start();
        if line == "*/" {
            return text;
        }
        // The comment at the top has stars.
        text.push_str(
            line.strip_prefix("* ")
                .unwrap_or(line.strip_prefix('*').unwrap_or(line)),
        );
        text.push('\n');
    }
    panic!("include/qbm.h: a comment without end");
}

fn members<'a>(structure: &str, lines: &mut impl Iterator<Item = &'a str>) -> Vec<Member> {
    let mut members = Vec::new();
    let mut doc = String::new();
    while let Some(line) = lines.next() {
        match line.trim() {
            "/*" => doc = comment(lines),
            line if line.starts_with('}') => return members,
            line if line.ends_with(';') => {
                assert!(
                    !doc.is_empty(),
                    "include/qbm.h: {structure}: {line} is not described"
                );
                let declaration = plain_types(line.trim_end_matches(';'));
                members.push(Member {
                    declaration,
                    doc: take(&mut doc),
                });
            }
            line => panic!("include/qbm.h: {structure}: not a member: {line}"),
        }
    }
    panic!("include/qbm.h: {structure} has no end");
}

fn function(declaration: &str, doc: String) -> Item {
    let (head, rest) = declaration.split_once('(').expect("seen by the caller");
    let arguments = rest.trim_end_matches(';').trim_end_matches(')');
    let name = last_word(head).to_owned();
    let returns = plain_types(&head[..head.len() - name.len()]);
    assert!(!doc.is_empty(), "include/qbm.h: {name} is not described");
    let parameters = arguments
        .split(',')
        .map(|argument| {
            let argument = plain_types(argument.trim());
            let name = if argument == "void" {
                ""
            } else {
                last_word(&argument)
            }
            .to_owned();
            Parameter {
                before: argument[..argument.len() - name.len()].to_owned(),
                name,
            }
        })
        .collect();
    Item {
        name,
        doc,
        kind: Kind::Function {
            returns,
            parameters,
        },
    }
}

/// Every structure has a typedef of the same name.
fn plain_types(declaration: &str) -> String {
    declaration.replace("struct ", "")
}

fn last_word(text: &str) -> &str {
    let start = text.rfind([' ', '*']).map_or(0, |at| at + 1);
    &text[start..]
}
