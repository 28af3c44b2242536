//! The one spelling of a value over which signatures are made, and a readable one for files.
//!
//! The canonical form is that of RFC 8785 (JCS): no white space, fields sorted by name, strings escaped only
//! where JSON demands it, UTF-8. RFC 8785 sorts by UTF-16 code units and we by bytes; the two agree on field
//! names in ASCII, and an unknown field is refused anyway. Numbers are decimal integers up to 2^53 - 1, for
//! which RFC 8785 prescribes just their digits. So any implementation of it can check our signatures.

use core::fmt::Write;

use crate::json::Json;

/// The canonical form.
pub(crate) fn canonical(value: &Json) -> String {
    let mut out = String::new();
    write_value(&mut out, value, None);
    out
}

/// The same value over many lines, indented by two spaces, with a line feed at the end.
pub(crate) fn pretty(value: &Json) -> String {
    let mut out = String::new();
    write_value(&mut out, value, Some(0));
    out.push('\n');
    out
}

/// `indent` is the depth of the value, or `None` for the canonical form.
fn write_value(out: &mut String, value: &Json, indent: Option<usize>) {
    match value {
        Json::String(string) => write_string(out, string),
        // Writing to a string does not fail.
        Json::Integer(integer) => write!(out, "{integer}").unwrap_or_default(),
        Json::Array(items) => {
            let write_item = |out: &mut String, item, inner| write_value(out, item, inner);
            write_list(out, ['[', ']'], items.iter(), indent, write_item);
        }
        Json::Object(fields) => {
            write_list(out, ['{', '}'], fields.iter(), indent, |out, (name, value), inner| {
                write_string(out, name);
                out.push_str(if inner.is_some() { ": " } else { ":" });
                write_value(out, value, inner);
            });
        }
    }
}

/// Brackets, commas and, in the readable form, one entry per line.
fn write_list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    entries: impl ExactSizeIterator<Item = T>,
    indent: Option<usize>,
    mut write_entry: impl FnMut(&mut String, T, Option<usize>),
) {
    let break_line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            out.push('\n');
            out.extend(core::iter::repeat_n("  ", depth));
        }
    };
    let inner = indent.map(|depth| depth + 1);
    let empty = entries.len() == 0;
    out.push(open);
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            out.push(',');
        }
        break_line(out, inner);
        write_entry(out, entry, inner);
    }
    if !empty {
        break_line(out, indent);
    }
    out.push(close);
}

/// RFC 8785, section 3.2.2.2: short escapes where JSON has them, `\u00xx` for the other control characters,
/// and nothing else escaped but the quote and the backslash.
fn write_string(out: &mut String, string: &str) {
    out.push('"');
    for character in string.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            // Writing to a string does not fail.
            '\0'..='\u{1f}' => write!(out, "\\u{:04x}", u32::from(character)).unwrap_or_default(),
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical_of(text: &str) -> String {
        canonical(&Json::parse(text).unwrap())
    }

    #[test]
    fn fields_are_sorted_by_their_bytes_and_white_space_is_gone() {
        assert_eq!(
            canonical_of(" { \"b\" : [ 1 , 2 ] , \"a_b\" : { } , \"a\" : \"x y\" , \"B\" : [ ] } "),
            "{\"B\":[],\"a\":\"x y\",\"a_b\":{},\"b\":[1,2]}"
        );
    }

    #[test]
    fn strings_have_one_spelling() {
        // RFC 8785, section 3.2.2.2.
        assert_eq!(
            canonical_of(r#""\u0041\u20ac\u0022\u005C\/\b\t\n\f\r\u0001\u001F\u007f\ud83d\ude00é""#),
            "\"A\u{20ac}\\\"\\\\/\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}\u{1f600}é\""
        );
    }

    #[test]
    fn the_readable_form_has_the_same_canonical_form() {
        let value = Json::parse(r#"{"a":[1,{"b":"\n"},[]],"c":{}}"#).unwrap();
        let text = pretty(&value);
        assert_eq!(
            text,
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"\\n\"\n    },\n    []\n  ],\n  \"c\": {}\n}\n"
        );
        assert_eq!(Json::parse(&text), Ok(value));
    }

    #[test]
    fn vectors_of_another_implementation() {
        let vectors = include_str!("../../../tests/vectors/topology/canonical.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        for vector in vectors["valid"].as_array().unwrap() {
            assert_eq!(canonical_of(vector["input"].as_str().unwrap()), vector["canonical"], "{vector}");
        }
        for vector in vectors["refused"].as_array().unwrap() {
            assert!(Json::parse(vector["input"].as_str().unwrap()).is_err(), "{vector}");
        }
    }
}
